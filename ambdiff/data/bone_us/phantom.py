"""Simulated B-mode ultrasound of a bone surface, and four simulated raters whose distribution is known.

A scene is geometry in millimetres, from the case's name; image and answers follow from it. With depth z below a
linear probe, lateral position x, bone surface b(x) and echo strength e(x):

  field     = PSF * [sqrt(k) s] 10^(tissue(z, x) / 20) + coherent(z - b(x)) 10^(e(x) / 20)            (1)
  envelope  = | field 10^(shadow(z, x) / 20) 10^(-2 alpha f z / 20) + noise | 10^(gain(z) / 20)       (2)
  image     = (20 log10 envelope + dynamic range) / dynamic range, clipped to [0, 1]                   (3)

s is circular complex Gaussian, so that the envelope of uniform tissue is Rayleigh, and with gamma-distributed local
power k it is K-distributed (Jakeman and Pusey 1976; Wagner et al. 1983). The point spread function widens away from the
focus, the time gain amplifies the noise with the tissue, and no sound returns from below the bone.

A rater's answer is a band along the surface:  |z - b(x) - bias - wobble(x)| <= thickness / 2  between two ends that he
may miss, or nothing, with probability empty_base + empty_faint (1 - visibility): the raters differ in all of these.
"""

import dataclasses
import zlib

import numpy as np
from scipy import ndimage, special

VERSION = 1  # part of every seed: raise it when scenes, images or answers change
FIELD = 40.0  # mm, depth and width of the image


@dataclasses.dataclass(frozen=True)
class Rater:
    """How a rater outlines; lengths in mm, ends as the mean share of the surface that is missed at each end."""

    bias: float
    wobble: float
    thickness: float  # over the echo's own
    thickness_spread: float  # standard deviation of its logarithm
    ends: float
    empty_base: float
    empty_faint: float


RATERS = (
    Rater(0.0, 0.15, 1.0, 0.05, 0.01, 0.01, 0.04),  # the expert
    Rater(0.7, 0.30, 1.35, 0.10, 0.03, 0.03, 0.12),  # too deep and too thick
    Rater(-0.3, 0.25, 0.75, 0.10, 0.10, 0.05, 0.25),  # too shallow and too thin
    Rater(0.2, 0.45, 1.0, 0.15, 0.15, 0.10, 0.50),  # unsteady, and often sees nothing
)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Geometry of one image, mm."""

    depth: float
    slope: float
    curve: float  # 1/mm
    centre: float
    waves: np.ndarray  # [2, 3]: amplitude mm, cycles over the field, phase
    ends: tuple[float, float]
    thickness: float  # of the echo
    visibility: float  # 0: the faintest echo, 1: the brightest
    seed: tuple[int, int]

    def surface(self, x: np.ndarray) -> np.ndarray:
        """Depth of the bone, mm, at lateral positions in mm."""
        away = x - self.centre
        depth = self.depth + self.slope * away + self.curve * away**2
        for amplitude, cycles, phase in self.waves:
            depth = depth + amplitude * np.sin(2 * np.pi * (cycles * x / FIELD + phase))
        return np.clip(depth, 5.0, FIELD - 3.0)


def scene(case: str) -> Scene:
    """The scene of a case; equal names give equal scenes."""
    seed = (VERSION, zlib.crc32(case.encode()))
    rng = np.random.default_rng(seed)
    left, right = rng.uniform(-4, 10), FIELD - rng.uniform(-4, 10)
    return Scene(
        depth=rng.uniform(11, 27),
        slope=rng.normal(0, 0.15),
        curve=rng.choice([0.0, 0.012, 0.022]) + rng.normal(0, 0.003),
        centre=rng.uniform(13, 27),
        waves=np.stack([rng.normal(0, 0.35, 2), rng.uniform(0.7, 3, 2), rng.random(2)], 1),
        ends=(max(left, 0.0), min(right, FIELD)),
        thickness=rng.uniform(2.6, 3.6),
        visibility=rng.beta(1.5, 1.0),
        seed=seed,
    )


def empty_probability(visibility: float) -> np.ndarray:
    """The probability [4] that each rater marks nothing at this visibility."""
    return np.array([r.empty_base + r.empty_faint * (1 - visibility) for r in RATERS])


def answers(of: Scene, size: int, who: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fresh answers of the raters `who` [n], numbers 0 .. 3, independent given the scene: uint8 [n, size, size]."""
    grid = (np.arange(size) + 0.5) * FIELD / size
    fields = dataclasses.fields(Rater)
    skill = {f.name: np.array([getattr(r, f.name) for r in RATERS])[who] for f in fields}
    n = len(who)
    # A slow wobble along the surface: two random waves of unit variance together.
    phase, cycles = rng.random((2, n, 1)), rng.uniform(0.5, 2.5, (2, n, 1))
    wobble = np.sin(2 * np.pi * (cycles * grid / FIELD + phase)).sum(0) + 0.5 * rng.standard_normal((n, 1))
    middle = of.surface(grid) + skill['bias'][:, None] + skill['wobble'][:, None] * wobble
    thickness = of.thickness * skill['thickness'] * np.exp(skill['thickness_spread'] * rng.standard_normal(n))
    left, right = of.ends
    missed = np.minimum(rng.exponential(np.stack([skill['ends']] * 2)), 0.35) * (right - left)
    within = (grid >= left + missed[0][:, None]) & (grid <= right - missed[1][:, None])
    marked = rng.random(n) >= empty_probability(of.visibility)[who]
    band = np.abs(grid[:, None] - middle[:, None, :]) <= thickness[:, None, None] / 2
    return (band & (within & marked[:, None])[:, None, :]).astype(np.uint8)


