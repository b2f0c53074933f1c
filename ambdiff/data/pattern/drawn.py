"""Outlines that were drawn into a picture: what they enclose, from the clean picture and the drawn-in one.

    D    largest difference over the colours, a pixel
    L    the lines: connected pixels of D > 0.2 t that hold one of D > 0.6 t, t the level of the lines' own differences
         (the 90th percentile of D above FLOOR), closed across gaps by the smallest radius of RADII that serves
    R    the regions that L parts the picture into: the outside, and those that are enclosed

Of two outlines, one within the other, the inner region is the one that borders on the outside least: the ring between
them has the outer outline along all of its length, also where the inner one touches it or lies upon it for a while.
Every pixel of L is then of the region nearest to it: an outline runs along the middle of its line, whatever its width.

What compression changes lies below FLOOR, or is islands that enclose nothing. Where the regions are not as many as the
outlines, nothing is guessed: `NotFound` says why.
"""

import numpy as np
from scipy import ndimage

FLOOR = 16  # of 255: what another compression of the same picture may change
RADII = (0, 1, 2, 3, 5, 8)  # pixels; at most a 25th of what is drawn
_MOST = 0.2  # of a picture may be lines; else it is another picture
_LEAST = 0.005  # of what is enclosed, a region
_MOST_REGIONS = 16  # a ring in parts, and what it surrounds
_CONTACT = 0.4  # of a region's border lies along the outer outline: less is an inner region


class NotFound(Exception):
    """The outlines cannot be told; the message says why, as the end of a sentence on the file."""


def regions(clean: np.ndarray, drawn: np.ndarray, count: int) -> list[np.ndarray]:
    """What one outline encloses, or two of which one lies in the other.

    Args:
      clean: [H, W, C] of 0 to 255.
      drawn: the same picture with the outlines.
      count: 1 or 2 outlines.

    Returns:
      `count` masks [H, W] bool, the outer one first; it contains the inner one.

    Raises:
      NotFound: nothing is drawn, almost everything differs, or the lines do not part the picture into such regions.
    """
    change = np.abs(np.asarray(clean, np.int32) - np.asarray(drawn, np.int32)).max(-1)
    lines = _lines(change)
    (box,) = ndimage.find_objects(lines.astype(np.uint8))
    margin = 1 + max(RADII)
    inside = np.pad(lines[box], margin)  # so that the outside is one region
    side = min(inside.shape) - 2 * margin
    for radius in (radius for radius in RADII if 25 * radius <= side):
        found = _enclosed(_closed(inside, radius), count)
        if found is not None:
            break
    else:
        raise NotFound('has no closed outline' if count == 1 else 'has no two closed outlines, one in the other')
    masks = []
    for mask in found:
        masks.append(np.zeros(lines.shape, bool))
        masks[-1][box] = mask[margin:-margin, margin:-margin]
    return masks


def _lines(change):
    """L, not closed yet."""
    differs = change[change > FLOOR]
    if not differs.size:
        raise NotFound('shows nothing that the clean picture does not show')
    level = np.percentile(differs, 90)
    weak = change > max(FLOOR, 0.2 * level)
    if weak.mean() > _MOST:
        raise NotFound('differs from the clean picture almost everywhere: another one')
    parts, _ = ndimage.label(weak, np.ones((3, 3)))
    kept = np.unique(parts[change > max(FLOOR, 0.6 * level)])
    return np.isin(parts, kept[kept > 0])


def _closed(lines, radius):
    if not radius:
        return lines
    steps = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return ndimage.binary_closing(lines, np.hypot(*steps) <= radius + 0.5)


def _enclosed(lines, count):
    """The masks of `regions` in a box around closed lines; None where the regions are not so many."""
    parts, _ = ndimage.label(~lines)  # lines that touch at corners part what they lie between
    outside = parts == parts[0, 0]
    sizes = np.bincount(parts.ravel())
    sizes[[0, parts[0, 0]]] = 0  # lines, and the outside
    inner = np.flatnonzero(sizes > max(8, _LEAST * sizes.sum())).tolist()
    if not count <= len(inner) <= _MOST_REGIONS:
        return None
    labels = np.zeros(lines.shape, np.uint8)
    if count == 1:
        labels[np.isin(parts, inner)] = 1
    else:
        contact = _contact(parts, outside, inner)
        within = [part for part in inner if contact[part] < _CONTACT]
        if len(within) != 1 or len(inner) < 2:
            return None
        labels[np.isin(parts, inner)] = 1
        labels[parts == within[0]] = 2
    known = outside | (labels > 0)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    labels = labels[tuple(nearest)]
    return [labels >= number for number in range(1, count + 1)]


def _contact(parts, outside, inner):
    """{region: pixels of the outer outline that are nearest to it, a pixel of its own border}."""
    edge = ndimage.binary_dilation(outside) & ~outside
    nearest = ndimage.distance_transform_edt(~np.isin(parts, inner), return_distances=False, return_indices=True)
    by_part = parts[tuple(nearest)][edge]
    border = {part: ndimage.binary_dilation(parts == part) & (parts != part) for part in inner}
    return {part: np.count_nonzero(by_part == part) / max(np.count_nonzero(border[part]), 1) for part in inner}
