"""Simulated CT crops around real outlines: outlines real, images simulated.

In Hounsfield units (HU), with sums and blends of smooth fields:

  lung      = base + slow shading + texture + vessels (lines and dots of three calibres)
  density   = s((blur(p) + eta - b) / w), p = sum_m mask_m / number of readers who marked   (1)
  anatomy   = lung + density (core - lung) + spicules + attached vessels, chest wall blended over it
  image     = round(psf * anatomy + noise), clipped to [-1000, 400]                        (2)

The image may show only what a scanner could. The readers enter through one smooth field (1): which
slot marked what cannot matter, single outlines are blurred away, and the boundary is moved by noise
`eta` of the image's own. Their number enters as visibility: core HU and blur are random, from wide,
overlapping distributions whose centres move with the number of readers and the ratings, as measured
on real crops. What is left to dispute is what readers dispute: faint rims, attached vessels, and
blobs as bright as a faint nodule that are vessels and that nobody marked.
"""

import functools
import zlib

import numpy as np
from scipy import ndimage

LOW, HIGH = -1000, 400  # HU; the window that stored images span
VERSION = 1  # part of every seed: raise it when the images change

_LUNG, _TISSUE, _FAT = -868.0, 35.0, -100.0
_SHORT = 3.0  # pixels: vessels cut across
_CALIBRES = (0.65, 1.1, 2.0)  # standard deviations of vessel profiles, pixels


def simulate(masks: np.ndarray, ratings: np.ndarray, case: str) -> np.ndarray:
    """Makes the CT crop for one slice of a nodule.

    Args:
      masks: uint8 [M, H, H] in {0, 1}, H a multiple of 8; the order of the readers has no influence.
      ratings: float [R, 4], each reader's subtlety, texture, spiculation and calcification (1..6).
      case: the slice's name; with the masks and ratings it determines the image.

    Returns:
      uint16 [H, H]: HU + 1000, clipped to 0..1400.
    """
    rng = np.random.default_rng((VERSION, zlib.crc32(case.encode())))
    size = masks.shape[-1]
    readers = int(masks.any((1, 2)).sum())
    share = masks.sum(0, dtype=np.float32) / max(readers, 1)
    subtlety, texture, spiculation, calcification = np.mean(ratings, axis=0)

    image = _LUNG + rng.normal(0, 32) + rng.gamma(2, 14) * _smooth_noise(rng, size, 7)
    image += rng.gamma(4, 7) * np.maximum(_smooth_noise(rng, size, 0.9), -1.2)
    nodule, lumps, attached = _nodule(rng, share, subtlety, texture, spiculation)
    core = _core(rng, readers, subtlety, texture, calcification, np.count_nonzero(share)) + lumps
    image = _over(image, _draw(size, *_join(_vessels(rng, size), attached)), 40)
    image = _with_nodule_and_wall(image, nodule, core, *(around := _chest_wall(rng, share > 0)))

    image = _smooth(image, rng.uniform(0.3, 0.65))
    image += _noise(rng, size, *_scan(rng)) * (1 + 0.5 * around[0])
    return (np.clip(np.rint(image), LOW, HIGH) - LOW).astype(np.uint16)