def image(of: Scene, size: int) -> np.ndarray:
    """The B-mode image of a scene by (1) to (3): uint8 [size, size], rows are depth."""
    rng = np.random.default_rng((*of.seed, 1))
    fine = 2 * size
    pixel = FIELD / fine
    grid = (np.arange(fine) + 0.5) * pixel
    z, surface = grid[:, None], of.surface(grid)
    below = z - surface

    frequency = rng.uniform(6, 9)  # MHz
    loss = 2 * rng.uniform(0.05, 0.07) * frequency * z  # dB there and back
    power = _gamma_field(rng, fine, shape=rng.uniform(1.5, 8), sigma=1.2 / pixel)
    scatter = rng.standard_normal((2, fine, fine), np.float32) * np.sqrt(power / 2) * _amplitude(_tissue(rng, grid))
    field = _point_spread(scatter, pixel, focus=rng.uniform(12, 26))

    # The echo of a flat surface returns to the probe, that of a steep one does not.
    tilt = np.gradient(surface, pixel)
    strength = 14 + 16 * of.visibility - 22 * tilt**2 + 2.5 * _smooth_noise(rng, fine, 4 / pixel)[0]
    inside = _edges(grid, of.ends)
    profile = np.exp(-0.5 * (below / (of.thickness / 3)) ** 2) * inside
    rough = 0.7 + 0.3 * rng.standard_normal((2, fine, fine), np.float32)
    echo = profile * _amplitude(strength - 14) * ndimage.gaussian_filter(rough, (0, 0.5 / pixel, 0.8 / pixel))
    if rng.random() < 0.4:  # between probe and bone and back once more
        again = np.exp(-0.5 * ((z - 2 * surface) / 0.8) ** 2) * inside
        echo = echo + again * _amplitude(strength - 32)

    shadow = -(18 + 14 * of.visibility) * inside / (1 + np.exp(-np.clip((below - of.thickness / 2) / 0.5, -30, 30)))
    noise = rng.standard_normal((2, fine, fine), np.float32) * _amplitude(rng.uniform(-50, -44))
    gain = loss * rng.uniform(0.8, 1.02) + np.interp(grid, np.linspace(0, FIELD, 5), rng.normal(0, 1.5, 5))[:, None]
    field = (field * _amplitude(shadow) + echo) * _amplitude(-loss) + noise
    decibel = 20 * np.log10(np.hypot(*field) + 1e-9) + gain
    span = rng.uniform(50, 60)
    shown = np.clip((decibel + rng.normal(0, 3) + span - 16) / span, 0, 1)
    return np.rint(255 * shown.reshape(size, 2, size, 2).mean((1, 3))).astype(np.uint8)


