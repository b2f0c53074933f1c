"""The distinct answers among N masks of one image, how often each occurs, and where the masks disagree.

Answers are clusters of masks by the distance 1 - IoU, IoU(empty, empty) = 1: agglomerative, average linkage (Sokal and
Michener 1958), cut at `THRESHOLD`. Two answers are one where their masks overlap, on average, by half or more; for
comparison, two radiologists who both outline a nodule of LIDC-IDRI overlap by 0.66. The empty mask is at distance 1
from every other, so "nothing there" is always an answer of its own. Nothing here is random.

Masks are bool or hold labels 0 (background) .. K; labels agree where they are equal and not 0. They have any number of
axes: [N, H, W] of a slice or [N, Z, H, W] of a volume.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy  # its parts are imported when they are first used, or by `get_ready`

THRESHOLD = 0.5  # largest mean distance 1 - IoU within one answer
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_COLUMNS = 1 << 16  # pixels compared at a time


def get_ready() -> None:
    """Imports what finding answers needs: half a second, which passes unseen while a program is compiled."""
    _ = scipy.ndimage, scipy.cluster.hierarchy, scipy.spatial.distance


@dataclasses.dataclass(frozen=True)
class Mode:
    """One distinct answer.

    Attributes:
      members: indices of its samples, rising.
      medoid: the member closest to the others.
      share: members over N.
      empty: whether it is the answer "nothing there".
    """

    members: tuple[int, ...]
    medoid: int
    share: float
    empty: bool


def distances(samples: np.ndarray) -> np.ndarray:
    """1 - IoU of every two of N masks [N, ...] -> [N, N] float64, 0 on the diagonal."""
    return _compare([samples])[0]


def _compare(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(`distances` [N, N], which masks are empty [N]) of N masks that come in parts [N, ...], such as slices."""
    agreed = shared = 0.0
    for part in parts:
        flat = part.reshape(len(part), -1)
        flat = flat[:, flat.any(0)]  # where nobody marked, nothing differs
        for first in range(0, max(flat.shape[1], 1), _COLUMNS):
            piece = flat[:, first : first + _COLUMNS]
            marks = [(piece == label).astype(np.float32) for label in np.unique(piece[piece > 0])]
            same = sum((mark @ mark.T).astype(np.float64) for mark in marks) + np.zeros((len(flat), len(flat)))
            marked = (piece > 0).astype(np.float32)
            agreed = agreed + same
            shared = shared + (same if len(marks) < 2 else marked @ marked.T)
    size = shared.diagonal()
    union = size[:, None] + size[None] - shared
    iou = np.divide(agreed, union, out=np.ones_like(agreed), where=union > 0)
    return 1 - iou, size == 0


def find(samples: np.ndarray, threshold: float = THRESHOLD) -> list[Mode]:
    """The answers among N masks [N, ...], the most frequent first."""
    return find_in_parts([samples], threshold)


def find_in_parts(parts: Iterable[np.ndarray], threshold: float = THRESHOLD) -> list[Mode]:
    """As `find`, of masks that come in parts [N, ...], such as the slices of a volume: none is held after the next."""
    apart, empty = _compare(parts)
    count = len(empty)
    marked = np.flatnonzero(~empty)
    clusters = [np.flatnonzero(empty)] if empty.any() else []
    if len(marked) == 1:
        clusters.append(marked)
    elif len(marked):
        condensed = scipy.spatial.distance.squareform(apart[np.ix_(marked, marked)], checks=False)
        tree = scipy.cluster.hierarchy.linkage(condensed, 'average')
        labels = scipy.cluster.hierarchy.fcluster(tree, threshold, 'distance')
        clusters += [marked[labels == label] for label in np.unique(labels)]
    modes = [
        Mode(
            members=tuple(members.tolist()),
            medoid=int(members[apart[np.ix_(members, members)].sum(1).argmin()]),
            share=len(members) / count,
            empty=bool(empty[members[0]]),
        )
        for members in clusters
    ]
    return sorted(modes, key=lambda mode: (-len(mode.members), mode.members))


