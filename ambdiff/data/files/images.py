"""Reads a user's image file, told by its content: PNG, JPEG, TIFF, NIfTI or DICOM.

Pictures are read by `ambdiff.data.files.pictures`, NIfTI by `ambdiff.data.files.nifti`, DICOM by
`ambdiff.data.files.dicom`; each says what it makes of what its files claim. Colour becomes luminance (ITU-R 601) unless
three channels are asked for.

What a header claims is checked against bounds and against the file's length before anything is decoded, and at most
what it claims is decompressed. Truncated files are refused, never half read.
"""

import os
import pathlib

import numpy as np

from ambdiff.data.files import nifti, pictures, signature
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError

_LUMA = np.array([0.299, 0.587, 0.114])


def read(path: str | os.PathLike, *, channels: int = 1, classes: int = 0) -> Volume:
    """The image of a file, or of a folder with one DICOM series.

    Args:
      path: PNG, JPEG, TIFF, NIfTI or DICOM; whatever its name says, its content decides.
      channels: 1; 3 keeps the colours of a picture; K reads the 4th axis of a NIfTI as K channels.
      classes: 0 for an image; K for a rater's mask of K classes, which is a picture or NIfTI whose values are labels:
        what says otherwise, as colour does, is refused.

    Returns:
      A Volume with values [Z, H, W, channels].

    Raises:
      UserError: not such a file, truncated, damaged, larger than is read, or of other channels; one line that names
        the file.
    """
    path = pathlib.Path(path)
    try:
        head = None if path.is_dir() else _head(path, 132)
        if head is None or signature.is_dicom(path, head):
            if classes:
                raise UserError(f'{path}: a mask in DICOM is not read; store it as PNG, TIFF or NIfTI')
            # Imported here: it takes long, and most data needs none of it.
            from ambdiff.data.files import dicom

            volume = dicom.read_series(path) if head is None else dicom.read_slice(path)
            volume = _with_channels(path, volume, channels, classes)
        elif head.startswith(signature.PICTURES):
            volume = pictures.read(path, channels=channels, classes=classes)
        elif head.startswith(signature.GZIP) or signature.nifti_version(head):
            volume = _with_channels(path, nifti.read(path, channels), channels, classes)
        else:
            raise UserError(_strange(path))
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from error
    except MemoryError as error:
        raise UserError(f'{path}: takes more memory than there is; crop it or split it') from error
    except UserError:
        raise
    except Exception as error:  # a stranger's file can break a reader in any way
        raise UserError(
            f'{path}: damaged, or of a kind that is not read ({type(error).__name__}: {_line(error)}); export it again'
        ) from error
    if volume.values.shape[-1] != channels:
        raise UserError(
            f'{path}: has {volume.values.shape[-1]} channels, but {channels} {"is" if channels == 1 else "are"} read: '
            'config.data.channels in training, what the weights take in prediction'
        )
    return finite(path, volume, classes)


def count_channels(path: pathlib.Path) -> int:
    """The length of a NIfTI's fourth axis; 1 of any other file, and of one that cannot be read, which `read` tells."""
    import nibabel

    try:
        head = _head(path, 4)
        if not head.startswith(signature.GZIP) and not signature.nifti_version(head):
            return 1
        shape = nibabel.load(path).shape
    except Exception:  # a stranger's file can break a reader in any way
        return 1
    return max([size for size in shape[3:] if size > 1], default=1)


def strange(path: pathlib.Path) -> str:
    """What a file is that is no image of a kind that is read, one line that names it; '' where its start is one's."""
    try:
        head = _head(path, 8)
        image = head.startswith((*signature.PICTURES, signature.GZIP)) or signature.nifti_version(head[:4])
        return '' if image or signature.is_dicom(path) else _strange(path)
    except OSError as error:
        return f'{path}: cannot be read ({error.strerror or error})'


def _strange(path):
    what = signature.foreign(_head(path, 16)) or 'not a PNG, JPEG, TIFF, NIfTI or DICOM file; export it as one'
    if path.suffix.lower() == '.img' and path.with_suffix('.hdr').exists():
        what = 'the values of a .hdr/.img pair; convert the pair to one .nii.gz file'
    return f'{path}: {what if path.stat().st_size else "an empty file; copy or export it again"}'


def require_hu(path: str | os.PathLike, volume: Volume) -> None:
    """Refuses to read a file as Hounsfield units that holds none.

    DICOM says which it holds. NIfTI does not; CT converted to it keeps HU, which are negative in air and fat, so a
    file with negative values is taken at the user's word.

    Raises:
      UserError: naming the file and the intensity to set.
    """
    if volume.units == 'HU' or (not volume.files and volume.values.min() < 0):
        return
    low, high = volume.values.min(), volume.values.max()
    raise UserError(
        f'{path}: holds no HU (values {low:g} to {high:g}), but config.data.intensity is hu_window; set '
        '--config.data.intensity=full_range for pictures or percentile for MRI and ultrasound volumes'
    )


def check_intensity(path: str | os.PathLike, image: Volume, kind: str) -> None:
    """Refuses an intensity, one of `ambdiff.data.files.intensity.KINDS`, that does not fit what the file stores.

    Raises:
      UserError: naming the file and the intensity to set.
    """
    if kind == 'hu_window':
        require_hu(path, image)
    stored = image.values.dtype
    in_unit = np.issubdtype(stored, np.floating) and image.values.min() >= 0 and image.values.max() <= 1
    if kind == 'full_range' and stored not in (np.uint8, np.uint16) and not in_unit:
        low, high = image.values.min(), image.values.max()
        raise UserError(
            f'{path}: holds {low:g} to {high:g} as {stored}; config.data.intensity=full_range is for 8- and 16-bit '
            'pictures, set --config.data.intensity=percentile (or hu_window for CT)'
        )


def _head(path, count):
    with path.open('rb') as file:
        return file.read(count)


def _line(error):
    return ' '.join(str(error).split())[:160]


def _with_channels(path, volume, channels, classes):
    """The volume with its colours as luminance, where one channel is wanted."""
    if channels != 1 or volume.values.shape[-1] != 3:
        return volume
    if classes and (volume.values != volume.values[..., :1]).any():
        raise UserError(f'{path}: a mask in colour; store one value a class')
    grey = (volume.values @ _LUMA)[..., None]
    stored = volume.values.dtype
    if np.issubdtype(stored, np.integer):
        grey = np.rint(grey).clip(np.iinfo(stored).min, np.iinfo(stored).max).astype(stored)
    return _replace(volume, values=grey, notes=(*volume.notes, pictures.COLOUR))


def _replace(volume, **changes):
    return Volume(**{**vars(volume), **changes})


def finite(path: str | os.PathLike, volume: Volume, classes: int = 0) -> Volume:
    """The volume without NaN and infinities: the smallest value takes their place; in masks (`classes`) none may be.

    Raises:
      UserError: naming the file.
    """
    values = volume.values
    if not np.issubdtype(values.dtype, np.floating):
        return volume
    known = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(known))
    if not bad:
        return volume
    if classes or bad == values.size:
        raise UserError(f'{path}: {bad} of {values.size} values are NaN or infinite; mend or drop it')
    values = np.where(known, values, values[known].min())
    return _replace(volume, values=values, notes=(*volume.notes, f'{bad} NaN or infinite values set to the smallest'))
