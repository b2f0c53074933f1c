"""What a file is, told by its first bytes; nothing is decoded, and no library of a format is imported."""

import os
import pathlib
import re

PICTURES = (b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff', b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
GZIP = b'\x1f\x8b'
DICOM_SUFFIXES = ('.dcm', '.ima', '.dicom')
NIFTI_SIZES = {348: 1, 540: 2}  # the header's length, its first number -> version
_CONVERT = 'convert it to NIfTI (.nii.gz)'
_FOREIGN = (
    (b'\0\0\0\1\0\0', f'FreeSurfer (.mgh, .mgz), which is not read; {_CONVERT}, as by mri_convert'),
    (b'NRRD', f'NRRD, which is not read; {_CONVERT}'),
    (b'ObjectType', f'MetaImage (.mha, .mhd), which is not read; {_CONVERT}'),
    (b'NDims', f'MetaImage (.mha, .mhd), which is not read; {_CONVERT}'),
    (b'CDF', f'MINC, which is not read; {_CONVERT}'),
    (b'\x89HDF', f'HDF5 or MINC, which is not read as one image; {_CONVERT}'),
    (b'\x93NUMPY', f'a NumPy array, which is not read as an image; {_CONVERT}'),
    (GZIP, 'compressed by gzip twice; unpack it once'),
    (b'PK\3\4', 'a zip archive; unpack it'),
)
# Archives strip the preamble: such a file starts with an element of group 0002 or 0008 (big-endian: 0008), whose value
# is of a named type or short.
_STRIPPED = re.compile(
    rb'[\x02\x08]\0.[\0-\x10]([A-Z]{2}|.[\0-\x03]\0\0)|\0\x08[\0-\x10].[A-Z]{2}', re.DOTALL
)  # fmt: skip


def is_dicom(path: str | os.PathLike, head: bytes | None = None) -> bool:
    """Whether a file is to be read as DICOM: with or without preamble, and whatever its name.

    `head` is its first 132 bytes, where they have been read already.

    A file named as DICOM that begins as no other known format counts as well, so that its damage is told.

    Raises:
      OSError: it cannot be read.
    """
    path = pathlib.Path(path)
    if head is None:
        with path.open('rb') as file:
            head = file.read(132)
    if head[128:] == b'DICM' or _STRIPPED.match(head):
        return True
    other = head.startswith((*PICTURES, GZIP)) or nifti_version(head)
    return path.suffix.lower() in DICOM_SUFFIXES and not other


def nifti_version(head: bytes) -> int:
    """1 or 2 of a NIfTI file (or of the header of a .hdr/.img pair) that begins with `head`, else 0."""
    found = [NIFTI_SIZES.get(int.from_bytes(head[:4], order), 0) for order in ('little', 'big')]
    return max(found)


def foreign(head: bytes) -> str:
    """The name and the cure of a format that is not read, told by the first bytes of a file; '' where unknown."""
    return next((told for start, told in _FOREIGN if head.startswith(start)), '')
