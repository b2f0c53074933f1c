"""Arrays that a caller gives: taken whatever their library, or refused in one line."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ambdiff.errors import UserError

_TEXT = 'is text: give an array'


def numeric(given: ArrayLike, name: str, text: str = _TEXT) -> np.ndarray:
    """An array of bools or real numbers from NumPy, JAX, PyTorch (CPU), PIL or nested lists.

    Args:
      given: what the caller gave.
      name: the caller's own name for it, for what is told.
      text: what is told where it is text, as a path would be.

    Raises:
      UserError: no such array.
    """
    if isinstance(given, str | bytes) or hasattr(given, '__fspath__'):
        raise UserError(f'{name} {text}')
    if isinstance(given, np.ma.MaskedArray):
        raise UserError(f'{name} is a masked array: give {name}.filled(VALUE)')
    try:
        array = np.asarray(given)
    except Exception as error:  # each library has its own
        raise UserError(f'{name} {_cure(given)}') from error
    if array.dtype == object or array.dtype.kind not in 'biuf':
        what = 'no array' if array.ndim == 0 else f'an array of {array.dtype}'
        raise UserError(f'{name} is {what} ({type(given).__name__}): give an array of bools or real numbers')
    return array


def finite(array: np.ndarray, name: str, cure: str) -> None:
    """Refuses NaN and infinity.

    Raises:
      UserError: there are some; `cure` says what to give.
    """
    if array.dtype.kind == 'f' and (bad := array.size - int(np.isfinite(array).sum())):
        values = 'value that is' if bad == 1 else 'values that are'
        raise UserError(f'{name} has {bad} {values} NaN or infinite: {cure}')


def example(array: np.ndarray, where: np.ndarray) -> str:
    """The first value of an array at a place, for what is told."""
    return f'{array[where].flat[0]:g}'


def _cure(given: Any) -> str:
    if hasattr(given, 'detach'):
        return 'is a tensor with gradients or on another device: give .detach().cpu().numpy() of it'
    return f'cannot be read as an array ({type(given).__name__}): give rows of equal length'