def without_small_parts(masks: np.ndarray, smallest: int) -> np.ndarray:
    """Masks [..., H, W] without the connected parts of a plane that have fewer pixels than `smallest`.

    Pixels are connected along sides and corners, whatever their labels. smallest = 1 keeps all.
    """
    planes = masks.reshape(-1, *masks.shape[-2:])
    within = np.zeros((3, 3, 3), int)
    within[1] = 1  # not from one plane to the next
    parts, _ = scipy.ndimage.label(planes, within)
    keep = np.bincount(parts.ravel()) >= smallest
    return (planes * keep[parts]).reshape(masks.shape).astype(masks.dtype)


def probability(samples: np.ndarray) -> np.ndarray:
    """Share of the N masks [N, ...] that mark each pixel, with any label: float32 [...] in [0, 1]."""
    return (samples > 0).mean(0, dtype=np.float32)


def disagreement(samples: np.ndarray) -> np.ndarray:
    """Entropy in bits of a pixel's label over the N masks [N, ...]: float32 [...], 0 where all agree.

    At most 1 for a yes or no, log2(K + 1) for K labels.
    """
    bits = np.zeros(samples.shape[1:], np.float32)
    for label in range(int(samples.max(initial=0)) + 1):
        share = (samples == label).mean(0, dtype=np.float32)
        bits -= share * np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.maximum(bits, 0)


