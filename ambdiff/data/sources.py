"""Where examples come from: opens whatever the data config names.

Two tables, a line for each: LAYOUTS, the readers of data as it lies on disk, told apart by what is there, unless
config.data.pattern tells how files are named; BUILDERS, data sets that are built once and then read at random. All give
a `ambdiff.data.source.Source`.
"""

import dataclasses
import importlib
import pathlib

import ml_collections
import numpy as np

from ambdiff.data import example, splits
from ambdiff.data.files import neighbours
from ambdiff.data.source import Layout, Source
from ambdiff.errors import UserError

HELP = (
    "real crops are PHiSeg's data_lidc.hdf5 or the folder of the released CIMD code, both made "
    'from LIDC-IDRI (The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX): '
    '--config.data.path=FILE_OR_FOLDER; without data, run '
    'python -m ambdiff.main --config=configs/demo.py'
)

# Modules of ambdiff.data.layouts; the first whose matches(path) holds reads the path (docs/add_a_reader.md).
LAYOUTS = (
    'hpunet_crops',
    'case_folder',
    'cimd_folder',
    'knegt_pickle',
    'phiseg_hdf5',
)


@dataclasses.dataclass(frozen=True)
class Builder:
    """A data set that is built.

    Attributes:
      module: has open_split(data, split, walk) and split_table(data); where no files are needed,
        open_split(build_dir, image_size, split).
      files: what config.data.path must name, and what runs without; '' where no files are needed.
      notice: what must be said wherever the data shows.
    """

    module: str
    files: str = ''
    notice: str = ''


BUILDERS = {
    'lidc': Builder(
        'ambdiff.data.lidc.scans',
        files='the folder of the DICOM files of LIDC-IDRI (docs/data/lidc.md): --config.data.path=FOLDER; '
        'without data, run python -m ambdiff.main --config=configs/demo.py',
    ),
    'ms_mri': Builder(
        'ambdiff.data.ms_mri.scans',
        files='the ISBI-2015 longitudinal MS lesion challenge (docs/data/ms_mri.md): --config.data.path=FOLDER; '
        'without data, run python -m ambdiff.main --config=configs/ms_mri.py:simulated',
    ),
    'folder': Builder(
        'ambdiff.data.folder',
        files='a folder a case with image.* and mask_*.* (docs/data/folder.md): --config.data.path=FOLDER',
    ),
    'bone_us': Builder(
        'ambdiff.data.bone_us.scans',
        files='a folder a case with image.* and mask_*.* (docs/data/bone_us.md): --config.data.path=FOLDER; '
        'without data, run python -m ambdiff.main --config=configs/bone_us.py:simulated',
    ),
    'lidc_simulated': Builder(
        'ambdiff.data.lidc.simulated', notice='Outlines by real radiologists; the images are simulated.'
    ),
    'ms_mri_simulated': Builder(
        'ambdiff.data.ms_mri.simulated',
        notice='Simulated: the images and the raters are computed, and no patient is shown.',
    ),
    'bone_us_simulated': Builder(
        'ambdiff.data.bone_us.simulated',
        notice='Simulated: the images and the raters are computed, and no patient is shown.',
    ),
}


def open_source(data: ml_collections.ConfigDict, split: str, *, walk: bool = False) -> Source:
    """The examples of a split of the data that a config names.

    Args:
      data: the config's data group.
      split: 'train', 'validation' or 'test'.
      walk: for who goes through all examples once and wants every fault (`ambdiff.data.source.Layout`).

    Raises:
      UserError: nothing is named, or it cannot be read as it is; the message names the cure.
    """
    check(data, split)
    if builder := _builder(data):
        return _open_builder(builder, data, split, walk)
    path, layout = _layout(data)
    return layout.open_split(path, split, data, walk)


def check(data: ml_collections.ConfigDict, split: str) -> None:
    """What can be told of the fields and of the place of the data without reading it.

    Raises:
      UserError: a field does not suit, nothing is named, or nothing is there that is read.
    """
    if split not in example.SPLITS:
        raise UserError(f"split '{split}' does not exist (config.evaluate.split); choose {', '.join(example.SPLITS)}")
    if data.fit not in example.FITS:
        raise UserError(f"config.data.fit is '{data.fit}'; choose {' or '.join(example.FITS)}")
    if data.image_size < 1 or data.num_raters < 1:
        raise UserError(
            f'config.data.image_size is {data.image_size} and config.data.num_raters '
            f'{data.num_raters}; both must be at least 1'
        )
    if data.builder and data.builder not in BUILDERS:
        raise UserError(f"config.data.builder '{data.builder}' does not exist; choose {', '.join(BUILDERS)}")
    if data.pattern and data.builder not in ('', 'folder'):
        raise UserError(
            f"config.data.pattern is read by no builder or by 'folder', and config.data.builder is '{data.builder}'; "
            "set --config.data.builder=''"
        )
    neighbours.check(data)
    if not (builder := _builder(data)):
        _layout(data)
    elif not builder.files:
        neighbours.none(f"config.data.builder '{data.builder}'", data)
    elif not data.path:
        raise UserError(f'no data: config.data.path is empty; {builder.files}')


