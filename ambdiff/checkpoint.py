"""Checkpoints of a run (Orbax), and weights as one .safetensors file.

  <workdir>/checkpoints/<step>/state   step, parameters and optimiser state: what resuming needs
  <workdir>/checkpoints/<step>/ema     the averaged weights: what sampling needs
  <workdir>/checkpoints/<step>/config  the config of the run, as JSON
Saving is asynchronous; a step's folder appears whole or not at all.
"""

import json
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy
from flax import traverse_util

from ambdiff import methods
from ambdiff.config import default
from ambdiff.errors import UserError

# Groups that a run must share with the one it goes on from.
_RESUMED = ('data', 'model', 'diffusion', 'method', 'optim', 'seed', 'train')
# What may change between one part of a run and the next: nothing that a step depends on, but its number.
_FREE = {'data.build_dir'} | {
    f'train.{name}'
    for name in ('num_steps', 'log_every', 'checkpoint_every', 'keep_checkpoints', 'sample_every', 'sample_images')
}


def _differences(saved: dict, config: ml_collections.ConfigDict, groups) -> list[str]:
    """Fields of these groups whose value differs, as 'group.field: saved -> now'.

    A field that came after the checkpoint was written counts as its default: what was done before it.
    """
    flat = lambda tree: traverse_util.flatten_dict({g: tree.get(g) for g in groups}, sep='.')
    now = flat(json.loads(config.to_json()))
    saved = {**flat(json.loads(default().to_json())), **flat(saved)}
    names = sorted(n for n in saved.keys() | now.keys() if saved.get(n) != now.get(n))
    return [f'{n}: {saved.get(n)} -> {now.get(n)}' for n in names if n not in _FREE]


def _restore(manager: ocp.CheckpointManager, folder: pathlib.Path, step: int, **items):
    """The items of a step.

    Raises:
      UserError: the step's folder is damaged.
    """
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in items}
    except Exception as error:  # Orbax names no type: whatever a damaged file leads to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f'{folder / str(step)} is damaged ({reason}): delete this folder to go on from the step before it'
        ) from error


