"""Simulated MRI of multiple sclerosis: four sequences of a brain, and two simulated raters whose distribution is known.

A patient is geometry in millimetres (x to the patient's left, y to the front, z up, from the brain's middle), random
from the name: a brain with cortex, deep grey matter and ventricles, and lesions, ellipsoids that cluster around the
ventricles, a few of them far out under the cortex, some of them faint. Of an axial slice, with tissue shares p:

  signal  = sum_tissue p_tissue intensity[tissue, sequence] (1 + bias field)                 (1)
  image   = sqrt((signal + n1)^2 + n2^2), 0 outside the brain, n1 and n2 Gaussian            (2)

(2) is Rician noise (Gudbjartsson and Patz 1995). Intensities follow the contrasts of FLAIR, T1, T2 and proton density:
lesions are bright in FLAIR, T2 and PD and dark in T1, cerebrospinal fluid is bright in T2 and dark in FLAIR and T1.

A rater's answer is the union of the lesions that he does not miss, each outlined `margin` mm outside its boundary
(inside, if negative) by a random shift, one an answer. He misses a lesion with probability
min(miss exp(-area / miss_area) (1.6 - contrast), 0.95), independently: small and faint ones most.
"""

import dataclasses
import zlib

import numpy as np
from scipy import ndimage

VERSION = 1  # part of every seed: raise it when patients, images or answers change
FIELD = 128.0  # mm, width and height of the image
SEQUENCES = ('flair', 't1', 't2', 'pd')

#                      FLAIR   T1    T2    PD
_INTENSITY = np.array(
    [
        [0.10, 0.12, 1.00, 0.62],  # cerebrospinal fluid
        [0.58, 0.50, 0.60, 0.82],  # grey matter
        [0.46, 0.80, 0.42, 0.66],  # white matter
        [0.95, 0.48, 0.82, 0.95],  # lesion
    ]
)


@dataclasses.dataclass(frozen=True)
class Rater:
    """How a rater outlines; the margin's mean and standard deviation in mm, miss_area in mm^2."""

    margin: float
    margin_spread: float
    miss: float
    miss_area: float


RATERS = (
    Rater(-0.8, 0.3, 0.7, 70.0),  # conservative: the bright core, and not every small lesion
    Rater(0.7, 0.4, 0.3, 30.0),  # liberal: with the hazy rim
)


@dataclasses.dataclass(frozen=True, eq=False)
class Patient:
    """Geometry of one brain, mm."""

    half_axes: tuple[float, float]  # of the brain at z = 0, x and y
    ventricles: float  # size, 1 = normal
    centres: np.ndarray  # lesions [L, 3]
    radii: np.ndarray  # [L, 3]: along, across, up
    angles: np.ndarray  # [L] of `along` to x in the axial plane
    contrasts: np.ndarray  # [L], 1 = as bright as lesions get
    slices: tuple[float, ...]  # z of the slices that hold a lesion
    seed: tuple[int, int]


def patient(name: str) -> Patient:
    """The patient of this name; equal names give equal patients."""
    seed = (VERSION, zlib.crc32(name.encode()))
    rng = np.random.default_rng(seed)
    ventricles = rng.uniform(0.75, 1.5)
    near, far = 5 + rng.poisson(7), rng.poisson(3)
    side = rng.choice([-1.0, 1.0], near + far)
    # Periventricular: beyond the wall of a lateral ventricle, long axis across it (Dawson's fingers).
    along = rng.choice([-1.0, 1.0], near) * rng.beta(2, 1.2, near)
    x = 9 + 6 * along**2 + 5 * ventricles * np.sqrt(1 - 0.8 * along**2) + rng.gamma(2, 1.8, near)
    periventricular = np.stack([side[:near] * x, 4 + 27 * ventricles**0.5 * along, rng.uniform(-6, 26, near)], 1)
    turn = rng.uniform(0, 2 * np.pi, far)
    away = rng.uniform(0.5, 0.75, far)
    distant = np.stack([60 * away * np.cos(turn), 60 * away * np.sin(turn), rng.uniform(-6, 26, far)], 1)
    size = np.exp(rng.normal(np.log(5.0), 0.4, near + far)) * np.where(np.arange(near + far) < near, 1, 0.75)
    found = Patient(
        half_axes=(rng.normal(66, 2.5), rng.normal(80, 3)),
        ventricles=ventricles,
        centres=np.concatenate([periventricular, distant]),
        radii=size[:, None] * np.stack([rng.uniform(1, 1.6, near + far), *rng.uniform(0.7, 1, (2, near + far))], 1),
        angles=rng.normal(0, 0.4, near + far) + np.where(side > 0, 0, np.pi),
        contrasts=rng.beta(3, 1.5, near + far),
        slices=(),
        seed=seed,
    )
    chosen = [z for z in np.arange(-6.0, 27.0, 3.0) if len(lesions(found, z)[0])]
    return dataclasses.replace(found, slices=tuple(sorted(rng.permutation(chosen)[:6])))


