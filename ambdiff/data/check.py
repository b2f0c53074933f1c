"""python -m ambdiff.data.check --config=configs/lidc.py [--config.data.path=..] [--strict] [--output=DIR].

Reads every example of every split once and tells what will be trained on: cases, patients, raters, sizes, spacing,
empty share, agreement, intensity, and leaks between splits. Every faulty file is named and passed over. The same, with
pictures, is written to DIR/data.html, by default below the config's folder of runs/; where the splits were made here,
DIR/splits.csv lists them. Exit status 2 where nothing could be read, and with --strict where anything was faulty.
"""

import logging
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np
from absl import app, flags
from tqdm import tqdm

from ambdiff import command, signals
from ambdiff.errors import UserError

_PICTURES = 8  # a split, evenly spaced
_EQUAL = 3  # faults that are told as one; the page lists each


def examine(data) -> tuple[dict, dict, list[str]]:
    """({split: its Survey}, {split: some examples}, faults, a line each) of the data that a config names."""
    from ambdiff.data import example, sources
    from ambdiff.data.files import neighbours
    from ambdiff.data.source import Faulty
    from ambdiff.data.survey import Survey, leaks

    surveys, pictures, faults = {}, {}, {}
    for split in example.SPLITS:
        try:
            source = sources.open_source(data, split, walk=True)
        except Faulty as error:
            faults |= dict.fromkeys(map(_line, error.faults))
            continue
        except Exception as error:  # a stranger's file can break a reader in any way: told, and the rest goes on
            faults[_fault(f'{split}: the data', error)] = None
            continue
        survey, pictures[split] = Survey(data.num_classes), []
        chosen = set(np.linspace(0, len(source) - 1, min(len(source), _PICTURES)).astype(int).tolist())
        for row in tqdm(range(len(source)), desc=split, unit=' cases', mininterval=_seconds()):
            try:
                found = source[row]
            except Exception as error:
                faults[_fault(f'{split}: example {row}', error)] = None
                chosen.add(row + 1)  # the next one stands in
                continue
            survey.add(found)
            if row in chosen:
                pictures[split].append(found | {'image': neighbours.own(found['image'], data.neighbours)})
        survey.findings = source.findings()
        faults |= dict.fromkeys(map(_line, survey.findings.faults))
        if survey.count:
            surveys[split] = survey
        faults |= dict.fromkeys(f'{split}: {line}' for line in survey.repeated_cases())
    return surveys, pictures, [*faults, *(f'leak: {line}' for line in leaks(surveys))]


def _fault(what, error):
    """A line on what cannot be read."""
    return _line(error if isinstance(error, UserError) else f'{what} cannot be read ({type(error).__name__}: {error})')


def _line(fault):
    """A fault as one line, whatever the files are called."""
    return ' '.join(str(fault).split())


def table(surveys) -> Iterator[str]:
    """The lines of what will be trained on, a column a split."""
    columns = {split: survey.rows() for split, survey in surveys.items()}
    rows = list(next(iter(columns.values())))
    widths = {split: max(len(split), *(len(column[row]) for row in rows)) for split, column in columns.items()}
    first = max(map(len, rows))
    yield '  '.join([' ' * first, *(split.rjust(widths[split]) for split in columns)])
    for row in rows:
        yield '  '.join([row.ljust(first), *(column[row].rjust(widths[split]) for split, column in columns.items())])


def grouped(faults: Sequence[str]) -> Iterator[str]:
    """Faults of many places as one line: '24 cases: holds no HU ..; for instance c03/image.png: holds no HU ..'.

    Equal are those that differ in their place and in numbers alone.
    """
    groups = {}
    for fault in faults:
        place, _, said = fault.partition(': ')
        alone = not said or not re.search(r'[/.\\[]', place)  # a leak, or a line on a whole split
        groups.setdefault(fault if alone else re.sub(r'[0-9]+', '#', said), []).append(fault)
    for equal in groups.values():
        if len(equal) < _EQUAL:
            yield from equal
        else:
            place, _, said = equal[0].partition(': ')
            yield f'{len(equal)} cases: {said}; for instance {place}'


def _count(faults):
    return f'{len(faults)} fault{"s" if len(faults) != 1 else ""}'


def _seconds():
    return 0.5 if sys.stderr.isatty() else 10


def _cure(faults):
    """Prints the whole command line with the flag that cures the faults, where they name one."""
    if cured := command.corrected(' '.join(faults)):
        print(f'try: {cured}')


def check(config: ml_collections.ConfigDict, folder: pathlib.Path, strict: bool) -> int:
    """Examines the data of a config, prints what it holds and writes data.html and splits.csv into the folder.

    Returns:
      The exit status, having said what went wrong: 2 where nothing could be read, or, if `strict`, where anything was
      faulty.
    """
    command.log(logging.ERROR)
    from ambdiff.data import check_page, sources

    try:
        surveys, pictures, faults = examine(config.data)
        if not surveys:
            first, *more = grouped(faults)
            for fault in more:
                print(f'faulty: {fault}')
            _cure(faults)
            raise UserError(first)
        print('\n'.join(table(surveys)))
        notes = [f'{split}: {line}' for split, survey in surveys.items() for line in survey.remarks()]
        for line in notes:
            print(f'note: {line}')
        for fault in grouped(faults):
            print(f'faulty: {fault}')
        print(_count(faults))
        _cure(faults)
        folder.mkdir(parents=True, exist_ok=True)
        name = config.data.path or config.data.builder
        check_page.write(folder / 'data.html', name, surveys, pictures, notes, faults, sources.notice(config.data))
        sources.write_splits(config.data, folder)
        print(f'{folder / "data.html"}')
    except UserError as error:
        return command.fail(error)
    except OSError as error:
        return command.fail(f'{folder}: cannot be written (--output): {error.strerror or error}')
    return command.fail(f'{_count(faults)}, listed above (--strict)') if faults and strict else 0


def main() -> None:
    """Entry point."""
    command.define_config()
    # Defined here, since other programs have flags of these names.
    strict = flags.DEFINE_bool('strict', False, 'Exit status 2 where any file is faulty or a split leaks.')
    output = flags.DEFINE_string('output', None, 'Where the page goes; default runs/<config name>/data.')

    def run(argv: list[str]) -> int:
        del argv
        folder = output.value or command.default_workdir(command.given_config()) / 'data'
        return check(flags.FLAGS.config, pathlib.Path(folder).expanduser(), strict.value)

    sys.exit(signals.run(lambda: app.run(run, flags_parser=command.parse_flags), 'start it again'))


if __name__ == '__main__':
    main()
