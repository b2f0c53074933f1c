"""The `folder` layout: what is read from a user's own cases, and how they are split."""

import shutil

import nibabel
import numpy as np
import pydicom
import pytest
from case_files import areas, opened, save, settings, write_case, write_cases, write_table, write_volume
from dicom_files import series
from layout_files import write_case as write_cimd_case
from layout_files import write_hdf5

from ambdiff.data import example, sources, splits
from ambdiff.data.files import cases
from ambdiff.data.layouts import case_folder, cimd_folder, phiseg_hdf5
from ambdiff.errors import UserError


def test_every_case_is_in_one_split_and_read_to_the_contract(tmp_path):
    write_cases(tmp_path)
    parts = {split: opened(tmp_path, split) for split in example.SPLITS}
    assert [len(part) for part in parts.values()] == [10, 1, 1]
    items = [part[i] for part in parts.values() for i in range(len(part))]
    assert len({item['case'] for item in items}) == 12
    for item in items:
        assert item['image'].shape == (16, 16, 1) and item['image'].dtype == np.float32
        assert item['image'] == pytest.approx(10 * int(item['case'][4:]) / 255)
        assert item['masks'].dtype == np.uint8 and areas(item) == [4, 9, 16] and item['masks'].max() == 1
        assert item['present'].all() and item['patient'] == ''


@pytest.mark.parametrize('suffix', ['png', 'tif', 'nii', 'nii.gz'])
@pytest.mark.parametrize('white', [1, 255])
def test_the_lossless_formats_and_both_ways_to_store_a_mask_read_alike(tmp_path, suffix, white):
    write_cases(tmp_path, 3, suffix=suffix, white=white)
    assert areas(opened(tmp_path)[0]) == [4, 9, 16]


def test_jpeg_masks_are_thresholded_at_half(tmp_path):
    write_cases(tmp_path, 3, suffix='jpg')
    assert areas(opened(tmp_path)[0]) == [4, 9, 16]


def test_cases_with_fewer_raters_are_padded_and_say_so(tmp_path):
    for number, raters in enumerate((1, 2, 3, 3, 3)):
        write_case(tmp_path / f'case{number}', raters=raters)
    for split in example.SPLITS:
        part = opened(tmp_path, split)
        for item in (part[i] for i in range(len(part))):
            count = min(int(item['case'][4:]) + 1, 3)
            assert item['present'].sum() == count
            assert not item['masks'][~item['present']].any() and item['masks'][item['present']].any((1, 2)).all()
    with pytest.raises(UserError, match=r'case2 has 3 masks.*--config\.data\.num_raters=3'):
        opened(tmp_path, num_raters=2)


def test_slices_that_a_rater_drew_in_are_examples_and_keep_their_place(tmp_path):
    for number in range(3):
        write_volume(tmp_path / f'case{number}')
    part = opened(tmp_path, num_raters=2)
    assert [part[i]['case'][-5:] for i in range(len(part))] == ['_z001', '_z002']
    for item, (grey, marked) in zip([part[0], part[1]], ((50, [3, 3]), (100, [0, 3])), strict=True):
        inside = item['image'][5:11, 5:9]
        assert inside == pytest.approx(grey / 255) and areas(item) == marked and item['present'].all()
    assert part.findings().dropped_slices == 3


def test_volumes_stored_in_another_direction_than_their_masks_are_brought_together(tmp_path):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = [7, 5, 0]
    write_volume(tmp_path / 'a')
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    mask = nibabel.load(tmp_path / 'b' / 'mask_r0.nii.gz')
    save(tmp_path / 'b' / 'mask_r0.nii.gz', np.ascontiguousarray(np.asarray(mask.dataobj)[::-1, ::-1]), affine)
    data = settings(tmp_path, num_raters=2)
    a, b = (case.read(data) for case in cases.find(tmp_path))
    np.testing.assert_array_equal(a.masks, b.masks)


