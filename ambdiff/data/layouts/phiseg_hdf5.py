"""Reader of the HDF5 layout of PHiSeg (Baumgartner et al., MICCAI 2019) and of CCDM.

Groups `train`, `val` and `test`, each with
  images  [n, H, W] float in [-0.5, 0.5]
  labels  [n, H, W, M] (PHiSeg) or [n, M, H, W] (CCDM) in {0, 1}
  uids    [n], the patient of each slice, number or text

The pixel spacing is not stored. A file may come from anybody: links out of it are not followed, and
what its header claims is bounded before anything is read.
"""

import pathlib

import h5py
import ml_collections
import numpy as np

from ambdiff.data import example, source
from ambdiff.data.files import hdf5
from ambdiff.errors import UserError

GROUPS = {'train': 'train', 'validation': 'val', 'test': 'test'}
MAX_CASES = 10_000_000
BLOCK = 256  # cases read at a time
_MAX_UIDS = 1 << 30  # bytes


def matches(path: pathlib.Path) -> bool:
    """Whether a file is HDF5, told by its signature."""
    return path.is_file() and h5py.is_hdf5(path)


def split_table(path: pathlib.Path, data: ml_collections.ConfigDict) -> dict[str, tuple[str, str]]:
    """No table: the file has its splits."""
    del path, data
    return {}


def open_split(path: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool = False) -> 'Source':
    """The cases of a split of the file at `path`; see `ambdiff.data.source.Layout`.

    Raises:
      UserError: the file is damaged, lacks something, contradicts itself, or has a patient in two
        splits; the message names the place and the cure.
    """
    source.require_one(path, data, classes=False)
    try:
        file = h5py.File(path, 'r')
    except OSError as error:
        raise UserError(f'{path}: not a whole HDF5 file ({hdf5.line(error)}); copy or download it again') from error
    try:
        return _open_group(file, path, split, data, walk)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path}: the split '{split}' takes more memory than there is; divide it") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py names no type of damage
        raise UserError(f'{path}: damaged ({hdf5.line(error)}); copy or download it again') from error


def _open_group(file, path, split, data, walk):
    patients = {}
    for name in GROUPS.values():
        if name in file or name == GROUPS[split]:
            patients[name] = _patients(file, path, name)
    for name, here in patients.items():
        shared = set(here) & set(patients[GROUPS[split]])
        if name != GROUPS[split] and shared and not walk:  # a check of the data goes on to tell the rest
            raise UserError(
                f'{path}: {len(shared)} patients are in both {GROUPS[split]} and {name} '
                f"(first: '{min(shared)}'); split by patient, so that uids are disjoint"
            )
    return Source(file, path, GROUPS[split], patients[GROUPS[split]], data, walk)


class Source(source.Source):
    """Random access to the cases of one group.

    A split below example.MEMORY_LIMIT is read and checked once and kept as float32 images and uint8
    masks; a larger one, and one that is walked through, is read and checked case by case.
    """

    def __init__(self, file, path, group, patients, data, walk):
        self.patients = patients
        self._path = path
        self._group, self._size, self._fit = group, data.image_size, data.fit
        self._num_classes = data.num_classes
        self._where = f'{path}: {group}'
        images, labels = (_dataset(file, path, group, name) for name in ('images', 'labels'))
        if images.ndim != 3 or labels.ndim != 4:
            raise UserError(
                f'{self._where}: images are {_shape(images)} and labels {_shape(labels)}; they '
                'should be [n,H,W] and [n,H,W,M] or [n,M,H,W]'
            )
        if not len(images) == len(labels) == len(patients):
            raise UserError(
                f'{self._where}: {len(images)} images, {len(labels)} labels and {len(patients)} '
                'uids; each slice needs one of each'
            )
        example.check_side(f'{self._where}/images', *images.shape[1:])
        self._rater_axis = rater_axis(self._where, images.shape, labels.shape, data.num_raters)
        hdf5.check_storage(f'{self._where}/images', images)
        hdf5.check_storage(f'{self._where}/labels', labels)
        self._images, self._labels = images, labels
        height, width = images.shape[1:]
        if not walk and len(patients) * height * width * (4 + data.num_raters) < example.MEMORY_LIMIT:
            blocks = [self._read(start, min(start + BLOCK, len(patients))) for start in range(0, len(patients), BLOCK)]
            self._images, self._labels = (np.concatenate(part) for part in zip(*blocks, strict=True))
            file.close()

    def files(self) -> list[pathlib.Path]:
        """The one file."""
        return [self._path]

    def __len__(self) -> int:
        """The number of cases."""
        return len(self.patients)

    def __getitem__(self, index: int) -> example.Example:
        """The example dict of a case; see `ambdiff.data.example`."""
        index = range(len(self))[index]
        if isinstance(self._images, np.ndarray):
            image, masks = self._images[index], self._labels[index]
        else:
            image, masks = (part[0] for part in self._read(index, index + 1))
        return example.make(
            image,
            masks,
            case=f'{self._group}-{index:05d}',
            patient=self.patients[index],
            index=index,
            size=self._size,
            fit=self._fit,
        )

    def _read(self, start, stop):
        """Images [b, H, W] float32 in [0, 1] and masks [b, M, H, W] uint8, checked."""
        try:
            images = self._images[start:stop].astype(np.float32)
            labels = self._labels[start:stop]
        except (OSError, RuntimeError) as error:
            raise UserError(
                f'{self._where}: slices {start} to {stop - 1} cannot be read ({hdf5.line(error)}); '
                'the file is damaged, copy or download it again'
            ) from error

        def at(bad):
            return start + int(np.argmax(bad.reshape(len(bad), -1).any(1)))

        if (bad := ~np.isfinite(images)).any():
            raise UserError(f'{self._where}/images[{at(bad)}]: has NaN or infinite pixels; mend or drop it')
        if (bad := np.abs(images) > 0.5 + 1e-3).any():
            raise UserError(
                f'{self._where}/images[{at(bad)}]: pixel values from {images.min():.4g} to '
                f'{images.max():.4g}; this layout stores [-0.5, 0.5], so rescale them'
            )
        if (bad := ~np.isin(labels, range(self._num_classes + 1))).any():
            stored = '0 and 1' if self._num_classes == 1 else f'0 .. {self._num_classes}'
            raise UserError(
                f'{self._where}/labels[{at(bad)}]: holds the value {labels[bad][0]}; with config.data.num_classes='
                f'{self._num_classes} masks are stored as {stored}'
            )
        masks = np.moveaxis(labels, self._rater_axis, 1).astype(np.uint8)
        return (images + np.float32(0.5)).clip(0, 1), masks


