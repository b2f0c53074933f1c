"""Reads NIfTI (.nii, .nii.gz, versions 1 and 2), turned to what a radiologist sees.

Slices lie along the axis of length 1, else along the axis whose spacing is largest by more than 5 %, else along
head-foot (axial). Then
            top        left      slices run to
  axial     anterior   right     the head
  coronal   head       right     the back
  sagittal  head       anterior  the right
which is how DICOM orders them as well: to the cross product of the directions of columns and rows. A file without an
orientation (both codes 0) is taken as columns, rows, slices, none turned. `Volume.to_file_order` is the way back.
"""

import gzip
import math
import pathlib
import zlib

import numpy as np

from ambdiff.data.files.signature import GZIP, nifti_version
from ambdiff.data.files.volume import Volume, check_size
from ambdiff.errors import UserError

_MAX_OFFSET = 1 << 26  # bytes of extensions before the values
_MAX_TRAILING = 1 << 16  # bytes of padding after them
_MAX_MM = 1e6  # from the origin
_LARGEST_BY = 1.05
# Slices' axis (0 right, 1 anterior, 2 superior) -> the axis and direction that slices, rows and columns run to.
_VIEWS = {
    2: ((2, 1), (1, -1), (0, -1)),
    1: ((1, -1), (2, -1), (0, -1)),
    0: ((0, 1), (2, -1), (1, -1)),
}


def read(path: pathlib.Path, channels: int) -> Volume:
    """The volume of a file, [Z, H, W, C]; its fourth axis, where it has one, is `channels` long.

    Raises:
      UserError: not NIfTI, truncated, damaged, larger than is read, or of another number of volumes; names the file.
    """
    import nibabel  # takes half a second, and most data needs none of it

    try:
        with path.open('rb') as file:
            zipped = file.read(2) == GZIP
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if zipped else file
            head = stream.read(540)
            version = nifti_version(head)
            if not version or len(head) < (352, 540)[version - 1]:
                raise UserError(f'{path}: not a NIfTI file, or cut off in its header; copy or export it again')
            kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
            header = kind(head[: kind.template_dtype.itemsize], check=False)
            shape, dtype, offset = _claims(path, header, channels)
            most = None if zipped else path.stat().st_size
            stored = _values(path, stream, head, offset, shape, dtype, most)
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
    return _as_seen(stored, affine, np.multiply(zooms, unit), unit)


def _claims(path, header, channels):
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


def _values(path, stream, head, offset, shape, dtype, most):
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
        return Volume(stored.transpose(2, 1, 0, 3), 'nifti', spacing=spacing, file_axes=(2, 1, 0), notes=notes)
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
        values,
        'nifti',
        spacing=spacing,
        affine=affine @ back,
        file_axes=tuple(axes),
        file_flips=tuple(flips),
        notes=notes,
    )


def _line(error):
    return ' '.join(str(error).split())[:160]
