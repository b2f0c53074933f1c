"""Reads a user's image file, told by its content: PNG, JPEG, TIFF, NIfTI or DICOM.

Pictures (PNG, JPEG, TIFF; 8 and 16 bit, TIFF also 32-bit and float) are read as stored, pages of a TIFF as slices.
Colour becomes luminance (ITU-R 601) unless three channels are asked for; Pillow reads 16-bit colour at 8 bits. An
EXIF turn is not applied, since masks carry none.

NIfTI (.nii, .nii.gz, versions 1 and 2) is turned to what a radiologist sees. Slices lie along the axis of length 1,
else along the axis whose spacing is largest by more than 5 %, else along head-foot (axial). Then
            top        left      slices run to
  axial     anterior   right     the head
  coronal   head       right     the back
  sagittal  head       anterior  the right
which is how DICOM orders them as well: to the cross product of the directions of columns and rows. A file without an
orientation (both codes 0) is taken as columns, rows, slices, none turned. `Volume.to_file_order` is the way back.

What a header claims is checked against bounds and against the file's length before anything is decoded, and at most
what it claims is decompressed. Truncated files are refused, never half read.
"""

import gzip
import math
import os
import pathlib
import warnings
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from ambdiff.data.files.volume import Volume, check_size
from ambdiff.errors import UserError

_PICTURES = (b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff', b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_NIFTI_SIZES = {348: 1, 540: 2}  # the header's length, its first number -> version
_MAX_OFFSET = 1 << 26  # bytes of extensions before a NIfTI's values
_MAX_TRAILING = 1 << 16  # bytes of padding after them
_MAX_MM = 1e6  # from the origin
_LARGEST_BY = 1.05
_LUMA = np.array([0.299, 0.587, 0.114])
# Slices' axis (0 right, 1 anterior, 2 superior) -> the axis and direction that slices, rows and columns run to.
_VIEWS = {
    2: ((2, 1), (1, -1), (0, -1)),
    1: ((1, -1), (2, -1), (0, -1)),
    0: ((0, 1), (2, -1), (1, -1)),
}


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
        if path.is_dir() or _is_dicom(path):
            # Imported here: it takes long, and most data needs none of it.
            from ambdiff.data.files import dicom

            volume = dicom.read_series(path) if path.is_dir() else dicom.read_slice(path)
            volume = _with_channels(volume, channels)
        elif _head(path, 8).startswith(_PICTURES):
            volume = _read_picture(path, channels, labels)
        elif _head(path, 2) == b'\x1f\x8b' or _nifti_version(_head(path, 4)):
            volume = _read_nifti(path, channels)
        else:
            what = 'an empty file' if not path.stat().st_size else 'not a PNG, JPEG, TIFF, NIfTI or DICOM file'
            raise UserError(f'{path}: {what}; copy or export it again')
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


def _is_dicom(path):
    head = _head(path, 132)
    # Some archives strip the preamble: such a file starts with the group 0008, little-endian.
    return head[128:] == b'DICM' or (head[:4] in (b'\x08\0\0\0', b'\x08\0\x05\0', b'\x08\0\x08\0', b'\x08\0\x16\0'))


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


def _nifti_version(head):
    sizes = {int.from_bytes(head[:4], order) for order in ('little', 'big')}
    return next((_NIFTI_SIZES[size] for size in sizes if size in _NIFTI_SIZES), 0)


def _read_nifti(path, channels):
    import nibabel  # takes half a second, and most data needs none of it

    try:
        with path.open('rb') as file:
            zipped = file.read(2) == b'\x1f\x8b'
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if zipped else file
            head = stream.read(540)
            version = _nifti_version(head)
            if not version or len(head) < (352, 540)[version - 1]:
                raise UserError(f'{path}: not a NIfTI file, or cut off in its header; copy or export it again')
            kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
            header = kind(head[: kind.template_dtype.itemsize], check=False)
            shape, dtype, offset = _nifti_claims(path, header, channels)
            most = None if zipped else path.stat().st_size
            stored = _nifti_values(path, stream, head, offset, shape, dtype, most)
        slope, intercept = header.get_slope_inter()
        affine = header.get_best_affine() if header['sform_code'] > 0 or header['qform_code'] > 0 else None
        unit = {'meter': 1000.0, 'micron': 0.001}.get(header.get_xyzt_units()[0], 1.0)
        zooms = (*header.get_zooms(), 1.0, 1.0)[:3]
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f'{path}: the gzip stream is truncated or damaged; copy or export it again') from error
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, nibabel.spatialimages.HeaderDataError) as error:
        raise UserError(f'{path}: its NIfTI header is damaged ({_line(error)}); export it again') from error
    if slope is not None and (slope, intercept) != (1, 0):
        with np.errstate(all='ignore'):  # what overflows is told as infinite
            stored = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return _with_channels(_as_seen(stored, affine, np.multiply(zooms, unit), unit), channels)


