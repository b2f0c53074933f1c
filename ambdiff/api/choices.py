"""Counts, seeds, points and spacings that a caller gives."""

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ambdiff.errors import UserError
from ambdiff.prediction.points import Millimetres, Point

# (x, y), with slices (x, y, z), or several of them.
Points = Sequence[float] | Sequence[Sequence[float]] | np.ndarray

MOST_SAMPLES = 1000
MOST_SEED = 2**32 - 1
MOST_PIXELS = 1 << 24
MOST_SLICES = 10**4


def whole(given: Any, name: str, least: int, most: int, why: str = '') -> int:
    """A whole number of a range, from Python or NumPy.

    Raises:
      UserError: something else; `why` says where the bound comes from.
    """
    try:
        number = None if isinstance(given, bool | np.bool_) else operator.index(given)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise UserError(f'{name}={given!r}: give a whole number, {least} to {most}{why}')
    return number


def points(given: Points | None, name: str = 'at') -> list[Point]:
    """(x, y), (x, y, z), several of them or None -> a list of points.

    Raises:
      UserError: something else.
    """
    if given is None:
        return []
    try:
        array = np.asarray(given, float)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim == 1:
        array = array[None]
    if isinstance(given, str) or array.ndim != 2 or array.shape[1] not in (2, 3) or not array.size:
        raise UserError(f'{name}={_short(given)}: give (x, y) in pixels, x the column and y the row, or a list of them')
    if not np.isfinite(array).all():
        raise UserError(f'{name}={_short(given)}: give finite numbers')
    return [tuple(row) for row in array.tolist()]


def points_mm(given: Points) -> list[Point]:
    """(x, y, z) in mm or several of them -> a list of points.

    Raises:
      UserError: something else.
    """
    found = points(given, 'at_mm')
    if any(len(point) != 3 for point in found):
        raise UserError(f'at_mm={_short(given)}: give (x, y, z) in mm, or a list of them')
    return [Millimetres(*point) for point in found]


def points_of_each(given: Any, count: int) -> list[list[Point]]:
    """The points of each of so many images: one point for all of them, or one entry for each.

    Raises:
      UserError: something else.
    """
    if given is None or _is_point(given):
        return [points(given)] * count
    try:
        entries = list(given)
    except TypeError:
        entries = []
    if len(entries) != count:
        raise UserError(f'at has {len(entries)} entries for {count} images: give one (x, y) for all, or one of each')
    return [points(entry, f'at[{row}]') for row, entry in enumerate(entries)]


def _is_point(given: Any) -> bool:
    if not isinstance(given, list | tuple | np.ndarray) or len(given) not in (2, 3):
        return False
    return all(isinstance(value, numbers.Real) for value in given)


def spacing(given: Any) -> tuple[float, float] | None:
    """(row, column) in mm from two numbers or one.

    Raises:
      UserError: something else.
    """
    if given is None:
        return None
    try:
        array = np.broadcast_to(np.asarray(given, float), (2,))
    except (TypeError, ValueError):
        array = np.full(2, np.nan)
    if isinstance(given, str) or not (np.isfinite(array).all() and (array > 0).all() and (array < 1e3).all()):
        raise UserError(f'spacing={_short(given)}: give (row, column) distance of pixels in mm, or one number for both')
    return tuple(array.tolist())


def _short(given: Any) -> str:
    text = ' '.join(repr(given).split())
    return text if len(text) <= 60 else f'{text[:57]}...'
