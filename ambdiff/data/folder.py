"""`folder`: your own data (docs/data/folder.md), built once as a tensorflow-datasets set and then read at random.

For what is too large to be read into memory at every start, volumes above all; the examples are those of
`ambdiff.data.layouts.case_folder`, images at 16 bits. A build that was interrupted goes on case by case.

  --config.data.builder=folder --config.data.path=FOLDER
"""

import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from ambdiff.data import built
from ambdiff.data.bone_us import scans


class Folder(scans.BoneUs):
    """A user's own images and their raters."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [  # noqa: RUF012
        scans.BoneUsConfig(
            name=f'{size}_{fit}_{kind}',
            description=f'{size} x {size}, {fit}, intensity: {kind}, up to four raters',
            data=scans.fields(image_size=size, fit=fit, intensity=kind),
            dtype=np.uint16,
            every_slice=False,
        )
        for size in (128, 64)
        for fit in ('crop', 'resize')
        for kind in ('full_range', 'percentile', 'hu_window')
    ]


def open_split(data: ml_collections.ConfigDict, split: str) -> built.Source:
    """Opens a split of the user's folder, building the data set on first use; arguments and errors as `bone_us`."""
    return scans.open_cases(Folder, data, split, dtype=np.uint16, every_slice=False)
