"""Predict on what strangers give: odd names, links, earlier results, full disks. Neighbours of what fails are done."""

import csv
import errno
import json
import os
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from ambdiff import text
from ambdiff.data.files import images
from ambdiff.errors import UserError
from ambdiff.prediction import earlier, inputs, names, output, page
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.prediction.merge import Merge
from ambdiff.runtime import memory


def write(path, size=tiny.SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(tiny.disc((size, size), (9, 9)), 200, 9).astype(np.uint8)).save(path)
    return path


def results(folder):
    """Where results lie below a folder."""
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob('summary.json')}


def test_names_that_cannot_be_written_are_shown_escaped_everywhere(weights, bright, tmp_path, capfd):
    good = write(tmp_path / 'in' / 'good.png').read_bytes()
    for name, content in ((b'f\xfcr.png', good), (b'b\xe4d.png', b'x'), (b'n\nl\x1b[2J.png', good)):
        with open(os.fsencode(tmp_path / 'in') + b'/' + name, 'wb') as file:
            file.write(content)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 2
    said = capfd.readouterr()
    assert 'b\\xe4d.png' in said.err and '1 of 4 cases failed' in said.err and '3 of 4 cases done' in said.out
    assert '\x1b' not in said.err
    with (tmp_path / 'out' / 'predictions.csv').open(newline='', encoding='utf-8') as file:
        rows = {row['input']: row['error'] for row in csv.DictReader(file)}
    assert set(rows) == {'good.png', 'f\\xfcr.png', 'b\\xe4d.png', 'n\\nl\\x1b[2J.png'} and rows['b\\xe4d.png']
    shown = {tiny.summary(tmp_path / 'out', name)['input'] for name in results(tmp_path / 'out')}
    assert shown == set(rows) - {'b\\xe4d.png'}
    index = (tmp_path / 'out' / 'index.html').read_text('utf-8')
    assert all(name in index for name in rows) and '\x1b' not in index


def test_printable_leaves_what_can_be_read():
    assert text.printable('Lésion 病変 <b>.png') == 'Lésion 病変 <b>.png'
    assert text.printable('\u202egnp.exe\x7f\ud83d') == '\\u202egnp.exe\\x7f\\ud83d'


@pytest.mark.parametrize(
    ('sources', 'wanted'),
    [
        (['a/ct.nii.gz', 'a/b/ct.png'], ['a/ct', 'a/b/ct']),
        (['a/ct.dcm', 'a/ct.png', 'b/ct.png'], ['a/ct_dcm', 'a/ct_png', 'b/ct']),
        (['a.png', 'a/x.png'], ['a_png', 'a/x']),
        (['IM1', 'series/1'], ['IM1', 'series/1']),
        (['slice.dcm.png'], ['slice_dcm-']),
        (['index.html.png', 'a/..png', 'a/ .png'], ['index.html-', 'a/', 'a/_-']),
        (['A.png', 'a.png'], ['A_png-', 'a_png-']),
        (['../x.png', '/etc/x.png', '-rf.png', 'x' * 300 + '.png'], ['', '', 'rf-', 'x' * 80 + '-']),
    ],
)
def test_folders_mirror_the_input_and_never_meet_or_lead_out(sources, wanted):
    found = names.folders(sources)
    assert len({name.lower() for name in found}) == len(sources)
    for name, start in zip(found, wanted, strict=True):
        assert name.startswith(start) and (name == start or start.endswith(('-', '/')) or not start)
        parts = name.split('/')
        assert not any(part in ('', '.', '..') or part.startswith(('-', '.')) or len(part) > 100 for part in parts)
        assert not any(part.lower().endswith(names.SUFFIXES) for part in parts)
    assert not any(other.startswith(f'{name}/') for name in found for other in found)


def test_linked_folders_are_followed_once_and_never_upwards(tmp_path):
    write(tmp_path / 'in' / 'a.png')
    write(tmp_path / 'elsewhere' / 'sub' / 'b.png')
    for name, target in (('one', '../elsewhere'), ('two', '../elsewhere'), ('self', '.'), ('up', '..'), ('top', '/')):
        os.symlink(target, tmp_path / 'in' / name)
    os.symlink('../../in', tmp_path / 'elsewhere' / 'sub' / 'back')
    found = inputs.find([tmp_path / 'in'], tmp_path / 'out')
    assert [item.source for item in found.inputs] == ['a.png', 'one/sub/b.png']
    assert sum('read already' in line for line in found.skipped) == 1
    assert sum('a folder above' in line for line in found.skipped) == 4


