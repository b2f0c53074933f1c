"""Data sets that are built once as tensorflow-datasets (ArrayRecord, no TensorFlow) and then read at random.

A build is whole or absent: it is written beside its place, which it takes when complete. What a build reads from
files is kept file by file until then (`Parts`), so that one that was interrupted goes on where it was.
"""

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow_datasets as tfds

from ambdiff import files
from ambdiff.data import fingerprint as fingerprint_lib
from ambdiff.data import source as source_lib
from ambdiff.data.example import Example
from ambdiff.errors import UserError
from ambdiff.text import short_digest


def features(size: int, channels: int, num_raters: int, dtype: type) -> tfds.features.FeaturesDict:
    """What a record holds: image [size, size, channels] of an unsigned type, and the rest."""

    def stored(*shape, dtype):
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding='bytes')

    return tfds.features.FeaturesDict(
        {
            'image': stored(size, size, channels, dtype=dtype),
            'masks': stored(num_raters, size, size, dtype=np.uint8),
            'present': stored(num_raters, dtype=np.bool_),
            'case': tfds.features.Text(),
            'patient': tfds.features.Text(),
            'spacing': stored(2, dtype=np.float32),
        }
    )


def record(example: Example, dtype: type) -> dict:
    """An example dict as `features` stores it."""
    most = np.iinfo(dtype).max
    return example | {'image': np.rint(example['image'] * np.float32(most)).astype(dtype)}


@dataclasses.dataclass(frozen=True, eq=False)
class Source(source_lib.Source):
    """Random access to the examples of a split of a built data set.

    Attributes:
      stored: the parts of the split, data sources of one builder.
      patients: each patient of the split once.
      fresh_answers: as `ambdiff.data.source.Source` says.
      records: the files of a data set that was built from files.
    """

    stored: Sequence
    patients: Sequence[str]
    fresh_answers: Callable[[int, int, np.random.Generator], np.ndarray] | None = None
    records: Sequence[pathlib.Path] = ()

    def files(self) -> Sequence[pathlib.Path]:
        """The files of records."""
        return self.records

    def __len__(self) -> int:
        """Number of examples."""
        return sum(map(len, self.stored))

    def __getitem__(self, row: int) -> Example:
        """The example of a row."""
        if not 0 <= row < len(self):
            raise IndexError(f'row {row} of {len(self)}')
        for part in self.stored:
            if row < len(part):
                break
            row -= len(part)
        found = part[row]
        most = np.float32(np.iinfo(found['image'].dtype).max)
        return {
            'image': found['image'].astype(np.float32) / most,
            'masks': found['masks'],
            'present': found['present'],
            'case': found['case'].decode(),
            'patient': found['patient'].decode(),
            'spacing': found['spacing'],
        }


def source(builder: tfds.core.DatasetBuilder, parts: Sequence[str], patients: Sequence[str]) -> Source:
    """The source of a split that is made of some splits of a builder whose data set was built from files."""
    records = [pathlib.Path(path) for part in parts for path in builder.info.splits[part].filepaths]
    return Source([builder.as_data_source(split=part) for part in parts], patients, records=records)


def opened(make: Callable[..., tfds.core.GeneratorBasedBuilder], build_dir: str | os.PathLike, **arguments):
    """The builder make(data_dir=.., file_format=.., **arguments), its data set built if that was not done before.

    Raises:
      UserError: build_dir cannot be written, or files of the data set are gone.
    """
    folder = pathlib.Path(build_dir).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder / f'{make.name}.lock'):
            with _quiet():
                builder = make(data_dir=folder, file_format='array_record', **arguments)
            home = pathlib.Path(builder.data_dir)
            if not (home / 'dataset_info.json').is_file():
                _build(builder, home)
    except OSError as error:
        raise UserError(
            f'{folder} (config.data.build_dir): the data set cannot be written ({error.strerror or error})'
        ) from error
    paths = [path for split in builder.info.splits.values() for path in split.filepaths]
    missing = [path for path in paths if not pathlib.Path(path).is_file()]
    if missing:
        raise UserError(f'{missing[0]}: gone; delete {home} and run again, it will be built anew')
    return builder


class Parts:
    """What a build has read so far, one file a volume or case, in a folder that `clear` removes."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def get(self, name: str, read: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays that read() gave for this name, now or before the build was interrupted."""
        path = self._folder / f'{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz'
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return dict(kept)
        arrays = read()
        with files.whole_file(path) as stream:
            np.savez(stream, **arrays)
        return arrays

    def clear(self) -> None:
        """Forgets everything."""
        shutil.rmtree(self._folder, ignore_errors=True)


def fingerprint(root: pathlib.Path, files: Sequence[pathlib.Path], *settings: object) -> str:
    """Eight hex digits that change with the files below root, and with the settings of a build."""
    _, _, digests = fingerprint_lib.of_files(files, root)
    return short_digest('\n'.join([*map(repr, settings), *(f'{name} {found}' for name, found in digests.items())]))


def _build(builder, home):
    """Builds into a temporary folder beside `home`, which takes its place when complete."""
    for leftover in home.parent.glob('incomplete.*'):  # of a build that was killed; never read
        shutil.rmtree(leftover, ignore_errors=True)
    tfds.disable_progress_bar()
    # tensorflow-datasets speaks of downloads on stdout; there are none, and the builder's bar tells the rest.
    with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=downloads)


@contextlib.contextmanager
def _quiet():
    """Hides that tensorflow-datasets has not heard of the config before: it holds the user's own path and size."""
    logger = logging.getLogger('absl')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
