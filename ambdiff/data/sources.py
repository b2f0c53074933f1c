"""Where examples come from: opens whatever the data config names.

A source is random access: `len(source)`, and `source[i]` is the example dict of
`ambdiff.data.example`. The layout of `path` is told by its content: an HDF5 file or a pickle by its
signature, a folder by the folders in it.
"""

import importlib
import pathlib

import h5py
import numpy as np

from ambdiff.data import example, splits
from ambdiff.data.files import cases
from ambdiff.data.layouts import case_folder, cimd_folder, hpunet_crops, knegt_pickle, numpy_pickle, phiseg_hdf5
from ambdiff.errors import UserError

HELP = (
    "real crops are PHiSeg's data_lidc.hdf5 or the folder of the released CIMD code, both made "
    'from LIDC-IDRI (The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX): '
    '--config.data.path=FILE_OR_FOLDER; without data, run '
    'python -m ambdiff.main --config=configs/demo.py'
)

# Builders that need files, and where those come from.
FROM_FILES = {
    'lidc': (
        'the folder of the DICOM files of LIDC-IDRI (docs/data/lidc.md): --config.data.path=FOLDER; '
        'without data, run python -m ambdiff.main --config=configs/demo.py'
    ),
    'ms_mri': (
        'the ISBI-2015 longitudinal MS lesion challenge (docs/data/ms_mri.md): --config.data.path=FOLDER; '
        'without data, run python -m ambdiff.main --config=configs/ms_mri.py:simulated'
    ),
    'folder': 'a folder a case with image.* and mask_*.* (docs/data/folder.md): --config.data.path=FOLDER',
    'bone_us': (
        'a folder a case with image.* and mask_*.* (docs/data/bone_us.md): --config.data.path=FOLDER; '
        'without data, run python -m ambdiff.main --config=configs/bone_us.py:simulated'
    ),
}
_NOTICES = {
    'lidc_simulated': 'Outlines by real radiologists; the images are simulated.',
    'ms_mri_simulated': 'Simulated: the images and the raters are computed, and no patient is shown.',
    'bone_us_simulated': 'Simulated: the images and the raters are computed, and no patient is shown.',
}
BUILDERS = (*FROM_FILES, *_NOTICES)
_MODULES = {
    'lidc': 'ambdiff.data.lidc.scans',
    'ms_mri': 'ambdiff.data.ms_mri.scans',
    'folder': 'ambdiff.data.folder',
    'bone_us': 'ambdiff.data.bone_us.scans',
    'lidc_simulated': 'ambdiff.data.lidc.simulated',
    'ms_mri_simulated': 'ambdiff.data.ms_mri.simulated',
    'bone_us_simulated': 'ambdiff.data.bone_us.simulated',
}


def open_source(data, split: str):
    """The examples of a split of the data that a config names.

    Args:
      data: the config's data group.
      split: 'train', 'validation' or 'test'.

    Raises:
      UserError: nothing is named, or it cannot be read as it is; the message names the cure.
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
    if data.builder in FROM_FILES or not data.path:
        return _open_builder(data, split)
    path = pathlib.Path(data.path).expanduser()
    layout = _layout(path)
    if data.channels != 1 and layout is not case_folder:  # which compares it with each file
        raise UserError(f'config.data.channels is {data.channels}; this data has 1 channel')
    return layout.open_split(path, split, data)


def notice(data) -> str:
    """What must be said wherever this data shows: that it is simulated; '' for real data."""
    return '' if data.path else _NOTICES.get(data.builder, '')


def write_splits(data, workdir: pathlib.Path) -> None:
    """Writes <workdir>/splits.csv, which case and patient is in which split, where the reader of data.path decides it.

    As patients.csv beside the cases it gives the same splits again.
    """
    if not data.path or data.builder == 'ms_mri':  # whose folds are its splits
        return
    if data.builder == 'lidc':
        from ambdiff.data.lidc import scans

        splits.write_table(workdir / 'splits.csv', scans.split_table(data))
        return
    path = pathlib.Path(data.path).expanduser()
    layout = _layout(path)
    if layout is case_folder:
        splits.write_table(workdir / 'splits.csv', case_folder.split_table(path))
    elif layout is knegt_pickle:
        splits.write_table(workdir / 'splits.csv', knegt_pickle.split_table(path, data))


def describe(source) -> str:
    """One line on a source: cases, patients, raters and the share of empty masks.

    The share is of at most 1000 cases, evenly spaced.
    """
    rows = np.unique(np.linspace(0, len(source) - 1, min(len(source), 1000)).astype(int))
    examples = [source[int(row)] for row in rows]
    raters = [e['masks'][e['present']] for e in examples]
    empty = np.mean(np.concatenate([~masks.any((1, 2)) for masks in raters]))
    counts = sorted({len(masks) for masks in raters})
    number = str(counts[0]) if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
    patients = getattr(source, 'patients', None)
    if patients is None:
        patients = [source[row]['patient'] for row in range(len(source))]
    known = f'{len(set(patients))} patients' if all(patients) else 'patients unknown'
    return f'{len(source)} cases, {known}, {number} raters, {empty:.0%} of masks empty'


def _open_builder(data, split):
    if not data.builder:
        raise UserError(f'no data: config.data.path and config.data.builder are empty; {HELP}')
    if data.builder in FROM_FILES and not data.path:
        raise UserError(f'no data: config.data.path is empty; {FROM_FILES[data.builder]}')
    # Imported only now: tensorflow-datasets takes seconds, and readers of files need none of it.
    builder = importlib.import_module(_MODULES[data.builder])
    if data.builder in FROM_FILES:
        source = builder.open_split(data, split)
    else:
        source = builder.open_split(data.build_dir, data.image_size, split)
    first = source[0]
    channels, raters = first['image'].shape[-1], len(first['masks'])
    if data.channels != channels:
        raise UserError(
            f'config.data.channels is {data.channels}; this data has {channels} channel{"s" if channels > 1 else ""}'
        )
    if data.num_raters != raters:
        raise UserError(f'config.data.num_raters is {data.num_raters}; this data has {raters} raters')
    return source


def _layout(path):
    """The reader module for what lies at `path`."""
    try:
        if path.is_dir():
            if hpunet_crops.split_folders(path):
                return hpunet_crops
            if cases.looks_like_cases(path):
                return case_folder
            if cimd_folder.split_folders(path):
                return cimd_folder
            inside = next(iter(sorted(path.glob('*.h*5'))), None)
            hint = f'; did you mean {inside}?' if inside else f'; {HELP}'
            raise UserError(
                f'{path}: the folder has no case, expected CASE/image.* with mask_1.*, mask_2.* .., or '
                f'training/CASE/image_*.jpg with label0_.jpg ..{hint}'
            )
        if not path.exists():
            raise UserError(f'{path}: no such file or folder (config.data.path); {HELP}')
        if not path.is_file():  # a pipe or a device: reading may never end
            raise UserError(f'{path}: neither a file nor a folder (config.data.path); {HELP}')
        if numpy_pickle.is_pickle(path):
            return knegt_pickle
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from error
    if not h5py.is_hdf5(path):
        raise UserError(f'{path}: not an HDF5 file, or damaged at its start; {HELP}')
    return phiseg_hdf5
