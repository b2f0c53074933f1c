"""A 2-D image or a 3-D volume as files hold it: values and geometry, before it becomes examples.

Every reader of a user's image files returns it; axes are (slice, row, column, channel) whatever the file's own order.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Volume:
    """Values with their place in the world.

    Attributes:
      values: [Z, H, W, C] as stored (rescaled, where the file says how); Z = 1 for a 2-D image.
      units: 'HU' for calibrated CT, else 'arbitrary'.
      spacing: (slice, row, column) distance in mm, NaN where unknown.
      affine: [4, 4], (slice, row, column, 1) -> (right, anterior, superior, 1) in mm; None where unknown.
    """

    values: np.ndarray
    units: str = 'arbitrary'
    spacing: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    affine: np.ndarray | None = None
