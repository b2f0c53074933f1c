"""The device mesh and where arrays live on it.

Axes: `data` shares the rows of a batch, and with FSDP the parameters, their average and the optimiser's state; `model`
shares the image rows of the widest activations. Arrays that an axis does not share are the same along it.
"""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ambdiff.errors import UserError

AXES = ('data', 'model')


def create_mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The mesh of the config's group mesh: [data, model] over all devices of all processes.

    Raises:
      UserError: config.mesh.data x config.mesh.model is not the number of devices.
    """
    devices = jax.device_count()
    if config.model < 1 or devices % config.model:
        raise UserError(f'config.mesh.model={config.model} does not divide {devices} devices')
    data = devices // config.model
    if config.data not in (-1, data):
        raise UserError(
            f'config.mesh.data={config.data} x config.mesh.model={config.model} does not fit {devices} devices; '
            'config.mesh.data=-1 takes all'
        )
    return jax.make_mesh((data, config.model), AXES, axis_types=(AxisType.Auto,) * 2)


def local_mesh() -> Mesh:
    """This process's own devices, all along `data`: what work without communication, such as sampling, runs on."""
    return Mesh(np.array(jax.local_devices()).reshape(-1, 1), AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First axis split over the mesh axis data."""
    return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, tree: Any, fsdp: bool) -> Any:
    """A sharding for every array of a state: replicated, or with FSDP split over data.

    Split is an array's largest dimension that the axis divides; one with none stays replicated.

    Args:
      mesh: of `create_mesh`.
      tree: arrays or their shapes.
      fsdp: split at all.
    """
    parts = mesh.shape['data']

    def place(x) -> NamedSharding:
        divisible = [(size, -axis) for axis, size in enumerate(x.shape) if size % parts == 0 and size]
        if not fsdp or not divisible:
            return replicated(mesh)
        axis = -max(divisible)[1]
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))

    return jax.tree.map(place, tree)


def on(tree: Any, shardings: Any) -> Any:
    """The tree's shapes and types with a sharding on every leaf; `shardings` is one, or a tree of them."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def bytes_per_device(tree: Any) -> int:
    """Bytes that one device holds of arrays, or of shapes with shardings."""
    size = lambda x: int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
    return sum(size(x) for x in jax.tree.leaves(tree))


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """The whole of arrays that may be split over processes, on every device of this process's `mesh`.

    All processes call it together.
    """
    leaves = jax.tree.leaves(tree)
    if not all(x.is_fully_replicated for x in leaves):
        tree = jax.jit(lambda x: x, out_shardings=replicated(leaves[0].sharding.mesh))(tree)
    return jax.device_put(jax.tree.map(lambda x: x.addressable_data(0), tree), replicated(mesh))


def height_split(mesh: Mesh, levels: int, heights: tuple[int, ...]) -> Callable[[jax.Array, int], jax.Array]:
    """(activations [B, H, W, C], level) -> the same, with the H of the widest `levels` split over model.

    What the U-Net takes as `place`. Convolutions then exchange the rows at the borders, by the compiler.

    Args:
      mesh: of `create_mesh`.
      levels: how many of the widest levels.
      heights: H of each level of the network, widest first.

    Raises:
      UserError: an H does not divide over the axis.
    """
    parts = mesh.shape['model']
    if not 1 <= levels <= len(heights):
        raise UserError(f'config.mesh.height_levels={levels} must lie in 1 .. {len(heights)}, the levels of the U-Net')
    for height in heights[:levels]:
        if height % parts:
            raise UserError(
                f'a U-Net level of {height} rows does not divide over config.mesh.model={parts}: '
                'lower that or config.mesh.height_levels'
            )
    free = PartitionSpec.UNCONSTRAINED

    def place(h: jax.Array, level: int) -> jax.Array:
        split = PartitionSpec(free, 'model' if level < levels else None, None, None)
        return jax.lax.with_sharding_constraint(h, NamedSharding(mesh, split))

    return place


def check_batch(mesh: Mesh, batch_size: int, field: str) -> None:
    """Raises UserError if a batch does not divide over the devices; `field` is the one to mend."""
    if batch_size < 1 or batch_size % mesh.shape['data']:
        raise UserError(
            f'{field}={batch_size} is not a multiple of the {mesh.shape["data"]} devices '
            'that share a batch (mesh axis data)'
        )
