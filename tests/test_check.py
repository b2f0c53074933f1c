"""python -m ambdiff.data.check: what is there, every fault named once, leaks found, a page without requests."""

import os
import re
import shutil

import forked
import numpy as np
import pytest
import test_hpunet_crops as hpunet
import test_knegt_pickle as knegt
import test_ms_mri as ms
from case_files import cut_short, save, settings, write_case, write_table, write_volume
from layout_files import write_case as write_cimd_case
from layout_files import write_hdf5
from PIL import Image

from ambdiff.data import check, survey
from ambdiff.data.layouts import knegt_pickle
from ambdiff.data.survey import Survey


def run(path, *arguments):
    return forked.run(
        *('-m', 'ambdiff.data.check', '--config=configs/lidc.py', f'--config.data.path={path}'),
        *('--config.data.image_size=16', '--config.data.num_raters=3', '--config.data.intensity=full_range'),
        *arguments,
    )


def noisy_case(folder, seed, raters=3):
    write_case(folder, raters)
    save(folder / 'image.png', np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8))


def noisy_cases(root, splits='ttttvve', raters=3):
    names = {'t': 'train', 'v': 'validation', 'e': 'test'}
    for number in range(len(splits)):
        noisy_case(root / f'case{number}', number, raters)
    rows = [(f'case{n}', f'p{n}', names[letter]) for n, letter in enumerate(splits)]
    write_table(root, rows, ('case', 'patient', 'split'))
    return rows


def test_a_sound_folder_is_told_as_it_is_and_exits_0_even_strictly(tmp_path):
    noisy_cases(tmp_path / 'data')
    (tmp_path / 'data' / 'case0' / 'mask_2.png').unlink()
    done = run(tmp_path / 'data', '--strict', f'--output={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    lines = {line[:22].strip(): line.split() for line in done.stdout.splitlines()}
    assert lines['cases'][1:] == ['4', '2', '1'] and lines['patients'][1:] == ['4', '2', '1']
    assert '2 (1), 3 (3)' in done.stdout and '1 of 12' in done.stdout and '0 faults' in done.stdout
    assert 'train: 100%' in done.stderr
    page = (tmp_path / 'out' / 'data.html').read_text()
    assert page.count('<article') == 7 and 'missing' in page and "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert (tmp_path / 'out' / 'splits.csv').read_text().splitlines()[1] == 'case0,p0,train'


def test_faults_are_named_and_passed_over_and_only_strict_exits_2(tmp_path):
    noisy_cases(tmp_path / 'data')
    cut_short(tmp_path / 'data' / 'case1' / 'image.png')
    save(tmp_path / 'data' / 'case4' / 'mask_0.png', np.zeros((9, 9), np.uint8))
    (tmp_path / 'data' / 'case6' / 'again').symlink_to(tmp_path / 'data')
    for arguments, status in (((), 0), (('--strict',), 2)):
        done = run(tmp_path / 'data', *arguments, f'--output={tmp_path / "out"}')
        assert done.returncode == status and 'Traceback' not in done.stderr
        assert '3 faults' in done.stdout
        for name in ('case1/image.png: truncated', 'case4/mask_0.png: 9x9', 'again: a link back'):
            assert len([line for line in done.stdout.splitlines() if name in line]) == 1
    assert 'case4/mask_0.png' in (tmp_path / 'out' / 'data.html').read_text()


def test_data_that_cannot_be_read_at_all_is_one_line_and_status_2(tmp_path):
    (tmp_path / 'empty').mkdir()
    for path in ('nowhere', tmp_path / 'empty'):
        done = run(path, f'--output={tmp_path / "out"}')
        assert done.returncode == 2 and 'Traceback' not in done.stderr and not (tmp_path / 'out').exists()
        assert [line for line in done.stderr.splitlines() if line.startswith('ambdiff: ')]


def faults_of(path, **changes):
    surveys, _, faults = check.examine(settings(path, **changes))
    return surveys, faults


def test_a_patient_in_two_splits_is_a_leak_that_does_not_hide_the_rest(tmp_path):
    rows = noisy_cases(tmp_path)
    rows[6] = ('case6', 'p0', 'test')
    write_table(tmp_path, rows, ('case', 'patient', 'split'))
    surveys, faults = faults_of(tmp_path)
    assert [found.count for found in surveys.values()] == [4, 2, 1]
    assert faults == ["leak: 1 patients are in both train and test (first: 'p0')"]


def test_an_image_that_is_in_two_splits_is_a_leak_whatever_its_name(tmp_path):
    noisy_cases(tmp_path)
    shutil.copy(tmp_path / 'case0' / 'image.png', tmp_path / 'case5' / 'image.png')
    _, faults = faults_of(tmp_path)
    assert faults == ["leak: 1 images are in both train and validation (first: 'case0' and 'case5')"]


def test_volumes_with_faults_are_told_once(tmp_path):
    for number in range(3):
        write_volume(tmp_path / f'case{number}')
    cut_short(tmp_path / 'case0' / 'image.nii.gz')
    surveys, faults = faults_of(tmp_path, num_raters=2)
    assert len(faults) == 1 and 'case0/image.nii.gz' in faults[0]
    assert sum(found.count for found in surveys.values()) == 4


def test_faults_of_the_other_layouts_are_told_case_by_case(tmp_path):
    for number in range(12):
        write_cimd_case(tmp_path / 'cimd' / 'training' / str(number), raters=3)
    cut_short(tmp_path / 'cimd' / 'training' / '0' / 'image_1.jpg')
    cut_short(tmp_path / 'cimd' / 'training' / '4' / 'label1_.jpg')
    (tmp_path / 'cimd' / 'training' / '5' / 'label1_.jpg').unlink()
    surveys, faults = faults_of(tmp_path / 'cimd')
    assert sum(found.count for found in surveys.values()) == 9 and len(faults) == 3
    images = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 12, 12)).astype(np.float32)
    images[2, 3, 3] = np.nan
    surveys, faults = faults_of(write_hdf5(tmp_path / 'a.hdf5', images=images), num_raters=4)
    assert [found.count for found in surveys.values()] == [5, 6, 6]
    assert any('images[2]: has NaN' in fault for fault in faults)


