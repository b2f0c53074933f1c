"""The distinct answers: shares add up, nothing is an answer of its own, sizes are those of the world."""

import numpy as np
import pytest

from ambdiff import modes
from ambdiff.pages import figures


def disc(radius, centre=(20, 20), shape=(40, 48)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


@pytest.fixture
def samples():
    """Ten masks: five small discs that differ a little, three empty, two large ones around the same place."""
    small = [disc(5, (20 + i % 2, 20)) for i in range(5)]
    return np.stack([small[0], disc(12), *small[1:3], *[disc(0)] * 3, disc(12.5), *small[3:]])


def test_answers_are_found_with_their_shares_and_most_typical_samples(samples):
    found = modes.find(samples)
    assert [mode.members for mode in found] == [(0, 2, 3, 8, 9), (4, 5, 6), (1, 7)]
    assert [mode.share for mode in found] == [0.5, 0.3, 0.2]
    assert [mode.empty for mode in found] == [False, True, False]
    # Samples 0, 3 and 9 are equal, so one of them is closest to all.
    assert [mode.medoid for mode in found] == [0, 4, 1]


def test_every_sample_is_in_one_answer_whatever_the_masks():
    rng = np.random.default_rng(0)
    for count, density in ((1, 0.0), (1, 0.3), (2, 0.3), (7, 0.02), (16, 0.5), (3, 1.0), (9, 0.0)):
        masks = rng.random((count, 6, 7)) < density
        found = modes.find(masks)
        assert sorted(i for mode in found for i in mode.members) == list(range(count))
        assert sum(mode.share for mode in found) == pytest.approx(1)
        assert all(mode.medoid in mode.members for mode in found)
        assert [len(mode.members) for mode in found] == sorted((len(mode.members) for mode in found), reverse=True)


def test_nothing_is_never_joined_to_a_drawing(samples):
    single = np.zeros((4, 8, 8), bool)
    single[0, 3, 3] = True
    for masks in (samples, single):
        for mode in modes.find(masks, threshold=0.999):
            assert len({bool(masks[i].any()) for i in mode.members}) == 1


def test_distance_is_one_minus_iou_and_two_empty_masks_agree():
    masks = np.zeros((4, 1, 8), bool)
    masks[0, 0, :4] = masks[1, 0, 2:6] = True
    np.testing.assert_allclose(
        modes.distances(masks), [[0, 1 - 2 / 6, 1, 1], [1 - 2 / 6, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    )


def test_labels_agree_only_where_they_are_equal():
    masks = np.array([[[1, 1, 0, 0]], [[2, 2, 0, 0]], [[1, 2, 0, 0]]], np.uint8)
    np.testing.assert_allclose(modes.distances(masks), [[0, 1, 0.5], [1, 0, 0.5], [0.5, 0.5, 0]])
    assert modes.disagreement(masks)[0, 0] == pytest.approx(-(2 / 3) * np.log2(2 / 3) - np.log2(1 / 3) / 3)
    np.testing.assert_allclose(modes.probability(masks), [[1, 1, 0, 0]])


def test_volumes_are_clustered_over_all_their_slices(samples):
    volume = np.zeros((10, 3, 40, 48), bool)
    volume[:, 1] = samples
    assert modes.find(volume) == modes.find(samples)
    np.testing.assert_allclose(modes.areas(volume, (1, 1)), samples.sum((1, 2)))
    assert modes.size_text(volume[0], (1, 1)) == modes.size_text(samples[0], (1, 1))


def test_disagreement_of_yes_and_no_is_the_binary_entropy(samples):
    np.testing.assert_allclose(
        modes.disagreement(samples), figures.entropy(samples.mean(0)).astype(np.float32), atol=1e-6
    )


def test_sizes_are_in_mm_where_the_spacing_is_known():
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:8] = True  # 4 x 3 pixels
    assert modes.diameter(mask, (2, 1)) == pytest.approx(np.hypot(8, 3))
    assert modes.size_text(mask, (2, 1)) == '9 mm'
    assert modes.size_text(mask, (np.nan, np.nan)) == '5 px across'
    assert modes.size_text(mask & False, (2, 1)) == 'nothing'
    np.testing.assert_allclose(modes.areas(mask[None], (2, 1)), [24])
    np.testing.assert_allclose(modes.areas(mask[None], (np.nan, np.nan)), [12])


def test_area_quantiles_count_empty_masks_as_zero():
    assert modes.quantiles(np.array([0, 0, 0, 0, 10.0]))['p50'] == 0
    assert modes.quantiles(np.arange(101.0)) == {'p05': 5, 'p25': 25, 'p50': 50, 'p75': 75, 'p95': 95}


def test_answers_are_told_in_words(samples):
    found = modes.find(samples)
    texts = modes.words(samples, found, (0.7, 0.7))
    assert modes.sentence(found, texts) == '50%: 7 mm; 30%: nothing; 20%: 17 mm, larger, contains the first'
    apart = np.stack([disc(5), disc(5), disc(4, (30, 40)), disc(5) | disc(4, (30, 40))])
    texts = modes.words(apart, modes.find(apart), (1, 1))
    assert texts[0] == '10 mm' and any(text.endswith('elsewhere') for text in texts)


def test_small_parts_go_whole_and_others_stay_as_they_are():
    mask = np.zeros((2, 6, 7), np.uint8)
    mask[0, 1, 1] = mask[0, 2, 2] = mask[0, 3, 3] = 2  # one part, by corners
    mask[0, 5, 5:7] = 1
    mask[1, 1, 1] = 1  # not joined to the part in the plane before
    kept = mask.copy()
    kept[0, 5], kept[1] = 0, 0
    np.testing.assert_array_equal(modes.without_small_parts(mask, 3), kept)
    np.testing.assert_array_equal(modes.without_small_parts(mask, 1), mask)
    np.testing.assert_array_equal(modes.without_small_parts(mask > 0, 4), np.zeros(mask.shape, bool))
