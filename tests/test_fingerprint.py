"""A run's data is known again wherever it lies, and what changed since is told by name."""

import json
import os
import shutil

import pytest
from case_files import settings, write_cases, write_table
from layout_files import write_case as write_cimd_case
from layout_files import write_hdf5

from ambdiff.data import built, fingerprint, sources
from ambdiff.errors import UserError


def of(path, **changes):
    data = settings(path, **changes)
    return json.loads(json.dumps(fingerprint.of(sources.open_source(data, 'train'), data)))


@pytest.fixture
def root(tmp_path):
    root = write_cases(tmp_path / 'data', 4)
    rows = [(f'case{n}', f'p{n}', ('train', 'train', 'validation', 'test')[n]) for n in range(4)]
    write_table(root, rows, ('case', 'patient', 'split'))
    return root


def test_data_that_was_moved_and_touched_is_the_same(root, tmp_path):
    before = of(root)
    os.utime(next(root.rglob('image.png')), (0, 0))
    shutil.move(root, tmp_path / 'elsewhere')
    assert fingerprint.changes(before, of(tmp_path / 'elsewhere')) == []
    assert before['by'] == 'content' and before['files'] == 2 * 4 + 1


def test_what_changed_came_and_went_is_told_by_name(root):
    before = of(root)
    shutil.copy(root / 'case0' / 'mask_0.png', root / 'case0' / 'mask_1.png')
    (root / 'case1' / 'mask_2.png').rename(root / 'case1' / 'mask_3.png')
    lines = fingerprint.changes(before, of(root))
    assert lines[0].startswith('9 files of ')
    assert lines[1:] == ['new: case1/mask_3.png', 'gone: case1/mask_2.png', 'changed: case0/mask_1.png']


def test_a_run_goes_on_with_its_data_alone_or_knowingly(root, caplog):
    before = of(root)
    fingerprint.check(before, of(root), accepted=False)
    shutil.copy(root / 'case0' / 'mask_0.png', root / 'case0' / 'mask_1.png')
    with pytest.raises(UserError, match=r'changed: case0/mask_1\.png.*--config\.data\.accept_changes=True'):
        fingerprint.check(before, of(root), accepted=False)
    assert not caplog.text
    fingerprint.check(before, of(root), accepted=True)
    assert 'changed: case0/mask_1.png' in caplog.text


def test_large_data_that_was_copied_is_told_and_taken_but_not_with_other_sizes(root, monkeypatch, caplog):
    monkeypatch.setattr(fingerprint, 'CONTENT_BYTES', 10)
    before = of(root)
    os.utime(root / 'case0' / 'image.png', (0, 0))
    fingerprint.check(before, of(root), accepted=False)
    assert 'modified since (by its time or size): case0/image.png' in caplog.text
    (root / 'case0' / 'image.png').write_bytes((root / 'case0' / 'image.png').read_bytes() + b' ')
    with pytest.raises(UserError, match='is not what the run began with'):
        fingerprint.check(before, of(root), accepted=False)


def test_large_data_counts_by_size_and_time(root, monkeypatch):
    monkeypatch.setattr(fingerprint, 'CONTENT_BYTES', 10)
    before = of(root)
    assert before['by'] == 'time' and fingerprint.changes(before, of(root)) == []
    os.utime(root / 'case0' / 'image.png', (0, 0))
    assert fingerprint.changes(before, of(root))[1:] == ['modified since (by its time or size): case0/image.png']


def test_the_fingerprint_of_many_files_stays_small_and_names_the_folder(root, monkeypatch):
    monkeypatch.setattr(fingerprint, '_ENTRIES', 3)
    before = of(root)
    assert len(before['entries']) <= 3 and before['files'] == 9
    shutil.copy(root / 'case0' / 'mask_0.png', root / 'case0' / 'mask_1.png')
    assert fingerprint.changes(before, of(root))[1:] == ['changed: case0']


def test_other_layouts_tell_their_files(tmp_path):
    path = write_hdf5(tmp_path / 'a.hdf5')
    assert list(of(path, num_raters=4)['entries']) == ['a.hdf5']
    for case in range(3):
        write_cimd_case(tmp_path / 'training' / str(case))
    found = of(tmp_path, num_raters=4)['entries']
    assert len(found) == 5 and 'training/0/label3_.jpg' in found


def test_a_file_that_is_gone_is_named(root):
    data = settings(root)
    source = sources.open_source(data, 'train')
    gone = root / 'case0' / 'mask_0.png'
    gone.unlink()
    with pytest.raises(UserError, match=gone.name):
        fingerprint.of(source, data)


def test_a_build_is_another_one_when_a_file_changes_and_keeps_its_size(tmp_path):
    path = tmp_path / 'mask.nii'
    path.write_bytes(b'nothing')
    before = built.fingerprint(tmp_path, [path], 'resize')
    assert built.fingerprint(tmp_path, [path], 'resize') == before != built.fingerprint(tmp_path, [path], 'crop')
    path.write_bytes(b'drawing')
    assert built.fingerprint(tmp_path, [path], 'resize') != before