def test_a_builder_that_a_fault_stops_does_not_hide_the_other_faults(tmp_path):
    noisy_cases(tmp_path / 'data')
    for name in ('case1', 'case2'):
        cut_short(tmp_path / 'data' / name / 'image.png')
    surveys, faults = faults_of(tmp_path / 'data', builder='bone_us', build_dir=str(tmp_path / 'built'))
    assert len(faults) == 2 and [found.count for found in surveys.values()] == [2, 2, 1]


def test_agreement_counts_two_empty_masks_as_equal_and_averages_classes():
    masks = np.zeros((3, 4, 4), np.uint8)
    assert survey.pairwise_iou(masks) == 1
    masks[0, 0, :2] = masks[1, 0, :1] = 1
    assert survey.pairwise_iou(masks) == pytest.approx((0.5 + 0 + 0) / 3)
    masks[2, 0, 0] = 2
    by_class = [(0.5 + 0 + 0) / 3, (1 + 0 + 0) / 3]
    assert survey.pairwise_iou(masks, 2) == pytest.approx(np.mean(by_class))


def test_missing_raters_count_neither_as_empty_nor_in_agreement():
    found, image = Survey(), np.random.default_rng(0).random((8, 8, 1), np.float32)
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[:2, 2:4, 2:4] = 1
    present = np.array([True, True, False])
    spacing = np.full(2, np.nan, np.float32)
    found.add(
        {'image': image, 'masks': masks, 'present': present, 'case': 'a', 'patient': '', 'spacing': spacing},
    )
    rows = found.rows()
    assert rows['empty masks'] == '0.0%' and rows['IoU of two raters'] == '1.000'
    assert rows['masks missing'] == '1 of 3' and rows['spacing, mm'] == 'unknown'


