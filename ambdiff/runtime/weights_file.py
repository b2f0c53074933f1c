"""Weights as one .safetensors file: the tensors, and as metadata the config, the step and a digest of all of it.

What is read is checked before it is used: a file that carries a digest must have it; a value that no network of this
project comes to (not finite, no float, huge) is damage in any file, with a digest or from a version that wrote none.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from ambdiff import config_saved, files
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Weights

# A method's state lies below this name beside its networks.
_STATE = '@state'
# Trained weights stay below 100; damaged bytes read as floats are of any size.
_LARGEST = 1e4


def _digest(tensors: Mapping[str, np.ndarray], config: str, step: str) -> str:
    """SHA-256 over config, step, and the name, type, shape and values of every tensor."""
    total = hashlib.sha256(json.dumps([config, step]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        total.update(np.ascontiguousarray(tensor).view(np.uint8).data)
    return total.hexdigest()


def packed(weights: Weights) -> dict:
    """Parameters, and the state where there is one, as the one tree that a file holds."""
    return weights.params | ({_STATE: weights.state} if jax.tree.leaves(weights.state) else {})


def unpacked(tree: Mapping) -> Weights:
    """The inverse of `packed`."""
    return Weights({name: below for name, below in tree.items() if name != _STATE}, tree.get(_STATE, {}))


def _of_state(name: str) -> bool:
    return name.partition('/')[0] == _STATE


def damage(name: str, values: np.ndarray) -> str | None:
    """Why an array of weights cannot be meant, None if it can; `name` is its own."""
    if _of_state(name):
        return None if np.isfinite(values).all() else f'{name} holds values that are not finite'
    if not jax.numpy.issubdtype(values.dtype, np.floating):
        return f'{name} holds {values.dtype} instead of floats'
    largest = np.abs(values).max(initial=0)
    if not np.isfinite(largest):
        return f'{name} holds values that are not finite'
    if largest > _LARGEST:
        return f'{name} holds {largest:.3g}, and weights are small'
    return None


def mistaken(path: str | os.PathLike) -> str | None:
    """What a file is that is often kept in the place of weights, by its first bytes; None for all else."""
    with open(path, 'rb') as file:
        start = file.read(100).lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if start.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'a web page, not weights: download the file itself'
    if start.startswith(b'version https://git-lfs'):
        return 'what Git LFS keeps in the place of a file: run git lfs pull'
    return None


def check(params: Any, path: str | os.PathLike) -> None:
    """Raises UserError naming the first array of a tree of weights, read from `path`, that cannot be meant."""
    for name, leaf in traverse_util.flatten_dict(params, sep='/').items():
        # Of arrays on several devices each holds the whole: one is enough.
        values = np.asarray(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)
        if reason := damage(name, values):
            raise UserError(f'{path} is damaged: {reason}; take another copy or checkpoint')


def save_safetensors(
    path: str | os.PathLike, params: Any, config: ml_collections.ConfigDict, step: int, dtype='float16'
) -> None:
    """Writes weights, with the config and step as metadata, whole or not at all.

    Args:
      path: of the file.
      params: parameters, or the tree `packed` of them and a state, which keeps its types.
      config: that they were trained with.
      step: after which.
      dtype: of the parameters in the file.

    Raises:
      UserError: a value is not finite, or is not in `dtype`.
    """
    flat = traverse_util.flatten_dict(params, sep='/')
    with np.errstate(over='ignore'):  # told by name just below
        typed = lambda name, v: np.asarray(v, None if _of_state(name) else dtype, order='C')
        tensors = {name: typed(name, v) for name, v in flat.items()}
    for name, tensor in tensors.items():
        if reason := damage(name, tensor):
            raise UserError(f'{path} is not written: {reason} as {dtype}; take a checkpoint from before it diverged')
    said = {'config': config.to_json(), 'step': str(step)}
    metadata = {'format': 'ambdiff', **said, 'digest': _digest(tensors, **said)}
    files.write_whole(path, safetensors.numpy.save(tensors, metadata))


def load_safetensors(path: str | os.PathLike) -> tuple[dict, ml_collections.ConfigDict, int]:
    """(float32 weights as a nested dict, for `unpacked`; the config they were trained with; step).

    Raises:
      UserError: not a .safetensors file of this project, cut short, changed, or holding what cannot be meant.
    """
    try:
        if what := mistaken(path):
            raise UserError(f'{path} is {what}')
        with safetensors.safe_open(path, 'np') as file:
            metadata = file.metadata() or {}
            if metadata.get('format') != 'ambdiff':
                raise UserError(
                    f'{path} carries no ambdiff config: bring released weights in with '
                    'python -m ambdiff.convert --from_torch='
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise UserError(f'{path} is not a whole .safetensors file: {error}') from error
    check(tensors, path)
    try:
        said = {'config': metadata['config'], 'step': metadata['step']}
        saved, step = json.loads(said['config']), int(said['step'])
        typed = lambda name, t: t if _of_state(name) else t.astype(np.float32)
        tree = traverse_util.unflatten_dict({n: typed(n, t) for n, t in tensors.items()}, sep='/')
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f'{path} has damaged metadata: {error}') from error
    if 'digest' in metadata and metadata['digest'] != _digest(tensors, **said):
        raise UserError(f'{path} is not as it was written (its digest differs): take another copy')
    return tree, config_saved.restored(saved, path), step
