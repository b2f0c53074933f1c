"""The energy score against sums over pairs in float64, and the masks that learn from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambdiff import metrics
from ambdiff.methods.kit import energy


def masks(seed, *shape, share=0.4):
    """Random masks of 0 and 1, the first of each image empty."""
    drawn = (np.random.default_rng(seed).random(shape) < share).astype(np.float32)
    drawn[:, 0] = 0
    return drawn


def distance(a, b):
    """1 - IoU in float64, pair by pair."""
    either = np.maximum(a, b).sum(dtype=np.float64)
    return 1 - np.minimum(a, b).sum(dtype=np.float64) / either if either else 0.0


def test_distances_are_those_of_the_metrics_and_two_empty_masks_are_equal():
    a, b = masks(0, 3, 4, 50), masks(1, 3, 5, 50)
    expected = [[[distance(x, y) for y in there] for x in here] for here, there in zip(a, b, strict=True)]
    np.testing.assert_allclose(energy.distances(a, b), expected, atol=1e-6)
    assert (np.array(expected)[:, 0, 0] == 0).all() and (np.array(expected)[:, 0, 1:] == 1).all()


def test_energy_score_is_the_sum_over_pairs_and_absent_raters_count_for_nothing():
    sets, raters = masks(2, 2, 4, 50), masks(3, 2, 3, 50)
    weights = np.random.default_rng(4).dirichlet(np.ones(4), 2).astype(np.float32)
    present = np.array([[True, True, True], [False, True, True]])
    expected = []
    for w, s, y, there in zip(weights, sets, raters, present, strict=True):
        to_raters = np.mean([sum(w[i] * distance(s[i], m) for i in range(4)) for m in y[there]])
        among = sum(w[i] * w[j] * distance(s[i], s[j]) for i in range(4) for j in range(4))
        expected.append(2 * to_raters - among)
    np.testing.assert_allclose(energy.energy_score(weights, sets, raters, present), expected, atol=1e-5)


def test_with_equal_weights_it_is_ged_and_what_no_model_changes():
    sets, raters = masks(5, 3, 6, 64), masks(6, 3, 4, 64)
    score = energy.energy_score(np.full((3, 6), 1 / 6, np.float32), sets, raters, np.ones((3, 4), bool))
    among = [np.mean([distance(a, b) for a in y for b in y]) for y in raters]
    image = lambda x: x.reshape(*x.shape[:2], 8, 8) > 0
    ged = metrics.per_image(image(raters), image(sets))['ged']
    np.testing.assert_allclose(score - np.array(among), ged, atol=1e-5)


def test_level_sets_are_sets_above_a_share_of_the_maximum_and_never_empty():
    z = np.random.default_rng(7).normal(-3, 2, (2, 40)).astype(np.float32)
    levels = np.array([[0.1, 0.5, 0.99], [0.2, 0.6, 0.9]], np.float32)
    sets = np.asarray(energy.level_sets(z, levels, 1.0))
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    np.testing.assert_array_equal(sets, p[:, None] > levels[..., None] * p.max(1)[:, None, None])
    assert set(np.unique(sets)) == {0, 1} and sets.any(-1).all()


def test_a_set_learns_as_the_sigmoid_of_its_height_above_the_edge():
    z, level, slope = np.array([[-2.0, 0.1, 0.7, 1.5]], np.float32), np.array([[0.5]], np.float32), 3.0
    weights = np.array([1.0, -2.0, 0.5, 0.0], np.float32)  # not of the largest, which moves the edge
    gradient = jax.grad(lambda z: (energy.level_sets(z, level, slope)[0, 0] * weights).sum())(z)
    p = 1 / (1 + np.exp(-z[0].astype(np.float64)))
    edge = 0.5 * p.max()
    soft = 1 / (1 + np.exp(-slope * (z[0] - np.log(edge / (1 - edge)))))
    np.testing.assert_allclose(gradient[0, :3], (weights * slope * soft * (1 - soft))[:3], rtol=1e-4)


@pytest.mark.parametrize('wrong', [0.15, 0.6])
def test_the_expected_score_is_least_for_the_raters_own_distribution(wrong):
    """Raters empty with probability .4, else a disc of one of two sizes: another share of empties scores worse."""
    shapes = np.zeros((1, 3, 30), np.float32)
    shapes[0, 1, :10], shapes[0, 2, :20] = 1, 1
    own, other = np.array([[0.4, 0.3, 0.3]]), np.array([[wrong, (1 - wrong) / 2, (1 - wrong) / 2]])
    present = np.ones((1, 1), bool)
    expected = lambda weights: sum(
        chance * energy.energy_score(jnp.asarray(weights), shapes, shapes[:, m : m + 1], present)[0]
        for m, chance in enumerate(own[0])
    )
    assert expected(own) < expected(other) - 1e-3