def test_names_from_outside_are_escaped_in_the_page(tmp_path):
    noisy_cases(tmp_path / 'data')
    (tmp_path / 'data' / 'case0').rename(tmp_path / 'data' / '<img onerror=x>')
    (tmp_path / 'data' / 'patients.csv').unlink()
    Image.new('L', (4, 4)).save(tmp_path / 'data' / 'case2' / 'mask_0.png')
    done = run(tmp_path / 'data', f'--output={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'out' / 'data.html').read_text()
    assert '<img onerror' not in page and '&lt;img onerror=x&gt;' in page


def test_a_builder_does_not_stumble_over_what_is_no_case(tmp_path):
    noisy_cases(tmp_path / 'data')
    (tmp_path / 'data' / 'empty').mkdir()
    (tmp_path / 'data' / 'circle').symlink_to(tmp_path / 'data')
    surveys, faults = faults_of(tmp_path / 'data', builder='bone_us', build_dir=str(tmp_path / 'built'))
    assert len(faults) == 2 and 'circle: a link back' in faults[0] and 'an empty folder' in faults[1]
    assert [found.count for found in surveys.values()] == [4, 2, 1]


def test_every_fault_of_the_crops_is_told_and_a_patient_on_both_sides_hides_nothing(tmp_path):
    hpunet.write(tmp_path, slices=2)
    images, masks = (sorted((tmp_path / 'train' / kind).rglob('*.png')) for kind in ('images', 'gt'))
    cut_short(images[0])
    for mask in masks[-4:]:
        mask.unlink()
    patient = images[0].parent.name
    for kind in ('images', 'gt'):
        shutil.copytree(tmp_path / 'train' / kind / patient, tmp_path / 'val' / kind / patient)
    _, faults = faults_of(tmp_path, num_raters=4)
    assert any(images[0].name in fault and 'not a whole PNG' in fault for fault in faults)
    assert any(str(images[-1]) in fault and '0 masks' in fault for fault in faults)
    assert any(fault.startswith('leak: 1 patients are in both train and validation') for fault in faults)


def test_every_faulty_file_of_the_visits_is_told(tmp_path):
    for subject in ms.SUBJECTS[:3]:
        ms.write_visit(tmp_path / 'data', subject, '01')
    broken = sorted((tmp_path / 'data').rglob('*_t2_pp.nii'))[:2]
    for path in broken:
        cut_short(path)
    (lost := tmp_path / 'data' / 'training03' / 'masks' / 'training03_01_mask1.nii').unlink()
    os.mkfifo(lost)  # reading it would never end
    changes = {'builder': 'ms_mri', 'build_dir': str(tmp_path / 'b'), 'num_raters': 2, 'intensity': 'percentile'}
    surveys, faults = faults_of(tmp_path / 'data', **changes)
    assert not surveys and len(faults) == 3
    assert 'training03_01 has no mask1' in faults[0]
    assert all(str(path) in fault for path, fault in zip(broken, faults[1:], strict=True))


def test_faulty_cases_of_a_pickle_are_told_one_by_one(tmp_path):
    content = knegt.cases()
    names = sorted(content)
    content[names[0]]['image'] = np.zeros((9, 9))
    content[names[5]]['masks'][1] = np.full((16, 16), 3.0)
    path = knegt.write(tmp_path / 'data_lidc.pickle', content)
    surveys, faults = faults_of(path, num_raters=4)
    assert len(faults) == 2 and names[0] in faults[0] and names[5] in faults[1]
    assert sum(found.count for found in surveys.values()) == len(names) - 2
    assert not set(knegt_pickle.split_table(path, knegt.settings(path))) & {names[0], names[5]}


def test_a_name_that_is_no_text_is_a_fault_in_one_line(tmp_path):
    noisy_cases(tmp_path)
    (tmp_path / 'patients.csv').unlink()
    os.rename(os.fsencode(tmp_path / 'case0'), os.fsencode(tmp_path) + b'/M\xfcller')
    (tmp_path / 'case1').rename(tmp_path / 'two\nlines')
    cut_short(tmp_path / 'two\nlines' / 'image.png')
    surveys, faults = faults_of(tmp_path)
    assert len(faults) == 2 and sum(found.count for found in surveys.values()) == 5
    assert all('\n' not in fault and fault.encode() for fault in faults)
    assert any('not UTF-8' in fault for fault in faults)
