"""Weights from a run's checkpoint or from a file, held to the config that they are used with.

What reads checkpoints is imported where there is one to read: it takes as long as JAX itself, and a file needs none.
"""

import json
import logging
import pathlib

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from ambdiff import config_saved, methods
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Method, Weights
from ambdiff.runtime import weights_file, weights_place

logger = logging.getLogger(__name__)

# Fields of config.model that change how a network is computed, not what it is.
_FREE_FORM = ('model.dtype', 'model.remat', 'model.dropout')


def check_architecture(saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, method: Method, path):
    """Raises UserError naming the fields in which the config `saved` of weights at `path` is of another network."""
    if saved.method.name != config.method.name:
        raise UserError(
            f'checkpoint {path} is of the method {saved.method.name}, the config of {config.method.name}: '
            'use the config it was trained with'
        )
    known = (*method.architecture, 'data.channels', 'data.neighbours', 'data.image_size', 'data.num_classes')
    matters = lambda name: name in known or name.partition('.')[0] in known
    groups = ('data', 'model', 'diffusion', 'method')
    changed = config_saved.differences(json.loads(saved.to_json()), config, groups, _FREE_FORM)
    changed = [c for c in changed if matters(c.split(':')[0])]
    if changed:
        raise UserError(
            f'checkpoint {path} is of another architecture ({"; ".join(changed[:5])}): '
            'use the config it was trained with'
        )


def _shapes(method: Method, config: ml_collections.ConfigDict, sharding: jax.sharding.Sharding) -> Weights:
    """Shapes of all that a method learns and carries."""
    size = config.data.image_size
    image = jax.ShapeDtypeStruct((1, size, size, config.data.channels), np.float32)
    params, state = jax.eval_shape(lambda image: method.init(jax.random.key(0), {'image': image}), image)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), Weights(params, state))


def _find_step(place: pathlib.Path) -> tuple[pathlib.Path, int]:
    """(the folder of checkpoints, the newest step that can be read) of a workdir, or the step whose folder this is."""
    folder, step = weights_place.checkpoints(place)
    if step is None:
        from ambdiff.runtime import integrity

        step, bad = integrity.newest_good(folder, ('ema', 'config'))
        for number, reason in bad.items():
            logger.warning('checkpoint %d of %s is skipped: %s', number, folder, reason)
    if step is None:
        raise UserError(f'{folder} holds no checkpoint yet: train first')
    return folder, step


def load_weights(path: str, config: ml_collections.ConfigDict, sharding: jax.sharding.Sharding) -> tuple[Weights, int]:
    """(averaged weights and the method's state, step) from a workdir, a step's folder or a .safetensors file.

    A checkpoint gives all that the method had learned, a file what sampling needs.

    Args:
      path: what config.checkpoint says.
      config: must agree with the one the weights were trained with.
      sharding: of every array.

    Raises:
      UserError: nothing there, not readable, or of another method or architecture.
    """
    place = weights_place.existing(path)
    method = methods.create(config)
    if place.is_file():
        return _load_file(place, config, method, sharding)
    folder, step = _find_step(place)
    from ambdiff.runtime import checkpointer

    saved = config_saved.restored(checkpointer.saved_config(folder, step), path)
    check_architecture(saved, config, method, path)
    # It holds what its own config trains, which need not be what this one does.
    weights = checkpointer.saved_weights(folder, step, _shapes(methods.create(saved), saved, sharding))
    weights_file.check(weights_file.packed(weights), folder / str(step))
    return weights, step


def load_config(path: str) -> ml_collections.ConfigDict:
    """The config that weights were trained with; fields that came later have their defaults.

    Args:
      path: a workdir, a step's folder or a .safetensors file.

    Raises:
      UserError: nothing there, or not readable.
    """
    place = weights_place.existing(path)
    if place.is_file():
        return weights_file.load_safetensors(place)[1]
    folder, step = _find_step(place)
    from ambdiff.runtime import checkpointer

    return config_saved.restored(checkpointer.saved_config(folder, step), path)


def unlike_data(path: str, config: ml_collections.ConfigDict) -> list[str]:
    """How the data that a config names is read otherwise than the weights at `path` were trained: a line each."""
    then, now = load_config(path).data, config.data
    fields = ['intensity', 'spacing']
    if then.intensity == now.intensity == 'hu_window':
        fields.append('hu_window')
    lines = []
    for field in fields:
        if (had := then[field]) != (has := now[field]):
            shown = str(had).replace(' ', '')  # as the command line takes it
            lines.append(
                f'config.data.{field}={has}, but the weights were trained with {had}: on such images their masks mean '
                f'little; --config.data.{field}={shown} reads the data as in training'
            )
    return lines


def _load_file(path: pathlib.Path, config: ml_collections.ConfigDict, method: Method, sharding: jax.sharding.Sharding):
    loaded, saved, step = weights_file.load_safetensors(path)
    check_architecture(saved, config, method, path)
    shapes = _shapes(method, config, sharding)
    wanted = weights_file.packed(Weights(method.for_sampling(shapes.params), shapes.state))
    have, want = (traverse_util.flatten_dict(tree, sep='/') for tree in (loaded, wanted))  # it may hold more
    wrong = [n for n in want if n not in have or have[n].shape != want[n].shape]
    if wrong:
        raise UserError(f'{path} does not fit the model, for instance at {wrong[0]}')
    tree = traverse_util.unflatten_dict({n: have[n] for n in want}, sep='/')
    return jax.device_put(weights_file.unpacked(tree), sharding), step
