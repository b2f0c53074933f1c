"""Data sets read by a pattern of their paths: each preset on a simulated tree of its layout, and its known faults."""

import numpy as np
import pytest
from case_files import write_table
from layout_files import fails
from pattern_files import MAKERS, areas, everything, examples, kits21, nifti, qubiq, scan, settings, square
from test_configs import get_config

from ambdiff.data import check, sources
from ambdiff.data.pattern.grammar import Known
from ambdiff.data.pattern.presets import PRESETS, pattern_of


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    """The root of each preset's tree."""
    roots = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, root in roots.items():
        MAKERS[name](root)
    return roots


def test_every_preset_has_a_tree_here_and_says_all_that_it_takes_to_read_it(trees):
    assert set(trees) == set(PRESETS)
    for name, root in trees.items():
        data = get_config('multi_rater', name).data
        data.update({'path': str(root), 'image_size': 8})
        surveys, _, faults = check.examine(data)
        assert not faults and set(surveys) == {'train', 'validation', 'test'}, name


def test_qubiq_reads_one_task_and_takes_its_own_folders_as_splits(trees, tmp_path):
    found = everything(trees['qubiq'], 'qubiq')
    assert {split for split, e in found.values() if e['case'].startswith('Validation/case11')} == {'validation'}
    assert areas(found['Validation/case11_z001'][1]) == [9, 16, 25]
    fails(settings(trees['qubiq'], 'qubiq,classes=02'), 'train', 'no rater marked any slice')
    fails(settings(trees['qubiq'], 'qubiq,drop=03'), 'train', "says nothing of the structure '02'", 'classes= or drop=')
    for name in ('case1-1', 'case1-2', 'case2-1', 'case3-1'):
        scan(tmp_path / name / 'image.nii.gz')
        nifti(tmp_path / name / 'task01_seg01.nii.gz', square(1))
    patients = {e['case'][:7]: e['patient'] for _, e in everything(tmp_path, 'qubiq').values()}
    assert patients == {'case1-1': 'case1', 'case1-2': 'case1', 'case2-1': 'case2', 'case3-1': 'case3'}


def test_curvas_known_faults_are_mended_and_named(trees):
    root = trees['curvas']
    found = {case: e for case, (_, e) in everything(root, 'curvas').items()}
    whole = found['training_set/UKCHLL008_z001']
    assert whole['masks'].max() == 3 and whole['spacing'] == pytest.approx(1)
    for label in (1, 2, 3):  # the header of annotation_2 is wrong, its voxels are right
        assert areas(found['training_set/UKCHLL007_z001'], label) == areas(whole, label)
    fewer = found['training_set/UKCHLL082_z002']
    assert fewer['present'].sum() == 2 and areas(fewer, 1) == areas(whole, 1)[:2]
    organs = everything(root, 'curvas,classes=2:3,drop=1', num_classes=2)
    assert organs['training_set/UKCHLL082_z002'][1]['present'].all()
    notes = [note for split in ('train', 'validation', 'test') for note in _notes(settings(root, 'curvas'), split)]
    assert any('UKCHLL007: the header of annotation_2.nii.gz disagrees' in note for note in notes)
    assert any('UKCHLL082: rater 3 has no pancreas, a known fault: left out' in note for note in notes)
    assert pattern_of('curvas').known[0] == Known('UKCHLL007', '2', by_index=True)


def _notes(data, split):
    source = sources.open_source(data, split)
    return [*source.findings().notes, *source.findings().unread]


def test_mbhseg_counts_cases_without_masks_and_pads_raters(trees):
    found = everything(trees['mbhseg'], 'mbhseg')
    raters = {case[-9:]: int(e['present'].sum()) for case, (_, e) in found.items() if case.endswith('1')}
    assert raters == {'ID_0_z001': 2, 'ID_1_z001': 3, 'ID_2_z001': 3}
    assert set(np.unique(next(iter(found.values()))[1]['masks'])) == {0, 2, 5}
    notes = _notes(settings(trees['mbhseg'], 'mbhseg'), 'train')
    assert any('1 files match no path' in note and 'case-label/ID_9' in note for note in notes)
    one = everything(trees['mbhseg'], 'mbhseg,classes=1+2+3+4+5', num_classes=1)
    assert set(np.unique(next(iter(one.values()))[1]['masks'])) == {0, 1}


def test_msseg_is_read_from_its_own_tree_and_from_a_flat_one(trees, tmp_path):
    found = everything(trees['msseg'], 'msseg')
    assert {case.rpartition('_z')[0] for case in found} == {f'Training/01/patient{n}' for n in range(3)}
    assert areas(found['Training/01/patient0_z001'][1]) == [9, 16, 25]  # the consensus is no rater
    for number in range(3):
        scan(tmp_path / f'p{number}' / '3DFLAIR.nii')
        nifti(tmp_path / f'p{number}' / 'ManualSegmentation_1.nii', square(1))
    assert areas(everything(tmp_path, 'msseg')['p0_z001'][1]) == [9]


def test_wmh_finds_raters_in_another_tree_and_drops_other_pathology(trees):
    found = everything(trees['wmh'], 'wmh')
    assert areas(found['Amsterdam/GE3T/100_z001'][1]) == [4, 9, 16]
    assert areas(found['Utrecht/2_z001'][1]) == [4, 9] and found['Utrecht/2_z001'][1]['present'].sum() == 2
    assert not any(case.endswith('z003') for case in found)  # label 2 alone
    both = 'wmh,image=training/{case}/pre/FLAIR.nii.gz:training/{case}/pre/T1.nii.gz'
    assert everything(trees['wmh'], both, channels=2)['Utrecht/0_z001'][1]['image'].shape == (8, 8, 2)
    fails(settings(trees['wmh'], 'wmh,drop=3'), 'train', 'wmh.nii.gz: holds the value 2', 'drop=')


