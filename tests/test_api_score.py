"""ambdiff.score: any masks of any size, the figures of metrics.json, and mistakes told in one sentence."""

import numpy as np
import pytest
import tiny

import ambdiff
from ambdiff import metrics
from ambdiff.errors import UserError


@pytest.fixture(scope='module')
def discs():
    """(raters [4, 24, 24], samples [5, 24, 24]) bool; the last of each is empty."""
    raters = [tiny.disc((24, 24), (9, 9 + k), 3 + k) for k in range(3)]
    samples = [tiny.disc((24, 24), (10 + k, 9), 3.5) for k in range(4)]
    empty = np.zeros((24, 24), bool)
    return np.stack([*raters, empty]), np.stack([*samples, empty])


@pytest.mark.parametrize('draws', metrics.DRAWS)
def test_the_figures_are_those_of_metrics_json(discs, draws):
    raters, samples = discs
    wanted = metrics.measure(raters[None], samples[None], draws)
    found = ambdiff.score(raters, samples, draws=draws)
    assert set(found) == set(metrics.ALL_KEYS) and all(type(value) is float for value in found.values())
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name][0], atol=1e-12, err_msg=name)
    assert ambdiff.ged(raters, samples) == found['ged'] and ambdiff.hm_iou(raters, samples) == found['hm_iou']


def test_one_mask_written_in_any_way_is_one_mask(discs):
    raters, samples = discs
    wanted = ambdiff.score(raters, samples)
    for alike in (np.uint8, np.float64, lambda masks: masks * np.uint8(255), lambda masks: masks.astype(int).tolist()):
        np.testing.assert_equal(ambdiff.score(alike(raters), samples), wanted)
        np.testing.assert_equal(ambdiff.score(raters, alike(samples)), wanted)
    np.testing.assert_equal(ambdiff.score(list(raters), tuple(samples)), wanted)


def test_cases_of_any_sizes_are_scored_together_as_alone(discs):
    raters, samples = discs
    cases = [(raters, samples), (raters[:2, :20], samples[:3, :20]), (raters[1:, 2:, 3:], samples[:, 2:, 3:])]
    found = ambdiff.score([r for r, _ in cases], [s for _, s in cases], batched=True)
    for row, case in enumerate(cases):
        for name, value in ambdiff.score(*case).items():
            np.testing.assert_allclose(found[name][row], value, atol=1e-12, err_msg=name)
    stacked = ambdiff.score(np.stack([raters] * 2), np.stack([samples] * 2), batched=True)
    assert stacked['ged'].shape == (2,) and stacked['ged'][0] == stacked['ged'][1] == found['ged'][0]


def test_a_slot_without_a_rater_counts_for_nothing(discs):
    raters, samples = discs
    wanted = ambdiff.score(raters[:2], samples)
    np.testing.assert_equal(ambdiff.score(raters, samples, present=[True, True, False, False]), wanted)
    found = ambdiff.score([raters, raters[:2]], [samples] * 2, present=[[1, 1, 0, 0], [1, 1]], batched=True)
    assert found['ged'].tolist() == [wanted['ged']] * 2


def test_a_volume_is_one_mask_of_all_its_voxels(discs):
    raters, samples = discs
    deep = lambda masks: np.stack([masks, masks[::-1]], 1)
    found = ambdiff.score(deep(raters), deep(samples), volume=True)
    wanted = metrics.measure(*(deep(m).reshape(1, len(m), 48, 24) for m in (raters, samples)), 'independent')
    np.testing.assert_allclose([found[name] for name in wanted], np.ravel(list(wanted.values())), atol=1e-12)
    # More voxels than a count in float32 holds, of which few are marked.
    large = np.zeros((2, 40, 700, 700), bool)
    large[:, 3:5, 5:9, 5:9] = True
    assert ambdiff.ged(large, large, volume=True) == 0


def test_labels_are_scored_as_the_mean_over_their_classes(discs):
    raters, samples = (masks.astype(np.uint8) + (masks & (np.arange(24) > 9)) for masks in discs)
    found = ambdiff.score(raters, samples, num_classes=2)
    wanted = metrics.per_class(raters[None], samples[None], 2, 'independent')[0]
    np.testing.assert_allclose([found[name] for name in wanted], np.ravel(list(wanted.values())), atol=1e-12)


def test_nothing_marked_anywhere_is_agreement():
    empty = np.zeros((3, 8, 8), bool)
    found = ambdiff.score(empty, empty)
    assert found['ged'] == 0 and found['hm_iou'] == 1 and np.isnan(found['calibration'])


MASKS = np.zeros((3, 8, 8), bool)
GREY = np.arange(192).reshape(3, 8, 8)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'raters': MASKS[0]}, r'raters has shape 8x8, and \[M, H, W\] is meant: of one mask give raters\[None\]'),
        ({'samples': MASKS[..., None]}, r'take the last axis off, samples\[\.\.\., 0\]'),
        ({'raters': MASKS[None]}, 'of several cases give batched=True, of volumes volume=True'),
        ({'raters': MASKS, 'batched': True}, r'raters\[0\] has shape 8x8.* of one case leave out batched=True'),
        ({'raters': MASKS, 'volume': True}, r'\[M, D, H, W\] is meant'),
        ({'raters': MASKS[:0]}, 'raters is empty'),
        ({'samples': MASKS[:, :0]}, 'samples is empty'),
        ({'samples': MASKS[:, :7]}, 'raters are masks of 8x8, samples of 7x8'),
        ({'samples': MASKS * 0.3 + 0.3}, r'samples have values between whole numbers \(0.3\).*samples > 0.5'),
        ({'samples': GREY}, r'samples have grey values \(as 1\).*samples > 127'),
        ({'raters': MASKS + 2}, 'raters have the values 2: give one class as a mask, for instance raters == 2'),
        ({'raters': MASKS - 1.0}, r'raters have negative values \(-1\)'),
        ({'raters': MASKS * np.nan}, 'raters has 192 values that are NaN or infinite'),
        ({'raters': MASKS, 'num_classes': 2}, 'raters are bool, which tells one class'),
        ({'raters': MASKS + 3, 'samples': MASKS + 0, 'num_classes': 2}, 'the label 3 with num_classes=2: give num_c'),
        ({'num_classes': 0}, 'num_classes=0: give a whole number, 1 to'),
        ({'num_classes': True}, 'num_classes=True'),
        ({'draws': 'stratified'}, 'give one of independent, dependent'),
        ({'present': [True]}, r'present is meant to be \[M\] bool, one for each of 3 raters'),
        ({'present': [False] * 3}, 'no rater who is there'),
        ({'raters': 'masks.npz'}, 'raters is text: give an array'),
        ({'raters': None}, 'raters is no array'),
        ({'raters': [MASKS[0], MASKS[0, :4]]}, 'raters cannot be read as an array'),
        ({'raters': MASKS.astype(complex)}, 'raters is an array of complex128'),
        ({'raters': np.ma.masked_array(MASKS)}, r'raters.filled\(VALUE\)'),
        ({'raters': [MASKS], 'samples': [MASKS] * 2, 'batched': True}, 'as many cases of each: raters 1, samples 2'),
        ({'raters': [], 'samples': [], 'batched': True}, 'hold no case'),
    ],
)
def test_a_mistake_is_one_sentence_with_the_cure(change, said):
    with pytest.raises(ValueError, match=said) as raised:
        ambdiff.score(**{'raters': MASKS, 'samples': MASKS, **change})
    assert type(raised.value) is UserError and '\n' not in str(raised.value)
