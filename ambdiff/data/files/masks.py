"""What the stored values of a mask mean.

A mask holds 0 and 1, or 0 and white (255; 65535 at 16 bit, 15 at 4); with config.data.num_classes = K > 1, labels 0 ..
K. JPEG is lossy, so a JPEG mask is thresholded at half, and refused where it is not nearly black and white or has
classes. Any other value is refused, never rounded; what palettes and transparency mean stands in
`ambdiff.data.files.pictures`.
"""

import pathlib

import numpy as np

from ambdiff.data.files import images as image_files
from ambdiff.errors import UserError

_WHITE = (1, 255, 65535)


def stack(path: pathlib.Path, num_classes: int) -> np.ndarray:
    """The masks of a file by itself, uint8 [K, Z, H, W]: K along the fourth axis of a NIfTI, else 1.

    Raises:
      UserError: unreadable, or of other values than a mask has.
    """
    volume = image_files.read(path, channels=image_files.count_channels(path), classes=num_classes)
    values = np.moveaxis(volume.values, -1, 0)
    return labels(path, values, num_classes, is_jpeg(path), volume.white)


def is_jpeg(path: pathlib.Path) -> bool:
    """Whether a file is JPEG, by its first bytes."""
    with path.open('rb') as file:
        return file.read(3) == b'\xff\xd8\xff'


def labels(
    path: pathlib.Path | str, values: np.ndarray, num_classes: int, lossy: bool = False, white: int = 0
) -> np.ndarray:
    """Stored values of a mask -> uint8 of the same shape: 0 and 1, or 0 .. K, by the rule of the module docstring."""
    if lossy:
        if num_classes > 1:
            raise UserError(f'{path}: JPEG blurs labels; store masks of {num_classes} classes as PNG, TIFF or NIfTI')
        if 0 < values.max() <= 127 or np.mean((values > 63) & (values < 192)) > 0.05:
            raise UserError(f'{path}: not black and white (grey up to {values.max()}); store the mask as 0 and 255')
        return (values > 127).astype(np.uint8)
    found = np.unique(values)
    if num_classes > 1:
        if not np.isin(found, np.arange(num_classes + 1)).all():
            raise UserError(
                f'{path}: holds the values {_some(found)}; with config.data.num_classes={num_classes} they are '
                f'0 .. {num_classes}'
            )
        return values.astype(np.uint8)
    above = found[found != 0]
    if len(above) > 1 or (len(above) == 1 and above[0] not in (*_WHITE, white)):
        raise UserError(
            f'{path}: not a mask of yes and no, holds the values {_some(found)}; store 0 and 1 or 0 and 255, or set '
            '--config.data.num_classes for label maps'
        )
    return (values != 0).astype(np.uint8)


def _some(found):
    """Values as text, told apart from what they would round to."""
    text = lambda value: f'{value:g}' if float(f'{value:g}') == value else repr(value)
    shown = [text(value) for value in found.astype(float).tolist()]
    return ', '.join(shown) if len(shown) < 5 else f'{", ".join(shown[:4])} .. {shown[-1]}'
