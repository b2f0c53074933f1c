"""Results as NIfTI in the geometry of their image, written slice by slice: many samples of a volume fit no memory."""

import gzip
import math
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from ambdiff.data.files.volume import Volume

_HEADER_END = b'\0\0\0\0'  # no extensions


Plane = Callable[[int, int], np.ndarray | None]  # (piece, slice) -> [H, W]; None: nothing but 0


def write(path: pathlib.Path, volume: Volume, dtype, plane: Plane, count: int = 0) -> None:
    """Writes .nii.gz in the image's own axes; DICOM has none, so columns, rows, slices.

    Args:
      path: the file.
      volume: the image.
      dtype: of the values.
      plane: gives the values, slice by slice.
      count: how many pieces there are, along a fourth axis; 0 for one piece without that axis.
    """
    import nibabel

    axes = volume.file_axes if volume.kind == 'nifti' else (2, 1, 0)
    flipped = [axis for axis, flip in enumerate(volume.file_flips) if flip]
    in_file = lambda piece: np.moveaxis(np.flip(piece, flipped), (0, 1, 2), axes)
    shape = in_file(np.broadcast_to(dtype(0), volume.values.shape[:3])).shape
    # Slices one after the other, where the file has them so; else a piece as a whole.
    slices = range(volume.values.shape[0])
    blocks = [[z] for z in (slices[::-1] if 0 in flipped else slices)] if axes[0] == 2 else [list(slices)]
    image = nibabel.Nifti1Image(np.broadcast_to(dtype(0), (*shape, count) if count else shape), None)
    header = image.header
    zooms = [1.0] * image.ndim
    for axis, step in zip(axes, volume.spacing, strict=True):
        zooms[axis] = step if np.isfinite(step) and step > 0 else 1.0
    header.set_zooms(zooms)
    header.set_xyzt_units('mm' if np.isfinite(volume.spacing).any() else 'unknown')
    forms = volume.forms  # of a NIfTI, so that the result lies on it in every program, whichever of them that asks
    if volume.kind == 'dicom' and volume.affine is not None:
        forms = ((volume.affine[:, [2, 1, 0, 3]], 1),) * 2
    for form, place in zip(forms, (image.set_sform, image.set_qform), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # shear, which a qform cannot hold; the sform does
            place(*(form or (None, 0)), update_affine=False)
    header['vox_offset'] = header.sizeof_hdr + len(_HEADER_END)
    header['magic'] = b'n+1'
    # Without a name and a time equal results are equal files.
    with path.open('wb') as raw, gzip.GzipFile('', 'wb', 1, raw, mtime=0) as file:
        file.write(header.binaryblock)
        file.write(_HEADER_END)
        empty = bytes(np.dtype(dtype).itemsize * len(blocks[0]) * math.prod(volume.values.shape[1:3]))
        for piece in range(max(count, 1)):
            for block in blocks:
                planes = [plane(piece, z) for z in block]
                if all(values is None for values in planes):
                    file.write(empty)
                    continue
                values = np.zeros((len(block), *volume.values.shape[1:3]), header.get_data_dtype())
                for place, given in enumerate(planes):
                    values[place] = 0 if given is None else given
                file.write(in_file(values).tobytes(order='F'))
