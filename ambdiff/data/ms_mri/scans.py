"""`ms_mri`: the ISBI-2015 longitudinal MS lesion challenge, four sequences and two raters, as axial slices.

A tensorflow-datasets builder. Files are found by name anywhere under the folder, the challenge's own being

  training01/preprocessed/training01_01_{flair,mprage,t2,pd}_pp.nii(.gz)     subject 01, visit 01
  training01/masks/training01_01_mask{1,2}.nii(.gz)                          the two raters

Volumes are turned to axial slices as a radiologist sees them: the first row in front, the first column on the patient's
right. Channels are FLAIR, T1 (MPRAGE), T2 and PD in this order. Every volume and sequence is normalised by its own
percentiles, (v - p1) / (p99 - p1) over the voxels above 0 (the brain: the skull is stripped), clipped to [0, 1]. Slices
in which no rater marked a pixel are left out; one that a single rater marked stays, with the other's empty mask.

A split of the builder is one subject, with all its visits; `open_split` puts folds together.
"""

import dataclasses
import logging
import os
import pathlib
import re
import sys

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ambdiff.data import built, example
from ambdiff.data.files import geometry, images, intensity, neighbours
from ambdiff.data.files import masks as mask_files
from ambdiff.data.files.volume import Volume
from ambdiff.data.source import Faulty
from ambdiff.errors import UserError
from ambdiff.text import short_digest

SEQUENCES = ('flair', 'mprage', 't2', 'pd')
_NUM_RATERS = 2
_FILE = re.compile(r'(training\d{1,4})_(\d{1,4})_(?:(flair|mprage|t2|pd)_pp|(mask[12]))\.nii(?:\.gz)?', re.IGNORECASE)

Visits = dict[tuple[str, str], dict[str, pathlib.Path]]


def find(root: pathlib.Path) -> Visits:
    """The files of every visit under a folder, (subject, visit) -> name -> path; a name of SEQUENCES, mask1 or mask2.

    Raises:
      UserError: no such folder, none of these files, or a visit whose files are not complete or there twice.
    """
    visits, found = _search(root)
    if found:
        raise UserError(found[0])
    return visits


def faults(root: pathlib.Path, kind: str) -> list[str]:
    """All that is wrong with the files under a folder, a line each, where `find` and `read_visit` stop at the first."""
    try:
        visits, found = _search(root)
    except UserError as error:
        return [str(error)]
    for files in tqdm(visits.values(), 'ms_mri: faults', unit=' visits', delay=2, leave=False):
        before = len(found)
        for name, path in files.items():
            try:
                _read(path, name)
            except UserError as error:
                found.append(str(error))
        try:
            if len(found) == before and len(files) == len(SEQUENCES) + _NUM_RATERS:
                read_visit(files, kind)
        except UserError as error:
            found.append(str(error))
    return found


def _search(root):
    """(visits as `find` gives them, a line for each that is not complete or has a file twice)."""
    if not root.is_dir():
        raise UserError(f'{root}: no such folder (config.data.path); expected training01/preprocessed/.. and masks/..')
    visits: Visits = {}
    wrong = []
    for folder, _, names in os.walk(root):  # follows no links, so that a loop of them does no harm
        for name in sorted(names):
            found = _FILE.fullmatch(name)
            if not found or not os.path.isfile(os.path.join(folder, name)):  # reading a pipe may never end
                continue
            subject, visit, sequence, mask = (part and part.lower() for part in found.groups())
            files = visits.setdefault((subject, visit), {})
            path = pathlib.Path(folder) / name
            if (sequence or mask) in files:
                wrong.append(f'{path}: the same file as {files[sequence or mask]}; keep one of them')
            files[sequence or mask] = path
    if not visits:
        raise UserError(
            f'{root}: holds no files of the ISBI-2015 challenge, such as training01_01_flair_pp.nii and '
            'training01_01_mask1.nii; docs/data/ms_mri.md says where they come from'
        )
    for (subject, visit), files in sorted(visits.items()):
        lacking = [name for name in (*SEQUENCES, 'mask1', 'mask2') if name not in files]
        if lacking:
            wrong.append(f'{root}: {subject}_{visit} has no {", ".join(lacking)}; add the file, or take the visit out')
    return dict(sorted(visits.items())), wrong


def _read(path, name):
    """A file of a visit as axial slices, and of a mask its labels."""
    volume = axial(images.read(path, classes=int(name.startswith('mask'))), path)
    if not name.startswith('mask'):
        return volume
    return dataclasses.replace(volume, values=mask_files.labels(path, volume.values, 1))


