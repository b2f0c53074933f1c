"""Reads NIfTI (.nii, .nii.gz, versions 1 and 2), turned to what a radiologist sees.

Slices lie along the axis of length 1, else along the axis whose spacing is largest by more than 5 %, else along
head-foot (axial). Then
            top        left      slices run to
  axial     anterior   right     the head
  coronal   head       right     the back
  sagittal  head       anterior  the right
which is how DICOM orders them as well: to the cross product of the directions of columns and rows. A file without an
orientation (both codes 0) is taken as columns, rows, slices, none turned. `Volume.to_file_order` is the way back.

Place and millimetres come from the sform, from the qform where the sform is none. Where the sform's voxels are of
another size than pixdim's by more than 1 % (a template's, or an identity that a converter left), pixdim counts, and the
qform, which it scales; only a pixdim of ones beside no qform is taken as not filled in. Lengths are millimetres unless
xyzt_units says otherwise. scl_slope of 0 or NaN means values as stored.
"""

import gzip
import math
import pathlib
import zlib

import numpy as np

from ambdiff.data.files import signature
from ambdiff.data.files.volume import MAX_MM, Volume, check_size, length, same_length
from ambdiff.errors import UserError

_FIRST = {1: 352, 2: 544}  # version -> the least byte at which the values of a single file begin
_MAX_OFFSET = 1 << 26  # bytes of extensions before the values
_MAX_TRAILING = 1 << 16  # bytes of padding after them
_MAX_EXPANSION = 1032  # of a byte by deflate
_LARGEST_BY = 1.05
_LARGE_MM = 100.0  # no pixel is larger, unless its unit is wrong
_UNITS = {1: 1000.0, 2: 1.0, 3: 0.001}  # code of xyzt_units: metre, millimetre, micrometre -> mm
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
            zipped = file.read(2) == signature.GZIP
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if zipped else file
            head = stream.read(_FIRST[2])
            version = _checked_version(path, head)
            kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
            order = '<' if int.from_bytes(head[:4], 'little') in signature.NIFTI_SIZES else '>'
            header = kind(head[: kind.template_dtype.itemsize], endianness=order, check=False)
            shape, dtype, offset = _claims(path, header, version, channels)
            size = path.stat().st_size
            stored = _values(path, stream, head, offset, shape, dtype, size, size * _MAX_EXPANSION if zipped else size)
        affine, spacing, forms, notes = _geometry(header, shape)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f'{path}: the gzip stream is truncated or damaged; copy or export it again') from error
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, nibabel.spatialimages.HeaderDataError) as error:
        why = ' '.join(str(error).split())[:160]
        raise UserError(f'{path}: its NIfTI header is damaged ({why}); export it again') from error
    slope, intercept = float(header['scl_slope']), float(header['scl_inter'])
    if slope and not np.isnan(slope) and not dtype.names:  # colours are never scaled
        if not np.isfinite([slope, intercept]).all():
            notes.append(f'scl_slope {slope:g} and scl_inter {intercept:g} are no scaling: values are as stored')
        elif (slope, intercept) != (1, 0):
            stored = stored.astype(np.float32)
            with np.errstate(all='ignore'):  # what overflows is told as infinite
                stored *= np.float32(slope)
                stored += np.float32(intercept)
    return _as_seen(stored, affine, spacing, forms, tuple(notes))


def _checked_version(path, head):
    version = signature.nifti_version(head)
    if not version:
        what = signature.foreign(head) or 'not a NIfTI file, or cut off in its header; copy or export it again'
        raise UserError(f'{path}: {what}')
    magic = head[344:348] if version == 1 else head[4:8]
    if magic[:2] != b'n+' and len(head) >= 348:
        raise UserError(f'{path}: the header of a .hdr/.img pair, or Analyze; convert the pair to one .nii.gz file')
    if len(head) < (352, 540)[version - 1]:
        raise UserError(f'{path}: cut off in its NIfTI header; copy or export it again')
    return version


def _claims(path, header, version, channels):
    """(shape [X, Y, Z, C], type, offset) of the values a header claims, refused where they cannot be."""
    if not 1 <= header['dim'][0] <= 7:
        raise UserError(f'{path}: its header claims {header["dim"][0]} dimensions; it is damaged, export it again')
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header.get_data_offset())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    spatial, rest = (*shape, 1, 1)[:3] if len(shape) < 3 else shape[:3], shape[3:]
    rest = [size for size in rest if size != 1]  # vectors have a time axis of length 1
    if len(shape) < 2 or len(rest) > 1 or min(shape) < 1:
        raise UserError(f'{path}: an image of {"x".join(map(str, shape))}; 2-D and 3-D, and 4-D as channels, are read')
    if rest and rest[0] != channels:
        raise UserError(
            f'{path}: 4-D, {rest[0]} volumes in one file, but {channels} {"is" if channels == 1 else "are"} read as '
            'channels (config.data.channels in training, what the weights take in prediction); keep so many a file'
        )
    colours = dtype.names == ('R', 'G', 'B')
    if (dtype.kind not in 'iufb' and not colours) or (colours and rest):
        code = int(header['datatype'])
        what = {1: 'bits', 1536: 'float128', 2304: 'colours with transparency'}.get(code, str(dtype))
        raise UserError(f'{path}: holds {what} (datatype {code}); convert it to integers or floats')
    if not _FIRST[version] <= offset <= _MAX_OFFSET:
        raise UserError(
            f'{path}: says its values start at byte {offset} (vox_offset), which is at least {_FIRST[version]}; '
            'the header is damaged, export it again'
        )
    for side in spatial:  # any of them may become rows or columns
        check_size(str(path), (1, side, side))
    check_size(str(path), (spatial[2], *spatial[:2], *rest))
    return (*spatial, *(rest or [1])), dtype, offset


