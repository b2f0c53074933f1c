"""`bone_us`: your own ultrasound with several raters, built once from the `folder` layout (docs/data/folder.md).

  CASE/image.*      PNG, JPEG, TIFF, NIfTI or DICOM: one B-mode picture, or the frames of a sweep
  CASE/mask_*.*     one file a rater; a case may have fewer than config.data.num_raters
  patients.csv      optional: columns case, patient and, if you like, split (`ambdiff.data.layouts.case_folder`)

It is the builder `ambdiff.data.folder` with other defaults. Colour becomes luminance. The scanner has compressed the
envelope to its logarithm already, so nothing is done to the speckle: with config.data.intensity = 'b_mode' each
picture becomes (v - p1) / (p99.9 - p1), percentiles over the pixels above 0, which takes out gain and dynamic range
(`ambdiff.data.files.intensity` says why); 8 bits keep it. Every frame is an example, also one that no rater marked:
that a picture shows no bone is an answer too.
"""

import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from ambdiff.data import folder
from ambdiff.data.files import neighbours
from ambdiff.data.folder import split_table  # noqa: F401  the same as for any folder of cases
from ambdiff.data.source import Source
from ambdiff.errors import UserError


class BoneUs(folder.Folder):
    """A user's own ultrasound pictures and their raters."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [  # noqa: RUF012
        folder.FolderConfig(
            name=f'{size}_resize',
            description=f'{size} x {size}, whole pictures, up to four raters',
            data=folder.fields(image_size=size, fit='resize', intensity='b_mode'),
        )
        for size in (128, 64)
    ]
    DTYPE = np.uint8
    EVERY_SLICE = True


def open_split(data: ml_collections.ConfigDict, split: str, walk: bool = False) -> Source:
    """Opens a split of the user's folder, building the data set on first use.

    Args and errors as `ambdiff.data.folder.open_split`; one channel alone.
    """
    if neighbours.own_channels(data) != 1:
        raise UserError(f'config.data.channels is {data.channels}; bone_us has 1 channel')
    return folder.open_built(BoneUs, data, split, walk)
