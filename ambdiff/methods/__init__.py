"""One file a method: `create(config, place)` makes it (kit/contract.py), `Fields` are its fields of config.method,
`recommend(config)` its published training settings, `small(config)` its part of `ambdiff.config.small`.

docs/add_a_method.md shows a whole one. kit/ holds what they are made of.
"""

import importlib
import pkgutil
import typing

import ml_collections

from ambdiff import config_check
from ambdiff.errors import UserError
from ambdiff.methods.kit import fields

if typing.TYPE_CHECKING:  # a config is made before it is known that JAX is needed
    from ambdiff.methods.kit.contract import Method


def known() -> list[str]:
    """The methods' names: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def _module(name: str):
    if name not in known():
        raise UserError(f'config.method.name={name!r} is not known; use one of {", ".join(known())}')
    return importlib.import_module(f'{__name__}.{name}')


def group(name: str) -> ml_collections.ConfigDict:
    """config.method of this method: its name and its own fields, each with its default.

    Raises:
      UserError: there is no such file in ambdiff/methods.
    """
    return ml_collections.ConfigDict({'name': name, **fields.defaults(_fields(name))})


def _fields(name: str) -> type | None:
    return getattr(_module(name), 'Fields', None)


def check(config: ml_collections.ConfigDict) -> None:
    """Checks each field by itself: those that all methods share, and the method's own.

    Raises:
      UserError: there is no such file in ambdiff/methods, or names the field and what it may be.
    """
    name = config.method.name
    strange = sorted(set(config.method) ^ set(group(name)))
    if strange:
        raise UserError(
            f'config.method holds the fields of another method than {name!r} ({", ".join(strange[:3])}): choose it by '
            f'--config.method.name={name}, or in a config file by default({name!r}) or use_method(config, {name!r})'
        )
    config_check.check(config)
    if own := _fields(name):
        fields.read(own, config.method)


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Changes a config to its method's published training settings, where its file states them, and returns it.

    Raises:
      UserError: there is no such file in ambdiff/methods.
    """
    own = getattr(_module(config.method.name), 'recommend', None)
    return own(config) if own else config


def small(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Changes a method's own fields to what goes with `ambdiff.config.small`, where its file says so, and returns it.

    Raises:
      UserError: there is no such file in ambdiff/methods.
    """
    own = getattr(_module(config.method.name), 'small', None)
    return own(config) if own else config


def create(config: ml_collections.ConfigDict, place=None) -> 'Method':
    """The method that config.method.name names.

    Args:
      config: the whole of it.
      place: says where activations live, (h [B, H, W, C], level) -> h; see `ambdiff.runtime.sharding.height_split`.

    Raises:
      UserError: there is no such file in ambdiff/methods, or the config does not suit it.
    """
    check(config)
    return _module(config.method.name).create(config, place)
