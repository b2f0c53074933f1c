"""Configs that come with weights: told from damage, and held to the same checks as a file of configs/."""

import json
import math
import os
from collections.abc import Container, Sequence

import ml_collections
from flax import traverse_util

from ambdiff import methods
from ambdiff.config import default
from ambdiff.errors import UserError

_LONGEST = 64  # of a tuple


def restored(saved: object, path: str | os.PathLike) -> ml_collections.ConfigDict:
    """The config that JSON beside weights holds; fields that came later have their defaults.

    Args:
      saved: what the JSON says.
      path: of the weights, for what is told.

    Raises:
      UserError: no config, a value of another type than the field's, or one that no config may have.
    """
    if not isinstance(saved, dict):
        raise UserError(f'{path} has a damaged config: it is no object of groups and fields')
    own = saved.get('method')
    name = own.get('name') if isinstance(own, dict) else None
    try:
        config = default(name if isinstance(name, str) else 'cimd')
    except UserError as error:
        raise UserError(f'{path} has a config that cannot be used: {error}') from error
    for group, fields in saved.items():
        if group not in config:
            continue
        if not isinstance(config[group], ml_collections.ConfigDict):
            config[group] = _value(fields, config[group], group, path)
            continue
        if not isinstance(fields, dict):
            raise UserError(f'{path} has a damaged config: {group} is {_shown(fields)} instead of fields')
        for name, value in fields.items():
            if name in config[group]:
                config[group][name] = _value(value, config[group][name], f'{group}.{name}', path)
    for group in ('data', 'model', 'diffusion', 'method'):
        if group not in saved:
            raise UserError(f'{path} has a damaged config: it has no {group}')
    try:
        methods.check(config)
    except UserError as error:
        raise UserError(f'{path} has a config that cannot be used: {error}') from error
    # How much memory there is says the machine that samples, not the one that trained.
    config.sample.memory_mib = min(config.sample.memory_mib, default().sample.memory_mib)
    return config.lock()


def differences(
    saved: dict, config: ml_collections.ConfigDict, groups: Sequence[str], free: Container[str]
) -> list[str]:
    """Fields of these groups whose value differs, as 'group.field: saved -> now'.

    A field that came after `saved` was written counts as its default: what was done before it.

    Args:
      saved: a config's JSON.
      config: of now.
      groups: of config; also fields of no group.
      free: fields 'group.field' that may differ.
    """
    flat = lambda tree: traverse_util.flatten_dict({g: tree.get(g) for g in groups}, sep='.')
    now = flat(json.loads(config.to_json()))
    saved = {**flat(json.loads(default(saved['method']['name']).to_json())), **flat(saved)}
    names = sorted(n for n in saved.keys() | now.keys() if saved.get(n) != now.get(n))
    return [f'{n}: {saved.get(n)} -> {now.get(n)}' for n in names if n not in free]


def _value(value: object, like: object, name: str, path):
    """The value as one of the type of `like`, which it must have."""
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    finite = lambda x: number(x) and (isinstance(x, int) or math.isfinite(x))
    if isinstance(like, tuple | list):
        if isinstance(value, tuple | list) and len(value) <= _LONGEST and all(map(finite, value)):
            return tuple(value)
        wanted = 'a list of numbers'
    elif isinstance(like, float):
        if finite(value) and abs(value) < 1e30:
            return float(value)
        wanted = 'a number'
    elif type(value) is type(like):
        return value
    else:
        wanted = {bool: 'true or false', int: 'a whole number', str: 'text'}[type(like)]
    raise UserError(f'{path} has a damaged config: {name} is {_shown(value)} instead of {wanted}')


def _shown(value: object) -> str:
    """A value in a message: a stranger's may be endless or nested without bound."""
    return repr(value)[:40] if isinstance(value, str | int | float | None) else type(value).__name__