def test_what_is_no_file_is_named_and_waited_for_by_nobody(tmp_path):
    write(tmp_path / 'in' / 'a.png')
    os.mkfifo(tmp_path / 'in' / 'pipe.png')
    os.symlink('nowhere', tmp_path / 'in' / 'lost.nii')
    found = inputs.find([tmp_path / 'in'], tmp_path / 'out')
    assert [item.source for item in found.inputs] == ['a.png']
    assert [line.split(':')[0] for line in found.skipped] == ['lost.nii', 'pipe.png']
    with pytest.raises(UserError, match='neither a file nor a folder'):
        inputs.find([tmp_path / 'in' / 'pipe.png'], tmp_path / 'out')


def test_a_folder_that_cannot_be_read_is_a_fault_of_its_own(weights, bright, tmp_path, monkeypatch, capfd):
    write(tmp_path / 'in' / 'a.png')
    (tmp_path / 'in' / 'shut').mkdir()
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith('shut'):
            raise PermissionError(errno.EACCES, 'Permission denied', os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 2
    assert 'shut: cannot be read (Permission denied)' in capfd.readouterr().err
    assert results(tmp_path / 'out') == {'a'}


def test_results_of_other_runs_in_the_input_are_skipped_and_told(weights, bright, tmp_path, capfd):
    write(tmp_path / 'in' / 'a.png')
    write(tmp_path / 'in' / 'sub' / 'b.png')
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'in' / 'first') == 0
    (tmp_path / 'in' / 'first' / 'a' / 'summary.json').write_text('{}')  # by its files it is still known
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'in' / 'second') == 0
    assert '2 results of earlier runs skipped' in capfd.readouterr().err
    assert results(tmp_path / 'in' / 'second') == {'a', 'sub/b'}
    assert tiny.run_predict(weights, tmp_path / 'in' / 'first' / 'sub' / 'b', tmp_path / 'third') == 2
    assert 'is itself a result of ambdiff.predict' in capfd.readouterr().err


def test_a_mask_whose_name_misses_the_rule_is_named_and_not_predicted(tmp_path):
    for name in ('image.png', 'mask_1.png', 'mask2.png', 'Mask-3.png', 'other.png'):
        write(tmp_path / 'case' / name)
    found = inputs.find([tmp_path], tmp_path / 'out')
    assert [item.source for item in found.inputs] == ['case/image.png', 'case/other.png']
    assert [line.split(':')[0] for line in found.skipped] == ['case/Mask-3.png', 'case/mask2.png']


DAMAGES = {
    'nothing': '',
    'no object': '[]',
    'no field': f'{{"format": "{earlier.FORMAT}"}}',
    'deep': '[' * 100_000,
    'a long number': f'{{"format": "{earlier.FORMAT}", "seed": ' + '9' * 5000 + '}',
    'not text': '\udcff',
}


@pytest.mark.parametrize('damage', [*DAMAGES, 'another version', 'another type', 'not finite', 'a path', 'page'])
def test_a_damaged_result_is_named_left_alone_and_made_anew(weights, bright, tmp_path, capfd, damage):
    for name in ('a.png', 'b.png'):
        write(tmp_path / 'in' / name)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 0
    path = tmp_path / 'out' / 'a' / 'summary.json'
    summary = json.loads(path.read_text())
    if damage in DAMAGES:
        path.write_bytes(DAMAGES[damage].encode('utf-8', 'surrogateescape'))
    elif damage == 'page':
        (tmp_path / 'out' / 'a' / 'index.html').write_text('<script>alert(1)</script>')
    else:
        summary |= {
            'another version': {'format': 'ambdiff prediction 2'},
            'another type': {'modes': [{**summary['modes'][0], 'share': '0.5'}]},
            'not finite': {'empty_share': float('nan')},
            'a path': {'files': ['../../in/a.png', *summary['files'][1:]]},
        }[damage]
        path.write_text(json.dumps(summary))
    before = path.read_bytes()
    capfd.readouterr()
    assert tiny.run_predict(weights, tmp_path / 'in' / 'b.png', tmp_path / 'out') == 0
    assert 'left out of the page: a;' in capfd.readouterr().err and path.read_bytes() == before
    assert 'alert(1)' not in (tmp_path / 'out' / 'index.html').read_text()
    count = len(bright)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 0
    assert len(bright) == count + 1 and tiny.summary(tmp_path / 'out', 'a')['input'] == 'a.png'
    with (tmp_path / 'out' / 'predictions.csv').open(newline='') as file:
        assert [row['case'] for row in csv.DictReader(file)] == ['a', 'b']