def _values(path, stream, head, offset, shape, dtype, size, most):
    """Values [X, Y, Z, C], at most as many bytes read as the header claims; nothing is allocated beyond `most`."""
    need = offset + math.prod(shape) * dtype.itemsize
    if most < need:
        raise UserError(
            f'{path}: truncated, {size} bytes where its header claims {need} of header and values; copy or export it '
            'again'
        )
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


def _geometry(header, shape):
    """(affine [4, 4] or None, spacing along X, Y, Z in mm, (sform, qform) as `Volume.forms`, notes)."""
    from nibabel.affines import voxel_sizes

    unit = _UNITS.get(int(header['xyzt_units']) & 7, 1.0)
    pixdim = np.array(header['pixdim'], np.float64)
    zooms = np.array([length(step * unit) for step in pixdim[1:4].tolist()])
    long = np.array(shape[:3]) > 1  # along an axis of one voxel, writers leave what they like
    forms, notes = [], []
    for name, matrix in (('sform', _sform(header, unit)), ('qform', _qform(header, unit, zooms, long))):
        code = int(header[f'{name}_code'])
        sound = code > 0 and _is_sound(matrix)
        forms.append((matrix, code if code <= 5 else 1) if sound else None)
        if code > 0 and not sound:
            notes.append(f'its {name} is degenerate or no numbers, and ignored')
    sform, qform = (form[0] if form else None for form in forms)
    affine = qform if sform is None else sform
    if sform is not None and not all(map(same_length, voxel_sizes(sform)[long], zooms[long])):
        told = f'its sform has voxels of {_mm(voxel_sizes(sform))}, its pixdim says {_mm(zooms)}'
        if qform is None and (pixdim[1:4] == 1).all():
            notes.append(f'{told}; the sform counts, as a pixdim of ones is one not filled in')
        else:
            notes.append(f'{told}; pixdim counts')
            affine = qform if qform is not None else _scaled(sform, zooms)
    elif sform is not None and qform is not None:
        corners = [[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])]
        apart = np.linalg.norm(((sform - qform) @ np.transpose(corners))[:3], axis=0).max()
        if apart > 0.01 * np.linalg.norm(voxel_sizes(sform) * shape[:3]):
            notes.append(f'its sform and qform place it up to {apart:.3g} mm apart; the sform counts')
    spacing = zooms if affine is None else voxel_sizes(affine)
    spacing = np.where(long | np.isfinite(zooms), spacing, np.nan)
    if np.isnan(spacing[long]).any():
        notes.append(f'no spacing in mm: pixdim is {" x ".join(f"{step:g}" for step in pixdim[1:4])}')
    if (spacing[long] > _LARGE_MM).any():
        notes.append(f'voxels of {_mm(spacing)}: check xyzt_units, the unit of its lengths')
    return affine, spacing, tuple(forms), notes


def _sform(header, unit):
    matrix = np.eye(4)
    matrix[:3] = [[value * unit for value in header[f'srow_{axis}'].tolist()] for axis in 'xyz']
    return matrix


def _qform(header, unit, zooms, long):
    """By NIfTI-1: a quaternion's rotation, scaled by pixdim, its third axis turned where pixdim[0] is below 0."""
    import nibabel

    matrix = np.eye(4)
    b, c, d = (float(header[f'quatern_{name}']) for name in 'bcd')
    rest = 1 - (b * b + c * c + d * d)
    if not rest > -0.01:  # no rotation, not even a rounded one
        return np.full((4, 4), np.nan)
    quaternion = np.array([math.sqrt(max(rest, 0.0)), b, c, d])
    rotation = nibabel.quaternions.quat2mat(quaternion / np.linalg.norm(quaternion))
    matrix[:3, :3] = rotation * np.where(long | np.isfinite(zooms), zooms, 1.0)
    if header['pixdim'][0] < 0:
        matrix[:3, 2] *= -1
    matrix[:3, 3] = [float(header[f'qoffset_{axis}']) * unit for axis in 'xyz']
    return matrix


def _is_sound(matrix):
    """Whether a matrix places voxels: finite, near the scanner, of lengths that voxels have, and not flat."""
    import nibabel

    if not (np.abs(matrix) < MAX_MM).all():  # also NaN
        return False
    sizes = nibabel.affines.voxel_sizes(matrix)
    if np.isnan([length(size) for size in sizes]).any() or abs(np.linalg.det(matrix)) < 1e-3 * sizes.prod():
        return False
    return bool(np.isfinite(nibabel.orientations.io_orientation(matrix)).all())


def _scaled(matrix, zooms):
    """The matrix with columns as long as the zooms that are known."""
    import nibabel

    sizes = nibabel.affines.voxel_sizes(matrix)
    return matrix * np.append(np.where(np.isfinite(zooms), zooms, sizes) / sizes, 1.0)


def _mm(sizes):
    return ' x '.join(f'{size:.4g}' for size in sizes) + ' mm'


def _as_seen(stored, affine, zooms, forms, notes):
    """The Volume of stored [X, Y, Z, C]: axes reordered and turned as the module docstring says."""
    import nibabel

    if affine is None:
        spacing = tuple(float(zooms[axis]) for axis in (2, 1, 0))
        return Volume(stored.transpose(2, 1, 0, 3), 'nifti', spacing=spacing, file_axes=(2, 1, 0), notes=notes)
    turns = nibabel.orientations.io_orientation(affine)
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
    return Volume(
        values,
        'nifti',
        spacing=tuple(float(zooms[axis]) for axis in axes),
        affine=affine @ back,
        file_axes=tuple(axes),
        file_flips=tuple(flips),
        forms=forms,
        notes=notes,
    )
