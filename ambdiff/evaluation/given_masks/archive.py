"""Masks in a NumPy archive (.npz), in one of two forms.

evaluate's    `samples` and `raters` [n, K, H, W / 8] bits along W, or [n, K, H, W] bool or labels; `case` [n]; where
              they are there: `width` (W), `present` [n, M], `patient` [n], `draws`, `image` [n, H, W, C] uint8
plain         an array a case: [K, H, W], or [K, D, H, W] of a volume, under the case's name

Without `width`, uint8 arrays whose last axis is an eighth of the one before are bits: evaluate's images are square.
Values are bool, 0 and 1, 0 and 255, or labels. Nothing in the file is run (no pickle), and what a member claims is
bounded by what the file holds before it is unpacked.
"""

import pathlib
import zipfile

import numpy as np

from ambdiff import metrics
from ambdiff.data.files import masks as mask_files
from ambdiff.errors import UserError
from ambdiff.evaluation.given_masks.masks import RATERS, SAMPLES, GivenMasks

_MAX_RATIO = 1100  # deflate's own limit is 1032
_MAX_BYTES = 1 << 33  # of one array


def matches(path: pathlib.Path) -> bool:
    """Whether a file is an archive of NumPy arrays, told by its content."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return bool(names := file.namelist()) and all(name.endswith('.npy') for name in names)


def holds_both(path: pathlib.Path) -> bool:
    """Whether a file is an archive with samples and raters, as evaluate writes."""
    if not path.is_file() or not matches(path):
        return False
    with zipfile.ZipFile(path) as file:
        return {f'{RATERS}.npy', f'{SAMPLES}.npy'} <= set(file.namelist())


def find(path: pathlib.Path, kind: str, num_classes: int) -> GivenMasks:
    """The masks of one side in an archive; see `find.find`."""
    arrays = _read(path)
    if not {RATERS, SAMPLES} & arrays.keys():
        return _plain(path, arrays, num_classes)
    other = SAMPLES if kind == RATERS else RATERS
    if kind not in arrays:
        raise UserError(f'--{kind}={path}: holds {other} and no {kind}; are --{kind} and --{other} swapped?')
    if 'case' not in arrays:
        raise UserError(
            f'--{kind}={path}: has no array `case`; store the name of each case, by which masks are matched'
        )
    masks, names = arrays[kind], [str(name) for name in arrays['case'].ravel()]
    for name, array, wanted in ((kind, masks, 4), ('present', arrays.get('present', np.ones(masks.shape[:2])), 2)):
        if array.ndim != wanted or len(array) != len(names):
            raise UserError(
                f'{path}: `{name}` is {_shape(array)} beside {len(names)} cases; '
                f'{name} is [n, {"K, H, W" if wanted == 4 else "M"}]'
            )
    present = arrays['present'].astype(bool) if kind == RATERS and 'present' in arrays else None
    if present is not None and present.shape != masks.shape[:2]:
        raise UserError(
            f'{path}: `present` is {_shape(present)} and `raters` {_shape(masks)}; the first two axes differ'
        )
    if twice := next((name for name in names if names.count(name) > 1), ''):
        raise UserError(f'{path}: the case {twice} is there twice; give each case a name of its own')
    patients = [str(name) for name in arrays['patient'].ravel()] if 'patient' in arrays else [''] * len(names)
    if len(patients) != len(names):
        raise UserError(f'{path}: `patient` has {len(patients)} entries beside {len(names)} cases; give one a case')
    draws = str(arrays['draws']) if 'draws' in arrays else ''
    if draws not in ('', *metrics.DRAWS):
        raise UserError(f'{path}: `draws` is {draws[:20]!r}; it should be {" or ".join(metrics.DRAWS)}')
    width = _width(path, masks, arrays)

    def read(row):
        here = masks[row] if present is None else masks[row][present[row]]
        if width:
            here = np.unpackbits(here, axis=-1, count=width)
        return mask_files.labels(f'{path}: {names[row]}', here, num_classes)[:, None]

    return GivenMasks(
        path,
        {name: lambda row=row: read(row) for row, name in enumerate(names)},
        dict(zip(names, patients, strict=True)),
        draws if kind == SAMPLES else '',
        _images(path, arrays, names, masks.shape[2], width or masks.shape[3]),
    )


def _images(path, arrays, names, height, width) -> dict[str, np.ndarray]:
    """{case: [H, W, C] float32 in [0, 1]}, {} where the file has none."""
    if 'image' not in arrays:
        return {}
    images = arrays['image']
    if images.shape[:3] != (len(names), height, width) or images.ndim != 4 or images.dtype != np.uint8:
        raise UserError(
            f'{path}: `image` is {images.dtype} {_shape(images)}; it should be uint8 [n, {height}, {width}, C]'
        )
    return {name: images[row].astype(np.float32) / 255 for row, name in enumerate(names)}


def _plain(path, arrays, num_classes) -> GivenMasks:
    def read(name):
        array = arrays[name]
        array = array[:, None] if array.ndim == 3 else array
        return mask_files.labels(f'{path}: {name}', array, num_classes)

    for name, array in arrays.items():
        if array.ndim not in (3, 4) or 0 in array.shape:
            raise UserError(
                f'{path}: `{name}` is {_shape(array)}; the masks of a case are [K, H, W], or [K, D, H, W] of a volume'
            )
    return GivenMasks(path, {name: lambda name=name: read(name) for name in arrays})


def _width(path, masks, arrays) -> int:
    """W where masks are bits along it, 0 where they are not."""
    height, last = masks.shape[2:]
    packed = masks.dtype == np.uint8 and last == -(-height // 8) and height > 1
    if 'width' not in arrays:
        return 8 * last if packed else 0
    width = int(arrays['width'])
    if last not in (width, -(-width // 8)):
        raise UserError(f'{path}: `width` is {width}, but the masks are {_shape(masks)}')
    return width if last != width and masks.dtype == np.uint8 else 0


def _read(path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():
                if member.file_size > min(_MAX_BYTES, _MAX_RATIO * max(member.compress_size, 64)):
                    raise UserError(
                        f'{path}: `{member.filename}` claims {member.file_size} bytes; damaged, or too large: divide it'
                    )
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f'{path}: takes more memory than there is; divide it') from error
    except Exception as error:  # NumPy and zipfile name no type of damage
        why = ' '.join(str(error).split())[:120]
        raise UserError(f'{path}: damaged, or holds what is no plain array ({why}); write it again') from error
    for name, array in arrays.items():
        if array.dtype.kind not in 'biufU':
            raise UserError(f'{path}: `{name}` holds {array.dtype}; store numbers, or text for names')
    return arrays


def _shape(array):
    return f'[{", ".join(map(str, array.shape))}]'
