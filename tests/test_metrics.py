"""The metrics against a brute-force account, reference numbers, and invariants they must keep."""

import fractions
import itertools
import math

import archives
import numpy as np
import pytest

from ambdiff import baselines, metrics


def blobs(rng, batch, count, empty_share=0.3, size=12):
    """Random rectangles, some empty: overlapping, nested and disjoint pairs all occur."""
    masks = np.zeros((batch, count, size, size), bool)
    for mask in masks.reshape(-1, size, size):
        if rng.random() >= empty_share:
            (top, left), (height, width) = rng.integers(0, 6, 2), rng.integers(1, 7, 2)
            mask[top : top + height, left : left + width] = True
    return masks


def everyone(masks):
    return np.ones(masks.shape[:2], bool)


def iou(a, b):
    return 1.0 if not (a | b).any() else (a & b).sum() / (a | b).sum()


def dice(a, b):
    return 1.0 if not (a | b).any() else 2 * (a & b).sum() / (a.sum() + b.sum())


def best_matching(table):
    """Largest mean of a doubly balanced transport, by trying every assignment of the replicas."""
    rows, columns = table.shape
    length = math.lcm(rows, columns)
    wide = np.repeat(np.repeat(table, length // rows, 0), length // columns, 1)
    return max(np.mean([wide[i, j] for i, j in enumerate(order)]) for order in itertools.permutations(range(length)))


def brute_force(raters, samples):
    """Every metric of one image, pair by pair."""

    def mean_d(a, b):
        return np.mean([1 - iou(p, q) for p in a for q in b])

    def spread(masks):
        values = [1 - dice(p, q) for p, q in itertools.combinations(masks, 2)] or [0.0]
        return max(values), min(values)

    ss = [1 - iou(p, q) for p, q in itertools.permutations(samples, 2)]
    union_y, union_s = raters.any(0), samples.any(0)
    s_c = (union_y & union_s).sum() / union_y.sum() if union_y.any() else float(not union_s.any())
    d_max = np.mean([max(dice(y, s) for s in samples) for y in raters])
    (top_y, low_y), (top_s, low_s) = spread(raters), spread(samples)
    d_a = 1 - (abs(top_y - top_s) + abs(low_y - low_s)) / 2
    parts = (s_c, d_max, d_a)
    cross = 2 * mean_d(samples, raters) - mean_d(raters, raters)
    return {
        'ged': cross - mean_d(samples, samples),
        'ged_unbiased': cross - np.mean(ss) if ss else math.nan,
        'hm_iou': best_matching(np.array([[iou(y, s) for s in samples] for y in raters])),
        'd_max': d_max,
        's_c': s_c,
        'd_a': d_a,
        'ci': 3 * math.prod(parts) / sum(parts) if any(parts) else 0.0,
        'ci_harmonic': 3 / sum(1 / p for p in parts) if all(parts) else 0.0,
    }


@pytest.mark.parametrize(('num_raters', 'num_samples'), [(4, 4), (2, 6), (2, 3), (1, 5), (3, 1), (1, 1)])
def test_agrees_with_brute_force_pair_by_pair(num_raters, num_samples):
    rng = np.random.default_rng(num_raters * 10 + num_samples)
    raters, samples = blobs(rng, 9, num_raters), blobs(rng, 9, num_samples)
    raters[0], samples[1] = False, False
    raters[2], samples[2] = False, False
    ours = metrics.per_image(raters, samples)
    assert set(ours) == set(metrics.KEYS)
    for index in range(9):
        for key, value in brute_force(raters[index], samples[index]).items():
            np.testing.assert_allclose(ours[key][index], value, atol=1e-12, err_msg=key)
    assert all(value.dtype == np.float64 and value.shape == (9,) for value in ours.values())


def test_matches_the_published_fixtures(shared):
    data = archives.read(shared / 'fixtures' / 'metrics.npz')
    for index, case in enumerate(data['cases']):
        raters, samples = (
            np.unpackbits(data[f'{name}_{index}'], axis=-1, count=int(data['width'])).astype(bool)[None]
            for name in ('raters', 'samples')
        )
        ours = metrics.per_image(raters, samples)
        for key, value in zip(data['keys'], data['values'][index], strict=True):
            np.testing.assert_allclose(ours[str(key)][0], value, atol=1e-6, err_msg=f'{case}: {key}')


def test_order_of_raters_and_samples_does_not_matter():
    rng = np.random.default_rng(1)
    raters, samples = blobs(rng, 6, 4), blobs(rng, 6, 6)
    shuffled = metrics.per_image(rng.permutation(raters, axis=1), rng.permutation(samples, axis=1))
    for key, value in metrics.per_image(raters, samples).items():
        np.testing.assert_allclose(shuffled[key], value, atol=1e-14, err_msg=key)


def test_an_image_scores_the_same_alone_and_in_a_batch_of_several_chunks(monkeypatch):
    rng = np.random.default_rng(2)
    raters, samples = blobs(rng, 7, 2), blobs(rng, 7, 3)
    whole = metrics.per_image(raters, samples)
    monkeypatch.setattr(metrics, '_MAX_CHUNK', 3)
    for key, value in metrics.per_image(raters, samples).items():
        np.testing.assert_array_equal(value, whole[key])
    alone = metrics.per_image(raters[6:], samples[6:])
    assert all(alone[key][0] == whole[key][6] for key in ('ged', 'hm_iou', 'd_max', 's_c', 'ci'))


def test_another_number_of_images_does_not_recompile():
    rng = np.random.default_rng(3)
    metrics.per_image(blobs(rng, 5, 3), blobs(rng, 5, 4))
    compiled = metrics._gram._cache_size()
    metrics.per_image(blobs(rng, 2, 3), blobs(rng, 2, 4))
    metrics.per_image(blobs(rng, 70, 3), blobs(rng, 70, 4))
    assert metrics._gram._cache_size() == compiled


def test_agreeing_on_nothing_is_a_perfect_score_and_a_false_alarm_is_not():
    nothing = np.zeros((1, 4, 8, 8), bool)
    something = nothing.copy()
    something[:, :, 2:4, 2:4] = True
    agreed = metrics.per_image(nothing, nothing[:, :2])
    assert agreed['ged'] == 0 and all(agreed[k] == 1 for k in metrics.KEYS[2:])
    for raters, samples in ((nothing, something), (something, nothing)):
        wrong = metrics.per_image(raters, samples)
        assert wrong['ged'] == 2
        assert all(wrong[key] == 0 for key in ('hm_iou', 'd_max', 's_c', 'ci', 'ci_harmonic'))
        assert wrong['d_a'] == 1


def test_ged_of_n_samples_exceeds_the_unbiased_one_by_the_diversity_over_n():
    # Over all 3^N equally likely draws from three masks both expectations are exact sums.
    rng = np.random.default_rng(4)
    raters, answers = blobs(rng, 1, 4), blobs(rng, 1, 3)[0]
    population = metrics.per_image(raters, answers[None])['ged'][0]
    diversity = np.mean([1 - iou(a, b) for a in answers for b in answers])
    for count in (2, 3):
        draws = np.array(list(itertools.product(range(3), repeat=count)))
        values = metrics.per_image(np.repeat(raters, len(draws), 0), answers[draws])
        np.testing.assert_allclose(values['ged_unbiased'].mean(), population, atol=1e-12)
        np.testing.assert_allclose(values['ged'].mean(), population + diversity / count, atol=1e-12)
    assert diversity > 0.1


def test_matching_uses_every_answer_as_often_as_every_other():
    # One of four raters marks something; two of four samples do: a third of them find no equal partner.
    raters, samples = np.zeros((1, 4, 6, 6), bool), np.zeros((1, 6, 6, 6), bool)
    raters[0, 0, 1:3, 1:3] = True
    samples[0, :3, 1:3, 1:3] = True
    expected = 1 - float(fractions.Fraction(1, 2) - fractions.Fraction(1, 4))
    np.testing.assert_allclose(metrics.per_image(raters, samples)['hm_iou'], expected)


def test_whole_image_masks_count_exactly():
    full = np.ones((1, 1, 300, 301), bool)
    nearly = full.copy()
    nearly[..., 0, 0] = False
    pixels = 300 * 301
    assert metrics.per_image(full, nearly)['s_c'][0] == (pixels - 1) / pixels


@pytest.mark.parametrize(
    ('raters', 'samples', 'said'),
    [
        (np.zeros((2, 4, 8, 8), np.uint8), np.zeros((2, 4, 8, 8), bool), 'uint8'),
        (np.zeros((2, 4, 8, 8), bool), np.zeros((2, 4, 8, 8)), 'float64'),
        (np.zeros((2, 4, 8, 8), bool), np.zeros((3, 4, 8, 8), bool), r'\(3, 4, 8, 8\)'),
        (np.zeros((2, 4, 8, 8), bool), np.zeros((2, 4, 8, 9), bool), r'\(2, 4, 8, 9\)'),
        (np.zeros((2, 4, 8, 8), bool), np.zeros((2, 8, 8), bool), r'\(2, 8, 8\)'),
        (np.zeros((2, 0, 8, 8), bool), np.zeros((2, 4, 8, 8), bool), r'\(2, 0, 8, 8\)'),
        (np.zeros((0, 1, 1, 2**24 + 1), bool), np.zeros((0, 1, 1, 2**24 + 1), bool), '16777217'),
    ],
)
def test_unusable_masks_are_refused_with_the_numbers(raters, samples, said):
    with pytest.raises(ValueError, match=said):
        metrics.per_image(raters, samples)


def test_summary_gives_the_mean_and_its_standard_error():
    means, errors = metrics.summarize({'ged': np.array([1.0, 2.0, 3.0, 6.0])})
    assert means == {'ged': 3.0}
    np.testing.assert_allclose(errors['ged'], math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert math.isnan(metrics.summarize({'ged': np.ones(1)})[1]['ged'])
    with pytest.raises(ValueError, match='ged'):
        metrics.summarize({'ged': np.ones(0)})


def test_resampled_raters_only_repeat_their_own_image_and_reach_the_floor():
    rng = np.random.default_rng(5)
    raters = blobs(rng, 40, 4)
    drawn = baselines.raters_resampled(raters, everyone(raters), 16, rng)
    assert drawn.shape == (40, 16, 12, 12)
    for own, picked in zip(raters, drawn, strict=True):
        assert {m.tobytes() for m in picked} <= {m.tobytes() for m in own}
    floor = metrics.per_image(raters, drawn)
    # In expectation the floor is the raters' own diversity over N, and zero once unbiased.
    diversity = np.mean([1 - iou(p, q) for masks in raters for p in masks for q in masks])
    np.testing.assert_allclose(floor['ged'].mean(), diversity / 16, atol=0.02)
    np.testing.assert_allclose(floor['ged_unbiased'].mean(), 0, atol=0.02)


def test_baselines_of_real_outlines_are_where_the_literature_has_them(shared):
    import h5py

    def read(split, count):
        with h5py.File(shared / 'data' / 'data_lidc.hdf5') as file:
            return np.moveaxis(file[split]['labels'][:count] > 0, -1, 1)

    rng = np.random.default_rng(8)
    raters, train = read('test', None), read('train', 600)
    foreign = baselines.other_patients(train, everyone(train), len(raters), 16, rng)
    ged = {
        'floor': metrics.per_image(raters, baselines.raters_resampled(raters, everyone(raters), 16, rng))['ged'],
        'foreign': metrics.per_image(raters, foreign)['ged'],
    }
    assert 0.015 < ged['floor'].mean() < 0.035
    assert 0.33 < ged['foreign'].mean() < 0.50


def test_other_patients_draws_every_training_mask_alike():
    masks = np.zeros((3, 2, 4, 4), np.uint8)
    for index in range(6):
        masks[index // 2, index % 2].flat[index] = 1
    drawn = baselines.other_patients(masks, everyone(masks), 200, 30, np.random.default_rng(6))
    assert drawn.dtype == np.uint8 and drawn.shape == (200, 30, 4, 4)
    counts = drawn.sum((0, 1), dtype=int).ravel()
    assert counts[:6].sum() == 6000 and abs(counts[:6] - 1000).max() < 150
    same = baselines.other_patients(masks, everyone(masks), 200, 30, np.random.default_rng(6))
    np.testing.assert_array_equal(drawn, same)
    with pytest.raises(ValueError, match='no training masks'):
        baselines.other_patients(masks[:0], everyone(masks[:0]), 1, 1, np.random.default_rng(6))


def test_rater_against_the_rest_is_the_mean_over_raters():
    raters = blobs(np.random.default_rng(7), 3, 3)
    ours = baselines.rater_vs_rest(raters, everyone(raters))
    for index in range(3):
        each = [brute_force(raters[index, [k for k in range(3) if k != r]], raters[index, [r]]) for r in range(3)]
        np.testing.assert_allclose(ours['ged'][index], np.mean([e['ged'] for e in each]))
        np.testing.assert_allclose(ours['hm_iou'][index], np.mean([e['hm_iou'] for e in each]))
    assert all(
        np.isnan(value).all() for value in baselines.rater_vs_rest(raters[:, :1], everyone(raters[:, :1])).values()
    )


def test_the_empty_answer_scores_by_the_share_of_raters_who_agree():
    raters = np.zeros((1, 4, 6, 6), bool)
    raters[0, 0, 2:4, 2:4] = True
    scores = metrics.per_image(raters, baselines.empty(raters, 5))
    # d(S, Y) = 1/4, d(Y, Y') = 6/16.
    np.testing.assert_allclose(scores['ged'], 2 / 4 - 6 / 16)
    np.testing.assert_allclose(scores['hm_iou'], 3 / 4)


def test_a_missing_rater_counts_for_nothing():
    rng = np.random.default_rng(9)
    raters, samples = blobs(rng, 6, 4), blobs(rng, 6, 5)
    present = np.ones((6, 4), bool)
    present[1, 2] = present[4, 0] = present[4, 3] = False
    raters[~present] = False  # padding, as readers write it
    values = metrics.per_image(raters, samples, present)
    rest = baselines.rater_vs_rest(raters, present)
    for index in range(6):
        there = raters[index : index + 1, present[index]]
        for key, value in metrics.per_image(there, samples[index : index + 1]).items():
            assert values[key][index] == value[0], key
        np.testing.assert_array_equal(rest['ged'][index], baselines.rater_vs_rest(there, everyone(there))['ged'][0])
    with pytest.raises(ValueError, match='image 2 has no rater'):
        metrics.per_image(raters, samples, present & (np.arange(6) != 2)[:, None])


def test_baselines_never_draw_a_missing_rater():
    rng = np.random.default_rng(10)
    masks = np.ones((5, 3, 2, 2), np.uint8)
    present = rng.random((5, 3)) > 0.4
    present[:, 0] |= ~present.any(1)
    masks[~present] = 0
    assert baselines.raters_resampled(masks, present, 50, rng).all()
    assert baselines.other_patients(masks, present, 20, 50, rng).all()


def test_classes_are_scored_alone_and_averaged():
    rng = np.random.default_rng(11)
    raters, samples = (blobs(rng, 4, n).astype(np.uint8) + blobs(rng, 4, n) for n in (3, 5))
    mean, each = metrics.per_class(raters, samples, 2, 'independent')
    for label, values in enumerate(each, 1):
        for key, value in metrics.per_image(raters == label, samples == label).items():
            np.testing.assert_array_equal(values[key], value)
    np.testing.assert_allclose(mean['ged'], (each[0]['ged'] + each[1]['ged']) / 2)
    np.testing.assert_array_equal(
        metrics.per_class(raters > 0, samples > 0, 1, 'independent')[0]['ged'],
        metrics.per_image(raters > 0, samples > 0)['ged'],
    )
