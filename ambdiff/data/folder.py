"""`folder`: your own data (docs/data/folder.md), built once as a tensorflow-datasets set and then read at random.

For what is too large to be read into memory at every start, volumes above all; the examples are those of
`ambdiff.data.layouts.case_folder`, or where config.data.pattern is set of `ambdiff.data.layouts.pattern`, images at 16
bits. A build that was interrupted goes on case by case.

  --config.data.builder=folder --config.data.path=FOLDER
"""

import dataclasses
import math
import pathlib
import sys
from collections.abc import Mapping

import ml_collections
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ambdiff.config import default
from ambdiff.data import built, example, source
from ambdiff.data.example import SPLITS
from ambdiff.data.files import neighbours
from ambdiff.data.files.cases import Case
from ambdiff.data.layouts import case_folder, pattern
from ambdiff.errors import UserError
from ambdiff.text import short_digest


@dataclasses.dataclass(eq=False, kw_only=True)
class FolderConfig(tfds.core.BuilderConfig):
    """What is built from which folder; without a root, from tensorflow-datasets' manual_dir.

    The name of a config with a root carries a fingerprint of its files and of the fields.
    """

    data: ml_collections.ConfigDict
    root: pathlib.Path | None = None
    cases: list[Case] = dataclasses.field(default_factory=list)
    table: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # case -> (patient, split)


def fields(**changes: object) -> ml_collections.ConfigDict:
    """The config's data group with some fields changed."""
    return ml_collections.ConfigDict({**default().data, **changes})


