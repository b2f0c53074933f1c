"""What is read of a case, whatever its files are called: image, masks and the millimetres between them."""

import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np

from ambdiff.data.files import geometry


@dataclasses.dataclass(frozen=True)
class Read:
    """A case's values.

    Attributes:
      image: [Z, H, W, C] float32 in [0, 1].
      masks: uint8 [Z, M, H, W], those of the raters who are there.
      spacing: (slice, row, column) mm apart, NaN where unknown.
      notes: what was converted or left out in reading, a phrase each.
    """

    image: np.ndarray
    masks: np.ndarray
    spacing: tuple[float, float, float]
    notes: tuple[str, ...]


def at_spacing(
    path: pathlib.Path,
    image: np.ndarray,
    masks: np.ndarray,
    spacing: tuple[float, float, float],
    notes: Iterable[str],
    target: float,
) -> Read:
    """The Read of these values, with rows and columns resampled to `target` mm where that is above 0.

    Raises:
      UserError: naming `path`: the spacing is not known, or the result would be too large.
    """
    if target > 0:
        image, masks = geometry.resampled(path, image, masks, spacing[1:], target)
        spacing = (spacing[0], target, target)
    return Read(image, masks, spacing, tuple(dict.fromkeys(notes)))
