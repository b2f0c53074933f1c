"""One file a method; each has `create(config)`, whose result gives init, loss and sample."""

import importlib
import pkgutil

import ml_collections

from ambdiff import config_check
from ambdiff.errors import UserError


def create(config: ml_collections.ConfigDict, place=None):
    """The method that config.method.name names.

    Args:
      config: the whole of it.
      place: says where activations live, (h [B, H, W, C], level) -> h; see `ambdiff.runtime.sharding.height_split`.

    Raises:
      UserError: there is no such file in ambdiff/methods, or the config does not suit it.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if config.method.name not in known:
        raise UserError(f'config.method.name={config.method.name!r} is not known; use one of {", ".join(known)}')
    config_check.check(config)
    return importlib.import_module(f'{__name__}.{config.method.name}').create(config, place)