def simulate_stack(masks: np.ndarray, ratings: np.ndarray, case: str, distance: float) -> np.ndarray:
    """Makes the CT crops for neighbouring slices of a nodule, as sections of one body.

    What belongs to the body or the scan is drawn once: the core's HU by the readers who marked any slice, the chest
    wall, strength and grain of the noise, vessels that run across the slices. A field that varies over sigma pixels
    within a slice correlates by exp(-(distance / 2 sigma)^2) with that of the next. Vessels that lie in a slice,
    spicules and the noise itself are each slice's own.

    Args:
      masks: uint8 [Z, M, H, H] in {0, 1}, in one window for all slices; H a multiple of 8.
      ratings: as of `simulate`.
      case: the nodule's name; with all else it determines the images.
      distance: of slices, in pixels.

    Returns:
      uint16 [Z, H, H]: HU + 1000, clipped to 0..1400.
    """
    rng = np.random.default_rng((VERSION, zlib.crc32(case.encode())))
    size = masks.shape[-1]
    readers = max(int(masks.any((0, 2, 3)).sum()), 1)
    share = masks.sum(1, dtype=np.float32) / readers
    subtlety, texture, spiculation, calcification = np.mean(ratings, axis=0)
    soft = _softness(texture)
    field = lambda sigma: _through(rng, share.shape, sigma, distance)

    lung = _LUNG + rng.normal(0, 32) + rng.gamma(2, 14) * field(7)
    lung += rng.gamma(4, 7) * np.maximum(field(0.9), -1.2)
    sigma = rng.uniform(0.8, 1.05) + 0.6 * soft
    blurred = ndimage.gaussian_filter1d(np.stack([_smooth(s, sigma) for s in share]), sigma / distance, 0)
    nodule = _density(rng, blurred, lambda: field(2), soft)
    lumps = (15 + 130 * soft) * field(1.5)
    core = _core(rng, readers, subtlety, texture, calcification, np.count_nonzero(share, (1, 2)).max()) + lumps
    wall, tissue = _chest_wall(rng, (share > 0).any(0))
    through, slopes = _vessels(rng, size), rng.normal(0, 0.7, (1000, 2))
    psf, scan = rng.uniform(0.3, 0.65), _scan(rng)

    images = []
    for z, image in enumerate(lung):
        starts, angles, lengths, bends, calibres, heights = through
        short = lengths < _SHORT
        moved = starts + (z - len(lung) / 2) * distance * slopes[: len(starts)]
        lines = [[of[short] for of in (moved, angles, lengths, bends, calibres, heights)]]
        own = _vessels(rng, size)
        lines.append([of[own[2] >= _SHORT] for of in own])
        if share[z].any():
            lines.append(_attached(rng, share[z], subtlety, spiculation))
        image = _over(image, _draw(size, *_join(*lines)), 40)
        image = _with_nodule_and_wall(image, nodule[z], core[z], wall, tissue)
        image = _smooth(image, psf) + _noise(rng, size, *scan) * (1 + 0.5 * wall)
        images.append((np.clip(np.rint(image), LOW, HIGH) - LOW).astype(np.uint16))
    return np.stack(images)


def _through(rng, shape, sigma, distance):
    """`_smooth_noise` on slices [Z, size, size] so far apart, which correlate."""
    count, size, _ = shape
    same = float(np.exp(-((distance / (2 * sigma)) ** 2)))
    fields = [_smooth_noise(rng, size, sigma)]
    for _ in range(count - 1):
        fields.append(same * fields[-1] + np.sqrt(1 - same**2) * _smooth_noise(rng, size, sigma))
    return np.stack(fields)


@functools.lru_cache(64)
def _kernel(size, sigma, norm):
    """Gaussian smoothing along one axis as a matrix [size, size]; rows have unit L1 or L2 norm."""
    offset = np.arange(size)[:, None] - np.arange(size)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    return (kernel / np.linalg.norm(kernel, norm, axis=1, keepdims=True)).astype(np.float32)


def _smooth(image, sigma, norm=1, along=None):
    """Gaussian blur by two small matrices; with norm 2, white noise keeps its variance.

    `along`: the standard deviation along the rows, where it differs. Steps of 0.05 pixels, so that
    matrices are used again: several times faster than a filter on images of this size.
    """
    size = image.shape[-1]
    down, right = (_kernel(size, max(round(20 * s), 2) / 20, norm) for s in (sigma, along or sigma))
    # Eight rows at a time: for larger products BLAS starts threads, which here cost far more than they do.
    return (down.reshape(-1, 8, size) @ image @ right.T).reshape(size, size)


def _smooth_noise(rng, size, sigma, along=None):
    """Gaussian noise of unit variance, correlated over `sigma` pixels: float32 [size, size]."""
    return _smooth(rng.standard_normal((size, size), np.float32), sigma, 2, along)


def _scan(rng):
    """A scan's noise: its strength, grain and, in one of five scans, longer grain along the rows (streaks)."""
    strength = 14 * float(np.exp(rng.normal(0, 0.8)))
    grain = rng.uniform(0.3, 0.75)
    return strength, grain, grain * (rng.uniform(1.5, 3) if rng.random() < 0.2 else 1)


def _noise(rng, size, strength, grain, along):
    """Scanner noise [size, size] in HU."""
    return strength * _smooth_noise(rng, size, grain, along)


def _with_nodule_and_wall(image, nodule, core, wall, tissue):
    """The nodule on lung, and the chest wall blended over both."""
    image = image + nodule * np.maximum(core - image, 0)
    image += wall * (tissue - image)
    return image + 0.5 * nodule * wall * np.maximum(core - image, 0)


