"""How far the surfaces of masks lie apart, in mm: HD95 and ASSD.

The surface of a mask is its voxels with a neighbour across a face that is not of it, or beyond the image. For masks A
and B with surfaces a and b, d(p, b) the distance of a voxel's centre to the nearest centre of b:

    HD95(A, B) = 95th percentile of {d(p, b) : p in a} and {d(p, a) : p in b} together               (1)
    ASSD(A, B) = (mean of d(p, b) over a + mean of d(p, a) over b) / 2                                (2)

as medpy.metric.binary defines them; distances are SciPy's exact Euclidean distance transform. Both are undefined where
a mask is empty: nothing lies anywhere. In an image of one slice surfaces are its outlines.
"""

from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are first used


def pairwise(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """HD95 and ASSD of every mask of `a` with every one of `b`.

    Args:
      a: [M, D, H, W] bool.
      b: [N, D, H, W] bool.
      spacing: (slice, row, column) mm apart; of one slice the first counts for nothing.

    Returns:
      (HD95 [M, N], ASSD [M, N]) in mm, NaN where a mask is empty.
    """
    found = np.full((2, len(a), len(b)), np.nan)
    marked = a.any(0) | b.any(0)
    if not marked.any():
        return found[0], found[1]
    # Nothing outside of what is marked is on a surface, or asked for its distance.
    box = scipy.ndimage.find_objects(marked.astype(np.uint8))[0]
    flat = marked.shape[0] == 1
    cut = lambda mask: mask[box][0] if flat else mask[box]
    steps = tuple(spacing)[1:] if flat else tuple(spacing)
    known = [_distances(cut(mask), steps) if mask.any() else None for mask in a]
    for column, mask in enumerate(b):
        if not mask.any():
            continue
        surface, away = _distances(cut(mask), steps)
        for row, (other, from_other) in ((row, one) for row, one in enumerate(known) if one is not None):
            there, back = away[other], from_other[surface]
            found[:, row, column] = np.percentile(np.concatenate([there, back]), 95), (there.mean() + back.mean()) / 2
    return found[0], found[1]


def _distances(mask, steps):
    """(the surface of a mask, each voxel's distance to it in mm)."""
    surface = mask & ~scipy.ndimage.binary_erosion(mask)
    return surface, scipy.ndimage.distance_transform_edt(~surface, steps).astype(np.float32)
