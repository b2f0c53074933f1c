"""Who takes part: methods by name, each with fields of its own if asked, and how many seeds of each.

  cimd,ssn,cimd+encoders=frozen+model.channels=32

is three entries. A field without a group is the method's own (config.method.encoders), or config.checkpoint.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import ml_collections

from ambdiff import command, methods, packaged
from ambdiff.errors import UserError
from ambdiff.text import printable

FIRST = ('level_sets', 'cimd')  # of all methods; what others are compared with, where nothing else is asked for
MOST_SEEDS = 100
_COMMA = re.compile(r',(?![^(]*\))')  # none within a tuple
_PLUS = re.compile(r'\+(?=[\w.]+=)')  # none within a number (1e+3)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One who takes part.

    Attributes:
      name: as it was given: 'ssn', 'cimd+encoders=frozen'.
      config: its setting; config.seed is the first seed.
      seeds: how many, one after the other.
    """

    name: str
    config: ml_collections.ConfigDict
    seeds: int


def read(names: str, seeds: str, file: str, fields: Sequence[str]) -> list[Entry]:
    """The entries of a command line.

    Args:
      names: as above; '' for every method there is.
      seeds: '3', or '1,ssn=2' for one of each and two of ssn.
      file: FILE.py, whose variants are methods, or FILE.py:VARIANT, whose variants are METHOD_VARIANT.
      fields: 'group.field=value' each, for all.

    Raises:
      UserError: no such method or field, a name that is there twice, or a number of seeds that is none; one line.
    """
    known = methods.known()
    words = _COMMA.split(names) if names else sorted(known, key=lambda n: (n not in FIRST, n))
    words = [word.strip() for word in words]
    if twice := next((word for word in words if words.count(word) > 1), ''):
        raise UserError(f'--methods names {printable(twice)} twice; name it once, and say --seeds for several runs')
    counts = _seeds(seeds, words)
    file, colon, variant = packaged.split(file)
    entries = []
    for word in words:
        name, *own = _PLUS.split(word)
        if name not in known:
            raise UserError(f'--methods: there is no method {printable(name)!r}; there are {", ".join(known)}')
        wanted = f'{name}_{variant}' if colon else name
        config = command.parse_config(f'{file}:{wanted}', [*fields, *map(_whole_name, own)])
        if config.method.name != name:
            raise UserError(
                f'{file}:{wanted} is of the method {config.method.name}; its variants must be named for methods'
            )
        entries.append(Entry(word, config, counts[word]))
    return entries


def _whole_name(field: str) -> str:
    """'encoders=frozen' -> 'method.encoders=frozen'."""
    name = field.partition('=')[0]
    return field if '.' in name or name == 'checkpoint' else f'method.{field}'


def _seeds(text: str, names: Sequence[str]) -> Mapping[str, int]:
    """{name: how many seeds}."""
    counts = dict.fromkeys(names, 1)
    for word in _COMMA.split(text):
        name, _, number = word.strip().rpartition('=')
        if not number.isdecimal() or not 1 <= int(number) <= MOST_SEEDS:
            raise UserError(
                f'--seeds={printable(text)}: {printable(number)!r} is no number of seeds from 1 to {MOST_SEEDS}; write '
                '--seeds=3, or --seeds=1,NAME=3'
            )
        if name and name not in names:
            raise UserError(
                f'--seeds={printable(text)}: {printable(name)} does not take part; --methods names who does'
            )
        counts |= dict.fromkeys([name] if name else names, int(number))
    return counts
