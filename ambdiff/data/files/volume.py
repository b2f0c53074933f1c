"""A 2-D image or a 3-D volume as files hold it: values and geometry, before it becomes examples.

Every reader of a user's image files returns it; axes are (slice, row, column, channel) whatever the file's own order.
"""

import dataclasses
import math

import numpy as np

from ambdiff.data.example import check_side
from ambdiff.errors import UserError

SCALED = 'scaled'
MAX_MM = 1e6  # from the origin of any scanner
_LENGTHS = (1e-6, 1e3)  # mm: of a pixel, a slice or the distance of slices
MAX_VALUES = 1 << 29  # values a file may claim, a 512 x 512 CT of 2048 slices; more is refused before it is decoded


@dataclasses.dataclass(frozen=True)
class Volume:
    """Values with their place in the world.

    Attributes:
      values: [Z, H, W, C] as stored (rescaled, where the file says how); Z = 1 for a 2-D image.
      kind: 'picture' (PNG, JPEG, TIFF, an array), 'nifti' or 'dicom'.
      units: 'HU' for calibrated CT, SCALED for values that are in the [0, 1] of the networks, else 'arbitrary'.
      spacing: (slice, row, column) distance in mm, NaN where unknown.
      affine: [4, 4], (slice, row, column, 1) -> (right, anterior, superior, 1) in mm; None where unknown.
      file_axes: the file's own array axis that slices, rows and columns lie along.
      file_flips: whether slices, rows and columns run against that axis.
      forms: NIfTI only: its sform and its qform, each ([4, 4], the file's own indices to (right, anterior, superior)
        mm; its code) or None.
      files: DICOM only: the file of each slice.
      frames: DICOM only: the frame of that file each slice is, counted from 0.
      orientation: pictures only: the turn that the file asks to be shown in, 1 (none) .. 8 as EXIF counts; the values
        are as stored.
      white: pictures only: the value that is shown white, 0 where there is none.
      notes: what was converted or left out in reading, a phrase each.
    """

    values: np.ndarray
    kind: str = 'picture'
    units: str = 'arbitrary'
    spacing: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    affine: np.ndarray | None = None
    file_axes: tuple[int, int, int] = (0, 1, 2)
    file_flips: tuple[bool, bool, bool] = (False, False, False)
    forms: tuple[tuple[np.ndarray, int] | None, ...] = (None, None)
    files: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    orientation: int = 1
    white: int = 0
    notes: tuple[str, ...] = ()

    def to_file_order(self, result: np.ndarray) -> np.ndarray:
        """A result on the volume's slices, [Z, H, W, ...], in the file's own axes and directions, [3 axes, ...]."""
        flipped = [axis for axis, flip in enumerate(self.file_flips) if flip]
        return np.moveaxis(np.flip(result, flipped), (0, 1, 2), self.file_axes)

    def from_file_order(self, stored: np.ndarray) -> np.ndarray:
        """What lies in the axes and directions of the volume's file, [3 axes, ...], on its slices, [Z, H, W, ...]."""
        flipped = [axis for axis, flip in enumerate(self.file_flips) if flip]
        return np.flip(np.moveaxis(stored, self.file_axes, (0, 1, 2)), flipped)


def length(value) -> float:
    """A spacing, distance or thickness in mm as a file states it; NaN (unknown) where it is no such number."""
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan
    return value if _LENGTHS[0] <= value <= _LENGTHS[1] else np.nan


def same_length(one: float, other: float) -> bool:
    """Whether two sources of one length agree to 1 %, or one of them is unknown."""
    return not abs(one - other) > 0.01 * min(one, other)


def check_size(where: str, shape: tuple[int, ...]) -> None:
    """Refuses what a header claims, [Z, H, W, ...], where it is empty or larger than any image this is meant for.

    Raises:
      UserError: naming `where`.
    """
    check_side(where, *shape[1:3])
    if min(shape) < 1 or shape[0] > MAX_VALUES or math.prod(shape) > MAX_VALUES:
        raise UserError(
            f'{where}: claims {"x".join(map(str, shape))} values; 1 to {MAX_VALUES} are read, so crop it or split it'
        )
