"""`bone_us_simulated`: simulated ultrasound of bone surfaces with four simulated raters of different skill.

A tensorflow-datasets builder of 1500 images of 250 simulated volunteers, split by volunteer; images and raters are
those of `ambdiff.data.bone_us.phantom`. The raters' distribution is known, so that fresh answers can be made for any
image.
"""

import dataclasses
import os
import sys
import zlib

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ambdiff.data import built, splits
from ambdiff.data.bone_us import phantom
from ambdiff.data.example import SPLITS
from ambdiff.errors import UserError

_IMAGES = 6  # of a volunteer


@dataclasses.dataclass(eq=False, kw_only=True)
class BoneUsSimulatedConfig(tfds.core.BuilderConfig):
    """Images of image_size^2 pixels of that many volunteers."""

    image_size: int = 64
    volunteers: int = 250


class BoneUsSimulated(tfds.core.GeneratorBasedBuilder):
    """Images and raters simulated."""

    # A change of the phantom is a new version: a folder built before is not read as the new data.
    VERSION = tfds.core.Version(f'{phantom.VERSION}.0.0')
    BUILDER_CONFIGS = [  # noqa: RUF012
        BoneUsSimulatedConfig(name='64', image_size=64, description='64 x 64 pixels of 0.625 mm'),
        BoneUsSimulatedConfig(name='128', image_size=128, description='128 x 128 pixels of 0.3125 mm'),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description='Simulated B-mode ultrasound of bone surfaces, outlined by four simulated raters.',
            features=built.features(self.builder_config.image_size, 1, len(phantom.RATERS), np.uint8),
            license='Apache-2.0: made by ambdiff, no data of people in it',
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        names = volunteers(self.builder_config.volunteers)
        bar = tqdm(
            total=_IMAGES * len(names),
            desc=f'bone_us_simulated {self.builder_config.name}: simulated images, simulated raters',
            unit=' images',
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        split = splits.by_patient(names)
        return {name: self._generate_examples([v for v in names if split[v] == name], bar) for name in SPLITS}

    def _generate_examples(self, chosen, bar):
        size = self.builder_config.image_size
        for volunteer in chosen:
            for number in range(_IMAGES):
                case = f'{volunteer}_{number}'
                rng = np.random.default_rng((zlib.crc32(case.encode()), 2))
                scene = phantom.scene(case)
                # Raters are anonymous: the slot of an answer means nothing.
                masks = phantom.answers(scene, size, rng.permutation(len(phantom.RATERS)), rng)
                spacing = np.full(2, phantom.FIELD / size, np.float32)
                yield (
                    case,
                    {
                        'image': phantom.image(scene, size)[..., None],
                        'masks': masks,
                        'present': np.ones(len(masks), bool),
                        'case': case,
                        'patient': volunteer,
                        'spacing': spacing,
                    },
                )
                bar.update()
        if bar.n >= bar.total:
            bar.close()


def volunteers(count: int) -> list[str]:
    """The names of that many simulated volunteers."""
    return [f'volunteer{number:04d}' for number in range(count)]


def fresh_answers(case: str, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Fresh answers to a case's image, each by a rater chosen uniformly: uint8 [count, size, size]."""
    return phantom.answers(phantom.scene(case), size, rng.integers(len(phantom.RATERS), size=count), rng)


def open_split(build_dir: str | os.PathLike, image_size: int, split: str, count: int = 0) -> built.Source:
    """Opens a split, building the data set on first use (under a minute at size 64).

    Args:
      build_dir: where builders write.
      image_size: 64 or 128.
      split: 'train', 'validation' or 'test'.
      count: build a small data set of its own of so many volunteers; 0 takes all.

    Raises:
      UserError: unknown size, or build_dir cannot be written.
    """
    if image_size not in (64, 128):
        raise UserError(f'config.data.image_size is {image_size}; bone_us_simulated is made in 64 and 128')
    config = str(image_size)
    if count:
        config = BoneUsSimulatedConfig(
            name=f'{image_size}_of_{count}_volunteers', image_size=image_size, volunteers=count
        )
    builder = built.opened(BoneUsSimulated, build_dir, config=config)
    assigned = splits.by_patient(volunteers(builder.builder_config.volunteers))
    stored = builder.as_data_source(split=split)
    fresh = lambda row, number, rng: fresh_answers(stored[row]['case'].decode(), image_size, number, rng)
    return built.Source([stored], sorted(v for v in assigned if assigned[v] == split), fresh)
