"""What chance adds to the metrics, and the scores of an evaluation: against sums written anew, and by simulation."""

import itertools
import math

import numpy as np
import pytest
from test_metrics import blobs, iou

from ambdiff import matching, metrics
from ambdiff.evaluation import scores

WHERE_INDEPENDENT = ('ged_unbiased', 'emptiness_error', 'ged_shape')


def distinct(masks):
    """Mean distance of distinct pairs, one pair after the other."""
    return np.mean([1 - iou(a, b) for a, b in itertools.combinations(masks, 2)]) if len(masks) > 1 else math.nan


def account(raters, samples, draws):
    """The metrics of chance of one image, pair by pair."""
    m, n = len(raters), len(samples)
    mean = lambda a, b: np.mean([1 - iou(p, q) for p in a for q in b])
    ged = 2 * mean(raters, samples) - mean(raters, raters) - mean(samples, samples)
    ideal = distinct(raters) * (1 / m + (1 / n if draws == 'independent' else 0))
    result = {'ged_ideal': ideal, 'ged_excess': ged - ideal}
    result |= {'diversity_raters': distinct(raters), 'diversity_samples': distinct(samples)}
    empty = math.nan
    if min(m, n) > 1 and draws == 'independent':
        p, q = (np.mean([not mask.any() for mask in masks]) for masks in (raters, samples))
        empty = 2 * ((q - p) ** 2 - p * (1 - p) / (m - 1) - q * (1 - q) / (n - 1))
    shape = math.nan
    of_raters, of_model = ([mask for mask in masks if mask.any()] for masks in (raters, samples))
    if min(len(of_raters), len(of_model)) > 1 and draws == 'independent':
        shape = 2 * mean(of_raters, of_model) - distinct(of_raters) - distinct(of_model)
    tenths = {}
    for place in np.ndindex(raters.shape[1:]):
        votes = sum(int(mask[place]) for mask in samples)
        if votes:
            total = tenths.setdefault(math.ceil(10 * votes / n - 1e-9), [0, 0.0])
            total[0] += 1
            total[1] += votes / n - np.mean([mask[place] for mask in raters])
    pixels = sum(count for count, _ in tenths.values())
    calibration = sum(abs(gap) for _, gap in tenths.values()) / pixels if pixels else math.nan
    return result | {'emptiness_error': empty, 'ged_shape': shape, 'calibration': calibration}


@pytest.mark.parametrize('draws', metrics.DRAWS)
@pytest.mark.parametrize(('num_raters', 'num_samples'), [(4, 7), (2, 3), (1, 5), (3, 1), (1, 1)])
def test_metrics_of_chance_agree_with_sums_over_pairs_and_pixels(num_raters, num_samples, draws):
    rng = np.random.default_rng(num_raters * 10 + num_samples)
    raters, samples = blobs(rng, 6, num_raters), blobs(rng, 6, num_samples)
    raters[0], samples[1] = False, False
    ours = metrics.measure(raters, samples, draws)
    assert set(ours) == set(metrics.ALL_KEYS)
    for index in range(6):
        for key, value in account(raters[index], samples[index], draws).items():
            np.testing.assert_allclose(ours[key][index], value, atol=1e-12, err_msg=key)
    undefined = {key for key in metrics.ALL_KEYS if np.isnan(ours[key]).all()}
    assert undefined >= set(metrics.undefined(num_raters, num_samples, draws)) | (
        set(WHERE_INDEPENDENT) if draws == 'dependent' else set()
    )


def test_metrics_of_chance_leave_out_missing_raters():
    rng = np.random.default_rng(1)
    raters, samples = blobs(rng, 5, 4), blobs(rng, 5, 6)
    present = np.ones((5, 4), bool)
    present[1, 0] = present[3, :3] = False
    ours = metrics.measure(raters, samples, 'independent', present)
    counts = metrics.calibration_counts(raters, samples, present)
    for index in range(5):
        for key, value in account(raters[index, present[index]], samples[index], 'independent').items():
            np.testing.assert_allclose(ours[key][index], value, atol=1e-12, err_msg=key)
    np.testing.assert_allclose(metrics.calibration_error(counts), ours['calibration'])
    with pytest.raises(ValueError, match='sometimes'):
        metrics.measure(raters, samples, 'sometimes')


@pytest.mark.parametrize('measure', [metrics.per_image, lambda *masks: metrics.measure(*masks, 'independent')])
def test_no_images_have_no_values(measure):
    for key, value in measure(np.zeros((0, 3, 4, 4), bool), np.zeros((0, 5, 4, 4), bool)).items():
        assert value.shape == (0,), key


