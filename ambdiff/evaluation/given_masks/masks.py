"""One side's masks, the raters' or the samples', whatever they lie in."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

RATERS, SAMPLES = 'raters', 'samples'


@dataclasses.dataclass(frozen=True)
class GivenMasks:
    """One side's masks.

    Attributes:
      place: the file or folder, for what is told.
      masks: {case: what reads its masks, uint8 [K, Z, H, W]: 0 and 1, or labels}, in their order.
      patients: {case: patient}, where they are known; '' of one that is not.
      draws: how the samples of a case relate to each other, if the file says so.
      images: {case: [H, W, C] float32 in [0, 1]}, where the file holds them.
    """

    place: pathlib.Path
    masks: Mapping[str, Callable[[], np.ndarray]]
    patients: Mapping[str, str] = dataclasses.field(default_factory=dict)
    draws: str = ''
    images: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def size(masks: np.ndarray) -> str:
    """'64x64', or '12 slices of 64x64', of masks [K, Z, H, W]."""
    slices, height, width = masks.shape[1:]
    return f'{height}x{width}' if slices == 1 else f'{slices} slices of {height}x{width}'
