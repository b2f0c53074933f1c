"""The `folder` layout: what is read from a user's own cases, how they are split, and one line for each fault."""

import csv
import shutil

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from test_dicom import series
from test_sources import write_case as write_cimd_case
from test_sources import write_hdf5

from ambdiff.config import default
from ambdiff.data import example, sources, splits
from ambdiff.data.files import cases
from ambdiff.data.layouts import case_folder, cimd_folder, phiseg_hdf5
from ambdiff.errors import UserError


def settings(path, **changes):
    config = default()
    with config.unlocked():
        config.data.update({'path': str(path), 'image_size': 16, 'num_raters': 3, 'intensity': 'full_range'} | changes)
    return config.data


def save(path, pixels, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if '.nii' in path.name:
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4) if affine is None else affine), path)
    else:
        Image.fromarray(pixels).save(path)


def write_case(folder, raters=3, size=16, value=100, white=255, suffix='png'):
    """A picture of one grey value; rater r marks a square of side 2 + r."""
    save(folder / f'image.{suffix}', np.full((size, size), value, np.uint8))
    for rater in range(raters):
        mask = np.zeros((size, size), np.uint8)
        mask[4 : 6 + rater, 4 : 6 + rater] = white
        save(folder / f'mask_{rater}.{suffix}', mask)
    return folder


def write_cases(root, count=12, **changes):
    for number in range(count):
        write_case(root / f'case{number}', value=10 * number, **changes)
    return root


def write_volume(folder, raters=2, affine=None, mask_affine=None):
    """A 3-D case of 5 axial slices whose values tell them apart; rater r draws in slices 1 .. 1 + r."""
    image = np.broadcast_to(np.arange(5, dtype=np.uint8) * 50, (8, 6, 5)).copy()
    save(folder / 'image.nii.gz', image, affine)
    for rater in range(raters):
        mask = np.zeros((8, 6, 5), np.uint8)
        mask[2:5, 3:4, 1 : 2 + rater] = 1
        save(folder / f'mask_r{rater}.nii.gz', mask, affine if mask_affine is None else mask_affine)
    return folder


def opened(path, split='train', **changes):
    return sources.open_source(settings(path, **changes), split)


def areas(item):
    return sorted(item['masks'].sum((1, 2)).tolist())


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
    for item, (grey, drawn) in zip([part[0], part[1]], ((50, [3, 3]), (100, [0, 3])), strict=True):
        inside = item['image'][5:11, 5:9]
        assert inside == pytest.approx(grey / 255) and areas(item) == drawn and item['present'].all()
    assert part.findings().dropped_slices == 3


def test_volumes_stored_in_another_direction_than_their_masks_are_brought_together(tmp_path):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = [7, 5, 0]
    write_volume(tmp_path / 'a')
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    mask = nibabel.load(tmp_path / 'b' / 'mask_r0.nii.gz')
    save(tmp_path / 'b' / 'mask_r0.nii.gz', np.ascontiguousarray(np.asarray(mask.dataobj)[::-1, ::-1]), affine)
    data = settings(tmp_path, num_raters=2)
    a, b = (cases.read(case, data) for case in cases.find(tmp_path))
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
    drawn = item['masks'][0].astype(bool) | item['masks'][1].astype(bool) | item['masks'][2].astype(bool)
    assert item['case'].endswith('_z003') and item['spacing'] == pytest.approx(0.7)
    pixels = 300 + 2 * 6 + np.arange(1, 3) - 1024
    np.testing.assert_allclose(item['image'][drawn][:, 0], (pixels + 1000) / 1400, atol=1e-6)


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


def write_table(root, rows, columns=('case', 'patient')):
    with (root / 'patients.csv').open('w', newline='') as file:
        csv.writer(file).writerows([columns, *rows])


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


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_mask(folder, pixels):
    save(folder / 'mask_1.png', pixels)


def link(path, target):
    path.symlink_to(target)


FAULTS = {
    'truncated image': (lambda f: cut_short(f / 'image.png'), r'image\.png: truncated or damaged'),
    'truncated mask': (lambda f: cut_short(f / 'mask_1.png'), r'mask_1\.png: truncated or damaged'),
    'mask of another size': (lambda f: replace_mask(f, np.zeros((16, 15), np.uint8)), r'mask_1\.png: 16x15 pixels'),
    'grey mask': (lambda f: replace_mask(f, np.eye(16, dtype=np.uint8) * 93), r'mask_1\.png: not a mask of yes and no'),
    'no mask': (lambda f: [p.unlink() for p in f.glob('mask*')], r'case1: no file mask_'),
    'no image': (lambda f: (f / 'image.png').unlink(), r'case1: 0 files image\.\*'),
    'two images': (lambda f: save(f / 'image.tif', np.zeros((16, 16), np.uint8)), r'case1: 2 files image\.\*'),
    'a rater twice': (lambda f: save(f / 'mask_1.tif', np.zeros((16, 16), np.uint8)), r'mask_1\.tif: the same rater'),
    'empty folder': (lambda f: [p.unlink() for p in f.iterdir()], r'case1: an empty folder'),
    'other names': (lambda f: [p.rename(f / f'x{p.name}') for p in f.iterdir()], r'case1: no file is named image'),
    'link to itself': (lambda f: link(f / 'image.tif', f / 'image.tif'), r'image\.tif: a link that leads nowhere'),
    'link to a folder above': (lambda f: link(f / 'sub', f.parent), r'sub: a link back to a folder above it'),
    'float image': (lambda f: (f / 'image.png').unlink() or save(f / 'image.tif', np.full((16, 16), 7.5, np.float32)),
                    r'image\.tif: holds 7\.5 to 7\.5 as float32'),
}  # fmt: skip