def test_the_raters_resampled_are_the_same_with_and_without_masks_of_other_patients():
    rng = np.random.default_rng(2)
    raters, samples = blobs(rng, 6, 4), blobs(rng, 6, 3)
    present = np.ones(raters.shape[:2], bool)
    given = {'patients': [''] * 6, 'draws': 'independent', 'num_classes': 1, 'seed': 0}
    alone = scores.compute(raters, present, samples, **given)
    beside = scores.compute(raters, present, samples, **given, others=(raters, present))
    np.testing.assert_equal(alone.table['raters_resampled'], beside.table['raters_resampled'])


def worlds(count, number, seed):
    """Raters and samples [count, 4 or number, 12, 12], all independent draws from one distribution an image."""
    rng = np.random.default_rng(seed)
    answers = blobs(rng, count, 3, empty_share=0.4)
    shares = rng.dirichlet(np.ones(3), count)
    draw = lambda n: np.stack([a[rng.choice(3, n, p=p)] for a, p in zip(answers, shares, strict=True)])
    return draw(4), draw(number)


def test_a_model_equal_to_the_raters_distribution_has_no_excess():
    raters, samples = worlds(1500, 5, seed=2)
    means, errors = metrics.summarize(metrics.measure(raters, samples, 'independent'))
    for key in ('ged_excess', 'emptiness_error', 'ged_shape'):
        assert errors[key] < 0.01 and abs(means[key]) < 3.5 * errors[key], key
    apart = means['diversity_samples'] - means['diversity_raters']
    assert abs(apart) < 3.5 * math.hypot(errors['diversity_samples'], errors['diversity_raters'])
    # What GED itself is there: the ideal level, far from 0.
    assert means['ged'] == pytest.approx(means['ged_ideal'], abs=3.5 * errors['ged_excess']) and means['ged'] > 0.1


def test_a_wrong_share_of_nothing_costs_twice_its_square():
    rng = np.random.default_rng(3)
    drawn = np.zeros((3000, 1, 4, 4), bool)
    drawn[..., 1:3, 1:3] = True
    masks = lambda number, share: drawn & (rng.random((3000, number, 1, 1)) >= share)
    values = metrics.measure(masks(4, 0.5), masks(6, 0.2), 'independent')
    means, errors = metrics.summarize(values)
    assert means['emptiness_error'] == pytest.approx(2 * 0.3**2, abs=3.5 * errors['emptiness_error'])
    assert means['ged_excess'] == pytest.approx(2 * 0.3**2, abs=3.5 * errors['ged_excess'])  # of one shape alone
    assert means['ged_shape'] == 0


@pytest.mark.parametrize('sides', [(4, 5), (5, 4), (3, 7), (4, 6), (4, 9), (1, 7), (2, 9), (8, 12)])
def test_transport_gives_what_matching_copies_gives(sides):
    rng = np.random.default_rng(sides)
    for _ in range(4):
        table = rng.random(sides).round(1) * (rng.random(sides) > 0.3)
        assert matching.by_transport(table) == pytest.approx(matching.by_copies(table), abs=1e-12)


def test_matching_many_samples_of_a_coprime_number_is_exact():
    # 997 samples of which each rater's own mask is a share: all of the overlap can be had.
    table = np.zeros((4, 997))
    owner = np.arange(997) * 4 // 997
    table[owner, np.arange(997)] = 1
    counts = np.bincount(owner)
    assert matching.best_mean(table) == pytest.approx(np.minimum(counts / 997, 1 / 4).sum(), abs=1e-12)


def test_errors_clustered_by_patient_are_the_formula_and_what_a_bootstrap_over_patients_says():
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 7, 60)
    patients = [f'p{i}' for i, size in enumerate(sizes) for _ in range(size)]
    number = np.repeat(np.arange(60), sizes)
    value = rng.normal(0, 1, 60)[number] + rng.normal(0, 0.5, len(number))
    means, errors = metrics.summarize({'ged': value}, patients)
    deviations = [sum(value[number == i] - value.mean()) for i in range(60)]
    assert errors['ged'] == pytest.approx(math.sqrt(sum(d * d for d in deviations)) / len(value), rel=1e-12)
    slices = [value[number == i] for i in range(60)]
    again = [np.concatenate([slices[i] for i in rng.integers(60, size=60)]).mean() for _ in range(2000)]
    assert errors['ged'] == pytest.approx(np.std(again), rel=0.1)
    assert errors['ged'] > 1.4 * metrics.summarize({'ged': value})[1]['ged']
    assert means['ged'] == pytest.approx(value.mean())