def axial(volume: Volume, where: pathlib.Path) -> Volume:
    """The volume as axial slices: slices run to the head, rows to the back, columns to the patient's left.

    Raises:
      UserError: the file has no orientation.
    """
    import nibabel  # takes half a second

    if volume.affine is None:
        raise UserError(f'{where}: says nothing of its orientation (both NIfTI codes are 0); set its sform or qform')
    # (world axis, direction) of slices, rows and columns; the world's axes point right, front and up.
    turns = nibabel.orientations.io_orientation(volume.affine)
    wanted = np.array([[2, 1], [1, -1], [0, -1]])
    change = nibabel.orientations.ornt_transform(turns, wanted)
    values = nibabel.orientations.apply_orientation(volume.values, change)
    affine = volume.affine @ nibabel.orientations.inv_ornt_aff(change, volume.values.shape[:3])
    spacing = tuple(float(s) for s in nibabel.affines.voxel_sizes(affine))
    return Volume(values, units=volume.units, spacing=spacing, affine=affine, notes=volume.notes)


def read_visit(files: dict[str, pathlib.Path], kind: str = 'percentile') -> tuple[Volume, np.ndarray]:
    """One visit's images, values [Z, H, W, 4] in [0, 1], and masks [Z, 2, H, W] uint8 in {0, 1}, as axial slices.

    Raises:
      UserError: a file cannot be read, or another grid than its visit's first; the message names it.
    """
    volumes = {name: _read(path, name) for name, path in files.items()}
    first = volumes[SEQUENCES[0]]
    for name, volume in volumes.items():
        if volume.values.shape != first.values.shape or not np.allclose(volume.affine, first.affine, atol=0.05):
            raise UserError(
                f'{files[name]}: {_grid(volume)}, but {files[SEQUENCES[0]].name} is {_grid(first)}; '
                'all files of a visit must be registered to one grid'
            )
    masks = [volumes[name].values[..., 0] for name in ('mask1', 'mask2')]
    image = np.concatenate([volumes[name].values for name in SEQUENCES], -1)
    notes = tuple(f'{files[name].name}: {note}' for name, volume in volumes.items() for note in volume.notes)
    unit = dataclasses.replace(first, values=intensity.to_unit(image, kind), notes=notes)
    return unit, np.stack(masks, 1)


@dataclasses.dataclass(eq=False, kw_only=True)
class MsMriConfig(tfds.core.BuilderConfig):
    """What is built from which folder; without visits, from tensorflow-datasets' manual_dir.

    The name of a config with visits carries a fingerprint of their files and of the fields.
    """

    visits: Visits = dataclasses.field(default_factory=dict)
    image_size: int = 128
    fit: str = 'crop'
    spacing: float = 0.0
    intensity: str = 'percentile'
    neighbours: int = 0