class Checkpointer:
    """Saves and restores the checkpoints of one workdir; use as a context manager."""

    def __init__(self, workdir: pathlib.Path, keep: int = 2):
        self.folder = workdir.absolute() / 'checkpoints'
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=('state', 'ema', 'config'))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, ema: Any, config: ml_collections.ConfigDict) -> None:
        """Starts saving; returns once the arrays are copied."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                ema=ocp.args.StandardSave(ema),
                config=ocp.args.JsonSave(json.loads(config.to_json())),
            ),
        )

    def restore(self, step: int, state: Any, ema: Any, config: ml_collections.ConfigDict):
        """(state, ema) of a step, shaped, typed and sharded as the abstract trees given.

        Raises:
          UserError: the run was started with another config.
        """
        saved = _restore(self._manager, self.folder, step, config=ocp.args.JsonRestore())
        changed = _differences(saved['config'], config, _RESUMED)
        if changed:
            raise UserError(
                f'{self.folder.parent} holds a run with another config ({"; ".join(changed[:5])}): '
                'give another --workdir, or the config it was started with'
            )
        trees = {'state': ocp.args.StandardRestore(state), 'ema': ocp.args.StandardRestore(ema)}
        restored = _restore(self._manager, self.folder, step, **trees)
        return restored['state'], restored['ema']


def _check_architecture(saved: dict, config: ml_collections.ConfigDict, path) -> None:
    changed = _differences(saved, config, ('data', 'model', 'diffusion', 'method'))
    matters = lambda name: (
        (name.split('.')[0] in ('model', 'diffusion') and name not in ('model.dtype', 'model.remat', 'model.dropout'))
        or name in ('data.channels', 'data.image_size', 'method.image_range', 'method.image_repeats')
    )
    changed = [c for c in changed if matters(c.split(':')[0])]
    if changed:
        raise UserError(
            f'checkpoint {path} is of another architecture ({"; ".join(changed[:5])}): '
            'use the config it was trained with'
        )


def _abstract_params(saved: dict, config: ml_collections.ConfigDict, where: jax.sharding.Sharding):
    """Shapes of all that a checkpoint holds, AMN and ACN if it has them."""
    config = config.copy_and_resolve_references()
    config.method.encoders = saved['method']['encoders']
    config.method.latent_dim = saved['method']['latent_dim']
    size = config.data.image_size
    image = jax.ShapeDtypeStruct((1, size, size, config.data.channels), np.float32)
    params = jax.eval_shape(methods.create(config).init, jax.random.key(0), {'image': image})
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), params)


def load_weights(path: str, config: ml_collections.ConfigDict, where: jax.sharding.Sharding) -> tuple[dict, int]:
    """(averaged weights, step) from a workdir, a step's folder or a .safetensors file.

    Args:
      path: what config.checkpoint says.
      config: must agree with the one the weights were trained with.
      where: placement of every array.

    Raises:
      UserError: nothing there, not readable, or of another architecture.
    """
    place = pathlib.Path(path).absolute()
    if not place.exists():
        raise UserError(f'config.checkpoint={path} does not exist')
    if place.is_file():
        return _load_file(place, config, where)
    step = int(place.name) if place.name.isdigit() and (place / 'ema').is_dir() else None
    folder = place.parent if step is not None else place / 'checkpoints'
    if not folder.is_dir():
        raise UserError(
            f'config.checkpoint={path} is neither a workdir with checkpoints, nor the folder of a '
            'step, nor a .safetensors file'
        )
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(folder, options=options, item_names=('state', 'ema', 'config')) as manager:
        step = manager.latest_step() if step is None else step
        if step is None:
            raise UserError(f'{folder} holds no checkpoint yet: train first')
        saved = _restore(manager, folder, step, config=ocp.args.JsonRestore())['config']
        _check_architecture(saved, config, path)
        target = {'ema': _abstract_params(saved, config, where)}
        return _restore(manager, folder, step, ema=ocp.args.StandardRestore(target))['ema']['ema'], step


def load_config(path: str) -> ml_collections.ConfigDict:
    """The config that weights were trained with; fields that came later have their defaults.

    Args:
      path: a workdir, a step's folder or a .safetensors file.

    Raises:
      UserError: nothing there, or not readable.
    """
    place = pathlib.Path(path).absolute()
    if place.is_file():
        saved = load_safetensors(place)[1]
    else:
        in_step = place.name.isdigit() and (place / 'ema').is_dir()
        folder = place.parent if in_step else place / 'checkpoints'
        if not folder.is_dir():
            what = 'holds no checkpoint' if place.exists() else 'does not exist'
            raise UserError(f'{path} {what}: name a .safetensors file, a workdir or the folder of a step')
        options = ocp.CheckpointManagerOptions(read_only=True)
        with ocp.CheckpointManager(folder, options=options, item_names=('state', 'ema', 'config')) as manager:
            step = int(place.name) if in_step else manager.latest_step()
            if step is None:
                raise UserError(f'{folder} holds no checkpoint yet: train first')
            saved = _restore(manager, folder, step, config=ocp.args.JsonRestore())['config']
    config = default()
    try:
        for group, fields in saved.items():
            if not isinstance(fields, dict):
                config[group] = fields
                continue
            for name, value in fields.items():
                if name in config[group]:
                    config[group][name] = tuple(value) if isinstance(value, list) else value
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{path} has a damaged config: {error}') from error
    return config.lock()


def save_safetensors(
    path: str | os.PathLike, params: Any, config: ml_collections.ConfigDict, step: int, dtype='float16'
) -> None:
    """Writes weights, with the config and step as metadata, whole or not at all."""
    flat = traverse_util.flatten_dict(params, sep='/')
    tensors = {name: np.ascontiguousarray(np.asarray(v), dtype) for name, v in flat.items()}
    metadata = {'format': 'ambdiff', 'config': config.to_json(), 'step': str(step)}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    safetensors.numpy.save_file(tensors, partial, metadata)
    os.replace(partial, path)


def load_safetensors(path: str | os.PathLike) -> tuple[dict, dict, int]:
    """(float32 weights as a nested dict, config as a plain dict, step).

    Raises:
      UserError: not a .safetensors file of this project, or cut short.
    """
    try:
        with safetensors.safe_open(path, 'np') as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise UserError(f'{path} is not a whole .safetensors file: {error}') from error
    if metadata.get('format') != 'ambdiff':
        raise UserError(
            f'{path} carries no ambdiff config: bring released weights in with python -m ambdiff.convert --from_torch='
        )
    try:
        config, step = json.loads(metadata['config']), int(metadata['step'])
        if not all(isinstance(config[group], dict) for group in ('data', 'model', 'diffusion', 'method')):
            raise ValueError('its config is not one of ambdiff')
        return traverse_util.unflatten_dict(flat, sep='/'), config, step
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f'{path} has damaged metadata: {error}') from error


def _load_file(path: pathlib.Path, config: ml_collections.ConfigDict, where: jax.sharding.Sharding):
    loaded, saved, step = load_safetensors(path)
    _check_architecture(saved, config, path)
    # A file for sampling leaves out what only training uses (AMN, ACN).
    wanted = _abstract_params({'method': {**config.method, 'encoders': 'none'}}, config, where)
    have, want = (traverse_util.flatten_dict(tree, sep='/') for tree in (loaded, wanted))
    wrong = [n for n in want if n not in have or have[n].shape != want[n].shape]
    if wrong:
        raise UserError(f'{path} does not fit the model, for instance at {wrong[0]}')
    return jax.device_put(traverse_util.unflatten_dict({n: have[n] for n in want}, sep='/'), where), step
