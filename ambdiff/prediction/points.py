"""--at= and --at_mm=: the points to look at, and their places in an image.

Millimetres are the world of the file as its own tools show it: of DICOM left, posterior, superior (LPS) of the patient,
of NIfTI right, anterior, superior (RAS).
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ambdiff.data.files import tables
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.text import printable

Point = tuple[float, ...]  # x, y and, where there are slices, z


class Millimetres(NamedTuple):
    """A point in the world of the file."""

    x: float
    y: float
    z: float


_MM = ('x_mm', 'y_mm', 'z_mm')
_POINTS = re.compile(r'[\s\d.,;eE+-]*')


def parse(text: str, sources: Sequence[str], text_mm: str = '') -> dict[str, list[Point]]:
    """--at= as {input: points}: 'x,y[,z]' separated by ';' for every input, or a CSV; --at_mm= likewise, without a CSV.

    A CSV has the columns x, y, z (where there are slices), or x_mm, y_mm, z_mm, and file (where points differ by file):
    then the inputs that it names are predicted, and no others.

    Args:
      text: the flag's value.
      sources: all inputs.
      text_mm: the value of --at_mm.

    Raises:
      UserError: not so, both are given, or the CSV names a file that is not in the input.
    """
    if text.strip() and text_mm.strip():
        raise UserError('--at and --at_mm say both where to look: give one of them')
    if text_mm.strip():
        where = f'--at_mm={_short(text_mm)}'
        points = [_millimetres(part.split(','), where) for part in text_mm.split(';') if part.strip()]
        if not points:
            raise UserError(f'{where}: give x,y,z in mm, several separated by ";"')
        return {source: points for source in sources}
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
    in_mm = any('x_mm' in row.cells for row in tables.read(path, (), ('x_mm',)))
    rows = tables.read(path, *((_MM, ('file',)) if in_mm else (('x', 'y'), ('z', 'file'))))
    if not rows:
        raise UserError(f'{path}: names no point; give a line with x, y and, where there are slices, z for each')
    known = {printable(source): source for source in sources} | {source: source for source in sources}
    chosen: dict[str, list[Point]] = {}
    for row in rows:
        # Where files with and without slices are mixed, those without leave z empty.
        axes = 'xyz' if row.cells.get('z') else 'xy'
        point = tuple(row.number(axis) for axis in axes) if not in_mm else Millimetres(*map(row.number, _MM))
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


def _millimetres(parts: Sequence[str], where: str) -> Millimetres:
    try:
        point = [float(part) for part in parts]
    except ValueError:
        point = []
    if len(point) != 3 or not np.isfinite(point).all():
        raise UserError(f'{where}: {",".join(parts)[:40]!r} is no point; give x,y,z in mm (a CSV goes to --at)')
    return Millimetres(*point)


def in_pixels(point: Point, volume: Volume) -> Point:
    """A point as --at= takes it: one in mm as (x, y, z) along the file's own axes, to a hundredth; others as they are.

    Raises:
      UserError: the file has no place in the world, or the point lies outside the image.
    """
    if not isinstance(point, Millimetres):
        return point
    if volume.affine is None:
        raise UserError('does not say where it lies in the world: give points in pixels, --at')
    # The affine is in RAS.
    world = np.array(point) * ((-1, -1, 1) if volume.kind == 'dicom' else (1, 1, 1))
    place = (np.linalg.inv(volume.affine) @ [*world, 1])[:3]
    for axis, flip in enumerate(volume.file_flips):
        if flip:
            place[axis] = volume.values.shape[axis] - 1 - place[axis]
    order, sides = _order(volume)
    found = tuple(round(float(place[order.index(axis)]), 2) for axis in range(3))
    if not all(-0.5 <= value <= side - 0.5 for value, side in zip(found, sides, strict=True)):
        system = 'LPS' if volume.kind == 'dicom' else 'RAS'
        axes = ', '.join(f'{axis} 0 to {side - 1}' for axis, side in zip('xyz', sides, strict=True))
        raise UserError(
            f'the point {text_of(point)} mm ({system}) lies outside the image: in pixels it is {text_of(found)}, and '
            f'the image has {axes}'
        )
    return found


def text_of(point: Point) -> str:
    """'10,20' or '10,20,3', as --at= takes it."""
    return ','.join(f'{value:g}' for value in point)


def to_volume(point: Point, volume: Volume) -> tuple[int, float, float]:
    """(slice, row, column) of a point (x, y[, z]), counted from 0 along the file's own axes, or in mm.

    Pictures and DICOM: x is the column, y the row, z the slice. NIfTI: the first, second and third index of the file.

    Raises:
      UserError: outside the image, or z is missing where there are slices.
    """
    point = in_pixels(point, volume)
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
