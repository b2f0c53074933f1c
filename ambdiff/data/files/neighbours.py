"""Slices of a volume with the k slices on either side as channels (config.data.neighbours = k, "2.5-D").

  x_z = [v_(z-k), .., v_z, .., v_(z+k)] along the channels,     v_i = v_0 for i < 0, v_(Z-1) for i >= Z

v_i [H, W, C] is slice i of Z with the C channels of the image itself, so the network sees (2 k + 1) C of them, which is
config.data.channels; beyond the first and the last slice the outermost one is repeated. Slices are neighbours in the
order of their volume, however many millimetres lie between them. With k = 0, x_z is v_z.
"""

from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from ambdiff.errors import UserError


def check(data: ml_collections.ConfigDict) -> None:
    """Holds config.data.channels to be those of 2 k + 1 slices; data: the config's group.

    Raises:
      UserError: they are not.
    """
    slices = 2 * data.neighbours + 1
    if data.channels % slices:
        raise UserError(
            f'config.data.channels is {data.channels}, the channels of {slices} slices together, since '
            f'config.data.neighbours is {data.neighbours}: a multiple of {slices}, as '
            f'--config.data.neighbours={data.neighbours} --config.data.channels={slices * data.channels} for images of '
            f'{data.channels} channel{"s" if data.channels > 1 else ""}'
        )


def none(where: object, data: ml_collections.ConfigDict) -> None:
    """Refuses config.data.neighbours where data has no volumes.

    Raises:
      UserError: naming `where` and the field.
    """
    if data.neighbours:
        raise UserError(
            f'{where}: single slices, no volumes, and config.data.neighbours is {data.neighbours}; set '
            f'--config.data.neighbours=0 --config.data.channels={own_channels(data)}'
        )


def own_channels(data: ml_collections.ConfigDict) -> int:
    """C, the channels of an image itself; data: the config's group."""
    return data.channels // (2 * data.neighbours + 1)


def places(z: int, k: int, count: int) -> list[int]:
    """Which of `count` slices stand in x_z, 2 k + 1 of them in order."""
    return [min(max(place, 0), count - 1) for place in range(z - k, z + k + 1)]


def stacked(slices: Sequence[np.ndarray] | Mapping[int, np.ndarray], z: int, k: int, count: int) -> np.ndarray:
    """x_z [H, W, (2 k + 1) C] of slices [H, W, C], by their place among `count`; those of `places` are there."""
    return np.concatenate([slices[place] for place in places(z, k, count)], -1)


def own(images: np.ndarray, k: int) -> np.ndarray:
    """The slice itself, v_z [..., C], of x_z [..., (2 k + 1) C]."""
    channels = images.shape[-1] // (2 * k + 1)
    return images[..., k * channels : (k + 1) * channels]
