"""What a run starts from where config.checkpoint names weights: its own method's, or networks of another's."""

import logging

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Params, Weights
from ambdiff.runtime.checkpoint import load_config, load_weights

logger = logging.getLogger(__name__)


def weights(config: ml_collections.ConfigDict, params: Params, where: jax.sharding.Sharding) -> Weights:
    """The weights of config.checkpoint; of another method's, the networks that this one has too, of the same shapes.

    Args:
      config: of the run.
      params: shapes of the run's own parameters.
      where: placement of every array.

    Raises:
      UserError: as of `load_weights`, or no network of the other method fits.
    """
    path = config.checkpoint
    saved = load_config(path)
    if saved.method.name == config.method.name:
        return load_weights(path, config, where)[0]
    loaded = load_weights(path, saved, where)[0].params
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    common = {name: net for name, net in loaded.items() if name in params and shapes(net) == shapes(params[name])}
    if not common:
        raise UserError(
            f'config.checkpoint={path} is of the method {saved.method.name} and has no network that fits '
            f'{config.method.name} with this config: give it the same config.model and config.data'
        )
    logger.info('of the weights of %s: %s', saved.method.name, ', '.join(sorted(common)))
    return Weights(common, {})
