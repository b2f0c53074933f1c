"""The method mose: its coupling against a loop and linear programming, its loss, its draws, a known distribution."""

import itertools

import jax
import jax.numpy as jnp
import known_distribution
import numpy as np
import pytest
import tiny
from scipy.optimize import linprog

from ambdiff import finite, methods, sampling
from ambdiff.errors import UserError
from ambdiff.methods import mose
from ambdiff.methods.kit.contract import Weights

BATCH = {
    'image': np.random.default_rng(0).random((3, 8, 8, 1), np.float32),
    'masks': (np.random.default_rng(1).random((3, 4, 8, 8)) > 0.6).astype(np.uint8),
    'present': np.array([[True, True, True, True], [True, False, True, False], [False, False, True, False]]),
}


def config_of(**given):
    small = {
        'data.image_size': 8,
        'method.filters': (8, 8),
        'method.num_groups': 2,
        'method.experts': 3,
        'method.draws_per_expert': 2,
    }
    return tiny.config('unused', 'mose', **{**small, **given})


@pytest.fixture(scope='module')
def built():
    """(method, params away from their start, loss compiled)."""
    method = methods.create(config_of(**{'train.num_steps': 10}))
    return method, tiny.params(method, BATCH['image'], away=0.3), jax.jit(method.loss)


def greedy(cost, present, gamma):
    """The public code's loop, for one image: cost [N, M]."""
    plan = np.zeros(cost.shape)
    there = np.flatnonzero(present)
    for m in there[np.argsort(cost.min(0)[there])]:
        left = 1 / len(there)
        for n in np.argsort(cost[:, m]):
            plan[n, m] = min(max(gamma - plan[n].sum(), 0), left)
            left -= plan[n, m]
    return plan


@pytest.mark.parametrize('gamma', [0.15, 0.5, 1.0])
def test_coupling_is_the_greedy_loop_with_the_raters_marginals_and_no_mask_above_gamma(gamma):
    cost = np.random.default_rng(3).random((20, 8, 4))
    present = np.random.default_rng(4).random((20, 4)) > 0.4
    present[:, 1] = True
    plan = np.asarray(mose.coupling(jnp.asarray(cost, jnp.float32), jnp.asarray(present), gamma))
    np.testing.assert_allclose(plan, [greedy(*given, gamma) for given in zip(cost, present, strict=True)], atol=1e-6)
    np.testing.assert_allclose(plan.sum(1), present / present.sum(1, keepdims=True), atol=1e-6)
    assert plan.sum(2).max() < gamma + 1e-6 and plan.min() >= 0


def test_coupling_with_gamma_1_is_the_cheapest_plan_and_with_less_not_far_from_it():
    cost = np.random.default_rng(5).random((12, 6, 3))
    present = jnp.ones((12, 3), bool)

    def cheapest(cost, gamma):
        """The linear programme: min sum P c, columns 1/3 each, rows at most gamma."""
        columns = np.kron(np.ones(6), np.eye(3))
        rows = np.kron(np.eye(6), np.ones(3))
        return linprog(cost.ravel(), rows, np.full(6, gamma), columns, np.full(3, 1 / 3)).fun

    for gamma, away in ((1.0, 1e-6), (0.5, 0.03)):
        plan = np.asarray(mose.coupling(jnp.asarray(cost, jnp.float32), present, gamma))
        gap = (plan * cost).sum((1, 2)) - [cheapest(c, gamma) for c in cost]
        assert gap.min() > -1e-6 and gap.mean() < away


