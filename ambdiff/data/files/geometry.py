"""How an image and what is drawn on it lie in space: one size, one place, one spacing."""

import pathlib

import numpy as np
from PIL import Image

from ambdiff.data import example
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError


def check_size(path: pathlib.Path, mask: Volume, image_path: pathlib.Path, image: Volume) -> None:
    """Refuses a mask, or a further channel, of another size than its image.

    Raises:
      UserError: naming both files and their sizes.
    """
    if mask.values.shape[:3] != image.values.shape[:3]:
        raise UserError(
            f'{path}: {_size(mask)} pixels, but {image_path.name} is {_size(image)}; image and masks must have the '
            'same size'
        )


def _size(volume):
    slices, height, width = volume.values.shape[:3]
    return f'{height}x{width}' if slices == 1 else f'{slices} slices of {height}x{width}'


def check_place(path: pathlib.Path, mask: Volume, image_path: pathlib.Path, image: Volume) -> None:
    """Refuses a mask, or a further channel, that does not lie on its image as far as the two files tell.

    Raises:
      UserError: naming the file and how far it lies from the image.
    """
    if mask.affine is not None and image.affine is not None:
        slices, height, width = image.values.shape[:3]
        corners = np.array([[z, r, c, 1] for z in (0, slices - 1) for r in (0, height - 1) for c in (0, width - 1)])
        apart = np.abs((mask.affine - image.affine)[:3] @ corners.T).max()
        if apart > 0.5 * min(image.spacing[1:]):
            raise UserError(
                f'{path}: lies up to {apart:.3g} mm from {image_path.name} in space; resample it to that image'
            )
        return

    def turned(volume, plain):
        return volume.affine is not None and (volume.file_axes != plain or any(volume.file_flips))

    if image.orientation != mask.orientation:
        raise UserError(
            f'{path}: its EXIF orientation is {mask.orientation}, {image_path.name} has {image.orientation}, so one is '
            'shown turned; store both turned as they are shown, without an orientation'
        )
    # A picture's rows and columns are those of a NIfTI that is stored as columns, rows, slices, and of any DICOM.
    plain = (0, 1, 2) if image.files else (2, 1, 0)
    if turned(image, plain) or turned(mask, (2, 1, 0)):
        raise UserError(
            f'{path}: only one of it and {image_path.name} tells how it lies in space, and that one is turned; store '
            'both as NIfTI with one orientation'
        )


def resampled(path, image, masks, spacing, target):
    """Image [Z, H, W, C] (bilinear, antialiased) and masks [Z, M, H, W] (nearest) at `target` mm a pixel.

    Raises:
      UserError: naming `path`: the spacing is not known, or the result would be too large.
    """
    if not np.isfinite(spacing).all():
        raise UserError(f'{path}: has no pixel spacing to resample from; set --config.data.spacing=0')
    height, width = (max(1, round(n * mm / target)) for n, mm in zip(image.shape[1:3], spacing, strict=True))
    example.check_side(f'{path} at config.data.spacing={target}', height, width)
    resize = lambda plane, how: np.asarray(Image.fromarray(plane).resize((width, height), how))
    planes = np.moveaxis(image, -1, 1)
    planes = np.stack([[resize(plane, Image.Resampling.BILINEAR) for plane in z] for z in planes]).clip(0, 1)
    masks = np.stack([[resize(plane, Image.Resampling.NEAREST) for plane in z] for z in masks])
    return np.moveaxis(planes, 1, -1), masks