@pytest.mark.parametrize('fault', FAULTS)
def test_a_faulty_case_is_named_when_data_is_opened_and_passed_over_by_who_walks_it(tmp_path, fault):
    write_cases(tmp_path, 4)
    write_table(tmp_path, [(f'case{n}', f'p{n}', 'train') for n in range(4)], ('case', 'patient', 'split'))
    harm, message = FAULTS[fault]
    harm(tmp_path / 'case1')
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path)
    assert '\n' not in str(caught.value)
    part, found, sound = sources.open_source(settings(tmp_path), 'train', walk=True), [], 0
    for row in range(len(part)):
        try:
            part[row]
            sound += 1
        except UserError as error:
            found.append(str(error))
    assert sound >= 3 and found == [str(caught.value)]


TABLE_FAULTS = {
    'a case twice': ([('case0', 'a'), ('case0', 'b')], r"patients\.csv: line 3: the case 'case0' is there twice"),
    'a case without a line': ([('case0', 'a')], r"patients\.csv: has no line for the case 'case1'"),
    'no such case': ([('case9', 'a')], r"patients\.csv: the case 'case9': no such folder"),
    'no patient': ([('case0', '')], r'patients\.csv: line 2 names no patient'),
}


@pytest.mark.parametrize('fault', TABLE_FAULTS)
def test_a_fault_of_the_table_is_named_with_its_line(tmp_path, fault):
    write_cases(tmp_path, 3)
    rows, message = TABLE_FAULTS[fault]
    write_table(tmp_path, rows)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_a_patient_in_two_splits_is_refused_by_name(tmp_path):
    write_cases(tmp_path, 3)
    rows = [('case0', 'Ann', 'train'), ('case1', 'Ann', 'test'), ('case2', 'Bob', 'validation')]
    write_table(tmp_path, rows, ('case', 'patient', 'split'))
    with pytest.raises(UserError, match=r"the patient 'Ann' is in train and test"):
        opened(tmp_path)


def test_hu_asked_of_a_picture_and_a_mask_elsewhere_in_space_are_refused(tmp_path):
    write_cases(tmp_path / 'flat', 3)
    with pytest.raises(UserError, match=r'image\.png: holds no HU .*--config\.data\.intensity=full_range'):
        opened(tmp_path / 'flat', intensity='hu_window')
    moved = np.eye(4)
    moved[0, 3] = 3
    for number in range(3):
        write_volume(tmp_path / 'moved' / f'case{number}', mask_affine=moved)
    with pytest.raises(UserError, match=r'mask_r0\.nii\.gz: lies up to 3 mm from image\.nii\.gz'):
        opened(tmp_path / 'moved', num_raters=2)


def test_hidden_files_and_resource_forks_are_passed_over(tmp_path):
    write_cases(tmp_path, 3)
    (tmp_path / 'case0' / '._image.png').write_bytes(b'x')
    (tmp_path / '.hidden').mkdir()
    (tmp_path / '__MACOSX').mkdir()
    assert sum(len(opened(tmp_path, split)) for split in example.SPLITS) == 3


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


@pytest.mark.parametrize(
    'name', ['mask2.png', 'Mask-2.png', 'mask_2.bmp', 'mask_2.npy', 'rater2_mask.png', 'masks.tif']
)
def test_a_mask_of_another_name_is_a_fault_and_no_lost_rater(tmp_path, name):
    write_cases(tmp_path, 3, raters=2)
    shutil.copy(tmp_path / 'case1' / 'mask_0.png', tmp_path / 'case1' / name)
    with pytest.raises(UserError, match=rf'{name}: is not read, since masks are named mask_NAME\.png'):
        opened(tmp_path)


def test_other_files_of_a_case_are_named_but_for_notes_and_a_desktops(tmp_path, caplog):
    write_cases(tmp_path, 3)
    for number in range(3):
        for name in ('Thumbs.db', 'notes.txt', 'image.json', '.DS_Store', 'overlay.png'):
            (tmp_path / f'case{number}' / name).write_bytes(b'x')
    found = [opened(tmp_path, split).findings().unread for split in example.SPLITS]
    assert all(len(lines) == 1 and 'overlay.png: neither image.* nor mask_*.*, not read' in lines[0] for lines in found)
    assert caplog.text.count('overlay.png') == 3 and 'Thumbs' not in caplog.text