def test_a_result_beside_a_file_of_the_users_own_is_kept(weights, bright, tmp_path, capfd):
    write(tmp_path / 'a.png')
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out') == 0
    (tmp_path / 'out' / 'a' / 'notes.txt').write_text('mine')
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out') == 0
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out', '--seed=1') == 2
    assert 'is in the way' in capfd.readouterr().err and (tmp_path / 'out' / 'a' / 'notes.txt').exists()


@pytest.mark.parametrize('step', ['read', 'sample', 'merge', 'write', 'page', 'memory'])
def test_what_fails_in_any_step_is_that_cases_fault(weights, bright, tmp_path, monkeypatch, capfd, step):
    for name in ('a.png', 'b.png', 'c.png'):
        write(tmp_path / 'in' / name)
    marked = write(tmp_path / 'in' / 'b.png', 17)  # its crops differ in number and content

    def failing(function, when):
        def replaced(*arguments, **more):
            if when(*arguments, **more):
                raise {'memory': MemoryError}.get(step, RuntimeError)('by design')
            return function(*arguments, **more)

        return replaced

    if step == 'read':
        monkeypatch.setattr(images, 'read', failing(images.read, lambda path, **_: path == marked))
    elif step in ('sample', 'memory'):
        when = lambda model, settings, crops, numbers, titles: 'b.png' in titles
        monkeypatch.setattr(CropSampler, 'sample_crops', failing(CropSampler.sample_crops, when))
    elif step == 'merge':
        when = lambda merging, masks: merging.samples.shape[2] == 17
        monkeypatch.setattr(Merge, 'add', failing(Merge.add, when))
    else:
        room, name = (output, '_write_masks') if step == 'write' else (page, 'write')
        when = lambda *arguments: any(getattr(given, 'title', '') == 'b.png' for given in arguments)
        monkeypatch.setattr(room, name, failing(getattr(room, name), when))
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 2
    error = capfd.readouterr().err
    assert 'b.png: ' in error and '1 of 3 cases failed' in error and 'Traceback' not in error
    assert results(tmp_path / 'out') == {'a', 'c'}
    assert not list((tmp_path / 'out').rglob('.partial*'))


def test_files_that_go_or_change_after_listing_are_named(weights, bright, tmp_path, monkeypatch, capfd):
    for name in ('a.png', 'b.png', 'c.png'):
        write(tmp_path / 'in' / name)
    find = inputs.find

    def then_change(*arguments):
        found = find(*arguments)
        (tmp_path / 'in' / 'a.png').unlink()
        (tmp_path / 'in' / 'b.png').write_bytes(b'')
        return found

    monkeypatch.setattr(inputs, 'find', then_change)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 2
    error = capfd.readouterr().err
    assert 'a.png: cannot be read (No such file or directory)' in error and 'b.png: an empty file' in error
    assert results(tmp_path / 'out') == {'c'}


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_later(weights, bright, tmp_path, monkeypatch, capfd):
    for name in ('a.png', 'b.png', 'c.png'):
        write(tmp_path / 'in' / name)
    save = output.save

    def full(prediction, folder):
        if prediction.title == 'b.png':
            raise OSError(errno.ENOSPC, 'No space left on device', str(folder))
        return save(prediction, folder)

    monkeypatch.setattr(output, 'save', full)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 2
    error = capfd.readouterr().err
    assert 'No space left on device' in error and 'goes on' in error and 'Traceback' not in error
    assert results(tmp_path / 'out') == {'a'}
    monkeypatch.setattr(output, 'save', save)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 0
    assert results(tmp_path / 'out') == {'a', 'b', 'c'} and len(bright) <= 5


