"""`ms_mri_simulated`: simulated four-sequence MRI of multiple sclerosis with two simulated raters.

A tensorflow-datasets builder of some 1500 axial slices of 250 simulated patients, split by patient; images and raters
are those of `ambdiff.data.ms_mri.phantom`. Every slice cuts a lesion, but a rater may miss them all. The raters'
distribution is known, so that fresh answers can be made for any slice.
"""

import dataclasses
import functools
import os
import sys
import zlib

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ambdiff.data import built, splits
from ambdiff.data.example import SPLITS
from ambdiff.data.files import intensity
from ambdiff.data.ms_mri import phantom
from ambdiff.errors import UserError


@dataclasses.dataclass(eq=False, kw_only=True)
class MsMriSimulatedConfig(tfds.core.BuilderConfig):
    """Slices of image_size^2 pixels of that many patients."""

    image_size: int = 64
    patients: int = 250


class MsMriSimulated(tfds.core.GeneratorBasedBuilder):
    """Images and raters simulated."""

    # A change of the phantom is a new version: a folder built before is not read as the new data.
    VERSION = tfds.core.Version(f'{phantom.VERSION}.0.0')
    BUILDER_CONFIGS = [  # noqa: RUF012
        MsMriSimulatedConfig(name='64', image_size=64, description='64 x 64 pixels of 2 mm'),
        MsMriSimulatedConfig(name='128', image_size=128, description='128 x 128 pixels of 1 mm'),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        channels, raters = len(phantom.SEQUENCES), len(phantom.RATERS)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f'Simulated MRI ({", ".join(phantom.SEQUENCES)}) of lesions, outlined by two simulated raters.',
            features=built.features(self.builder_config.image_size, channels, raters, np.uint8),
            license='Apache-2.0: made by ambdiff, no data of people in it',
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        names = patients(self.builder_config.patients)
        bar = tqdm(
            total=len(names),
            desc=f'ms_mri_simulated {self.builder_config.name}: simulated images, simulated raters',
            unit=' patients',
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        split = splits.by_patient(names)
        return {name: self._generate_examples([p for p in names if split[p] == name], bar) for name in SPLITS}

    def _generate_examples(self, chosen, bar):
        size = self.builder_config.image_size
        for name in chosen:
            patient = phantom.patient(name)
            volume = np.stack([phantom.image(patient, z, size) for z in patient.slices])
            # Normalised as scans are: every volume and sequence by its own percentiles.
            volume = intensity.to_unit(volume, 'percentile')
            for number, z in enumerate(patient.slices):
                case = f'{name}_{number}'
                rng = np.random.default_rng((zlib.crc32(case.encode()), 2))
                # Raters are anonymous: the slot of an answer means nothing.
                masks = phantom.answers(patient, z, size, rng.permutation(len(phantom.RATERS)), rng)
                spacing = np.full(2, phantom.FIELD / size, np.float32)
                example = {
                    'image': volume[number],
                    'masks': masks,
                    'present': np.ones(len(masks), bool),
                    'case': case,
                    'patient': name,
                    'spacing': spacing,
                }
                yield case, built.record(example, np.uint8)
            bar.update()
        if bar.n >= bar.total:
            bar.close()


def patients(count: int) -> list[str]:
    """The names of that many simulated patients."""
    return [f'patient{number:04d}' for number in range(count)]


def fresh_answers(case: str, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Fresh answers to a case's slice, each by a rater chosen uniformly: uint8 [count, size, size]."""
    name, number = case.rsplit('_', 1)
    patient = _patient(name)
    who = rng.integers(len(phantom.RATERS), size=count)
    return phantom.answers(patient, patient.slices[int(number)], size, who, rng)


_patient = functools.lru_cache(16)(phantom.patient)  # neighbouring cases are of one patient


def open_split(build_dir: str | os.PathLike, image_size: int, split: str, count: int = 0) -> built.Source:
    """Opens a split, building the data set on first use (under a minute at size 64).

    Args:
      build_dir: where builders write.
      image_size: 64 or 128.
      split: 'train', 'validation' or 'test'.
      count: build a small data set of its own of so many patients; 0 takes all.

    Raises:
      UserError: unknown size, or build_dir cannot be written.
    """
    if image_size not in (64, 128):
        raise UserError(f'config.data.image_size is {image_size}; ms_mri_simulated is made in 64 and 128')
    config = str(image_size)
    if count:
        config = MsMriSimulatedConfig(name=f'{image_size}_of_{count}_patients', image_size=image_size, patients=count)
    builder = built.opened(MsMriSimulated, build_dir, config=config)
    assigned = splits.by_patient(patients(builder.builder_config.patients))
    stored = builder.as_data_source(split=split)
    fresh = lambda row, number, rng: fresh_answers(stored[row]['case'].decode(), image_size, number, rng)
    return built.Source([stored], sorted(p for p in assigned if assigned[p] == split), fresh)