def lesions(of: Patient, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [K] of the lesions that a slice cuts, and the share [K] of their radii that is left there."""
    share = 1 - ((z - of.centres[:, 2]) / of.radii[:, 2]) ** 2
    share = np.sqrt(np.maximum(share, 0))
    cut = np.flatnonzero(share * of.radii[:, 1] > 1.2)
    return cut, share[cut]


def areas(of: Patient, z: float) -> np.ndarray:
    """Areas [K] in mm^2 of the ellipses in which a slice cuts its lesions."""
    cut, share = lesions(of, z)
    return np.pi * share**2 * of.radii[cut, 0] * of.radii[cut, 1]


def miss_probability(of: Patient, z: float) -> np.ndarray:
    """The probability [2, K] that a rater misses a lesion of the slice."""
    cut, _ = lesions(of, z)
    each = [r.miss * np.exp(-areas(of, z) / r.miss_area) * (1.6 - of.contrasts[cut]) for r in RATERS]
    return np.minimum(np.stack(each), 0.95)


def answers(of: Patient, z: float, size: int, who: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fresh answers of the raters `who` [n], 0 or 1, independent given the slice: uint8 [n, size, size]."""
    outside = _distances(of, z, size)
    missed = rng.random((len(who), len(outside))) < miss_probability(of, z)[who]
    margin = np.array([r.margin for r in RATERS])[who]
    margin = margin + np.array([r.margin_spread for r in RATERS])[who] * rng.standard_normal(len(who))
    masks = np.zeros((len(who), size, size), bool)
    for lesion, distance in enumerate(outside):
        # However cautious, who saw a lesion marks its innermost pixel.
        edge = np.maximum(margin, distance.min() + 1e-6)[:, None, None]
        masks |= (distance < edge) & ~missed[:, lesion, None, None]
    return masks.astype(np.uint8)


def image(of: Patient, z: float, size: int) -> np.ndarray:
    """The slice at height z by (1) and (2): float32 [size, size, 4] in the order of SEQUENCES, arbitrary units."""
    anatomy, scanner = np.random.default_rng((*of.seed, 1)), np.random.default_rng((*of.seed, 2))
    shares, brain = _tissues(of, z, size, anatomy, np.random.default_rng((*of.seed, 3, round(z * 10) + 10**6)))
    intensity = _INTENSITY * scanner.normal(1, 0.04, _INTENSITY.shape)
    signal = np.einsum('thw,ts->shw', shares, intensity)
    pixel = FIELD / size
    bias = np.stack([_smooth_noise(scanner, size, 30 / pixel) for _ in SEQUENCES])
    signal = signal * (1 + scanner.uniform(0.03, 0.1) * bias)
    blur = 0.45 / pixel * 2
    signal = ndimage.gaussian_filter(signal, (0, blur, blur))
    noise = np.random.default_rng((*of.seed, 4, round(z * 10) + 10**6))
    measured = _rician(noise, signal, scanner.uniform(0.01, 0.03)) * scanner.uniform(300, 900, (4, 1, 1))
    return np.moveaxis(np.where(brain, measured, 0), 0, -1).astype(np.float32)


def _rician(rng, signal, deviation):
    """The magnitude of a signal with Gaussian noise in both of its components."""
    noise = deviation * rng.standard_normal((2, *signal.shape))
    return np.hypot(signal + noise[0], noise[1])


def _grid(size):
    """Positions of the pixels in mm: x [1, W] to the patient's left, y [H, 1] to the front, the first row in front."""
    middle = (np.arange(size) + 0.5) * FIELD / size - FIELD / 2
    return middle[None, :], -middle[:, None]


def _distances(of, z, size):
    """Signed distance [K, size, size] in mm (about) outside each lesion of the slice."""
    x, y = _grid(size)
    cut, share = lesions(of, z)
    result = np.empty((len(cut), size, size))
    for place, (lesion, left) in enumerate(zip(cut, share, strict=True)):
        across, up = x - of.centres[lesion, 0], y - of.centres[lesion, 1]
        c, s = np.cos(of.angles[lesion]), np.sin(of.angles[lesion])
        a, b = left * of.radii[lesion, :2]
        u, v = c * across + s * up, c * up - s * across
        # Not quite an ellipse: three lobes whose size and place belong to the lesion.
        lobes = 1 + 0.12 * np.sin(3 * np.arctan2(v, u) + 7 * of.contrasts[lesion])
        radius = np.hypot(u / a, v / b)
        result[place] = (radius - lobes) * np.sqrt(a * b)
    return result


def _tissues(of, z, size, anatomy, folds):
    """Shares [4, size, size] of the tissues, in the order of _INTENSITY, and where the brain is."""
    x, y = _grid(size)
    pixel = FIELD / size
    rise = lambda distance, width: 1 / (1 + np.exp(np.clip(distance / width, -30, 30)))
    height = np.sqrt(1 - (z / 75) ** 2)
    a, b = of.half_axes[0] * height, of.half_axes[1] * height
    depth = (1 - np.hypot(x / a, y / b)) * min(a, b)  # below the brain's surface, mm, about
    depth = depth + 1.5 * _smooth_noise(anatomy, size, 14 / pixel)
    ripple = 0.6 * _smooth_noise(anatomy, size, 3.5 / pixel) + 0.4 * _smooth_noise(folds, size, 3.5 / pixel)
    fissure = np.abs(x + 0.8 * ripple) - 0.8 - 0.02 * np.maximum(np.abs(y) - 35, 0) + 40 * (np.abs(y) < 32)
    sulci = np.maximum(rise(depth - 2 - 4.5 * np.maximum(ripple, 0) ** 1.5, 0.6), rise(fissure, 0.5))
    cortex = rise(np.minimum(depth - 9 - 6 * ripple, fissure - 3), 0.6)

    v = of.ventricles
    mirrored = np.abs(x)
    bent = mirrored - 7 - 6 * ((y - 4) / (27 * v**0.5)) ** 2
    lateral = (np.hypot(bent / (4.5 * v), (y - 4) / (27 * v**0.5)) - np.sqrt(max(1 - ((z - 10) / 20) ** 2, 0.05))) * 5
    third = np.hypot(x / (2.2 * v), (y + 2) / 10) * 3 - (3 if z < 2 else 0)
    ventricle = np.maximum(rise(lateral, 0.5), rise(third, 0.5))
    caudate = (np.hypot((mirrored - 15 - 3 * v) / 5, (y - 17) / 9) - 1) * 5
    thalamus = (np.hypot((mirrored - 11 - 2 * v) / 8, (y + 10) / 11) - 1) * 8
    deep = np.maximum(rise(caudate, 0.8), rise(thalamus, 0.8)) * float(z < 16)

    fluid = np.maximum(sulci, ventricle)
    grey = (1 - fluid) * np.maximum(cortex, deep)
    white = 1 - fluid - grey
    outside = _distances(of, z, size)
    cut, _ = lesions(of, z)
    lesion = np.zeros((size, size))
    for distance, contrast in zip(outside, of.contrasts[cut], strict=True):
        lesion = np.maximum(lesion, (0.45 + 0.55 * contrast) * rise(distance, 0.7))
    # Normal ageing: a thin bright lining of the ventricles that nobody counts as a lesion.
    lining = 0.35 * np.exp(-0.5 * ((lateral - 1) / 1.0) ** 2)
    lesion = np.maximum(lesion, lining) * (1 - fluid)
    shares = np.stack([fluid, grey * (1 - lesion), white * (1 - lesion), lesion])
    return shares, depth > 0


def _smooth_noise(rng, size, sigma):
    """Gaussian noise of unit variance, correlated over `sigma` pixels: [size, size]."""
    coarse = int(2 ** max(np.floor(np.log2(sigma / 2)), 0))
    noise = rng.standard_normal((size // coarse, size // coarse))
    noise = ndimage.gaussian_filter(noise, sigma / coarse, mode='wrap', truncate=3)
    noise = ndimage.zoom(noise, coarse, order=1, mode='grid-wrap', grid_mode=True)
    return noise / max(float(noise.std()), 1e-6)