def test_results_that_vanish_during_the_run_are_not_called_done(weights, bright, tmp_path, monkeypatch, capfd):
    for name in ('a.png', 'b.png'):
        write(tmp_path / 'in' / name)
    save = output.save

    def and_remove(prediction, folder):
        notes = save(prediction, folder)
        if prediction.title == 'b.png':
            shutil.rmtree(tmp_path / 'out' / 'a')
        return notes

    monkeypatch.setattr(output, 'save', and_remove)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 2
    said = capfd.readouterr()
    assert 'a.png: its result a was removed' in said.err and '1 of 2 cases done' in said.out


def test_what_does_not_fit_the_memory_is_told_before_anything_is_drawn(weights, bright, tmp_path, monkeypatch, capfd):
    write(tmp_path / 'big.png', 300)
    monkeypatch.setattr(memory, 'available', lambda: 2**20)
    assert tiny.run_predict(weights, tmp_path / 'big.png', tmp_path / 'out', '--num_samples=900') == 2
    assert 'GiB of memory, and 0.0 GiB are free' in capfd.readouterr().err and not bright


def test_available_memory_is_what_the_limit_leaves(monkeypatch):
    resource = pytest.importorskip('resource')
    monkeypatch.setattr(resource, 'getrlimit', lambda what: (2**40, 2**40))
    left = memory._limits()
    assert 2**40 - 2**38 < left < 2**40 and 0 < memory.available() <= left


@pytest.mark.parametrize('shape', [(1, 1), (1, 50), (50, 1), (2, 3), (15, 16), (17, 16)])
def test_images_of_any_shape_are_predicted(weights, bright, tmp_path, shape):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, shape, np.uint8)
    Image.fromarray(values).save(tmp_path / 'a.png')
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out') == 0
    assert np.asarray(Image.open(tmp_path / 'out' / 'a' / 'samples_01.png')).shape == shape


@pytest.mark.parametrize('kind', ['file', 'below a file'])
def test_an_output_that_is_a_file_is_told(weights, bright, tmp_path, capfd, kind):
    write(tmp_path / 'a.png')
    where = tmp_path / 'a.png' if kind == 'file' else tmp_path / 'a.png' / 'x'
    assert tiny.run_predict(weights, tmp_path / 'a.png', where) == 2
    error = capfd.readouterr().err.strip().splitlines()
    assert len(error) == 1 and 'a.png' in error[0]


def test_an_empty_folder_is_told_and_leaves_no_output(weights, bright, tmp_path, capfd):
    (tmp_path / 'in').mkdir()
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out') == 2
    assert 'holds no PNG' in capfd.readouterr().err and not (tmp_path / 'out').exists()


def test_more_points_than_a_file_name_is_long(weights, bright, tmp_path):
    write(tmp_path / 'a.png', 60)
    at = ';'.join(f'{10 + number % 40},{20 + number // 40}' for number in range(70))
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out', f'--at={at}') == 0
    with (tmp_path / 'out' / 'predictions.csv').open(newline='') as file:
        assert [row['point'] for row in csv.DictReader(file)] == at.split(';')


@pytest.mark.parametrize(
    ('table', 'said'),
    [
        ('file,x,y\na.png,,10\n', 'line 2 has no number in the column x'),
        ('x,y\n1\n', 'line 2 has no number in the column y'),
        ('x,y\n', 'names no point'),
        ('x,y,file\n1,2,z.png\n', "line 2: the input holds no file 'z.png'"),
        ('x\n1\n', 'no column y'),
    ],
)
def test_a_table_of_points_is_read_whole_or_refused_by_line(weights, bright, tmp_path, capfd, table, said):
    write(tmp_path / 'a.png')
    (tmp_path / 'points.csv').write_text(table)
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out', f'--at={tmp_path / "points.csv"}') == 2
    assert said in capfd.readouterr().err


def test_spreadsheets_ways_of_writing_points_are_read(weights, bright, tmp_path):
    write(tmp_path / 'a.png', 40)
    (tmp_path / 'points.csv').write_text('X;Y;File\n10,5;20;a.png\n', encoding='utf-8-sig')
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out', f'--at={tmp_path / "points.csv"}') == 0
    assert tiny.summary(tmp_path / 'out', 'a')['points'][0]['at'] == [10.5, 20]
