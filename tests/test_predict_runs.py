"""Predict on folders: the faulty is named, the interrupted goes on, nothing is half written or overwritten."""

import csv
import struct
import zlib

import nibabel
import numpy as np
import pytest
import tiny
from PIL import Image

from ambdiff.prediction import output as predict_output
from ambdiff.runtime import checkpoint


def lying_png(width, height):
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'\0' * 99)) + chunk(b'IEND', b'')
    )


@pytest.fixture
def folder(tmp_path):
    """Seven good files, some with hostile names, and five faulty ones."""
    folder = tmp_path / 'in'
    (folder / 'sub').mkdir(parents=True)
    names = [
        'a.png',
        'A.png',
        '<img src=x onerror=alert(1)>.png',
        '..\\..\\x.png',
        '=1+1.png',
        'sub/a.png',
        'sub_a.png',
    ]
    for number, name in enumerate(names):
        Image.fromarray(np.where(tiny.disc((20, 20), (9, 9)), 200 + number, 9).astype(np.uint8)).save(folder / name)
    (folder / 'huge.png').write_bytes(lying_png(60_000, 60_000))
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 20, 1), np.int16), np.eye(4)), folder / 'lies.nii')
    lies = bytearray((folder / 'lies.nii').read_bytes())
    lies[42:48] = struct.pack('<3h', 4000, 4000, 900)
    (folder / 'lies.nii').write_bytes(lies)
    (folder / 'cut.png').write_bytes((folder / 'a.png').read_bytes()[:60])
    (folder / 'empty.nii.gz').write_bytes(b'')
    (folder / 'text.dcm').write_text('hello')
    (folder / 'notes.txt').write_text('not an image')
    return folder, names, ['cut.png', 'empty.nii.gz', 'huge.png', 'lies.nii', 'text.dcm']