def test_a_dicom_series_takes_nifti_masks_drawn_in_its_space(tmp_path):
    for name in ('a', 'b', 'c'):
        (tmp_path / name).mkdir()
        series(tmp_path / name / 'image', gap=2.0)
        mask = np.zeros((6, 4, 5), np.uint8)  # columns, rows, slices, as dcm2niix and 3D Slicer store it
        mask[1:3, 2, 3] = 1
        affine = np.array([[-0.7, 0, 0, 10], [0, -0.7, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])
        save(tmp_path / name / 'mask_1.nii.gz', mask, affine)
    item = opened(tmp_path, intensity='hu_window')[0]
    marked = item['masks'][0].astype(bool) | item['masks'][1].astype(bool) | item['masks'][2].astype(bool)
    assert item['case'].endswith('_z003') and item['spacing'] == pytest.approx(0.7)
    pixels = 300 + 2 * 6 + np.arange(1, 3) - 1024
    np.testing.assert_allclose(item['image'][marked][:, 0], (pixels + 1000) / 1400, atol=1e-6)


def test_slices_are_resampled_to_the_spacing_asked_for(tmp_path):
    for number in range(3):
        write_volume(tmp_path / f'case{number}', affine=np.diag([2.0, 1.0, 4.0, 1.0]))
    item = opened(tmp_path, num_raters=2, spacing=0.5)[0]
    assert item['spacing'] == pytest.approx(0.5)
    assert areas(item) == [24, 24]  # 3 x 1 voxels of 2 x 1 mm
    write_cases(tmp_path / 'flat', 3)
    with pytest.raises(UserError, match=r'image\.png: has no pixel spacing .*config\.data\.spacing=0'):
        opened(tmp_path / 'flat', spacing=0.5)


def test_label_maps_are_kept_with_classes_and_refused_without(tmp_path):
    write_cases(tmp_path, 3, white=2)
    assert opened(tmp_path, num_classes=2)[0]['masks'].max() == 2
    with pytest.raises(UserError, match=r'mask_0\.png: not a mask of yes and no, holds the values 0, 2'):
        opened(tmp_path)
    with pytest.raises(UserError, match=r'config\.data\.num_classes=3'):
        write_cases(tmp_path, 3, white=7)
        opened(tmp_path, num_classes=3)


def test_colour_and_sixteen_bits_are_read_and_colours_stay_where_three_channels_are_set(tmp_path):
    write_cases(tmp_path, 3)
    for number in range(3):
        folder = tmp_path / f'case{number}'
        (folder / 'image.png').unlink()
        save(folder / 'image.tif', np.full((16, 16), 6553, np.uint16))
    assert opened(tmp_path)[0]['image'] == pytest.approx(0.1, abs=1e-4)
    for number in range(3):
        folder = tmp_path / f'case{number}'
        (folder / 'image.tif').unlink()
        save(folder / 'image.png', np.full((16, 16, 3), (255, 0, 51), np.uint8))
    assert opened(tmp_path, channels=3)[0]['image'][3, 3] == pytest.approx([1, 0, 0.2])
    assert opened(tmp_path)[0]['image'] == pytest.approx(0.299 + 0.114 * 0.2, abs=1 / 255)


def test_patients_of_a_table_are_never_on_two_sides_and_its_splits_are_taken(tmp_path):
    write_cases(tmp_path)
    write_table(tmp_path, [(f'case{n}', f'p{n // 3}') for n in range(12)])
    table = case_folder.split_table(tmp_path, settings(tmp_path))
    assert not splits.shared_patients(table)
    assert {split for _, split in table.values()} == set(example.SPLITS)
    assert set(opened(tmp_path).patients) <= {'p0', 'p1', 'p2', 'p3'}
    given = [(f'case{n}', f'p{n}', 'test' if n < 2 else ('val' if n < 4 else 'train')) for n in range(12)]
    write_table(tmp_path, given, ('case', 'patient', 'split'))
    assert [len(opened(tmp_path, split)) for split in example.SPLITS] == [8, 2, 2]


def test_the_splits_that_were_made_are_written_and_give_the_same_splits_as_a_table(tmp_path):
    root = write_cases(tmp_path / 'data')
    before = case_folder.split_table(root, settings(root))
    sources.write_splits(settings(root), tmp_path / 'run')
    assert sorted(path.name for path in root.iterdir()) == sorted(before)
    shutil.copy(tmp_path / 'run' / 'splits.csv', root / 'patients.csv')
    after = case_folder.split_table(root, settings(root))
    assert {case: split for case, (_, split) in after.items()} == {case: split for case, (_, split) in before.items()}


def test_folders_of_splits_are_taken_and_a_missing_one_is_cut_from_training(tmp_path):
    write_cases(tmp_path / 'train', 10)
    write_cases(tmp_path / 'test', 4)
    assert [len(opened(tmp_path, split)) for split in example.SPLITS] == [9, 1, 4]
    write_case(tmp_path / 'stray')
    with pytest.raises(UserError, match='stray: lies in no split'):
        opened(tmp_path)


def test_the_other_layouts_are_still_told_apart(tmp_path):
    for number in range(3):
        write_cimd_case(tmp_path / 'cimd' / 'training' / str(number))
    write_cases(tmp_path / 'own' / 'train', 3)
    write_hdf5(tmp_path / 'a.hdf5')
    assert sources._layout(settings(tmp_path / 'cimd'))[1] is cimd_folder
    assert sources._layout(settings(tmp_path / 'own'))[1] is case_folder
    assert sources._layout(settings(tmp_path / 'a.hdf5'))[1] is phiseg_hdf5


def test_a_dicom_slice_is_an_image(tmp_path):
    write_cases(tmp_path, 3)
    for number in range(3):
        folder = tmp_path / f'case{number}'
        (folder / 'image.png').unlink()
        series(tmp_path / 'series', count=1, shape=(16, 16))
        file = next((tmp_path / 'series').iterdir())
        assert pydicom.dcmread(file).Rows == 16
        shutil.move(file, folder / 'image.dcm')
    (tmp_path / 'series').rmdir()
    assert opened(tmp_path, intensity='hu_window')[0]['spacing'] == pytest.approx(0.7)


def test_the_builder_gives_the_examples_of_the_reader(tmp_path):
    write_cases(tmp_path / 'data', 3)
    for number in range(3):
        write_volume(tmp_path / 'data' / f'volume{number}', raters=2)
    rows = [(name, name, 'train') for name in ('case0', 'volume0')] + [('case1', 'b', 'test'), ('volume1', 'b', 'test')]
    write_table(
        tmp_path / 'data', [*rows, ('case2', 'c', 'val'), ('volume2', 'c', 'val')], ('case', 'patient', 'split')
    )
    changes = {'builder': 'folder', 'build_dir': str(tmp_path / 'built'), 'image_size': 12}
    for split in example.SPLITS:
        reader, build = opened(tmp_path / 'data', split, image_size=12), opened(tmp_path / 'data', split, **changes)
        ours, theirs = ({part[i]['case']: part[i] for i in range(len(part))} for part in (reader, build))
        assert set(ours) == set(theirs) and len(ours) == 3
        for case, item in ours.items():
            np.testing.assert_allclose(theirs[case]['image'], item['image'], atol=1e-5)
            assert areas(theirs[case]) == areas(item) and theirs[case]['patient'] == item['patient']
            assert theirs[case]['present'].sum() == item['present'].sum() == (2 if 'volume' in case else 3)
            np.testing.assert_array_equal(theirs[case]['spacing'], item['spacing'])