class Folder(tfds.core.GeneratorBasedBuilder):
    """A user's own images and their raters.

    Attributes:
      DTYPE: of the stored images.
      EVERY_SLICE: whether slices of a volume in which no rater marked anything are examples too.
    """

    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'manual_dir holds a folder a case with image.* and mask_*.*: docs/data/folder.md.'
    BUILDER_CONFIGS = [  # noqa: RUF012
        FolderConfig(
            name=f'{size}_{fit}_{kind}',
            description=f'{size} x {size}, {fit}, intensity: {kind}, up to four raters',
            data=fields(image_size=size, fit=fit, intensity=kind),
        )
        for size in (128, 64)
        for fit in ('crop', 'resize')
        for kind in ('full_range', 'percentile', 'hu_window')
    ]
    DTYPE: type = np.uint16
    EVERY_SLICE = False

    def _info(self) -> tfds.core.DatasetInfo:
        data = self.builder_config.data
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images with several raters, from a user's own folder.",
            features=built.features(data.image_size, data.channels, data.num_raters, self.DTYPE),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        if config.root is None:
            root = pathlib.Path(dl_manager.manual_dir)
            cases, table = _sound(root, config.data)
            config = self._builder_config = dataclasses.replace(config, root=root, cases=cases, table=table)
        cases, table = config.cases, config.table
        self.info.metadata['thickness'] = {}  # case -> mm, of those with several slices; filled as they are read
        bar = tqdm(total=len(cases), desc=self.name, unit=' cases', mininterval=0.5 if sys.stderr.isatty() else 10)
        chosen = {name: [case for case in cases if table[case.name][1] == name] for name in SPLITS}
        patients = {name: sorted({table[case.name][0] or case.name for case in chosen[name]}) for name in SPLITS}
        self.info.metadata.update(patients)
        return {name: self._generate_examples(chosen[name], bar) for name in SPLITS if chosen[name]}

    def _generate_examples(self, chosen, bar):
        config = self.builder_config
        parts = built.Parts(pathlib.Path(self._data_dir_root) / self.name / f'parts.{config.name}')
        for case in chosen:
            kept = parts.get(case.name, lambda case=case: self._frames(case))
            if len(kept['place']) and kept['place'][0] >= 0:
                thickness = float(kept.get('thickness', math.nan))
                self.info.metadata['thickness'][case.name] = thickness if math.isfinite(thickness) else 0.0
            for frame in range(len(kept['image'])):
                name = case.name if kept['place'][frame] < 0 else f'{case.name}_z{kept["place"][frame]:03d}'
                arrays = {field: kept[field][frame] for field in ('image', 'masks', 'present')}
                patient = config.table[case.name][0] or case.name
                yield name, {**arrays, 'case': name, 'patient': patient, 'spacing': kept['spacing']}
            bar.update()
        if bar.n >= bar.total:
            bar.close()
            parts.clear()

    def _frames(self, case):
        """The frames of a case as they are stored."""
        config = self.builder_config
        read = case.read(config.data)
        made, places = [], []
        if len(read.image) == 1:
            neighbours.none(config.root / case.name, config.data)
        for frame, masks in enumerate(read.masks):
            if len(read.image) > 1 and not (self.EVERY_SLICE or masks.any()):
                continue
            places.append(frame if len(read.image) > 1 else -1)
            masks, present = example.padded(str(config.root / case.name), masks, config.data.num_raters)
            fitted = example.make(
                neighbours.stacked(read.image, frame, config.data.neighbours, len(read.image)),
                masks,
                case=case.name,
                patient='',
                index=_index(case.name, frame),
                size=config.data.image_size,
                fit=config.data.fit,
                spacing=read.spacing[1:],
                present=present,
            )
            made.append(built.record(fitted, self.DTYPE))
        if not made:
            return {'image': np.zeros(0), 'place': np.zeros(0, int)}
        stacked = {field: np.stack([e[field] for e in made]) for field in ('image', 'masks', 'present')}
        return stacked | {
            'spacing': made[0]['spacing'],
            'place': np.array(places),
            'thickness': np.float64(read.spacing[0]),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Source(built.Source):
    """The examples of a split, and where they lie in their volumes.

    Attributes:
      thickness: case with several slices -> mm from one to the next, 0 where unknown; None where the data set was built
        when this was not kept.
      num_raters: slots of an example.
    """

    thickness: Mapping[str, float] | None = None
    num_raters: int = 0

    def place(self, row: int) -> source.Place | None:
        """Where an example lies in its case; None where the build does not know."""
        if self.thickness is None:
            return None
        case = self[row]['case']
        whole, _, z = case.rpartition('_z')
        whole, frame = (whole, int(z)) if whole in self.thickness else (case, 0)
        raters = tuple(example.slots(_index(whole, frame), self.num_raters).tolist())
        return source.Place(whole, frame, self.thickness.get(whole) or math.nan, raters)


def _index(case, frame):
    """What the order of the raters follows from: the case's own."""
    return int(short_digest(case), 16) + frame


def open_split(data: ml_collections.ConfigDict, split: str, walk: bool = False) -> source.Source:
    """Opens a split of the user's folder, building the data set on first use.

    Args:
      data: the config's data group.
      split: 'train', 'validation' or 'test'.
      walk: as in `ambdiff.data.source.Layout`; where faults keep the data set from being built, the cases themselves
        are opened instead.

    Raises:
      UserError: files are missing, damaged or do not fit each other, a patient is in two splits, or the split is empty;
        the message names the place.
    """
    return open_built(Folder, data, split, walk)


def open_built(make: type[Folder], data: ml_collections.ConfigDict, split: str, walk: bool) -> source.Source:
    """`open_split` for any builder of the layout."""
    root = pathlib.Path(data.path).expanduser().absolute()
    try:
        return _built(make, root, data, split)
    except UserError:
        if not (walk and _layout(data).matches(root)):
            raise
    return _layout(data).open_split(root, split, data, walk)


def split_table(data: ml_collections.ConfigDict) -> dict[str, tuple[str, str]]:
    """{case: (patient, split)} of every case."""
    return _layout(data).split_table(pathlib.Path(data.path).expanduser(), data)


def _layout(data):
    return pattern if data.pattern else case_folder


def _built(make, root, data, split):
    cases, table = _sound(root, data)
    names = 'image_size', 'fit', 'channels', 'num_raters', 'num_classes', 'intensity', 'hu_window', 'spacing'
    files = [file for case in cases for file in case.files()]
    # Fields that came later count where they are set, so that what was built before keeps its name.
    settings = [data[n] for n in names] + [data[n] for n in ('pattern', 'neighbours') if data[n]]
    config = FolderConfig(
        name=f'{data.image_size}_{data.fit}_{built.fingerprint(root, files, settings, table)}',
        root=root,
        cases=cases,
        table=table,
        data=data,
    )
    builder = built.opened(make, data.build_dir, config=config)
    if split not in builder.info.splits or not builder.info.splits[split].num_examples:
        raise UserError(
            f"{root}: the split '{split}' has no case ({len(cases)} in all); add cases, or give splits in patients.csv"
        )
    stored = built.source(builder, [split], builder.info.metadata[split])
    return Source(
        stored.stored,
        stored.patients,
        records=stored.records,
        thickness=builder.info.metadata.get('thickness'),
        num_raters=data.num_raters,
    )


def _sound(root, data):
    """(cases, {case: (patient, split)}) of a folder without a fault."""
    cases, table = _layout(data).checked(root, data)
    if fault := next((case.fault for case in cases if case.fault), ''):
        raise UserError(fault)
    return cases, table
