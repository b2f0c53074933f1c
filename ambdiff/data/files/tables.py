"""Every CSV file that a user gives (patients.csv, points to look at): read by one rule, or refused with its line.

The text is UTF-8, with or without a byte order mark, or UTF-16 with one, as spreadsheets write it. The first line names
the columns, in any case and order; other columns than those asked for are passed over. Cells are parted by comma,
semicolon or tab, whichever the first line has most of (a line `sep=;` before it says so itself), and may be quoted.
Blank lines and empty cells at a line's end count for nothing; a cell too many is refused, since columns would shift.
A number is written 12, 12.5 or 1e3; where no comma parts the cells, 12,5 as well.
"""

import csv
import dataclasses
import io
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

from ambdiff.errors import UserError

_MAX_BYTES = 1 << 26
_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      where: 'FILE: line N', how a message begins.
      cells: column's name, in small letters -> its text without blanks around it, '' where the cell is empty.
      decimal_comma: whether 12,5 is a number.
    """

    where: str
    cells: Mapping[str, str]
    decimal_comma: bool = False

    def text(self, column: str) -> str:
        """The cell of a column that must not be empty.

        Raises:
          UserError: it is empty; names the line.
        """
        if not self.cells[column]:
            raise UserError(f'{self.where} names no {column}; complete it')
        return self.cells[column]

    def number(self, column: str) -> float:
        """The number in a column, finite.

        Raises:
          UserError: the cell is empty or holds something else; names the line.
        """
        text = self.cells[column]
        if not text:
            raise UserError(f'{self.where} has no number in the column {column}; complete it')
        plain = text.replace(',', '.') if self.decimal_comma else text
        value = float(plain) if _NUMBER.fullmatch(plain) else math.nan
        if not math.isfinite(value):
            raise UserError(f'{self.where}: the column {column} holds {text[:40]!r}, which is no number')
        return value


def read(path: pathlib.Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """The lines of a CSV file by the rule of the module docstring.

    Args:
      path: the file.
      needed: columns that must be there; their cells may still be empty, which `Row.text` and `Row.number` refuse.
      optional: columns that may be there; a row's `cells` has those that are.

    Raises:
      UserError: not such a file, a column missing or there twice, or a line with too many cells; names the line.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f'{path}: larger than {_MAX_BYTES >> 20} MiB; it should have one line a case')
        content = path.read_bytes()
        wide = content.startswith((b'\xff\xfe', b'\xfe\xff'))
        text = content.decode('utf-16' if wide else 'utf-8-sig')
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: cannot be read as UTF-8 text ({" ".join(str(error).split())[:120]})') from error
    if '\0' in text:
        raise UserError(f'{path}: not a text file; store the table as CSV in UTF-8')
    lines = text.splitlines()
    told = re.fullmatch(r'"?sep=([,;\t|])"?', lines[0].strip(' ') if lines else '', re.IGNORECASE)
    head = next((line for line in lines[1 if told else 0 :] if line.strip(' ,;\t')), '')
    delimiter = told[1] if told else max(',;\t', key=head.count)
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, skipinitialspace=True, strict=True)
    columns, rows = None, []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells) or (told and reader.line_num == 1):
                continue
            where = f'{path}: line {reader.line_num}'
            if columns is None:
                columns = _columns(path, cells, needed, optional)
                continue
            if any(cells[len(columns) :]):
                hint = '; a decimal comma needs ";" between the cells' if delimiter == ',' else ''
                raise UserError(f'{where} has {len(cells)} cells, but the first line names {len(columns)}{hint}')
            cells += [''] * (len(columns) - len(cells))
            row = {name: cell for name, cell in zip(columns, cells, strict=False) if name in (*needed, *optional)}
            rows.append(Row(where, row, delimiter != ','))
    except csv.Error as error:
        raise UserError(f'{path}: line {reader.line_num}: not a CSV file ({error})') from error
    if columns is None:
        _columns(path, [], needed, optional)
    return rows


def _columns(path, names, needed, optional):
    """The names of the first line in small letters, checked."""
    names = [name.lower() for name in names]
    while names and not names[-1]:  # a delimiter at the end of every line
        names.pop()
    if missing := [name for name in needed if name not in names]:
        raise UserError(
            f'{path}: has no column {" and ".join(missing)} in its first line; it should be {",".join(needed)}'
        )
    if twice := [name for name in (*needed, *optional) if names.count(name) > 1]:
        raise UserError(f'{path}: has the column {twice[0]} twice; keep one of them')
    return names