def rater_axis(where: str, images: tuple, labels: tuple, num_raters: int) -> int:
    """The axis of labels that counts raters: 3 (PHiSeg) or 1 (CCDM), from the shapes.

    Where both fit, the one of the expected number of raters is right; if that leaves a choice (the
    images are as high and wide as there are raters), PHiSeg's order, the older, is taken.

    Raises:
      UserError: labels are not the images' size, or have another number of raters.
    """
    size = tuple(images[1:])
    axes = [axis for axis in (3, 1) if tuple(np.delete(labels[1:], axis - 1).tolist()) == size]
    if not axes:
        raise UserError(
            f'{where}: images are {_shape(images)} but labels {_shape(labels)}; image and masks '
            'must have the same height and width ([n,H,W] with [n,H,W,M] or [n,M,H,W])'
        )
    right = [axis for axis in axes if labels[axis] == num_raters]
    if not right:
        raise UserError(
            f'{where}: {labels[axes[0]]} labels a slice, but config.data.num_raters is '
            f'{num_raters}; set --config.data.num_raters={labels[axes[0]]}'
        )
    return right[0]


def _dataset(file, path, group, name):
    """The dataset `name` of a group; links, and data kept in other files, are refused."""
    found = hdf5.dataset(file, path, f'{group}/{name}')
    if found is None:
        missing = f'{group}/{name}' if isinstance(file.get(group), h5py.Group) else group
        raise UserError(
            f"{path}: has no '{missing}'; the layout is groups train, val and test, each with "
            f'images, labels and uids (top level here: {", ".join(list(file)[:8]) or "nothing"})'
        )
    if name != 'uids':
        hdf5.numbers(path, f'{group}/{name}', found)
    if found.ndim and len(found) > MAX_CASES:
        raise UserError(f"{path}: '{group}/{name}' claims {len(found)} cases; the file is damaged")
    return found


def _patients(file, path, group) -> list[str]:
    """The patient of each case of a group, as text."""
    uids = _dataset(file, path, group, 'uids')
    if uids.ndim != 1 or uids.dtype.kind not in 'iufSO':
        raise UserError(
            f"{path}: '{group}/uids' is {_shape(uids)} of {uids.dtype}; it should be [n], the patient of each slice"
        )
    if len(uids) == 0:
        raise UserError(f"{path}: the split '{group}' has no patient; give it cases, or choose another split")
    hdf5.check_storage(f'{path}: {group}/uids', uids, _MAX_UIDS)
    try:
        values = uids.asstr(errors='replace')[()] if uids.dtype.kind in 'SO' else uids[()]
    except (OSError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: '{group}/uids' cannot be read ({hdf5.line(error)})") from error
    patients = [str(value).strip() for value in values.tolist()]
    if (unnamed := sum(patient in ('', 'nan') for patient in patients)) > 0:
        raise UserError(
            f"{path}: {unnamed} slices of '{group}' have no patient in uids; name every patient, "
            'since the splits must not share one'
        )
    return patients


def _shape(x) -> str:
    return '[' + ','.join(map(str, getattr(x, 'shape', x))) + ']'
