"""--at=: the points to look at, and their places in an image."""

import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from ambdiff.data.files import tables
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.text import printable

Point = tuple[float, ...]  # x, y and, where there are slices, z

_POINTS = re.compile(r'[\s\d.,;eE+-]*')


def parse(text: str, sources: Sequence[str]) -> dict[str, list[Point]]:
    """--at= as {input: points}: 'x,y[,z]' separated by ';' for every input, or a CSV.

    A CSV has the columns x, y, z (where there are slices) and file (where points differ by file): then the inputs that
    it names are predicted, and no others.

    Args:
      text: the flag's value.
      sources: all inputs.

    Raises:
      UserError: not so, or the CSV names a file that is not in the input.
    """
    if not text.strip():
        return {source: [] for source in sources}
    if _POINTS.fullmatch(text) and not _is_file(text):
        points = [_point(part.split(','), f'--at={_short(text)}') for part in text.split(';') if part.strip()]
        if not points:
            raise UserError(f'--at={_short(text)}: give x,y or x,y,z in pixels, several separated by ";", or a CSV')
        return {source: points for source in sources}
    if not _is_file(text):
        raise UserError(
            f'--at={_short(text)}: neither points (x,y or x,y,z in pixels, ";" between several) nor a CSV that is there'
        )
    return _table(pathlib.Path(text), sources)


def _table(path: pathlib.Path, sources: Sequence[str]) -> dict[str, list[Point]]:
    rows = tables.read(path, ('x', 'y'), ('z', 'file'))
    if not rows:
        raise UserError(f'{path}: names no point; give a line with x, y and, where there are slices, z for each')
    known = {printable(source): source for source in sources} | {source: source for source in sources}
    chosen: dict[str, list[Point]] = {}
    for row in rows:
        # Where files with and without slices are mixed, those without leave z empty.
        axes = 'xyz' if row.cells.get('z') else 'xy'
        point = tuple(row.number(axis) for axis in axes)
        if 'file' not in row.cells:
            named = sources
        elif (name := row.text('file')) in known:
            named = [known[name]]
        else:
            raise UserError(f'{row.where}: the input holds no file {name!r}')
        for source in named:
            chosen.setdefault(source, []).append(point)
    return chosen


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # a zero byte
        return False


def _short(text: str) -> str:
    return text if len(text) <= 60 else f'{text[:57]}...'


def _point(parts: Sequence[str], where: str) -> Point:
    try:
        point = tuple(float(part) for part in parts)
    except ValueError:
        point = ()
    if len(point) not in (2, 3) or not np.isfinite(point).all():
        raise UserError(f'{where}: {",".join(parts)[:40]!r} is no point; give x,y or x,y,z in pixels')
    return point


def text_of(point: Point) -> str:
    """'10,20' or '10,20,3', as --at= takes it."""
    return ','.join(f'{value:g}' for value in point)


def to_volume(point: Point, volume: Volume) -> tuple[int, float, float]:
    """(slice, row, column) of a point (x, y[, z]), counted from 0 along the file's own axes.

    Pictures and DICOM: x is the column, y the row, z the slice. NIfTI: the first, second and third index of the file.

    Raises:
      UserError: outside the image, or z is missing where there are slices.
    """
    shape = volume.values.shape[:3]
    order, sides = _order(volume)
    if len(point) == 2 and sides[2] > 1:
        raise UserError(f'has {sides[2]} slices: give points as x,y,z')
    given, point = point, (*point, 0.0)[:3]
    if not all(-0.5 <= value <= side - 0.5 for value, side in zip(point, sides, strict=True)):
        axes = [
            f'{axis} 0 to {side - 1}'
            for axis, side in zip('xyz', sides, strict=True)
            if side > 1 or axis in 'xyz'[: len(given)]
        ]
        raise UserError(f'the point {text_of(given)} lies outside the image: {", ".join(axes)}')
    place = [point[axis] for axis in order]
    for axis, flip in enumerate(volume.file_flips):
        if flip:
            place[axis] = shape[axis] - 1 - place[axis]
    return min(max(round(place[0]), 0), shape[0] - 1), place[1], place[2]


def pattern(volume: Volume, z: int) -> str:
    """What --at= takes for a pixel of a slice, with X for its column and Y for its row: 'X,Y', 'X,Y,3' or 'Y,12,-X'.

    -X and -Y are counted from the other side.
    """
    order, sides = _order(volume)
    flips = volume.file_flips
    place = [str(volume.values.shape[0] - 1 - z if flips[0] else z), *('Y', 'X')]
    place[1:] = [f'-{letter}' if flip else letter for letter, flip in zip(place[1:], flips[1:], strict=True)]
    return ','.join(place[order.index(axis)] for axis in range(3 if sides[2] > 1 else 2))


def _order(volume: Volume) -> tuple[list[int], list[int]]:
    """(which number of a point counts slices, rows and columns; how far x, y and z go)."""
    # Pictures and DICOM are stored as (slice, row, column), counted the other way round.
    order = list(volume.file_axes) if volume.kind == 'nifti' else [2 - axis for axis in volume.file_axes]
    return order, [volume.values.shape[order.index(axis)] for axis in range(3)]