def notice(data: ml_collections.ConfigDict) -> str:
    """What must be said wherever this data shows: that it is simulated; '' for real data."""
    return '' if data.path or not data.builder else BUILDERS[data.builder].notice


def write_splits(data: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes <workdir>/splits.csv, which case and patient is in which split, where the reader of data.path decides it.

    As patients.csv beside the cases it gives the same splits again.
    """
    if builder := _builder(data):
        table = importlib.import_module(builder.module).split_table(data) if builder.files else {}
    else:
        path, layout = _layout(data)
        table = layout.split_table(path, data)
    if table:
        splits.write_table(workdir / 'splits.csv', table)


def describe(source: Source) -> str:
    """One line on a source: cases, patients, raters and the share of empty masks.

    The share is of at most 1000 cases, evenly spaced.
    """
    rows = np.unique(np.linspace(0, len(source) - 1, min(len(source), 1000)).astype(int))
    examples = [source[int(row)] for row in rows]
    raters = [e['masks'][e['present']] for e in examples]
    empty = np.mean(np.concatenate([~masks.any((1, 2)) for masks in raters]))
    counts = sorted({len(masks) for masks in raters})
    number = str(counts[0]) if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
    known = f'{len(set(source.patients))} patients' if all(source.patients) else 'patients unknown'
    return f'{len(source)} cases, {known}, {number} raters, {empty:.0%} of masks empty'


def _builder(data) -> Builder | None:
    """The builder that gives the data; None where a layout does."""
    if not data.builder:
        if not data.path:
            raise UserError(f'no data: config.data.path and config.data.builder are empty; {HELP}')
        return None
    builder = BUILDERS[data.builder]
    return builder if builder.files or not data.path else None


def _open_builder(builder, data, split, walk):
    # Imported only now: tensorflow-datasets takes seconds, and readers of files need none of it.
    module = importlib.import_module(builder.module)
    if builder.files:
        source = module.open_split(data, split, walk)
    else:
        source = module.open_split(data.build_dir, data.image_size, split)
    try:
        first = source[0]
    except UserError:
        if walk:
            return source
        raise
    channels, raters = first['image'].shape[-1], len(first['masks'])
    if data.channels != channels:
        raise UserError(
            f'config.data.channels is {data.channels}; this data has {channels} channel{"s" if channels > 1 else ""}'
        )
    if data.num_raters != raters:
        raise UserError(f'config.data.num_raters is {data.num_raters}; this data has {raters} raters')
    return source


def _layout(data) -> tuple[pathlib.Path, Layout]:
    """config.data.path, and the reader of what lies there."""
    path = pathlib.Path(data.path).expanduser()
    layouts = ('pattern',) if data.pattern else LAYOUTS
    try:
        if not path.exists():
            raise UserError(f'{path}: no such file or folder (config.data.path); {HELP}')
        if not (path.is_file() or path.is_dir()):  # a pipe or a device: reading may never end
            raise UserError(f'{path}: neither a file nor a folder (config.data.path); {HELP}')
        for name in layouts:
            layout = importlib.import_module(f'ambdiff.data.layouts.{name}')
            if layout.matches(path):
                return path, layout
        if data.pattern:
            raise UserError(f'{path}: not a folder; config.data.pattern tells the paths below one (config.data.path)')
        if path.is_file():
            raise UserError(f'{path}: not an HDF5 file, or damaged at its start; {HELP}')
        inside = next(iter(sorted(path.glob('*.h*5'))), None)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from error
    hint = f'; did you mean {inside}?' if inside else f'; {HELP}'
    raise UserError(
        f'{path}: the folder has no case, expected CASE/image.* with mask_1.*, mask_2.* .., or '
        f'training/CASE/image_*.jpg with label0_.jpg ..{hint}'
    )
