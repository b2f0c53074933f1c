"""The simulated ultrasound and MRI sets: reproducible, patients apart, said to be simulated, with floors."""

import numpy as np
import pytest
import tiny

from ambdiff import metrics
from ambdiff.data import sources
from ambdiff.data.bone_us import phantom as bone_us_phantom
from ambdiff.data.bone_us import simulated
from ambdiff.data.example import SPLITS
from ambdiff.data.ms_mri import phantom as ms_mri_phantom
from ambdiff.data.ms_mri import simulated as ms_mri_simulated
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.evaluation import scores

COUNT = 12
SETS = {
    'bone_us_simulated': (simulated, bone_us_phantom, 1, 4),
    'ms_mri_simulated': (ms_mri_simulated, ms_mri_phantom, 4, 2),
}


@pytest.fixture(scope='module', params=SETS)
def built(request, tmp_path_factory):
    """(folder, {split: source}, module, phantom, channels, raters)"""
    folder = tmp_path_factory.mktemp(request.param)
    module, phantom, channels, raters = SETS[request.param]
    opened = {split: module.open_split(folder, 64, split, COUNT) for split in SPLITS}
    return folder, opened, module, phantom, channels, raters


def test_examples_keep_the_readers_contract(built):
    _, opened, _, phantom, channels, raters = built
    for source in opened.values():
        for row in range(len(source)):
            example = source[row]
            image, masks = example['image'], example['masks']
            assert image.dtype == np.float32 and image.shape == (64, 64, channels)
            assert image.min() >= 0 and image.max() <= 1 and (image.std((0, 1)) > 0.03).all()
            assert masks.dtype == np.uint8 and masks.shape == (raters, 64, 64) and masks.max() <= 1
            assert example['case'].startswith(example['patient'] + '_')
            np.testing.assert_allclose(example['spacing'], phantom.FIELD / 64)


def test_no_patient_is_in_two_splits(built):
    _, opened, *_ = built
    patients = {split: {source[i]['patient'] for i in range(len(source))} for split, source in opened.items()}
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == COUNT
    assert all(sorted(patients[split]) == source.patients for split, source in opened.items())


def test_built_twice_is_the_same_in_the_same_order(built, tmp_path):
    _, opened, module, *_ = built
    again = module.open_split(tmp_path, 64, 'validation', COUNT)
    assert len(again) == len(opened['validation'])
    for one, other in zip(again, opened['validation'], strict=True):
        assert one['case'] == other['case']
        np.testing.assert_array_equal(one['image'], other['image'])
        np.testing.assert_array_equal(one['masks'], other['masks'])


def test_built_once_is_read_without_building(built, monkeypatch):
    folder, opened, module, phantom, *_ = built
    monkeypatch.setattr(phantom, 'image', None)
    assert len(module.open_split(folder, 64, 'train', COUNT)) == len(opened['train'])


def test_slot_of_a_rater_means_nothing(built):
    _, opened, *_ = built
    area = np.array([source[i]['masks'].sum((1, 2)) for source in opened.values() for i in range(len(source))])
    # Every rater is now in this slot, now in that one: none marks the least in most images.
    smallest = np.bincount(area.argmin(1), minlength=area.shape[1]) / len(area)
    assert smallest.max() < 0.5 + 0.25


def test_stored_answers_and_fresh_ones_are_of_one_distribution(built):
    _, opened, *_ = built
    source = opened['train']
    rng = np.random.default_rng(0)
    stored = np.stack([source[row]['masks'] for row in range(len(source))]).astype(bool)
    fresh = np.stack([source.fresh_answers(row, 32, rng) for row in range(len(source))]).astype(bool)
    assert fresh.shape == (len(source), 32, 64, 64)
    for statistic in (lambda m: ~m.any((2, 3)), lambda m: m.sum((2, 3))):
        one, other = statistic(stored).mean(1), statistic(fresh).mean(1)
        error = (one - other).std() / np.sqrt(len(one))
        assert abs((one - other).mean()) < 3.5 * error


def test_the_floor_of_the_true_distribution_lies_between_the_raters_and_other_patients(built):
    _, opened, *_ = built
    source = opened['train']
    rng = np.random.default_rng(0)
    fresh = np.stack([source.fresh_answers(row, 16, rng) for row in range(len(source))]).astype(bool)
    cases = cases_lib.load(source, range(len(source)))
    samples = np.roll(fresh, 1, 0)
    table = scores.compute(
        cases.raters,
        cases.present,
        samples,
        patients=cases.patients,
        draws='independent',
        num_classes=1,
        seed=0,
        others=(cases.raters, cases.present),
        fresh=fresh,
    ).table
    floor, known, others = (table[row][0]['ged'] for row in ('fresh_raters', 'raters_resampled', 'other_patients'))
    assert known < floor < 0.5 * others
    # The ideal level takes the raters of an image as independent draws. The two of MRI are not: one of each habit.
    means, errors = table['fresh_raters']
    if cases.raters.shape[1] == 4:
        assert abs(means['ged_excess']) < 4 * errors['ged_excess'] + 0.01
    assert metrics.per_image(cases.raters > 0, fresh)['ged'].mean() == pytest.approx(floor)


def test_sizes_that_are_not_made_are_named(built):
    folder, _, module, *_ = built
    with pytest.raises(UserError, match=r'image_size is 96; .* 64 and 128'):
        module.open_split(folder, 96, 'train')


def test_settings_that_do_not_fit_the_data_are_named(built, monkeypatch):
    folder, _, module, _, channels, raters = built
    name = '_'.join(module.__name__.split('.')[-2:])
    small = module.open_split
    monkeypatch.setattr(module, 'open_split', lambda *arguments: small(*arguments, COUNT))
    data = tiny.config('').data
    data.update(builder=name, build_dir=str(folder), image_size=64, channels=channels, num_raters=raters)
    assert len(sources.open_source(data, 'test')) > 0
    assert 'Simulated' in sources.notice(data)
    data.channels += 1
    with pytest.raises(UserError, match=f'data.channels is {channels + 1}; this data has {channels} channel'):
        sources.open_source(data, 'test')
    data.update(channels=channels, num_raters=7)
    with pytest.raises(UserError, match=f'num_raters is 7; this data has {raters} raters'):
        sources.open_source(data, 'test')
    data.path = '/somewhere/real'
    assert sources.notice(data) == ''