def test_refuge_paints_the_cup_over_the_disc_and_keeps_colours(trees):
    found = everything(trees['refuge'], 'refuge')
    split, example = found['Test-400/0826']
    assert split == 'test' and example['patient'] == 'Test-400/0826'
    assert areas(example, 2) == [1, 4, 9] and areas(example, 1) == [9 - 1, 16 - 4, 25 - 9]
    assert example['image'][0, 0] == pytest.approx([200 / 255, 100 / 255, 50 / 255], abs=0.05)
    cups = everything(trees['refuge'], 'refuge,classes=cup,drop=disc', num_classes=1)
    assert areas(cups['Test-400/0826'][1]) == [1, 4, 9]


def test_npc170_reads_the_data_sets_of_hdf5_files_and_keeps_a_patients_slices_together(trees):
    found = everything(trees['npc170'], 'npc170')
    example = found['training_2d/Sample_1_slice_0'][1]
    assert example['image'].shape == (8, 8, 3) and areas(example) == [4, 9, 16, 25]
    assert example['patient'] == 'training_2d/Sample_1'
    by_patient = {}
    for split, example in found.values():
        by_patient.setdefault(example['patient'], set()).add(split)
    assert len(by_patient) == 3 and all(len(splits) == 1 for splits in by_patient.values())
    fails(settings(trees['npc170'], 'npc170,image={case}.h5#t9', channels=1), 'train', "has no data set 't9'", 't1c')


def test_scgm_reads_files_that_lie_beside_each_other(trees):
    found = everything(trees['scgm'], 'scgm')
    assert {case[:10] for case in found} == {'site1-sc00', 'site1-sc01', 'site2-sc00', 'site2-sc01'}
    example = found['site1-sc00_z001'][1]
    assert areas(example, 1) == [3, 4, 5, 6] and areas(example, 2) == [6, 12, 20, 30]


def test_kits21_joins_the_instances_of_a_rater_and_leaves_out_who_lacks_one(trees, tmp_path):
    found = everything(trees['kits21'], 'kits21')
    assert areas(found['case_00000_z001'][1], 1) == [7, 11, 15]  # two kidneys of 2 x 2, 3 x 2, 4 x 2, one tumor pixel
    assert areas(found['case_00000_z001'][1], 2) == [1, 1, 1]
    assert 'no file of cyst: taken as not there' in _notes(settings(trees['kits21'], 'kits21'), 'train')
    kits21(tmp_path)
    for number in range(3):
        (tmp_path / f'case_0000{number}' / 'segmentations' / 'kidney_instance-2_annotation-3.nii.gz').unlink()
    assert all(example['present'].sum() == 2 for _, example in everything(tmp_path, 'kits21').values())
    notes = _notes(settings(tmp_path, 'kits21'), 'train')
    assert any('rater 3 has no kidney 2, which others outlined' in note for note in notes)


def test_a_header_that_disagrees_is_refused_unless_the_pattern_says_to_go_by_voxels(tmp_path):
    pattern = 'image=image.nii.gz,mask=annotation_*.nii.gz'
    for number in range(3):
        scan(tmp_path / f'c{number}' / 'image.nii.gz')
        for rater in range(2):
            affine = np.diag([1.0, 1.0, 3.0, 1.0])
            affine[0, 3] = 40 * rater
            nifti(tmp_path / f'c{number}' / f'annotation_{rater}.nii.gz', square(rater), affine)
    fails(settings(tmp_path, pattern), 'train', 'annotation_1.nii.gz: lies up to 40 mm', 'align=index')
    found = examples(tmp_path, f'{pattern},align=index')
    assert all(areas(example) == [4, 9] for example in found.values())


def test_fields_that_do_not_suit_are_told_together(tmp_path):
    MAKERS['curvas'](tmp_path)
    data = settings(tmp_path, 'curvas', num_classes=1, num_raters=2)
    fails(data, 'train', 'set --config.data.num_classes=3 --config.data.num_raters=3')


def test_a_table_beside_the_cases_gives_patients_and_splits(tmp_path):
    qubiq(tmp_path)
    names = [*(f'case{n:02}' for n in range(4)), 'case11']
    splits = ('train', 'test', 'validation')
    rows = [(name, f'p{number // 2}', splits[number // 2]) for number, name in enumerate(names)]
    write_table(tmp_path, rows, ('case', 'patient', 'split'))
    found = everything(tmp_path, 'qubiq')
    assert {(e['patient'], split) for split, e in found.values()} == {(f'p{n}', splits[n]) for n in range(3)}


def test_the_builder_gives_the_slices_that_the_reader_gives(trees, tmp_path):
    changes = {'builder': 'folder', 'build_dir': str(tmp_path)}
    built = examples(trees['scgm'], 'scgm', **changes)
    read = examples(trees['scgm'], 'scgm')
    assert built.keys() == read.keys()
    for case, example in built.items():
        assert areas(example, 2) == areas(read[case], 2)
        np.testing.assert_allclose(example['image'], read[case]['image'], atol=1e-4)