def areas(samples: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Area [N] of masks [N, H, W] or [N, Z, H, W]; of a volume, on the slice where it marks most.

    In mm^2 by the spacing (row, column) in mm; in pixels if it is not known (NaN).
    """
    pixels = (samples > 0).sum((-2, -1))
    pixels = pixels.max(1) if pixels.ndim == 2 else pixels
    return pixels * pixel_area(spacing)[0]


def pixel_area(spacing: tuple[float, float]) -> tuple[float, str]:
    """(area of a pixel, its unit): mm^2 by the spacing (row, column) in mm, px where that is not known."""
    return (math.prod(spacing), 'mm^2') if known(spacing) else (1.0, 'px')


def voxel_volume(spacing: Sequence[float]) -> tuple[float, str]:
    """(volume of a voxel, its unit): mm^3 by the spacing (slice, row, column) in mm, voxels where one is not known."""
    return (math.prod(spacing), 'mm^3') if known(spacing) else (1.0, 'voxels')


def quantiles(values: np.ndarray) -> dict[str, float]:
    """{'p05': .., .. 'p95': ..} of values [N], at least one."""
    return {f'p{q * 100:02.0f}': float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def known(spacing: Sequence[float]) -> bool:
    """Whether a spacing in mm is given for every axis."""
    return bool(np.all(np.isfinite(spacing)))


def diameters(mask: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """(longest distance across, longest distance across at a right angle to it) of a mask's largest part.

    As radiologists measure a lesion (RECIST's long and short axis), by the part's convex hull, between corners of
    pixels: one pixel of 1 mm measures 1.4 mm both ways.

    Args:
      mask: [H, W] bool; of a volume [Z, H, W], on the slice where the first distance is the longest.
      spacing: distance of (row, column) in mm, of a volume of (slice, row, column); NaN: in pixels.
    """
    best = (0.0, 0.0)
    for plane in mask[None] if mask.ndim == 2 else mask:
        # Nothing is longer than what spans all marks.
        if (hull := _hull(plane, spacing[-2:])) is not None and np.hypot(*np.ptp(hull, axis=0)) > best[0]:
            best = max(best, _across(hull), key=lambda pair: pair[0])
    return best


def diameter(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """The first of `diameters`."""
    return diameters(mask, spacing)[0]


def _hull(plane: np.ndarray, spacing: Sequence[float]) -> np.ndarray | None:
    """Corners [P, 2] of the convex hull of a mask's largest part [H, W], one after the other; None where empty."""
    if not plane.any():
        return None
    plane = plane[scipy.ndimage.find_objects((plane > 0).astype(np.uint8))[0]]
    parts, _ = scipy.ndimage.label(plane, np.ones((3, 3)))
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    rows, columns = np.nonzero(parts == largest)
    corners = np.concatenate([np.stack([rows + dy, columns + dx], 1) for dy in (0, 1) for dx in (0, 1)])
    corners = corners * (np.array(spacing) if known(spacing) else 1.0)
    return corners[scipy.spatial.ConvexHull(corners).vertices]


def _across(hull: np.ndarray) -> tuple[float, float]:
    """`diameters` of a convex hull, corners [P, 2] in their order round it."""
    apart = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(hull))
    start, end = np.unravel_index(apart.argmax(), apart.shape)
    long = (hull[end] - hull[start]) / apart[start, end]
    turned = np.roll(hull, -start, axis=0) - hull[start]
    along, aside = turned @ long, turned @ (-long[1], long[0])
    # From one end of the longest distance to the other along both sides of the hull; the width between the sides is
    # the largest at some corner.
    last = (end - start) % len(hull)
    near = np.interp(along, along[: last + 1], aside[: last + 1])
    far = np.interp(along, [*along[last:], 0.0][::-1], [*aside[last:], 0.0][::-1])
    return float(apart[start, end]), float(np.abs(near - far).max())


def size_text(mask: np.ndarray, spacing: Sequence[float]) -> str:
    """'8 mm', '5 px across', '8 mm, 2 parts' or 'nothing' for a mask [H, W] or [Z, H, W].

    With three distances as spacing, (slice, row, column), a mask [Z, H, W] is told as a body: '8 x 6 mm, 210 mm³'.
    """
    if len(spacing) == 3:
        return _body_text(mask > 0, spacing)
    plane = widest(mask)
    if not plane.any():
        return 'nothing'
    across = diameter(plane, spacing)
    text = f'{across:.{0 if across >= 3 else 1}f} mm' if known(spacing) else f'{across:.0f} px across'
    count = scipy.ndimage.label(plane, np.ones((3, 3)))[1]
    return text if count == 1 else f'{text}, {count} parts'


def _body_text(mask: np.ndarray, spacing: Sequence[float]) -> str:
    """'8 x 6 mm, 210 mm³', '8 x 6 mm, 210 mm³, 2 parts' or 'nothing' for a mask [Z, H, W] bool."""
    if not mask.any():
        return 'nothing'
    longest, across = diameters(mask, spacing)
    unit = 'mm' if known(spacing[1:]) else 'px'
    scale, of_volume = voxel_volume(spacing)
    count = scipy.ndimage.label(mask, np.ones((3, 3, 3)))[1]
    text = f'{longest:.{0 if longest >= 3 else 1}f} x {across:.{0 if longest >= 3 else 1}f} {unit}'
    text += f', {figure(mask.sum() * scale)} {of_volume.replace("^3", "³")}'
    return text if count == 1 else f'{text}, {count} parts'


def figure(value: float) -> str:
    """A size in words: whole from 10 on, else with one decimal."""
    return f'{value:.0f}' if value >= 10 or value == round(value) else f'{value:.1f}'


def words(samples: Sequence[np.ndarray], modes: Sequence[Mode], spacing: Sequence[float]) -> list[str]:
    """Each answer in words: its size (`size_text`) and how it lies to the first one that marks something."""
    first, texts = None, []
    for mode in modes:
        mask = samples[mode.medoid] > 0
        text = size_text(mask, spacing)
        if mode.empty or first is None:
            first = first if mode.empty else mask
        else:
            text += f', {_relation(mask, first)}'
        texts.append(text)
    return texts


def sentence(modes: Sequence[Mode], texts: Sequence[str]) -> str:
    """'61%: 8 mm; 28%: nothing; 11%: 14 mm, larger, contains the first'."""
    return '; '.join(f'{mode.share:.0%}: {text}' for mode, text in zip(modes, texts, strict=True))


def widest(mask: np.ndarray) -> np.ndarray:
    """The slice [H, W] of a mask [Z, H, W] on which it marks most; a mask [H, W] as it is, as bool."""
    mask = mask > 0
    return mask if mask.ndim == 2 else mask[mask.sum((1, 2)).argmax()]


def _relation(mask: np.ndarray, first: np.ndarray) -> str:
    shared = (mask & first).sum()
    if not shared:
        return 'elsewhere'
    if shared >= 0.8 * first.sum() and mask.sum() > first.sum():
        return 'larger, contains the first'
    if shared >= 0.8 * mask.sum():
        return 'smaller, inside the first'
    return 'overlaps the first'


if __name__ == '__main__':
    from ambdiff import command

    command.elsewhere('modes', 'the distinct answers to an image are told by ambdiff predict FILE')
