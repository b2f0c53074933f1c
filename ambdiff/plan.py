"""What a training is made of before it has data: mesh, method and optimiser, checked against each other."""

import logging

import ml_collections
import optax
from jax.sharding import Mesh

from ambdiff import methods, optim
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Method
from ambdiff.runtime import sharding
from ambdiff.runtime.checkpoint import check_architecture, load_config

logger = logging.getLogger(__name__)


def check(config: ml_collections.ConfigDict) -> None:
    """Tells what keeps a config from training as far as that shows without reading the data.

    Raises:
      UserError: a field does not suit, the data is not there, or the weights to start from are not.
    """
    _, method, _ = of(config)
    sources.check(config.data, 'train')
    if config.checkpoint and (saved := load_config(config.checkpoint)).method.name == config.method.name:
        check_architecture(saved, config, method, config.checkpoint)
    first, steps = optim.warmup_steps(config.optim, config.train.num_steps), config.train.num_steps
    if first != config.optim.warmup_steps:
        logger.warning(
            'config.optim.warmup_steps=%d is no shorter than the run of %d steps; the warm-up takes %d',
            *(config.optim.warmup_steps, steps, first),
        )


def of(config: ml_collections.ConfigDict) -> tuple[Mesh, Method, optax.GradientTransformation]:
    """(mesh, method, optimiser) of a config.

    Raises:
      UserError: a field does not suit the devices or another field.
    """
    train, mesh = config.train, sharding.create_mesh(config.mesh)
    shared = mesh.shape['data']
    sharding.check_batch(mesh, train.batch_size, 'config.train.batch_size')
    parts = train.accumulation_steps
    if parts < 1 or train.batch_size % (parts * shared):
        raise UserError(
            f'config.train.batch_size={train.batch_size} does not divide into '
            f'config.train.accumulation_steps={parts} parts over {shared} devices'
        )
    method = methods.create(config)
    if mesh.shape['model'] > 1:
        size, patch = config.data.image_size, config.model.patch_size
        heights = tuple(size // (patch * 2**level) for level in range(len(config.model.channel_mult)))
        method = methods.create(config, sharding.height_split(mesh, config.mesh.height_levels, heights))
    return mesh, method, optim.create(config.optim, train.num_steps)