def test_loss_is_equation_2(built):
    method, params, loss = built
    key = jax.random.key(7)
    value, parts, state = loss(params, {'step': jnp.int32(4)}, BATCH, key)
    assert int(state['step']) == 5
    features, log_pi = method._of_image(params, BATCH['image'])
    noise = np.asarray(jax.random.normal(key, (18,))).reshape(3, 3, 2)
    pi = np.exp(np.float64(log_pi))
    np.testing.assert_allclose(pi.sum(1), 1, rtol=1e-5)
    for b in range(3):
        soft = []
        for k, s in itertools.product(range(3), range(2)):
            mean, log_sigma = params['experts']['mean'][k], params['experts']['log_sigma'][k]
            z = jnp.array([mean + np.exp(log_sigma) * noise[b, k, s]])
            logits = method._logits(params, features[b : b + 1], z)
            soft.append(1 / (1 + np.exp(np.float64(logits[0, ..., 0] - logits[0, ..., 1]))))
        cost = np.ones((6, 4))
        for n, m in itertools.product(range(6), range(4)):
            y = BATCH['masks'][b, m]
            both = (soft[n] * y).sum()
            cost[n, m] = 1 - (both + 1) / (soft[n].sum() + y.sum() - both + 1)
        plan = greedy(cost, BATCH['present'][b], 0.5)  # step 4 of 10
        q = plan.sum(1)
        kl = sum(q[n] * np.log(q[n] / (pi[b, n // 2] / 2)) for n in range(6) if q[n] > 0)
        np.testing.assert_allclose(parts['cost'][b], (plan * cost).sum(), rtol=1e-4)
        np.testing.assert_allclose(parts['gate'][b], kl / 6, rtol=1e-4)  # the public code's mean over N = 6
    np.testing.assert_allclose(value, parts['cost'] + parts['gate'], rtol=1e-6)


def test_the_papers_weight_of_the_gate_is_the_number_of_masks_times_the_codes(built):
    _, params, loss = built
    paper = methods.create(config_of(**{'method.gate_loss': 'sum', 'train.num_steps': 10}))
    given = (params, {'step': jnp.int32(0)}, BATCH, jax.random.key(0))
    np.testing.assert_allclose(jax.jit(paper.loss)(*given)[1]['gate'], 6 * loss(*given)[1]['gate'], rtol=1e-5)


def test_gamma_is_1_after_its_share_of_the_run(built):
    _, params, loss = built
    at = lambda step: loss(params, {'step': jnp.int32(step)}, BATCH, jax.random.key(0))[1]
    np.testing.assert_array_equal(at(0)['cost'], at(4)['cost'])
    np.testing.assert_array_equal(at(5)['cost'], at(9)['cost'])
    # One rater alone: with gamma = 1/2 half of the mass must go to a dearer mask than its nearest.
    assert at(5)['cost'][2] < at(4)['cost'][2] - 1e-4


def test_an_absent_raters_mask_does_not_reach_the_loss_and_every_network_learns(built):
    _, params, loss = built
    changed = {**BATCH, 'masks': np.where(BATCH['present'][..., None, None], BATCH['masks'], 1 - BATCH['masks'])}
    of = lambda batch: loss(params, {'step': jnp.int32(0)}, batch, jax.random.key(0))[0]
    np.testing.assert_array_equal(of(BATCH), of(changed))
    gradient = jax.jit(jax.grad(lambda p: loss(p, {'step': jnp.int32(0)}, BATCH, jax.random.key(0))[0].mean()))(params)
    for name in ('unet', 'gate', 'head', 'experts'):
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient[name])) > 0, name


def test_masks_follow_from_the_images_key_alone_in_any_parts_and_nan_is_told(built):
    method, params, _ = built
    images, keys = BATCH['image'], sampling.image_keys(jax.random.key(1), range(3))
    draw = jax.jit(lambda w, x, k, parts: method.sample(*w, x, k, 4, parts), static_argnums=3)
    state = {'step': jnp.int32(0)}
    masks = np.asarray(draw(Weights(params, state), images, keys, 1))
    assert masks.shape == (3, 4, 8, 8) and masks.dtype == bool
    assert 0.05 < masks.mean() < 0.95 and (masks[:, 0] != masks[:, 1]).any()
    np.testing.assert_array_equal(masks, draw(Weights(params, state), images, keys, 2))
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(masks[order], draw(Weights(params, state), images[order], keys[order], 1))
    error, _ = jax.jit(finite.seen(lambda x: method.sample(params, state, x, keys, 4)))(np.full_like(images, np.nan))
    assert error.get()


def test_several_classes_give_labels():
    method = methods.create(config_of(**{'data.num_classes': 2}))
    batch = {**BATCH, 'masks': 2 * BATCH['masks']}
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss, _, _ = jax.eval_shape(method.loss, params, state, batch, jax.random.key(0))
    masks = jax.eval_shape(
        lambda *given: method.sample(*given, 4), params, state, batch['image'], jax.random.split(jax.random.key(0), 3)
    )
    assert loss.shape == (3,) and masks.shape == (3, 4, 8, 8) and masks.dtype == np.uint8


def test_experts_are_drawn_as_the_gate_says_and_numbers_as_the_experts():
    method = methods.create(config_of())
    law = {'experts': {'mean': jnp.array([0.0, 10.0, 20.0]), 'log_sigma': jnp.log(jnp.array([1.0, 2.0, 0.5]))}}
    log_pi = jnp.log(jnp.broadcast_to(jnp.array([0.5, 0.2, 0.3]), (4000, 3)))
    z = np.asarray(jax.jit(method.draw_numbers)(law, log_pi, jax.random.split(jax.random.key(0), 4000)))
    parts = [z[z < 5], z[(z >= 5) & (z < 17)], z[z >= 17]]
    np.testing.assert_allclose([len(part) / 4000 for part in parts], [0.5, 0.2, 0.3], atol=0.03)
    np.testing.assert_allclose([part.mean() for part in parts], [0, 10, 20], atol=0.2)
    np.testing.assert_allclose([part.std() for part in parts], [1, 2, 0.5], rtol=0.1)


def test_two_masks_and_their_shares_are_learned():
    """The gate and its experts can hold any shares of a few masks exactly."""
    method = methods.create(config_of(**{'train.num_steps': 300, 'method.experts': 4}))
    learned = known_distribution.learn(method, 300, batch_size=4, learning_rate=1e-2)
    assert abs(learned.share - known_distribution.SHARE) < 0.08 and learned.error < 1


def test_the_masks_of_an_image_share_its_network_and_what_is_recommended_can_be_run():
    assert methods.create(config_of(**{'sample.num_samples': 16})).evaluations == 1 / 16
    config = methods.recommend(config_of())
    assert (config.optim.learning_rate, config.train.batch_size) == (1e-3, 16)
    methods.create(config)


def test_fields_that_do_not_fit_are_told_in_a_line():
    with pytest.raises(UserError, match=r'image_size=8 is not a multiple of 16, .*method.filters'):
        methods.create(config_of(**{'method.filters': (8, 8, 8, 8, 8)}))
    with pytest.raises(UserError, match='must be multiples of num_groups=3'):
        methods.create(config_of(**{'method.num_groups': 3}))
    with pytest.raises(UserError, match=r'method.gamma=0.1: 6 masks .* set it to 0.167'):
        methods.create(config_of(**{'method.gamma': 0.1}))
