"""Patterns and trees that are wrong: each is told in one line that names what and where, and none is half read."""

import os
import shutil

import h5py
import numpy as np
import pytest
from layout_files import fails
from pattern_files import areas, everything, npc170, qubiq, scan, settings

from ambdiff.data import check
from ambdiff.data.files import hdf5
from ambdiff.data.pattern.presets import pattern_of
from ambdiff.errors import UserError


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('curva', "names 'curva'; choose qubiq"),
        ('image=a.png', 'has no mask='),
        ('image=a.png,mask=b_*.png,masc=c', "has the entry 'masc=c'"),
        ('image=a.png,image=b.png,mask=m_*.png', 'has image= twice'),
        ('image=/etc/a.png,mask=m_*.png', "has the path '/etc/a.png'"),
        ('image=../a.png,mask=m_*.png', "has the path '../a.png'"),
        ('image=a.png,mask=m_*_*.png', 'has several * in mask='),
        ('image=a_{rater}.png,mask=m_*.png', 'has {rater} in image='),
        ('image=a.png,mask=m_{who}.png', 'has {who} in mask='),
        ('image=a.png,mask=m_{rater.png', 'has a brace that does not close'),
        ('image=(a.png,mask=m_*.png', 'has brackets that do not close'),
        ('image={name}/{case}.png,mask=m_*.png', 'has {name} before {case}'),
        ('image=a.png,mask={structure}_*.png', 'has {structure} and no classes='),
        ('image=a.png,mask=m_*.png,classes=one', "names 'one' in classes= or drop="),
        ('image=a.png,mask=m_*.png,classes=1:2,drop=2', "names '2' twice"),
        ('image=a.png,mask=m_*.png,classes=1::2', 'has an empty part in classes='),
        ('image=a.png,mask=m_*.png,align=here', 'has align=here'),
        ('image=a.png,mask=m_*.png,patient=x', 'has patient=x'),
        ('image=a.h5#{case},mask=m_*.png', 'after # no {case} or {name}'),
        ('image=' + '(a|b)' * 7 + '.png,mask=m_*.png', 'more than 64 variants'),
        ('image=' + '*' * 7 + '.png,mask=m_*.png', 'more than 6 placeholders'),
        ('image=' + 'a' * 2000, 'longer than 2000 letters'),
    ],
)
def test_a_pattern_that_means_nothing_is_told_with_what_is_wrong(text, said):
    with pytest.raises(UserError) as caught:
        pattern_of(text)
    assert said in str(caught.value) and '\n' not in str(caught.value) and 'docs/data/pattern.md' in str(caught.value)


def test_a_tree_without_such_files_says_which_path_was_looked_for(tmp_path):
    scan(tmp_path / 'a' / 'other.nii.gz')
    fails(settings(tmp_path, 'curvas'), 'train', 'no file matches image.nii[.gz]', 'config.data.path')
    scan(tmp_path / 'a' / 'image.nii.gz')
    fails(settings(tmp_path, 'curvas'), 'train', '1 images and no mask, such as a', 'annotation_{rater}')
    (tmp_path / 'file').write_text('x')
    fails(settings(tmp_path / 'file', 'curvas'), 'train', 'not a folder')
    fails(settings(tmp_path, 'curvas', builder='lidc'), 'train', "config.data.builder is 'lidc'")


def test_every_fault_of_a_tree_is_named_by_the_check_and_stops_the_training(tmp_path):
    qubiq(tmp_path)
    cases = [tmp_path / 'Training' / f'case0{number}' for number in range(4)]
    (cases[0] / 'image.nii.gz').unlink()
    shutil.copy(cases[1] / 'image.nii.gz', cases[1] / 'image.nii')
    (cases[1] / 'image.nii.gz').write_bytes((cases[1] / 'image.nii.gz').read_bytes()[:60])
    (cases[2] / 'loop').symlink_to(cases[2])
    (tmp_path / 'Validation' / 'gone').symlink_to(tmp_path / 'nowhere')
    os.mkfifo(cases[3] / 'task01_seg09.nii.gz')  # reading a pipe would never end
    _, _, faults = check.examine(settings(tmp_path, 'qubiq'))
    for said in (
        'case00: no image, looked for as image.nii[.gz]',
        'case01/image.nii.gz',
        'case02/loop: a link back to a folder above it',
        'Validation/gone: a link that leads nowhere',
    ):
        assert any(said in fault for fault in faults), (said, faults)
    assert len(faults) == 4
    fails(settings(tmp_path, 'qubiq'), 'train', 'case00: no image')


def test_two_files_for_one_mask_are_a_fault(tmp_path):
    for number in range(3):
        scan(tmp_path / f'c{number}' / 'image.nii.gz')
        for folder in ('a', 'b'):
            scan(tmp_path / f'c{number}' / folder / 'mask_1.nii.gz')
    fails(
        settings(tmp_path, 'image=image.nii.gz,mask={case}/*/mask_{rater}.nii.gz'), 'train', 'the same as', 'keep one'
    )


def test_hdf5_files_are_bounded_and_lead_nowhere_else(tmp_path):
    npc170(tmp_path)
    folder = tmp_path / 'training_2d'
    with h5py.File(folder / 'Sample_0_slice_0.h5', 'a') as file:
        del file['t1']
        file['t1'] = h5py.ExternalLink('Sample_0_slice_1.h5', 't1')
        del file['t2']
        file['t2'] = np.array([b'a'])
        file['flat'] = np.zeros(8)
        file.create_dataset('big', (4096, 4096, 64), 'f8', chunks=(1, 64, 64))
    wrong = {'t1': 'is a link', 't2': 'should hold numbers', 'flat': 'has 1 axes', 'big': 'claims', 'no': 'no data set'}
    for key, said in wrong.items():
        with pytest.raises(UserError, match=said):
            hdf5.read(folder / 'Sample_0_slice_0.h5', key)
    (folder / 'Sample_1_slice_0.h5').write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(40))
    _, _, faults = check.examine(settings(tmp_path, 'npc170'))
    assert len(faults) == 2 and any('Sample_1_slice_0.h5: no HDF5 file' in fault for fault in faults)


def test_links_to_other_disks_are_followed(tmp_path):
    qubiq(tmp_path / 'disk')
    (tmp_path / 'data').mkdir()
    for path in (tmp_path / 'disk' / 'Training').iterdir():
        (tmp_path / 'data' / path.name).symlink_to(path)
    assert all(areas(example) == [9, 16, 25] for _, example in everything(tmp_path / 'data', 'qubiq').values())
