"""The choice of a few masks that stand for many."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ambdiff import metrics
from ambdiff.diffusion import support_points


def _energy(distance, chosen):
    """2 E d(S, C) - E d(S, S') in float64, from the definition."""
    distance = np.asarray(distance, np.float64)
    return 2 * distance[chosen].mean() - distance[np.ix_(chosen, chosen)].mean()


def _random_distances(seed, count):
    masks = np.random.default_rng(seed).random((count, 4, 4)) > np.random.default_rng(seed + 1).random((count, 1, 1))
    return np.asarray(support_points.distances(jnp.asarray(masks), 1))


def test_distances_are_those_of_ged_for_empty_masks_too():
    masks = np.random.default_rng(0).random((5, 8, 8)) > 0.6
    masks[1] = masks[4] = False
    found = np.asarray(support_points.distances(jnp.asarray(masks), 1))
    # A single rater and a single sample: GED is 2 d.
    pairs = itertools.product(range(5), repeat=2)
    ged = [metrics.per_image(masks[None, i : i + 1], masks[None, j : j + 1])['ged'][0] / 2 for i, j in pairs]
    np.testing.assert_allclose(found.ravel(), ged, atol=1e-6)
    assert found[1, 4] == 0 and found[1, 0] == 1


def test_distances_of_labels_are_the_mean_over_the_classes():
    labels = np.random.default_rng(1).integers(0, 3, (4, 8, 8)).astype(np.uint8)
    each = [np.asarray(support_points.distances(jnp.asarray(labels == label), 1)) for label in (1, 2)]
    np.testing.assert_allclose(support_points.distances(jnp.asarray(labels), 2), np.mean(each, axis=0), atol=1e-6)


def test_chosen_masks_show_each_answer_with_its_share():
    answer = np.zeros((3, 6, 6), bool)
    answer[0, :3], answer[1, 4:] = True, True
    which = np.random.default_rng(2).permutation(np.repeat([0, 1, 2], (10, 5, 5)))
    chosen = support_points.choose(support_points.distances(jnp.asarray(answer[which]), 1), 4)
    np.testing.assert_array_equal(np.bincount(which[np.asarray(chosen)]), [2, 1, 1])


def test_no_exchange_of_one_mask_brings_the_chosen_nearer_to_all():
    choose = jax.jit(support_points.choose, static_argnums=1)
    for seed in range(20):
        distance = _random_distances(seed, 12)
        chosen = np.asarray(choose(distance, 4))
        assert (np.diff(chosen) > 0).all() and chosen.max() < 12
        reached = _energy(distance, chosen)
        others = [
            [*np.delete(chosen, k), enters] for k in range(4) for enters in range(12) if enters not in chosen.tolist()
        ]
        assert reached <= min(_energy(distance, np.array(s)) for s in others) + 1e-4


def test_what_is_chosen_is_near_the_best_of_all_subsets():
    choose = jax.jit(support_points.choose, static_argnums=1)
    gaps, spans = [], []
    for seed in range(20):
        distance = _random_distances(100 + seed, 10)
        energies = [_energy(distance, np.array(s)) for s in itertools.combinations(range(10), 3)]
        gaps.append(_energy(distance, np.asarray(choose(distance, 3))) - min(energies))
        spans.append(np.median(energies) - min(energies))
    assert np.mean(gaps) < 0.1 * np.mean(spans)


def test_all_candidates_are_kept_where_there_is_no_choice():
    np.testing.assert_array_equal(support_points.choose(_random_distances(7, 5), 5), np.arange(5))
