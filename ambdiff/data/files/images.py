"""Reads a user's image file, told by its content: PNG, JPEG, TIFF, NIfTI or DICOM.

Pictures (PNG, JPEG, TIFF; 8 and 16 bit, TIFF also 32-bit and float) are read as stored, pages of a TIFF as slices.
Colour becomes luminance (ITU-R 601) unless three channels are asked for; Pillow reads 16-bit colour at 8 bits. An
EXIF turn is not applied, since masks carry none.

NIfTI is read by `ambdiff.data.files.nifti`, DICOM by `ambdiff.data.files.dicom`.

What a header claims is checked against bounds and against the file's length before anything is decoded, and at most
what it claims is decompressed. Truncated files are refused, never half read.
"""

import os
import pathlib
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from ambdiff.data.files import nifti, signature
from ambdiff.data.files.volume import Volume, check_size
from ambdiff.errors import UserError

_LUMA = np.array([0.299, 0.587, 0.114])


def read(path: str | os.PathLike, *, channels: int = 1, labels: bool = False) -> Volume:
    """The image of a file, or of a folder with one DICOM series.

    Args:
      path: PNG, JPEG, TIFF, NIfTI or DICOM; whatever its name says, its content decides.
      channels: 1; 3 keeps the colours of a picture; K reads the 4th axis of a NIfTI as K channels.
      labels: the file is a mask: a palette's indices are its values, and colour is refused.

    Returns:
      A Volume with values [Z, H, W, channels].

    Raises:
      UserError: not such a file, truncated, damaged, larger than is read, or of other channels; one line that names
        the file.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir() or signature.is_dicom(path):
            # Imported here: it takes long, and most data needs none of it.
            from ambdiff.data.files import dicom

            volume = dicom.read_series(path) if path.is_dir() else dicom.read_slice(path)
            volume = _with_channels(volume, channels)
        elif _head(path, 8).startswith(signature.PICTURES):
            volume = _read_picture(path, channels, labels)
        elif (head := _head(path, 4)).startswith(signature.GZIP) or signature.nifti_version(head):
            volume = _with_channels(nifti.read(path, channels), channels)
        else:
            what = signature.foreign(_head(path, 16)) or 'not a PNG, JPEG, TIFF, NIfTI or DICOM file; export it as one'
            if path.suffix.lower() == '.img' and path.with_suffix('.hdr').exists():
                what = 'the values of a .hdr/.img pair; convert the pair to one .nii.gz file'
            raise UserError(f'{path}: {what if path.stat().st_size else "an empty file; copy or export it again"}')
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from error
    except MemoryError as error:
        raise UserError(f'{path}: takes more memory than there is; crop it or split it') from error
    if volume.values.shape[-1] != channels:
        raise UserError(
            f'{path}: has {volume.values.shape[-1]} channels, but config.data.channels is {channels}; '
            'set it to what the files hold'
        )
    return _finite(path, volume, labels)


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


def _head(path, count):
    with path.open('rb') as file:
        return file.read(count)


def _line(error):
    return ' '.join(str(error).split())[:160]


def _with_channels(volume, channels):
    """The volume with its colours as luminance, where one channel is wanted."""
    if channels != 1 or volume.values.shape[-1] != 3:
        return volume
    grey = (volume.values @ _LUMA)[..., None]
    stored = volume.values.dtype
    if np.issubdtype(stored, np.integer):
        grey = np.rint(grey).clip(np.iinfo(stored).min, np.iinfo(stored).max).astype(stored)
    return _replace(volume, values=grey, notes=(*volume.notes, 'colour converted to luminance'))


def _replace(volume, **changes):
    return Volume(**{**vars(volume), **changes})


def _finite(path, volume, labels):
    """The volume without NaN and infinities: the smallest value takes their place, or, in masks, they are refused."""
    values = volume.values
    if not np.issubdtype(values.dtype, np.floating):
        return volume
    known = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(known))
    if not bad:
        return volume
    if labels or bad == values.size:
        raise UserError(f'{path}: {bad} of {values.size} values are NaN or infinite; mend or drop it')
    values = np.where(known, values, values[known].min())
    return _replace(volume, values=values, notes=(*volume.notes, f'{bad} NaN or infinite values set to the smallest'))


def _read_picture(path, channels, labels):
    pages, notes = [], set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # oddities of the metadata; what cannot be decoded raises
            with Image.open(path, formats=('PNG', 'JPEG', 'TIFF')) as image:
                size, mode = image.size, image.mode
                check_size(str(path), (1, image.height, image.width))
                count = image.n_frames if image.format == 'TIFF' else 1
                check_size(str(path), (count, image.height, image.width, channels))
                for page in range(count):
                    if count > 1:
                        image.seek(page)
                    if (image.size, image.mode) != (size, mode):
                        raise UserError(
                            f'{path}: page {page} is {image.height}x{image.width} pixels of type {image.mode}, the '
                            f'first {size[1]}x{size[0]} of type {mode}; keep the pages of one image alike'
                        )
                    pages.append(_pixels(path, image, channels, labels, notes))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f'{path}: claims more pixels than any image; crop or resize it first') from error
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, OverflowError) as error:
        why = 'in its header' if isinstance(error, UnidentifiedImageError) else _line(error)
        raise UserError(f'{path}: truncated or damaged ({why}); copy or export it again') from error
    return Volume(np.stack(pages), notes=tuple(sorted(notes)))


def _pixels(path, image, channels, labels, notes):
    """[H, W, C] of the page the picture stands at; what was converted is added to notes."""
    if image.mode.startswith('I;16'):
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ('L', 'I', 'F') or (image.mode == 'P' and labels):
        return np.asarray(image)[..., None]
    if image.mode in ('1', 'LA', 'La'):
        return np.asarray(image.convert('L'))[..., None]
    colours = np.asarray(image.convert('RGB'))
    if (colours == colours[..., :1]).all() and channels == 1:
        return colours[..., :1]
    if labels:
        raise UserError(f'{path}: a mask in colour; store it in grey or with a palette, one value a class')
    if channels == 1:
        notes.add('colour converted to luminance')
        return np.asarray(image.convert('RGB').convert('L'))[..., None]
    return colours