def _over(image, rise, ceiling):
    """Add `rise` to the image with saturation at `ceiling` HU (touching vessels do not add up)."""
    room = ceiling - image
    return image + room * (1 - np.exp(-rise / room))


def _splat(layers, size, layer, points, weight):
    """Add weighted points [P, 2] to layers [L, size, size] by bilinear interpolation."""
    corner = np.floor(points).astype(np.int64)
    part = points - corner
    for di in (0, 1):
        for dj in (0, 1):
            i, j = corner[:, 0] + di, corner[:, 1] + dj
            ok = (i >= 0) & (i < size) & (j >= 0) & (j < size)
            w = np.abs(1 - di - part[:, 0]) * np.abs(1 - dj - part[:, 1]) * weight
            cell = (layer * size + i) * size + j
            layers += np.bincount(cell[ok], w[ok], minlength=layers.size).astype(np.float32)


def _draw(size, starts, angles, lengths, bends, calibres, heights):
    """Rise in HU [size, size] of curved lines: one row of every argument a line."""
    count = np.maximum((lengths / 0.5).astype(int), 1)
    line = np.repeat(np.arange(len(count)), count)
    along = (np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)) * 0.5
    angle = angles[line] + bends[line] * along
    step = np.stack([np.sin(angle), np.cos(angle)], 1)
    points = starts[line] + along[:, None] * step
    sigma = np.array(_CALIBRES)[calibres[line]]
    # A line of weight 1 a pixel has height 1 / (sqrt(2 pi) sigma) after the blur; lines fade out.
    fade = np.minimum(1, 1.4 * (1 - along / np.maximum(lengths[line], 0.5)) + 0.15)
    weight = heights[line] * sigma * np.sqrt(2 * np.pi) * 0.5 * fade
    layers = np.zeros(len(_CALIBRES) * size * size, np.float32)
    _splat(layers, size, calibres[line], points, weight)
    layers = layers.reshape(-1, size, size)
    return sum(_smooth(x, s) for x, s in zip(layers, _CALIBRES, strict=True))


def _join(*groups):
    """Concatenate groups of lines argument by argument."""
    return [np.concatenate(parts) for parts in zip(*groups, strict=True)]


def _vessels(rng, size):
    """Vessels of the lung, more or less in one direction, cut lengthwise or across."""
    scale = (size / 64) ** 2
    crowd = rng.gamma(3, 1 / 3)
    numbers = [rng.poisson(m * crowd * scale) for m in (26, 6, 0.9)]
    calibres = np.repeat(np.arange(3), numbers)
    n = len(calibres)
    across = rng.random(n) < 0.5
    lengths = np.where(across, rng.uniform(0.5, 2.5, n), rng.gamma(2, 5.0, n))
    lengths *= np.array([0.8, 1.1, 1.6])[calibres]
    angles = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.9, n)
    heights = np.array([280, 560, 850])[calibres] * rng.gamma(3, 1 / 3, n)
    starts = rng.uniform(-4, size + 4, (n, 2))
    return starts, angles, lengths, rng.normal(0, 0.03, n), calibres, heights


def _nodule(rng, share, subtlety, texture, spiculation):
    """The density field (1) in [0, 1], lumps of the core in HU, spicules and attached vessels."""
    size = share.shape[-1]
    soft = _softness(texture)
    blurred = _smooth(share, rng.uniform(0.8, 1.05) + 0.6 * soft)
    density = _density(rng, blurred, lambda: _smooth_noise(rng, size, 2), soft)
    lumps = (15 + 130 * soft) * _smooth_noise(rng, size, 1.5)
    return density, lumps, _attached(rng, share, subtlety, spiculation)


def _softness(texture):
    """0 for a solid nodule to 1 for ground glass."""
    return min(max((5 - float(texture)) / 4, 0), 1)


def _density(rng, blurred, noise, soft):
    """The density field (1) in [0, 1] of the blurred share; noise: draws that of `eta`."""
    eta = rng.uniform(0.05, 0.1) * noise() * np.minimum(1, 4 * blurred)
    bias = min(max(rng.normal(0.2, 0.06), 0.05), 0.35)
    x = np.clip((blurred + eta - bias) / (0.62 + 0.2 * soft), 0, 1)
    return x * (1.5 - 0.5 * x * x)


