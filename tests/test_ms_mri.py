"""The ISBI-2015 builder, on generated NIfTI trees of several orientations and spacings."""

import itertools
import pathlib

import nibabel
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny

from ambdiff.data import sources
from ambdiff.data.example import SPLITS
from ambdiff.data.files import images
from ambdiff.data.ms_mri import scans
from ambdiff.errors import UserError

SIZE = (36, 40, 12)  # voxels to the right, to the front and up
SUBJECTS = ('training01', 'training02', 'training03', 'training04', 'training05')
# Axes of the file in the world (right, anterior, superior) and their directions.
ORIENTATIONS = {
    'RAS': ((0, 1), (1, 1), (2, 1)),
    'LPS': ((0, -1), (1, -1), (2, 1)),
    'PIR': ((1, -1), (2, -1), (0, 1)),
    'SLA': ((2, 1), (0, -1), (1, 1)),
}
LESIONS = {'mask1': (6.0, 9.0, 2.0, 3.2), 'mask2': (6.0, 9.0, 2.0, 5.4)}  # x, y, z, radius in mm


def world(spacing):
    """Coordinates [3, X, Y, Z] in mm of a grid in the order right, front, up, its middle at 0."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SIZE, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing='ij'))


def contents(name, spacing, seed=0):
    """Values of a file as a function of place alone, in the order right, front, up."""
    x, y, z = world(spacing)
    if name in LESIONS:
        cx, cy, cz, radius = LESIONS[name]
        return (np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) < radius).astype(np.uint8)
    weights = np.random.default_rng((seed, scans.SEQUENCES.index(name))).uniform(0.5, 2, 3)
    brain = (x / 16) ** 2 + (y / 18) ** 2 < 1
    signal = 500 + weights[0] * 10 * x + weights[1] * 10 * y + weights[2] * 10 * z
    return (signal * brain).astype(np.float32)


def write(path, values, spacing, orientation='RAS'):
    """A NIfTI of values in the order right, front, up, its axes permuted and flipped with the affine that says so."""
    axes = [axis for axis, _ in ORIENTATIONS[orientation]]
    stored = values.transpose(axes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for place, (axis, direction) in enumerate(ORIENTATIONS[orientation]):
        affine[axis, place] = direction * spacing[axis]
        affine[axis, 3] = -direction * (SIZE[axis] - 1) / 2 * spacing[axis]
        if direction < 0:
            stored = np.flip(stored, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(stored, affine), path)


def write_visit(root, subject, visit, spacing=(1, 1, 1), orientation='RAS', ending='.nii', seed=0):
    """One visit in the challenge's folders and names."""
    for name in scans.SEQUENCES:
        path = root / subject / 'preprocessed' / f'{subject}_{visit}_{name}_pp{ending}'
        write(path, contents(name, spacing, seed), spacing, orientation)
    for name in LESIONS:
        write(
            root / subject / 'masks' / f'{subject}_{visit}_{name}{ending}',
            contents(name, spacing),
            spacing,
            orientation,
        )


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """Five subjects, one or two visits, each in another orientation."""
    root = tmp_path_factory.mktemp('isbi')
    for number, subject in enumerate(SUBJECTS):
        orientation = list(ORIENTATIONS)[number % len(ORIENTATIONS)]
        write_visit(root, subject, '01', orientation=orientation, ending=('.nii', '.nii.gz')[number % 2])
    write_visit(root, 'training01', '02', seed=1)
    (root / 'test01_01_flair_pp.nii').write_bytes(b'of the part without masks: not read')
    return root


def settings(path, build_dir, **changes):
    data = tiny.config(path).data
    data.update(
        builder='ms_mri', build_dir=str(build_dir), channels=4, num_raters=2, intensity='percentile', image_size=32
    )
    data.update(changes)
    return data


