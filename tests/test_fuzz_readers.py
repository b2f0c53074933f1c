"""The mutator: inputs are the same each time, what readers must not do is a failure; and some inputs of each format."""

import importlib
import pathlib
import sys
import time

import pytest

from ambdiff.errors import UserError

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'benchmarks'))
fuzz_formats, fuzz_readers = (importlib.import_module(name) for name in ('fuzz_formats', 'fuzz_readers'))


def content(path):
    files = sorted(path.rglob('*')) if path.is_dir() else [path]
    return [(file.name, file.read_bytes()) for file in files if file.is_file()]


@pytest.mark.parametrize('name', [name for name in fuzz_formats.FORMATS if name not in ('xml', 'sqlite')])
def test_damaged_inputs_are_read_or_refused_in_a_line_and_the_same_each_time(name, tmp_path):
    for number in range(6):
        assert fuzz_readers.outcome(name, 0, number, tmp_path) in ('read', 'refused')
    make = fuzz_formats.FORMATS[name][0]
    if name != 'hdf5':  # which writes the time
        first = content(make(tmp_path, fuzz_readers.rng_of(name, 0, 3)))
        assert first == content(make(tmp_path, fuzz_readers.rng_of(name, 0, 3)))
        assert first != content(make(tmp_path, fuzz_readers.rng_of(name, 0, 4)))


@pytest.mark.filterwarnings('ignore:.*fork')  # in a process that has used JAX
def test_what_readers_must_not_do_is_told_with_what_repeats_it(monkeypatch, capsys):
    def read(path):
        number = int(path.read_text())
        if number == 0:
            return
        if number == 1:
            raise UserError('a line')
        if number == 2:
            raise ValueError('two\nlines')
        if number == 3:
            raise KeyError('x')
        if number == 4:
            time.sleep(60)
        sys.exit(3)

    def make(folder, rng):
        (folder / 'a').write_text(str(int(rng.bit_generator.seed_seq.entropy[2]) % 6))
        return folder / 'a'

    monkeypatch.setattr(fuzz_formats, 'FORMATS', {'odd': (make, read)})
    monkeypatch.setattr(fuzz_readers, 'SECONDS', 1)
    assert fuzz_readers.run(['odd'], 3, 7, 1, '') >= 4
    told = capsys.readouterr()
    lines = (told.out + told.err).splitlines()
    for number, what in (
        (2, 'ValueError: two lines'),
        (3, "KeyError: 'x'"),
        (4, 'took more than 1 s'),
        (5, 'ended with 3'),
    ):
        assert any(f'--repeat=odd:7:{number}' in line and what in line for line in lines)
    assert 'odd' in told.out and 'failures in' in told.out
