"""The example dict that every reader yields, made from one case's image and masks.

  image    float32 [H, W, C] in [0, 1]
  masks    uint8 [M, H, W] in {0, 1}, one a rater
  case     str, unique in its split
  patient  str, '' where unknown
  spacing  float32 [2], mm a row and a column, NaN where unknown

Raters are anonymous and missing readers tend to come last, so the order of the masks carries no
meaning: it is shuffled, by a draw that depends on the case alone.
"""

import numpy as np
from PIL import Image

from ambdiff.errors import UserError

SPLITS = ('train', 'validation', 'test')
FITS = ('crop', 'resize')
MAX_SIDE = 4096  # pixels; a larger claim in a header is refused before anything is decoded
MEMORY_LIMIT = 2 << 30  # bytes; a smaller split is read once and kept, a larger one case by case

Example = dict[str, np.ndarray | str]


def make(
    image: np.ndarray,
    masks: np.ndarray,
    *,
    case: str,
    patient: str,
    index: int,
    size: int,
    fit: str,
    spacing: tuple[float, float] = (np.nan, np.nan),
) -> Example:
    """One example from image [H, W] in [0, 1] and masks [M, H, W] in {0, 1} of any size.

    Args:
      image: pixel values in [0, 1].
      masks: one mask a rater.
      case: the case's name.
      patient: the patient's name, '' where unknown.
      index: the case's place in its split; fixes the order of the raters.
      size: height and width of the result.
      fit: 'crop' (centre crop, reflected or empty border) or 'resize'.
      spacing: mm a row and a column before fitting.
    """
    order = np.random.default_rng((0x0A3BD1FF, index)).permutation(len(masks))
    masks = masks[order]
    if fit == 'resize':
        spacing = np.multiply(spacing, np.array(image.shape) / size)
        image = np.asarray(
            Image.fromarray(np.asarray(image, np.float32)).resize((size, size), Image.Resampling.BILINEAR)
        ).clip(0, 1)
        masks = np.stack(
            [
                np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
                for mask in np.asarray(masks, np.uint8)
            ]
        )
    else:
        image = centre(image, size, 'reflect')
        masks = centre(masks, size, 'constant')
    return {
        'image': np.ascontiguousarray(image[..., None], np.float32),
        'masks': np.ascontiguousarray(masks, np.uint8),
        'case': case,
        'patient': patient,
        'spacing': np.asarray(spacing, np.float32),
    }


def centre(x: np.ndarray, size: int, border: str) -> np.ndarray:
    """The centre size x size of x [..., H, W]; where x is smaller, a border as in numpy.pad."""
    height, width = x.shape[-2:]
    top, left = max(height - size, 0) // 2, max(width - size, 0) // 2
    x = x[..., top : top + size, left : left + size]
    rows, columns = size - x.shape[-2], size - x.shape[-1]
    if not (rows or columns):
        return x
    margins = [(0, 0)] * (x.ndim - 2)
    margins += [(rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)]
    return np.pad(x, margins, mode=border)


def check_side(where: str, height: int, width: int) -> None:
    """Refuses images that are empty or of more than MAX_SIDE pixels a side.

    Raises:
      UserError: naming `where`.
    """
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise UserError(
            f'{where}: an image of {height}x{width} pixels; 1 to {MAX_SIDE} a side are read, so crop or resize it first'
        )