def _nifti_claims(path, header, channels):
    """(shape [X, Y, Z, C], type, offset) of the values a header claims, refused where they cannot be."""
    if header['magic'].item().rstrip(b'\0') not in (b'n+1', b'n+2'):
        raise UserError(f'{path}: the header of a .hdr/.img pair; convert it to one .nii file')
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header.get_data_offset())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    spatial, rest = (*shape, 1, 1)[:3] if len(shape) < 3 else shape[:3], shape[3:]
    rest = [size for size in rest if size != 1]  # vectors have a time axis of length 1
    if len(shape) < 2 or len(rest) > 1 or min(shape) < 1:
        raise UserError(f'{path}: an image of {"x".join(map(str, shape))}; 2-D and 3-D, and 4-D as channels, are read')
    if rest and rest[0] != channels:
        raise UserError(
            f'{path}: 4-D, {rest[0]} volumes in one file, but config.data.channels is {channels}; '
            f'set --config.data.channels={rest[0]} to read them as channels, or keep one volume a file'
        )
    if dtype.kind not in 'iufb' and dtype.names != ('R', 'G', 'B'):
        raise UserError(f'{path}: holds values of type {dtype}; convert them to integers or floats')
    if not 0 <= offset <= _MAX_OFFSET:
        raise UserError(f'{path}: says its values start at byte {offset}; the header is damaged, export it again')
    for side in spatial:  # any of them may become rows or columns
        check_size(str(path), (1, side, side))
    check_size(str(path), (spatial[2], *spatial[:2], *rest))
    return (*spatial, *(rest or [1])), dtype, offset


def _nifti_values(path, stream, head, offset, shape, dtype, most):
    """Values [X, Y, Z, C], at most as many bytes read as the header claims."""
    need = offset + math.prod(shape) * dtype.itemsize
    if most is not None and most < need:
        raise UserError(f'{path}: truncated, {most} bytes where its header claims {need}; copy or export it again')
    data = bytearray(max(need, len(head)))
    data[: len(head)] = head
    found = len(head)
    with memoryview(data) as view:
        while found < need and (count := stream.readinto(view[found:])):
            found += count
    if found < need:
        raise UserError(f'{path}: truncated, {found} bytes where its header claims {need}; copy or export it again')
    # Reading on to the end lets gzip check its sum; far more than was claimed is a header that lies.
    if len(stream.read(_MAX_TRAILING + 1)) > _MAX_TRAILING:
        raise UserError(f'{path}: holds more than the {need} bytes its header claims; export it again')
    stored = np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape, order='F')
    if dtype.names:
        return np.stack([stored[name][..., 0] for name in 'RGB'], -1)
    return stored.astype(dtype.newbyteorder('='), copy=False)


def _as_seen(stored, affine, zooms, unit):
    """The Volume of stored [X, Y, Z, C]: axes reordered and turned as the module docstring says."""
    import nibabel

    notes = ()
    if affine is not None:
        affine = np.diag([unit, unit, unit, 1.0]) @ affine
        sound = (np.abs(affine) < _MAX_MM).all()  # also not NaN
        turns = nibabel.orientations.io_orientation(affine) if sound else np.full((3, 2), np.nan)
        if not np.isfinite(turns).all() or abs(np.linalg.det(affine)) < 1e-12:
            affine, notes = None, ('its orientation is degenerate and ignored',)
    if affine is None:
        spacing = tuple(float(zooms[axis]) if zooms[axis] > 0 else np.nan for axis in (2, 1, 0))
        return Volume(stored.transpose(2, 1, 0, 3), spacing=spacing, file_axes=(2, 1, 0), notes=notes)
    sizes = nibabel.affines.voxel_sizes(affine)
    single = [axis for axis in range(3) if stored.shape[axis] == 1]
    largest = [axis for axis in range(3) if sizes[axis] * _LARGEST_BY > sizes.max()]
    through = single if len(single) == 1 else largest
    world = int(turns[through[0], 0]) if len(through) == 1 else 2
    axes, flips = [], []
    for axis, direction in _VIEWS[world]:
        axes.append(int(np.argmax(turns[:, 0] == axis)))
        flips.append(bool(turns[axes[-1], 1] != direction))
    values = np.flip(stored.transpose(*axes, 3), [axis for axis in range(3) if flips[axis]])
    # Index of the volume -> index of the file.
    back = np.zeros((4, 4))
    back[3, 3] = 1
    for axis, (file_axis, flip) in enumerate(zip(axes, flips, strict=True)):
        back[file_axis, axis] = -1 if flip else 1
        back[file_axis, 3] = stored.shape[file_axis] - 1 if flip else 0
    spacing = tuple(float(sizes[axis]) for axis in axes)
    return Volume(
        values, spacing=spacing, affine=affine @ back, file_axes=tuple(axes), file_flips=tuple(flips), notes=notes
    )
