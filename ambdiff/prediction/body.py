"""Where a CT shows the body: tiles of nothing but the air around it and the table need not be sampled.

On a grid of about 4 mm, for speed: tissue is what is above -500 HU, opened by a cross of
three pixels a side within each slice, which parts the body from the table; of what hangs together in 3-D the largest
part counts, and others of at least .4 of its size (the other leg). A slice's body is the convex hull of its tissue:
lungs and bowel are inside whatever air fills them, also where the field of view cuts the body.

A crop of an organ has no air around a body, and its tissue says nothing of where it ends: only images of at least
250 mm a side are looked at.
"""

import numpy as np
import scipy  # its parts are imported when they are first used
from PIL import Image, ImageDraw

from ambdiff.data.files.volume import Volume

_AIR = -500.0  # HU
_GRID, _FIELD = 4.0, 250.0  # mm
_PART = 0.4  # of the largest part


def find(volume: Volume) -> np.ndarray | None:
    """Where a CT in HU shows the body: [Z, h, w] bool on a coarser grid over the same field; None where that is open.

    It is open where the pixel spacing is not known, the field of view is small, or there is no tissue.
    """
    spacing, shape = np.array(volume.spacing[1:]), np.array(volume.values.shape[1:3])
    if not np.isfinite(spacing).all() or (spacing * shape < _FIELD).any():
        return None
    step = np.maximum(np.rint(_GRID / spacing), 1).astype(int)
    tissue = np.stack([_coarse(image[..., 0], step) > _AIR for image in volume.values])
    cross = scipy.ndimage.generate_binary_structure(2, 1)[None]
    tissue = scipy.ndimage.binary_opening(tissue, cross)
    parts, count = scipy.ndimage.label(tissue)
    if not count:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept = (sizes >= _PART * sizes.max())[parts]
    # What opening took off the body's edge comes back, and blocks need not divide a side.
    kept = scipy.ndimage.binary_dilation(kept, cross)
    return np.stack([_hull(image) for image in kept])


def _coarse(image: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Means over blocks of step[0] x step[1] pixels; the last block of a side may be a smaller one, continued."""
    short = -np.array(image.shape) % step
    image = np.pad(image.astype(np.float32), [(0, side) for side in short], mode='edge')
    rows, columns = np.array(image.shape) // step
    return image.reshape(rows, step[0], columns, step[1]).mean((1, 3))


def _hull(mask: np.ndarray) -> np.ndarray:
    """The convex hull of a mask [h, w] bool."""
    places = np.argwhere(mask)
    if len(places) < 3 or (np.ptp(places, axis=0) == 0).any():
        return mask
    corners = places[scipy.spatial.ConvexHull(places, qhull_options='QJ').vertices]
    hull = Image.new('1', mask.shape[::-1])
    ImageDraw.Draw(hull).polygon([(int(column), int(row)) for row, column in corners], fill=1)
    return np.asarray(hull) | mask


def touches(body: np.ndarray, top: float, left: float, bottom: float, right: float) -> bool:
    """Whether a box of a slice, in shares of its height and width, holds a pixel of its body [h, w]."""
    (h, w), (low, high) = body.shape, np.clip(((top, left), (bottom, right)), 0, 1)
    rows = slice(int(low[0] * h), int(np.ceil(high[0] * h)))
    columns = slice(int(low[1] * w), int(np.ceil(high[1] * w)))
    return bool(body[rows, columns].any())