def _amplitude(decibel):
    return 10.0 ** (np.asarray(decibel) / 20)


def _edges(grid, ends):
    """1 where there is bone, softened over a millimetre: the beam is that wide."""
    left, right = (-9.0 if ends[0] <= 0 else ends[0]), (2 * FIELD if ends[1] >= FIELD else ends[1])
    rise = lambda x: 1 / (1 + np.exp(-np.clip(x / 0.3, -30, 30)))
    return rise(grid - left) * rise(right - grid)


def _tissue(rng, grid):
    """Echogenicity in dB: skin, fat with septa, muscle with fibres, and a bright sheet that casts no shadow."""
    size, pixel = len(grid), grid[1] - grid[0]
    z = grid[:, None] + 0.4 * _smooth_noise(rng, size, 6 / pixel)
    fat = rng.uniform(3, 9)
    muscle = 1 / (1 + np.exp(-(z - fat) / 0.4))
    septa = 6 * np.maximum(_smooth_noise(rng, size, (0.5 / pixel, 3 / pixel)), 0)
    fibres = 4 * _smooth_noise(rng, size, (0.5 / pixel, 6 / pixel))
    level = (1 - muscle) * (-9 + septa) + muscle * (-6 + fibres)
    level += rng.uniform(9, 15) * np.exp(-0.5 * ((z - fat) / 0.5) ** 2)
    level += 8 * np.exp(-z / 1.0)
    if rng.random() < 0.6:
        slanted = z + rng.normal(0, 0.12) * (grid - FIELD / 2)
        level += rng.uniform(8, 16) * np.exp(-0.5 * ((slanted - rng.uniform(fat + 3, 30)) / 0.6) ** 2)
    return level


def _point_spread(scatter, pixel, focus):
    """Blurs the scatterers [2, Z, X], laterally more away from the focus; unit mean power for unit input."""
    spread, laterals = [], (0.35, 1.1)
    for lateral in laterals:
        sigma = (0.22 / pixel, lateral / pixel)
        blurred = ndimage.gaussian_filter(scatter, (0, *sigma), truncate=3)
        spread.append(blurred * np.sqrt(4 * np.pi * sigma[0] * sigma[1]))
    away = np.clip(np.abs((np.arange(scatter.shape[1]) + 0.5) * pixel - focus) / 20, 0, 1)[:, None]
    # Both are blurred from the same scatterers: their correlation adds to the power.
    overlap = np.sqrt(2 * laterals[0] * laterals[1] / (laterals[0] ** 2 + laterals[1] ** 2))
    mixed = np.sqrt(1 - away) * spread[0] + np.sqrt(away) * spread[1]
    return mixed / np.sqrt(1 + 2 * overlap * np.sqrt(away * (1 - away)))


def _smooth_noise(rng, size, sigma):
    """Gaussian noise of unit variance, correlated over `sigma` pixels (down and along): [size, size]."""
    sigma = np.broadcast_to(sigma, 2)
    # Made on a grid no finer than the correlation needs: large blurs would take most of the time.
    coarse = [int(2 ** max(np.floor(np.log2(s / 2)), 0)) for s in sigma]
    noise = rng.standard_normal([size // c for c in coarse], np.float32)
    noise = ndimage.gaussian_filter(noise, sigma / coarse, mode='wrap', truncate=3)
    noise = ndimage.zoom(noise, coarse, order=1, mode='grid-wrap', grid_mode=True)
    return noise / max(float(noise.std()), 1e-6)


def _gamma_field(rng, size, shape, sigma):
    """Local power, gamma-distributed with mean 1: by the quantiles of smooth Gaussian noise."""
    quantile = np.clip(special.ndtr(_smooth_noise(rng, size, sigma)), 1e-4, 1 - 1e-4)
    levels = np.linspace(0, 1, 257)[1:-1]
    return np.interp(quantile, levels, special.gammaincinv(shape, levels) / shape)