def test_errors_take_unknown_patients_as_different_and_leave_out_what_is_undefined():
    value = np.array([1.0, 2.0, np.nan, 6.0])
    means, errors = metrics.summarize({'x': value}, ['a', 'a', 'b', ''])
    assert means['x'] == 3
    assert errors['x'] == pytest.approx(math.sqrt((-2 - 1) ** 2 + 3**2) / 3)
    assert math.isnan(metrics.summarize({'x': value}, ['a'] * 4)[1]['x'])
    means, errors = metrics.summarize({'x': value * np.nan})
    assert math.isnan(means['x']) and math.isnan(errors['x'])


def compute(raters, samples, **changes):
    settings = {'patients': [''] * len(raters), 'draws': 'independent', 'num_classes': 1, 'seed': 0} | changes
    return scores.compute(raters, np.ones(raters.shape[:2], bool), samples, **settings)


def test_scores_hold_the_baselines_that_the_masks_given_allow():
    raters, samples = worlds(20, 5, seed=5)
    found = compute(raters, samples)
    assert list(found.table) == ['model', 'empty', 'raters_resampled', 'rater_vs_rest']
    others = (raters, np.ones((20, 4), bool))
    found = compute(raters, samples, others=others, fresh=samples)
    assert set(found.table) == {*compute(raters, samples).table, 'other_patients', 'fresh_raters'}
    assert found.table['fresh_raters'][0] == found.table['model'][0]
    written = found.as_json()
    assert written['undefined'] == {} and written['stderr_clustered_by'] == 'image' and written['num_patients'] is None
    defined = int((~np.isnan(found.per_image['ged_shape'])).sum())
    assert 0 < written['images_defined']['ged_shape'] == defined < 20
    assert np.isnan(written['baselines']['rater_vs_rest']['emptiness_error'])


def test_what_is_undefined_has_its_reason():
    raters, samples = worlds(6, 5, seed=8)
    cases = {
        'independent samples': compute(raters, samples, draws='dependent'),
        'two samples': compute(raters, samples[:, :1]),
        'two raters': compute(raters[:, :1], samples),
        'no sample marks': compute(raters, samples & False),
    }
    for words, found in cases.items():
        absent = {key for key, value in found.table['model'][0].items() if np.isnan(value)}
        assert absent == set(found.undefined) and any(words in reason for reason in found.undefined.values())
    assert set(cases['independent samples'].undefined) == set(WHERE_INDEPENDENT)


def test_calibration_is_of_all_pixels_together_with_an_error_over_patients():
    raters, samples = worlds(40, 5, seed=6)
    patients = [f'p{i // 2}' for i in range(40)]
    found = compute(raters, samples, patients=patients)
    whole = lambda rows: float(metrics.calibration_error(metrics.calibration_counts(raters, samples)[rows].sum(0)))
    means, errors = found.table['model']
    assert means['calibration'] == pytest.approx(whole(np.arange(40)))
    without = np.array([whole(np.arange(40) // 2 != patient) for patient in range(20)])
    assert errors['calibration'] == pytest.approx(math.sqrt(19 / 20 * ((without - without.mean()) ** 2).sum()))
    (rows,) = found.as_json()['reliability']
    assert rows[0]['predicted'] == 0 and sum(row['pixels'] for row in rows) == 40 * 12 * 12
    assert found.num_patients == 20


def test_a_model_that_says_half_where_half_of_the_raters_mark_is_calibrated():
    masks = np.zeros((1, 4, 6, 6), bool)
    masks[:, :2, 1:4, 1:4] = True
    assert metrics.measure(masks, masks, 'independent')['calibration'] == 0
    assert metrics.measure(masks, np.repeat(masks[:, :1], 4, 1), 'independent')['calibration'] == 0.5
    assert np.isnan(metrics.measure(masks, masks[:, 2:], 'independent')['calibration'])


def test_scores_at_several_numbers_are_those_of_the_first_samples():
    raters, samples = worlds(30, 12, seed=7)
    settings = {'patients': [''] * 30, 'num_classes': 1}
    found = scores.by_number(raters, np.ones((30, 4), bool), samples, counts=(3, 12), **settings)
    for count in (3, 12):
        values = metrics.measure(raters, samples[:, :count], 'independent')
        row = found[str(count)]
        assert set(row['metrics']) == set(row['stderr']) == set(scores.COUNT_KEYS)
        for key in scores.COUNT_KEYS:
            assert row['metrics'][key] == pytest.approx(values[key].mean())