@pytest.fixture(scope='module')
def build_dir(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp('built')
    sources.open_source(settings(tree, folder), 'train')
    return folder


def files_of(root, subject='training01', visit='01'):
    return scans.find(pathlib.Path(root))[subject, visit]


def test_axial_slices_are_as_seen_whatever_the_orientation_of_the_file(tmp_path):
    spacing = (1.0, 1.2, 3.0)
    x, y, z = world(spacing)
    for orientation in ORIENTATIONS:
        write_visit(tmp_path / orientation, 'training01', '01', spacing, orientation)
        volume, masks = scans.read_visit(files_of(tmp_path / orientation))
        assert volume.spacing == pytest.approx((3.0, 1.2, 1.0), abs=1e-4)
        # Slices to the head, the first row in front, the first column on the patient's right; by its own path.
        seen = lambda values: np.stack([values[::-1, ::-1, k].T for k in range(SIZE[2])])
        np.testing.assert_array_equal(masks[:, 1], seen(contents('mask2', spacing)))
        flair = seen(contents('flair', spacing))
        inside = flair[flair > 0]
        low, high = np.percentile(inside, (1, 99))
        np.testing.assert_allclose(volume.values[..., 0], np.clip((flair - low) / (high - low), 0, 1), atol=1e-5)
        corner = volume.affine @ [0, 0, 0, 1]
        np.testing.assert_allclose(corner[:3], [x.max(), y.max(), z.min()], atol=1e-4)


def test_channels_are_flair_t1_t2_pd_each_normalised_by_its_own_percentiles(tree):
    assert scans.SEQUENCES == ('flair', 'mprage', 't2', 'pd')
    files = files_of(tree)
    volume, masks = scans.read_visit(files)
    assert volume.values.shape[-1] == 4 and masks.shape[1] == 2
    for channel, name in enumerate(scans.SEQUENCES):
        alone = images.read(files[name]).values[..., 0]
        unit = volume.values[..., channel]
        assert unit.min() == 0 and unit.max() == 1
        assert np.corrcoef(unit[alone > 0], alone[alone > 0])[0, 1] > 0.99
        assert np.mean(unit[alone > 0] == 1) == pytest.approx(0.01, abs=0.005)
        assert (unit[alone == 0] == 0).all()


def test_slices_with_a_lesion_become_examples(tree, build_dir):
    source = sources.open_source(settings(tree, build_dir), 'test')
    marked = [contents(name, (1, 1, 1)).any((0, 1)) for name in LESIONS]
    assert len(source) == 2 * np.logical_or(*marked).sum()  # two visits of training01
    single = 0
    for row in range(len(source)):
        item = source[row]
        assert item['image'].shape == (32, 32, 4) and item['image'].dtype == np.float32
        assert item['masks'].shape == (2, 32, 32) and item['masks'].any()
        assert item['patient'] == 'training01' and item['case'].startswith('training01_0')
        np.testing.assert_allclose(item['spacing'], 1)
        z = int(item['case'][-3:])
        # Two raters in either order: the small and the large lesion of this slice, cropped to the middle.
        expected = [contents(name, (1, 1, 1))[::-1, ::-1, z].T[4:36, 2:34] for name in LESIONS]
        assert sorted(m.sum() for m in item['masks']) == sorted(m.sum() for m in expected)
        assert any(np.array_equal(item['masks'][i], expected[1]) for i in (0, 1))
        single += not item['masks'].any((1, 2)).all()
    assert single  # a slice that one rater left empty stays


def test_folds_are_by_subject_and_every_subject_is_tested_once(tree, build_dir):
    tested = []
    for fold in range(len(SUBJECTS)):
        data = settings(tree, build_dir, fold=fold)
        patients = {split: set(sources.open_source(data, split).patients) for split in SPLITS}
        assert [len(patients[split]) for split in SPLITS] == [3, 1, 1]
        assert set.union(*patients.values()) == set(SUBJECTS)
        seen = {split: {item['patient'] for item in sources.open_source(data, split)} for split in SPLITS}
        assert seen == patients
        tested += patients['test']
    assert sorted(tested) == list(SUBJECTS)
    assert len(list((build_dir / 'ms_mri').glob('32_crop_*'))) == 1  # another fold is no new build
    with pytest.raises(UserError, match=r'data\.fold is 5; there are 5 subjects, so 0 to 4'):
        sources.open_source(settings(tree, build_dir, fold=5), 'train')


def test_anisotropic_voxels_are_resampled_to_the_spacing_asked_for(tmp_path):
    for subject in SUBJECTS[:3]:
        write_visit(tmp_path / 'in', subject, '01', spacing=(2.0, 1.0, 3.0), orientation='LPS')
    data = settings(tmp_path / 'in', tmp_path / 'out', spacing=1.5)
    item = max(sources.open_source(data, 'test'), key=lambda e: e['masks'].sum())
    np.testing.assert_allclose(item['spacing'], 1.5)
    mask = item['masks'][item['masks'].sum((1, 2)).argmax()]
    rows, columns = np.ptp(np.argwhere(mask), axis=0) + 1
    assert abs(int(rows) - int(columns)) <= 1  # a sphere is round again
    assert mask.sum() == pytest.approx(np.pi * 3.6**2, rel=0.15)


def test_a_build_that_was_interrupted_goes_on_with_the_visits_it_has_not_read(tree, tmp_path, monkeypatch):
    whole, read = scans.read_visit, []

    def dies(files, *arguments):
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(files['flair'].name)
        return whole(files, *arguments)

    monkeypatch.setattr(scans, 'read_visit', dies)
    with pytest.raises(KeyboardInterrupt):
        sources.open_source(settings(tree, tmp_path), 'test')
    assert not list(tmp_path.rglob('dataset_info.json'))
    monkeypatch.setattr(scans, 'read_visit', lambda files, *a: read.append(files['flair'].name) or whole(files, *a))
    source = sources.open_source(settings(tree, tmp_path), 'test')
    assert len(read) == len(set(read)) == 6
    assert not list(tmp_path.rglob('*.npz'))
    assert len(source) == 2 * np.logical_or(*[contents(name, (1, 1, 1)).any((0, 1)) for name in LESIONS]).sum()


def test_other_settings_and_other_files_are_another_build(tree, build_dir, tmp_path):
    small = sources.open_source(settings(tree, build_dir, image_size=16), 'test')
    assert small[0]['image'].shape == (16, 16, 4)
    resized = sources.open_source(settings(tree, build_dir, fit='resize'), 'test')
    assert resized[0]['image'].shape == (32, 32, 4)
    assert resized[0]['spacing'] == pytest.approx([40 / 32, 36 / 32])


def test_faulty_trees_are_one_line_that_names_the_file(tmp_path):
    fails = lambda root, match, **changes: pytest.raises(UserError, match=match)
    for subject in SUBJECTS[:3]:
        write_visit(tmp_path, subject, '01')
    root, out = tmp_path, tmp_path.parent / 'out_of_faulty'
    opened = lambda **changes: sources.open_source(settings(root, out, **changes), 'train')
    with fails(root, 'no data: config.data.path is empty; .*ms_mri.py:simulated'):
        sources.open_source(settings('', out), 'train')
    with fails(root, r'nowhere: no such folder'):
        sources.open_source(settings(root / 'nowhere', out), 'train')
    (root.parent / 'empty').mkdir(exist_ok=True)
    with fails(root, 'holds no files of the ISBI-2015 challenge'):
        sources.open_source(settings(root.parent / 'empty', out), 'train')
    with fails(root, r'data\.num_raters is 4; ms_mri has 2'):
        opened(num_raters=4)

    flair = root / 'training02/preprocessed/training02_01_flair_pp.nii'
    kept = flair.read_bytes()
    flair.unlink()
    with fails(root, 'training02_01 has no flair'):
        opened()
    flair.write_bytes(kept[: len(kept) // 2])
    with fails(root, r'training02_01_flair_pp\.nii: truncated'):
        opened()
    flair.write_bytes(kept)
    copy = root / 'again' / flair.name
    copy.parent.mkdir()
    copy.write_bytes(kept)
    with fails(root, r'training02_01_flair_pp\.nii: the same file as'):
        opened()
    copy.unlink()

    mask = root / 'training03/masks/training03_01_mask2.nii'
    for values, spacing, message in (
        (contents('flair', (1, 1, 1)), (1, 1, 1), 'not a mask of yes and no'),
        (contents('mask2', (1, 1, 1)), (1, 1, 2), 'must be registered to one grid'),
        (contents('mask2', (1, 1, 1))[:-2], (1, 1, 1), 'must be registered to one grid'),
    ):
        write(mask, values, spacing)
        with fails(root, rf'training03_01_mask2\.nii: .*{message}'):
            opened()


def test_links_in_a_circle_do_no_harm(tmp_path):
    for subject, visit in itertools.product(SUBJECTS[:3], ('01',)):
        write_visit(tmp_path, subject, visit)
    (tmp_path / 'training01' / 'loop').symlink_to(tmp_path, target_is_directory=True)
    assert len(scans.find(tmp_path)) == 3


def test_tensorflow_datasets_builds_it_from_manual_dir(tree, tmp_path):
    builder = scans.MsMri(data_dir=tmp_path, config='64_2mm', file_format='array_record')
    config = tfds.download.DownloadConfig(manual_dir=tree)
    builder.download_and_prepare(download_dir=tmp_path / 'downloads', download_config=config)
    record = builder.as_data_source(split='training01')[0]
    assert record['image'].shape == (64, 64, 4) and record['masks'].shape == (2, 64, 64)
    np.testing.assert_array_equal(record['spacing'], np.float32([2, 2]))


def test_slices_on_either_side_are_channels_too(tree, tmp_path):
    source = sources.open_source(settings(tree, tmp_path, channels=12, neighbours=1), 'test')
    assert len(source)
    places = set()
    for row in range(len(source)):
        found = source[row]
        subject, visit, z = found['case'].split('_')
        values = scans.read_visit(files_of(tree, subject, visit))[0].values
        z = int(z[1:])
        beside = np.concatenate([values[max(z - 1, 0)], values[z], values[min(z + 1, len(values) - 1)]], -1)
        np.testing.assert_allclose(found['image'], beside[4:36, 2:34], atol=1e-5)
        places.add(z)
    assert {SIZE[2] - 1, SIZE[2] - 3} <= places  # the last slice and one within
