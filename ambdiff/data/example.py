"""The example dict that every reader yields, made from one case's image and masks.

  image    float32 [H, W, C] in [0, 1]
  masks    uint8 [M, H, W] in {0, 1}, one a rater; labels 0 .. K where data.num_classes = K > 1
  present  bool [M], False where no rater filled the slot: its mask is zeros and counts for nothing, least of all as an
           empty answer
  case     str, unique in its split
  patient  str, '' where unknown
  spacing  float32 [2], mm a row and a column, NaN where unknown

Raters are anonymous and missing readers tend to come last, so the order of the masks carries no
meaning: it is shuffled, in a way that depends on the case alone.
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
    present: np.ndarray | None = None,
) -> Example:
    """One example from image [H, W] or [H, W, C] in [0, 1] and masks [M, H, W] of any size.

    Args:
      image: pixel values in [0, 1].
      masks: one mask a rater.
      case: the case's name.
      patient: the patient's name, '' where unknown.
      index: the case's place in its split; fixes the order of the raters.
      size: height and width of the result.
      fit: 'crop' (centre crop, reflected or empty border) or 'resize'.
      spacing: mm a row and a column before fitting.
      present: bool [M], the slots that a rater filled (`padded` makes it); None = all.
    """
    image = image if image.ndim == 3 else image[..., None]
    present = np.ones(len(masks), bool) if present is None else np.asarray(present)
    order = slots(index, len(masks))
    masks, present = masks[order], present[order]
    if fit == 'resize':
        spacing = np.multiply(spacing, np.array(image.shape[:2]) / size)
        channels = np.moveaxis(np.asarray(image, np.float32), -1, 0)
        resized = [Image.fromarray(c).resize((size, size), Image.Resampling.BILINEAR) for c in channels]
        image = np.stack(resized, axis=-1).clip(0, 1)
        masks = np.stack(
            [
                np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
                for mask in np.asarray(masks, np.uint8)
            ]
        )
    else:
        image = np.moveaxis(centre(np.moveaxis(image, -1, 0), size, 'reflect'), 0, -1)
        masks = centre(masks, size, 'constant')
    return {
        'image': np.ascontiguousarray(image, np.float32),
        'masks': np.ascontiguousarray(masks, np.uint8),
        'present': present,
        'case': case,
        'patient': patient,
        'spacing': np.asarray(spacing, np.float32),
    }


def slots(index: int, count: int) -> np.ndarray:
    """Which of `count` raters is in each slot of an example's masks; `index` as of `make`."""
    return np.random.default_rng((0x0A3BD1FF, index)).permutation(count)


def padded(where: str, masks: np.ndarray, num_raters: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks [K, H, W] of a case with 1 to M = `num_raters` raters -> ([M, H, W], present [M]).

    Raises:
      UserError: naming `where`: no rater at all, or more than M.
    """
    count = len(masks)
    if not 0 < count <= num_raters:
        cure = f'set --config.data.num_raters={count}' if count else 'give it at least one, or remove the case'
        raise UserError(f'{where}: {count} masks, but config.data.num_raters is {num_raters}; {cure}')
    return np.pad(masks, ((0, num_raters - count), (0, 0), (0, 0))), np.arange(num_raters) < count


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
