"""`bone_us`: your own ultrasound with several raters, built once from the `folder` layout (`ambdiff.data.files.cases`).

  CASE/image.*      PNG, JPEG, TIFF, NIfTI or DICOM: one B-mode picture, or the frames of a sweep
  CASE/mask_*.*     one file a rater; a case may have fewer than config.data.num_raters
  patients.csv      optional: columns case, patient and, if you like, split (`ambdiff.data.layouts.case_folder`)

A tensorflow-datasets builder. Colour becomes luminance. The scanner has compressed the envelope to its logarithm
already, so nothing is done to the speckle: with config.data.intensity = 'b_mode' each picture becomes
(v - p1) / (p99.9 - p1), percentiles over the pixels above 0, which takes out gain and dynamic range
(`ambdiff.data.files.intensity` says why). Every frame is an example, also one in which no rater drew: that a picture
shows no bone is an answer too.
"""

import dataclasses
import pathlib
import sys

import ml_collections
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ambdiff.config import default
from ambdiff.data import built, example
from ambdiff.data.example import SPLITS
from ambdiff.data.files import cases as case_files
from ambdiff.data.files.cases import Case
from ambdiff.data.layouts import case_folder
from ambdiff.errors import UserError


@dataclasses.dataclass(eq=False, kw_only=True)
class BoneUsConfig(tfds.core.BuilderConfig):
    """What is built from which folder; without a root, from tensorflow-datasets' manual_dir.

    The name of a config with a root carries a fingerprint of its files and of the fields.
    """

    data: ml_collections.ConfigDict
    root: pathlib.Path | None = None
    cases: list[Case] = dataclasses.field(default_factory=list)
    table: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # case -> (patient, split)
    dtype: type = np.uint8  # of the stored images
    every_slice: bool = True  # also those of a volume in which no rater drew


def fields(**changes: object) -> ml_collections.ConfigDict:
    """The config's data group with some fields changed."""
    return ml_collections.ConfigDict({**default().data, **changes})


class BoneUs(tfds.core.GeneratorBasedBuilder):
    """A user's own ultrasound pictures and their raters."""

    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'manual_dir holds a folder a case with image.* and mask_*.*: docs/data/folder.md.'
    BUILDER_CONFIGS = [  # noqa: RUF012
        BoneUsConfig(
            name=f'{size}_resize',
            description=f'{size} x {size}, whole pictures, up to four raters',
            data=fields(image_size=size, fit='resize', intensity='b_mode'),
        )
        for size in (128, 64)
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        data = self.builder_config.data
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images with several raters, from a user's own folder.",
            features=built.features(data.image_size, data.channels, data.num_raters, self.builder_config.dtype),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        if config.root is None:
            root = pathlib.Path(dl_manager.manual_dir)
            cases, table = _cases(root, config.data)
            config = self._builder_config = dataclasses.replace(config, root=root, cases=cases, table=table)
        cases, table = config.cases, config.table
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
        read = case_files.read(case, config.data)
        made, places = [], []
        for frame, (image, masks) in enumerate(zip(read.image, read.masks, strict=True)):
            if len(read.image) > 1 and not (config.every_slice or masks.any()):
                continue
            places.append(frame if len(read.image) > 1 else -1)
            masks, present = example.padded(str(config.root / case.name), masks, config.data.num_raters)
            fitted = example.make(
                image,
                masks,
                case=case.name,
                patient='',
                index=int(built.digest(case.name), 16) + frame,  # the raters' order is the case's own
                size=config.data.image_size,
                fit=config.data.fit,
                spacing=read.spacing,
                present=present,
            )
            made.append(built.record(fitted, config.dtype))
        if not made:
            return {'image': np.zeros(0), 'place': np.zeros(0, int)}
        stacked = {field: np.stack([e[field] for e in made]) for field in ('image', 'masks', 'present')}
        return stacked | {'spacing': made[0]['spacing'], 'place': np.array(places)}


def open_split(data: ml_collections.ConfigDict, split: str) -> built.Source:
    """Opens a split of the user's folder, building the data set on first use.

    Args:
      data: the config's data group.
      split: 'train', 'validation' or 'test'.

    Raises:
      UserError: files are missing, damaged or do not fit each other, a patient is in two splits, or the split is empty;
        the message names the place.
    """
    if data.channels != 1:
        raise UserError(f'config.data.channels is {data.channels}; bone_us has 1 channel')
    return open_cases(BoneUs, data, split)


def open_cases(
    make: type[BoneUs], data: ml_collections.ConfigDict, split: str, *, dtype: type = np.uint8, every_slice: bool = True
) -> built.Source:
    """`open_split` for a builder of the `folder` layout; dtype and every_slice as in BoneUsConfig."""
    root = pathlib.Path(data.path).expanduser().absolute()
    cases, table = _cases(root, data)
    names = 'image_size', 'fit', 'channels', 'num_raters', 'num_classes', 'intensity', 'hu_window', 'spacing'
    paths = [path for case in cases for path in (case.image, *case.masks)]
    files = [file for path in paths for file in (path.iterdir() if path.is_dir() else [path])]
    config = BoneUsConfig(
        name=f'{data.image_size}_{data.fit}_{built.fingerprint(root, files, [data[n] for n in names], table)}',
        root=root,
        cases=cases,
        table=table,
        data=data,
        dtype=dtype,
        every_slice=every_slice,
    )
    builder = built.opened(make, data.build_dir, config=config)
    if split not in builder.info.splits or not builder.info.splits[split].num_examples:
        raise UserError(
            f"{root}: the split '{split}' has no case ({len(cases)} in all); add cases, or give splits in patients.csv"
        )
    return built.Source([builder.as_data_source(split=split)], builder.info.metadata[split])


def _cases(root, data):
    """(cases, {case: (patient, split)}) of a folder without a fault."""
    cases, table = case_folder.checked(root, data.num_raters)
    if fault := next((case.fault for case in cases if case.fault), ''):
        raise UserError(fault)
    return cases, table