def test_a_faulty_file_is_named_and_the_rest_goes_on(weights, bright, folder, tmp_path, capfd):
    source, good, faulty = folder
    output = tmp_path / 'x' / 'out'
    assert tiny.run_predict(weights, source, output) == 2
    said = capfd.readouterr().err
    assert all(any(name in line for line in said.splitlines()) for name in faulty)
    assert '1 other file skipped' in said and '5 of 12 cases failed' in said and 'Traceback' not in said
    folders = [p.parent.relative_to(output).as_posix() for p in output.rglob('summary.json')]
    assert len(folders) == len(good) and 'sub/a' in folders
    assert len({name.lower() for name in folders}) == len(good), 'names must differ where case does not count'
    assert not any(a != b and f'{b}/'.startswith(f'{a}/') for a in folders for b in folders)
    assert {tiny.summary(output, name)['input'] for name in folders} == set(good)
    with (output / 'predictions.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and [row['input'] for row in rows if row['error']] == faulty
    assert not any(row['input'].startswith('=') for row in rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['in', 'x'], 'nothing is written outside the output'


def test_an_interrupted_run_goes_on_where_it_was_and_leaves_nothing_half_written(
    weights, bright, folder, tmp_path, monkeypatch
):
    source, good, _ = folder
    output = tmp_path / 'out'
    write = predict_output._write_masks
    finished = lambda: [p for p in output.rglob('summary.json') if '.partial' not in str(p)]

    def interrupted(where, prediction):
        if len(finished()) == 3:
            (where / 'samples_00.png').write_bytes(b'half')
            raise KeyboardInterrupt
        return write(where, prediction)

    monkeypatch.setattr(predict_output, '_write_masks', interrupted)
    assert tiny.run_predict(weights, source, output) == 130
    assert len(finished()) == 3
    for place in (output, output / 'sub'):
        (place / '.partial-left by a killed run').mkdir(parents=True)
    monkeypatch.setattr(predict_output, '_write_masks', write)
    before = {p: p.stat().st_mtime_ns for f in finished() for p in f.parent.iterdir()}
    bright.clear()
    assert tiny.run_predict(weights, source, output) == 2
    assert len(bright) == 4 * (len(good) - 3), 'only what was left is sampled, four tiles a case'
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())
    assert len(finished()) == len(good)
    assert not list(output.rglob('.partial*'))


def test_other_settings_or_content_make_a_case_anew(weights, bright, tmp_path):
    path, output = tmp_path / 'a.png', tmp_path / 'out'
    Image.fromarray(np.where(tiny.disc((tiny.SIZE, tiny.SIZE), (9, 9)), 200, 9).astype(np.uint8)).save(path)
    counts = []
    for more in ((), (), ('--seed=1',), ('--seed=1',), ('--seed=1', '--num_samples=2')):
        assert tiny.run_predict(weights, path, output, *more) == 0
        counts.append(len(bright))
    assert counts == [1, 1, 2, 2, 3]
    assert not (output / 'a' / 'samples_02.png').exists(), 'nothing of the four samples before is left'
    Image.fromarray(np.where(tiny.disc((tiny.SIZE, tiny.SIZE), (5, 5)), 200, 9).astype(np.uint8)).save(path)
    assert tiny.run_predict(weights, path, output, '--seed=1', '--num_samples=2') == 0
    assert len(bright) == 4


def test_a_case_that_lost_a_file_is_made_anew_and_foreign_folders_stay_out_of_the_page(weights, bright, tmp_path):
    path, output = tmp_path / 'a.png', tmp_path / 'out'
    Image.fromarray(np.where(tiny.disc((tiny.SIZE, tiny.SIZE), (9, 9)), 200, 9).astype(np.uint8)).save(path)
    (output / 'mine').mkdir(parents=True)
    (output / 'mine' / 'summary.json').write_text('[]')
    assert tiny.run_predict(weights, path, output) == 0
    (output / 'a' / 'samples_01.png').unlink()
    assert tiny.run_predict(weights, path, output) == 0
    assert len(bright) == 2 and (output / 'a' / 'samples_01.png').is_file()
    assert 'mine' not in (output / 'index.html').read_text()


def test_results_in_the_input_folder_are_no_input(weights, bright, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((tiny.SIZE, tiny.SIZE), np.uint8)).save(tmp_path / 'a.png')
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert tiny.run_predict(weights, '.', 'out') == 0
    assert [p.name for p in (tmp_path / 'out').iterdir() if p.is_dir()] == ['a']


def test_a_folder_of_the_users_own_is_not_overwritten(weights, bright, tmp_path, capfd):
    Image.fromarray(np.zeros((tiny.SIZE, tiny.SIZE), np.uint8)).save(tmp_path / 'a.png')
    (tmp_path / 'out' / 'a').mkdir(parents=True)
    (tmp_path / 'out' / 'a' / 'thesis.txt').write_text('precious')
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out') == 2
    assert 'is in the way' in capfd.readouterr().err
    assert (tmp_path / 'out' / 'a' / 'thesis.txt').read_text() == 'precious'


def test_a_mistake_of_all_cases_is_told_before_weights_are_loaded_and_leaves_nothing(
    weights, tmp_path, capfd, monkeypatch
):
    (tmp_path / 'in').mkdir()
    for name in 'ab':
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / 'in' / f'{name}.png')
    monkeypatch.setattr(checkpoint, 'load_weights', None)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out', '--at=50,5') == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith('ambdiff: none of 2 cases can be predicted; a.png: the point 50,5 lies outside the image')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--at=5'], "'5' is no point"),
        (['--at=500,5'], 'lies outside the image: x 0 to 19, y 0 to 19'),
        (['--num_steps=2000'], 'more than the 1000 steps'),
        (['--num_samples=0'], 'out of range'),
        (['--nonsense=1'], 'unrecognized arguments'),
        (['--input=nowhere.png'], 'no such file or folder'),
        (['--checkpoint=nowhere'], "there are no weights 'nowhere' here"),
    ],
)
def test_mistakes_end_in_one_line_and_status_two(weights, bright, tmp_path, capfd, more, said):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / 'a.png')
    try:
        status = tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out', *more)
    except SystemExit as left:
        status = left.code
    error = capfd.readouterr().err
    assert status == 2 and said in error and 'Traceback' not in error