def _attached(rng, share, subtlety, spiculation):
    """Spicules and vessels that begin in the nodule."""
    where = np.argwhere(share > 0)
    spicules = 1.5 * max(float(spiculation) - 1.5, 0)
    n = rng.poisson(1.1 + spicules)
    starts = where[rng.integers(len(where), size=n)]
    outward = starts - where.mean(0) + rng.normal(0, 0.7, (n, 2))
    angles = np.arctan2(outward[:, 0], outward[:, 1])
    vessel = rng.random(n) < 1.1 / (1.1 + spicules)
    lengths = np.where(vessel, 4 + rng.gamma(2, 6, n), 2 + rng.gamma(2, 2.5, n)) + 0.3 * np.sqrt(len(where))
    heights = np.where(vessel, 420, 400) * rng.gamma(4, 1 / 4, n) * (0.4 + 0.12 * float(subtlety))
    calibres = (vessel & (rng.random(n) < 0.4)).astype(int)
    return starts, angles, lengths, rng.normal(0, 0.02, n), calibres, heights


def _core(rng, readers, subtlety, texture, calcification, area):
    """HU of the nodule's core: the fainter the fewer marked it, the subtler and the less solid."""
    if calcification < 5 and rng.random() < min(0.9, 60 / area):
        return rng.uniform(200, 1000)
    faint = 0.08 * (4 - readers) + 0.05 * (5 - float(subtlety)) + 0.13 * (5 - float(texture)) + rng.normal(0, 0.12)
    return 45 + rng.normal(0, 35) - 850 * min(max(faint, 0), 0.8)


def _chest_wall(rng, lesion):
    """Weight in [0, 1] and HU of the tissue around the lung: muscle, fat, ribs; the pleura bounds it."""
    size = lesion.shape[-1]
    weight, hu = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    grid = np.arange(size, dtype=np.float32) - (size - 1) / 2
    for place in range(2):
        if rng.random() > (0.88, 0.12)[place]:
            continue
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.sin(angle), np.cos(angle)], np.float32)
        # Curved as a circle: the lung bulges into the wall, or heart and diaphragm into the lung.
        curve = (1 if rng.random() < 0.75 else -1) / rng.uniform(25, 120)
        along = direction[0] * grid[:, None] + direction[1] * grid
        aside = direction[1] * grid[:, None] - direction[0] * grid
        bent = along + 0.5 * curve * aside * aside / np.sqrt(1 + (0.7 * curve * aside) ** 2)
        at_lesion = float(bent[lesion].max())
        touching = rng.random() < 0.3
        gap = rng.uniform(-1.0, 1.0) if touching else 2 + rng.gamma(1.7, 6.5)
        inside = bent - at_lesion - gap + 0.6 * _smooth_noise(rng, size, 5)
        if inside.max() < -3:
            continue
        part = 1 / (1 + np.exp(-np.clip(inside / 0.45, -30, 30)))
        tissue = _wall_tissue(rng, inside, aside, curve > 0)
        hu = np.where(part > weight, tissue, hu)
        weight = np.maximum(weight, part)
    return weight, hu


def _wall_tissue(rng, inside, aside, has_ribs):
    """HU of the wall by depth below the pleura."""
    size = inside.shape[-1]
    muscle = rng.normal(_TISSUE, 18) if has_ribs or rng.random() < 0.6 else rng.normal(140, 60)
    lumps = _smooth_noise(rng, size, 4)
    fat = 1 / (1 + np.exp(-4 * (lumps - rng.uniform(0.2, 1.8))))
    fat = fat * np.clip((inside - rng.uniform(1, 8)) / 2, 0, 1)
    hu = muscle + (_FAT - muscle) * fat
    if not has_ribs:
        return hu
    middle = rng.uniform(-25, 25)
    for side in (0, 1):
        thick, long = rng.uniform(3, 6), rng.uniform(6, 18)
        depth = thick + rng.uniform(1, 5)
        centre = middle + side * (2 * long + rng.uniform(8, 30))
        tilt = rng.normal(0, 0.15)
        radius = ((inside - depth - tilt * (aside - centre)) / thick) ** 2
        radius = np.sqrt(radius + ((aside - centre) / long) ** 4)
        bone = 1 / (1 + np.exp(np.clip((radius - 1) * 8, -30, 30)))
        marrow = rng.uniform(80, 350)
        shell = np.exp(-(((radius - 0.8) / 0.22) ** 2))
        hu = hu + bone * (marrow + (rng.uniform(450, 900) - marrow) * shell - hu)
    return hu
