"""How many devices a test sees: one, unless it asks for more of the eight simulated ones.

A program over eight devices takes about twice as long to compile and to run as the same over one.
"""

import contextlib

import jax
import pytest

LISTS = {name: getattr(jax, name) for name in ('devices', 'local_devices')}


@contextlib.contextmanager
def visible(count: int):
    """As on a machine of so many devices, 1 .. 8."""
    with pytest.MonkeyPatch.context() as patch:
        for name, whole in LISTS.items():
            patch.setattr(jax, name, lambda *given, whole=whole, **named: whole(*given, **named)[:count])
        for name in ('device_count', 'local_device_count'):
            patch.setattr(jax, name, lambda *_, **__: count)
        yield
