"""The device mesh and where arrays live on it."""

import jax
import ml_collections
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ambdiff.errors import UserError


def create_mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The mesh of the config's group mesh: one axis, data, over all devices.

    Raises:
      UserError: config.mesh.data is not the number of devices.
    """
    devices = jax.device_count()
    if config.data not in (-1, devices):
        raise UserError(f'config.mesh.data={config.data} does not fit {devices} devices; -1 takes all')
    return jax.make_mesh((devices,), ('data',), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First axis split over the mesh axis data."""
    return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(mesh: Mesh, batch_size: int, field: str) -> None:
    """Raises UserError if a batch does not divide over the devices; `field` is the one to mend."""
    if batch_size < 1 or batch_size % mesh.shape['data']:
        raise UserError(
            f'{field}={batch_size} is not a multiple of the {mesh.shape["data"]} devices '
            'that share a batch (mesh axis data)'
        )
