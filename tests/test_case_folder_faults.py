"""The `folder` layout: one line for each fault of a case or of the table, and what is passed over."""

import shutil

import numpy as np
import pytest
from case_files import cut_short, opened, save, settings, write_cases, write_table, write_volume

from ambdiff.data import example, sources
from ambdiff.errors import UserError


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
