"""Evaluation of whole volumes: slices put together as they lie, raters kept apart, scores as those of the arrays."""

import csv
import json

import numpy as np
import pytest
import tiny
from pattern_files import nifti, scan, settings, square

import ambdiff
from ambdiff import evaluate, train
from ambdiff.data import sources
from ambdiff.data.source import Place
from ambdiff.errors import UserError
from ambdiff.evaluation import volumes
from ambdiff.evaluation.cases import Cases, load

PATTERN = 'image=image.nii.gz,mask=mask_*.nii.gz'


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """Six cases of three raters, the last of whom is missing in one; voxels of 1 x 1 x 3 mm."""
    root = tmp_path_factory.mktemp('volumes')
    for number in range(6):
        scan(root / f'c{number}' / 'image.nii.gz', 50 + 20 * number)
        for rater in range(3 if number else 2):
            nifti(root / f'c{number}' / f'mask_{rater}.nii.gz', square(rater))
    return root


@pytest.mark.parametrize('builder', ['', 'folder'])
def test_slices_come_together_as_the_files_hold_them_whatever_slot_a_rater_is_in(tree, tmp_path, builder):
    data = settings(tree, PATTERN, builder=builder, build_dir=str(tmp_path))
    source = sources.open_source(data, 'train')
    rows, places = volumes.chosen(source, 0)
    cases = load(source, rows)
    samples = cases.raters[:, :1] * 0
    whole = {volume.name: volume for volume in volumes.assembled(cases, samples, places)}
    assert set(whole) <= {f'c{number}' for number in range(6)} and len(whole) == 4
    for name, volume in whole.items():
        assert volume.spacing == pytest.approx((3, 1, 1))
        count = 2 if name == 'c0' else 3
        # Slices 1 and 2 are marked; files hold columns, rows, slices, from the left and the back.
        expected = {square(rater)[::-1, ::-1, 1:3].transpose(2, 1, 0).tobytes() for rater in range(count)}
        assert {np.ascontiguousarray(mask).tobytes() for mask in volume.raters} == expected
    few, found = volumes.chosen(source, 2)
    assert len({place.volume for place in found}) == 2 and len(few) == 4


def test_scores_are_those_of_the_arrays_and_lengths_are_in_mm():
    rng = np.random.default_rng(0)
    raters, samples = rng.random((2, 3, 4, 8, 8)) > 0.5, rng.random((2, 5, 4, 8, 8)) > 0.6
    made = [
        volumes.Volume(f'v{k}', f'p{k}', raters[k].astype(np.uint8), samples[k].astype(np.uint8), (2.0, 0.5, 0.5))
        for k in range(2)
    ]
    found = volumes.score(made, 2, 1, 'independent')
    expected = ambdiff.score(raters, samples, batched=True, volume=True)
    for key, values in expected.items():
        np.testing.assert_allclose(found.per_volume[key], values)
    voxels = [raters[0].sum((1, 2, 3)) * 0.5, samples[0].sum((1, 2, 3)) * 0.5]
    between = np.mean([abs(s - y) for s in voxels[1] for y in voxels[0]])
    within = np.mean([abs(s - t) for s in voxels[1] for t in voxels[1]])
    assert found.per_volume['volume_crps_mm3'][0] == pytest.approx(between - within / 2)
    assert volumes.crps(np.array([3.0]), np.array([5.0])) == 2.0  # of one sample the distance
    assert all(np.isfinite(found.means[key]) for key in volumes.IN_MM) and found.undefined == {}
    assert found.as_json()['stderr_clustered_by'] == 'patient'


def test_what_no_file_tells_is_null_with_the_reason_and_classes_are_scored_by_themselves():
    rng = np.random.default_rng(1)
    raters, samples = rng.integers(0, 3, (1, 2, 4, 8, 8)), rng.integers(0, 3, (1, 4, 2, 8, 8))
    raters = raters[:, :, :2]
    nan = float('nan')
    volume = volumes.Volume('v', '', raters[0], samples[0], (nan, nan, nan))
    found = volumes.score([volume], 1, 2, 'dependent')
    assert {key: found.undefined[key] for key in volumes.IN_MM} == dict.fromkeys(
        volumes.IN_MM, 'needs the distance of slices and of pixels in mm, which no file tells'
    )
    one = [ambdiff.score(raters[0] == k, samples[0] == k, volume=True, draws='dependent')['ged'] for k in (1, 2)]
    assert [row['ged'] for row in found.per_class] == pytest.approx(one)
    assert found.means['ged'] == pytest.approx(np.mean(one))
    empty = volumes.Volume('v', '', raters[0] * 0, samples[0], (1.0, 1.0, 1.0))
    alone = volumes.score([empty], 1, 1, 'independent')
    assert alone.undefined['hd95_mm'] == 'needs a mask of a rater and a sample that are not empty'
    assert np.isfinite(alone.means['volume_crps_mm3'])


def test_gaps_between_marked_slices_are_kept():
    cases = Cases(
        np.zeros((2, 4, 4, 1)), np.ones((2, 1, 4, 4), np.uint8), np.ones((2, 1), bool), ['a', 'b'], ['', ''],
        np.ones((2, 2), np.float32),
    )  # fmt: skip
    found = [Place('v', 9, 2.0, (0,)), Place('v', 5, 2.0, (0,))]
    (volume,) = volumes.assembled(cases, np.ones((2, 3, 4, 4), bool), found)
    assert volume.raters.any((0, 2, 3)).tolist() == [True, False, False, False, True]
    assert volume.samples.shape == (3, 5, 4, 4)


def test_data_without_volumes_is_told(tmp_path):
    source = sources.open_source(tiny.config(tiny.write_hdf5(tmp_path / 'a.hdf5')).data, 'train')
    with pytest.raises(UserError, match=r'config\.evaluate\.volumes: this data has no volumes'):
        volumes.chosen(source, 0)


def test_an_evaluation_of_volumes_writes_them_and_a_volumes_slices_share_their_randomness(tree, tmp_path, monkeypatch):
    fields = {'data.pattern': PATTERN, 'data.num_raters': 3, 'data.intensity': 'percentile', 'train.num_steps': 1}
    config = tiny.config(tree, 'level_sets', **fields, **{'evaluate.volumes': True, 'evaluate.split': 'train'})
    config.evaluate.max_images = 2
    assert train.train(config, tmp_path)
    used, keys_of = [], evaluate.sampling.image_keys
    monkeypatch.setattr(evaluate.sampling, 'image_keys', lambda key, rows: used.append([*rows]) or keys_of(key, rows))
    result = evaluate.evaluate(config, tmp_path)
    assert used == [[0, 0, 1, 1]]
    folder = tmp_path / 'evaluation'
    written = json.loads((folder / 'metrics.json').read_text())
    assert written['num_images'] == 4 and written['volumes']['num_volumes'] == 2
    assert set(written['volumes']['metrics']) == set(volumes.KEYS)
    assert written['volumes']['metrics']['ged'] == pytest.approx(result['volumes']['metrics']['ged'])
    head, *lines = csv.reader((folder / 'per_volume.csv').read_text().splitlines())
    assert head == ['volume', 'patient', *volumes.KEYS] and len(lines) == 2
    page = (folder / 'report.html').read_text()
    assert '<h2 id="volumes">' in page and 'CRPS of the volume' in page
