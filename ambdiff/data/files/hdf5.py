"""Reads data sets of HDF5 files, which may come from anybody.

Links out of a file and data kept in other files are not followed, and what a file claims is bounded before it is read.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator

import h5py
import numpy as np

from ambdiff.data.files import images
from ambdiff.data.files.volume import Volume, check_size
from ambdiff.errors import UserError

MAX_BYTES = 1 << 28  # of a chunk, any read of which decompresses all of it, and of what little may grow to
_MAX_RATIO = 2000  # of what is claimed to what is there; deflate's own limit is 1032
_MAX_NAMES = 1000


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[h5py.File]:
    """The file, for the time of a with statement.

    Raises:
      UserError: not HDF5, or damaged, also where that shows within the statement.
    """
    try:
        with h5py.File(path, 'r') as file:
            yield file
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f'{path}: takes more memory than there is; divide it') from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py names no type of damage
        raise UserError(f'{path}: no HDF5 file, or damaged ({line(error)}); copy or download it again') from error


def names(path: pathlib.Path) -> list[str]:
    """The names at the top of a file.

    Raises:
      UserError: not such a file, or more names than a case has.
    """
    with opened(path) as file:
        if len(file) > _MAX_NAMES:
            raise UserError(f'{path}: holds {len(file)} data sets; a case has {_MAX_NAMES} at most')
        return sorted(file)


def read(path: pathlib.Path, name: str, classes: int = 0) -> Volume:
    """The data set of a name, [H, W] or [Z, H, W] numbers, as a Volume of one channel.

    Args:
      path: the file.
      name: of the data set.
      classes: 0 for an image; above 0 for a mask, in which NaN is refused.

    Raises:
      UserError: the file is damaged, lacks the name, or claims more than is read.
    """
    where = f'{path}#{name}'
    with opened(path) as file:
        found = dataset(file, path, name)
        if found is None:
            raise UserError(
                f"{path}: has no data set '{name}' (top level here: {', '.join(list(file)[:8]) or 'nothing'})"
            )
        numbers(path, name, found)
        shape = (1,) * (3 - found.ndim) + found.shape
        if found.ndim not in (2, 3):
            raise UserError(f'{where}: has {found.ndim} axes; [H, W] and [Z, H, W] are read')
        check_size(where, shape)
        check_storage(where, found)
        stored = found[()].reshape(shape)[..., None]
    volume = Volume(stored.astype(np.uint8) if stored.dtype == bool else stored)
    return images.finite(where, volume, classes)


def dataset(file: h5py.File, path: pathlib.Path, name: str) -> h5py.Dataset | None:
    """The data set of a name, of which each part is followed; None where there is none.

    Raises:
      UserError: it is a link, keeps its data in other files, or holds no numbers.
    """
    found = file
    for part in name.split('/'):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            raise UserError(f"{path}: '{name}' is a link; put the data itself there")
        found = found[part] if link else None
    if not isinstance(found, h5py.Dataset):
        return None
    if found.is_virtual or found.external:
        raise UserError(f"{path}: '{name}' keeps its data in other files; copy them in")
    return found


def numbers(path: pathlib.Path, name: str, found: h5py.Dataset) -> None:
    """Refuses a data set that holds no numbers.

    Raises:
      UserError: naming it.
    """
    if found.dtype.kind not in 'fiub':
        raise UserError(f"{path}: '{name}' holds {found.dtype}; it should hold numbers")


def check_storage(where: str, found: h5py.Dataset, most: int | None = None) -> None:
    """Refuses a dataset of more than `most` bytes, or that would grow out of all proportion when it is read.

    Raises:
      UserError: naming `where`.
    """
    chunk = math.prod(found.chunks or ()) * found.dtype.itemsize
    if found.chunks and chunk > MAX_BYTES:
        raise UserError(f'{where}: is stored in chunks of {chunk} bytes; store it in chunks of a few cases')
    stored = found.id.get_storage_size()
    if found.nbytes > max(MAX_BYTES, _MAX_RATIO * stored) or (most and found.nbytes > most):
        raise UserError(f'{where}: claims {found.nbytes} bytes and holds {stored}; damaged or not written to its end')


def line(error: Exception) -> str:
    """What an error says, on one line."""
    return ' '.join(str(error).split())[:160]