class MsMri(tfds.core.GeneratorBasedBuilder):
    """The challenge's training subjects; one split a subject."""

    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'manual_dir holds the training part of the challenge: docs/data/ms_mri.md.'
    BUILDER_CONFIGS = [  # noqa: RUF012
        MsMriConfig(name='128', description='128 x 128, native pixels'),
        MsMriConfig(name='64_2mm', description='64 x 64, resampled to 2 mm', image_size=64, spacing=2.0),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        channels = len(SEQUENCES) * (2 * config.neighbours + 1)
        return tfds.core.DatasetInfo(
            builder=self,
            description='ISBI-2015 longitudinal MS lesions: FLAIR, T1, T2 and PD, outlined by two raters.',
            features=built.features(config.image_size, channels, _NUM_RATERS, np.uint16),
            homepage='https://smart-stats-tools.org/lesion-challenge-2015',
            license='Terms of the challenge: for research, after registration; not to be passed on',
            citation='Carass A et al., NeuroImage 148:77-102, 2017, doi:10.1016/j.neuroimage.2016.12.064',
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        if not config.visits:  # the files need a registration and are there
            self._builder_config = dataclasses.replace(config, visits=find(pathlib.Path(dl_manager.manual_dir)))
        visits = self.builder_config.visits
        bar = tqdm(total=len(visits), desc='ms_mri', unit=' visits', mininterval=0.5 if sys.stderr.isatty() else 10)
        subjects = sorted({subject for subject, _ in visits})
        return {name: self._generate_examples([v for v in visits if v[0] == name], bar) for name in subjects}

    def _generate_examples(self, chosen, bar):
        config = self.builder_config
        parts = built.Parts(pathlib.Path(self._data_dir_root) / 'ms_mri' / f'parts.{config.name}')
        for subject, visit in chosen:
            kept = parts.get(f'{subject}_{visit}', lambda key=(subject, visit): self._slices(*key))
            for index, z in enumerate(kept['z']):
                case = f'{subject}_{visit}_z{z:03d}'
                yield (
                    case,
                    {
                        'image': kept['image'][index],
                        'masks': kept['masks'][index],
                        'present': np.ones(_NUM_RATERS, bool),
                        'case': case,
                        'patient': subject,
                        'spacing': kept['spacing'],
                    },
                )
            bar.update()
        if bar.n >= bar.total:
            bar.close()
            parts.clear()

    def _slices(self, subject, visit):
        """The slices of a visit in which a rater marked a pixel, as they are stored."""
        config = self.builder_config
        volume, masks = read_visit(config.visits[subject, visit], config.intensity)
        for note in volume.notes:
            logging.getLogger(__name__).warning('ms_mri: %s', note)
        size = config.image_size
        marked = np.flatnonzero(masks.any((1, 2, 3)))
        if not len(marked):
            image = np.zeros((0, size, size, len(SEQUENCES) * (2 * config.neighbours + 1)), np.uint16)
            arrays = {'image': image, 'masks': np.zeros((0, 2, size, size), np.uint8)}
            return arrays | {'z': marked, 'spacing': np.zeros(2, np.float32)}
        image = np.stack([neighbours.stacked(volume.values, z, config.neighbours, len(masks)) for z in marked])
        masks, spacing = masks[marked], volume.spacing[1:]
        if config.spacing:
            where = config.visits[subject, visit][SEQUENCES[0]]
            image, masks = geometry.resampled(where, image, masks, spacing, config.spacing)
            spacing = (config.spacing, config.spacing)
        made = [
            example.make(
                *slices,
                case=f'{subject}_{visit}',
                patient=subject,
                index=int(short_digest(f'{subject}_{visit}'), 16) + int(z),  # the raters' order is the slice's own
                size=size,
                fit=config.fit,
                spacing=spacing,
            )
            for z, *slices in zip(marked, image, masks, strict=True)
        ]
        stacked = {field: np.stack([built.record(e, np.uint16)[field] for e in made]) for field in ('image', 'masks')}
        return stacked | {'z': marked, 'spacing': made[0]['spacing']}


def folds(subjects: list[str], fold: int) -> dict[str, list[str]]:
    """Split -> subjects: the fold's subject is tested, the next one validates, the others train.

    Raises:
      UserError: fewer than three subjects, or no such fold.
    """
    if len(subjects) < 3:
        raise UserError(f'{len(subjects)} subjects ({", ".join(subjects)}): folds by subject need at least 3')
    if not 0 <= fold < len(subjects):
        raise UserError(f'config.data.fold is {fold}; there are {len(subjects)} subjects, so 0 to {len(subjects) - 1}')
    test, validation = subjects[fold], subjects[(fold + 1) % len(subjects)]
    train = [subject for subject in subjects if subject not in (test, validation)]
    return {'train': train, 'validation': [validation], 'test': [test]}


def open_split(data, split: str, walk: bool = False) -> built.Source:
    """Opens a split of the fold that a config names, building the data set on first use.

    Args:
      data: the config's data group; path, build_dir, image_size, fit, spacing, intensity, neighbours, num_raters
        and fold are read.
      split: 'train', 'validation' or 'test'.
      walk: as in `ambdiff.data.source.Layout`.

    Raises:
      UserError: files are missing, damaged or do not fit each other; the message names one. With `walk` it is a
        `Faulty` that names all.
    """
    try:
        return _opened(data, split)
    except UserError as error:
        if not walk:
            raise
        root = pathlib.Path(data.path).expanduser().absolute()
        raise Faulty(list(dict.fromkeys([str(error), *faults(root, data.intensity)]))) from error


def split_table(data) -> dict[str, tuple[str, str]]:
    """No table: the folds are the splits, and each subject is in one."""
    del data
    return {}


def _opened(data, split):
    if data.num_raters != _NUM_RATERS:
        raise UserError(f'config.data.num_raters is {data.num_raters}; ms_mri has {_NUM_RATERS} raters')
    root = pathlib.Path(data.path).expanduser().absolute()
    visits = find(root)
    chosen = folds(sorted({subject for subject, _ in visits}), data.fold)[split]
    settings = [data.image_size, data.fit, float(data.spacing), data.intensity]
    settings += [data.neighbours] * bool(data.neighbours)  # what was built before keeps its name
    files = [path for visit in visits.values() for path in visit.values()]
    config = MsMriConfig(
        name=f'{data.image_size}_{data.fit}_{built.fingerprint(root, files, *settings)}',
        visits=visits,
        image_size=data.image_size,
        fit=data.fit,
        spacing=float(data.spacing),
        intensity=data.intensity,
        neighbours=data.neighbours,
    )
    builder = built.opened(MsMri, data.build_dir, config=config)
    source = built.source(builder, chosen, chosen)
    if not len(source):
        raise UserError(f'{root}: no rater marked a pixel in {", ".join(chosen)}, so the split {split} has no slice')
    return source


def _grid(volume):
    shape = 'x'.join(map(str, volume.values.shape[:3]))
    origin = ', '.join(f'{value:.1f}' for value in volume.affine[:3, 3])
    return f'{shape} voxels of {" x ".join(f"{s:.2f}" for s in volume.spacing)} mm from ({origin}) mm'
