"""The method ssn: its law of low rank against float64 NumPy and SciPy, its loss, its draws, a known distribution."""

import jax
import jax.numpy as jnp
import known_distribution
import numpy as np
import pytest
import tiny
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from ambdiff import finite, methods, sampling
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Weights
from ambdiff.models.low_rank_normal import LowRankHead, LowRankNormal

BATCH = {
    'image': np.random.default_rng(0).random((3, 8, 8, 1), np.float32),
    'masks': (np.random.default_rng(1).random((3, 4, 8, 8)) > 0.6).astype(np.uint8),
    'present': np.array([[True, True, True, True], [True, False, False, False], [False, False, True, False]]),
}
NOW = {'step': jnp.int32(0)}


def config_of(**given):
    small = {'data.image_size': 8, 'method.filters': (8, 8), 'method.num_groups': 2, 'method.rank': 3}
    return tiny.config('unused', 'ssn', **{**small, **given})


@pytest.fixture(scope='module')
def law():
    """(LowRankNormal of 2 images of 2 x 3 pixels and 2 classes, rank 2; mean [2, 12] and covariance in float64)."""
    rng = np.random.default_rng(2)
    mean, variance = rng.normal(size=(2, 2, 3, 2)), rng.uniform(0.2, 1, (2, 2, 3, 2))
    factor = rng.normal(size=(2, 2, 3, 2, 2))
    f = factor.reshape(2, 12, 2)
    covariance = f @ np.swapaxes(f, 1, 2) + np.stack([np.diag(v.ravel()) for v in variance])
    arrays = (jnp.asarray(x, jnp.float32) for x in (mean, variance, factor))
    return LowRankNormal(*arrays), mean.reshape(2, 12), covariance


def test_log_density_is_that_of_the_whole_covariance(law):
    normal, mean, covariance = law
    eta = np.random.default_rng(3).normal(size=(2, 2, 3, 2))
    expected = [multivariate_normal(mean[b], covariance[b]).logpdf(eta[b].ravel()) for b in range(2)]
    np.testing.assert_allclose(jax.jit(normal.log_density)(jnp.asarray(eta, jnp.float32)), expected, rtol=1e-4)


def test_draws_have_the_mean_and_the_covariance(law):
    normal, mean, covariance = law
    rng = np.random.default_rng(4)
    z, eps = rng.normal(size=(2, 40_000, 2)), rng.normal(size=(2, 40_000, 2, 3, 2))
    draws = np.asarray(jax.jit(normal.at)(np.float32(z), np.float32(eps))).reshape(2, -1, 12)
    np.testing.assert_allclose(draws.mean(1), mean, atol=0.04)
    np.testing.assert_allclose([np.cov(d.T) for d in draws], covariance, atol=0.12)


def test_the_heads_spread_is_the_networks_where_small_and_stays_below_the_limit():
    head = LowRankHead(2, rank=3, limit=5.0, num_layers=0)
    h = jnp.ones((1, 1, 1, 1))
    params = jax.tree.map(jnp.zeros_like, head.init(jax.random.key(0), h)['params'])
    for value, deviation, factor in ((-3.0, np.exp(-1.5), -2.6), (100.0, 5.0, 5.0)):
        params['log_variance']['bias'] = jnp.full(2, value)
        params['factor']['bias'] = jnp.full(6, value)
        law = head.apply({'params': params}, h)
        np.testing.assert_allclose(jnp.sqrt(law.variance), np.full((1, 1, 1, 2), deviation), rtol=2e-3)
        np.testing.assert_allclose(law.factor, np.full((1, 1, 1, 2, 3), factor), rtol=0.05)


@pytest.fixture(scope='module')
def built():
    """(method with independent draws, params away from their start, loss compiled)."""
    method = methods.create(config_of(**{'method.draws': 5, 'train.num_steps': 100}))
    return method, tiny.params(method, BATCH['image'], away=0.3), jax.jit(method.loss)


def log_softmax_of(eta, y):
    """Of the labels y of pixels, summed over them: eta [M, H, W, 2]."""
    log_p = eta - logsumexp(eta, axis=-1, keepdims=True)
    return np.where(y[None] == 1, log_p[..., 1], log_p[..., 0]).sum((1, 2))


@pytest.mark.parametrize('antithetic', [False, True])
def test_loss_is_equation_2(built, antithetic):
    method, params, loss = built
    if antithetic:
        method = methods.create(config_of(**{'method.antithetic': True, 'method.draws': 6, 'method.mean_share': 0.0}))
        loss = jax.jit(method.loss)
    only = {**BATCH, 'present': np.eye(4, dtype=bool)[[3, 0, 2]]}  # whom the rater's draw can not miss
    key = jax.random.key(7)
    value, _, state = loss(params, {'step': jnp.int32(19)}, only, key)
    assert int(state['step']) == 20
    law = jax.tree.map(np.float64, method.law(params, BATCH['image']))
    _, z_key, eps_key = jax.random.split(key, 3)
    count = 3 if antithetic else 5
    z = np.float64(jax.random.normal(z_key, (3, count, 3)))
    eps = np.float64(jax.random.normal(eps_key, (3, count, 8, 8, 2)))
    for b, rater in enumerate((3, 0, 2)):
        away = np.einsum('hwkr,mr->mhwk', law.factor[b], z[b]) + np.sqrt(law.variance[b]) * eps[b]
        eta = law.mean[b] + (np.concatenate([away, -away]) if antithetic else away)
        expected = np.log(len(eta)) - logsumexp(log_softmax_of(eta, BATCH['masks'][b, rater]))
        np.testing.assert_allclose(value[b], expected, rtol=1e-4)


def test_the_first_share_of_a_run_learns_the_mean_alone_and_the_spread_comes_in_over_the_next(built):
    method, params, loss = built
    only = {**BATCH, 'present': np.eye(4, dtype=bool)[[3, 0, 2]]}
    mean = np.float64(method.law(params, BATCH['image']).mean)
    expected = [-log_softmax_of(mean[[b]], BATCH['masks'][b, m])[0] for b, m in enumerate((3, 0, 2))]
    at = lambda step: np.asarray(loss(params, {'step': jnp.int32(step)}, only, jax.random.key(1))[0])
    np.testing.assert_allclose(at(0), expected, rtol=1e-4)
    np.testing.assert_allclose(at(9), expected, rtol=1e-4)
    away = [np.abs(at(step) - expected) for step in (10, 14, 19, 99)]
    assert (away[0] > 1e-3).all() and (away[0] < away[2]).all() and (away[1] != away[2]).all()
    np.testing.assert_array_equal(away[2], away[3])


def test_an_absent_raters_mask_does_not_reach_the_loss_and_every_network_learns(built):
    _, params, loss = built
    changed = {**BATCH, 'masks': np.where(BATCH['present'][..., None, None], BATCH['masks'], 1 - BATCH['masks'])}
    state = {'step': jnp.int32(50)}
    of = lambda batch: loss(params, state, batch, jax.random.key(0))[0]
    np.testing.assert_array_equal(of(BATCH), of(changed))
    gradient = jax.jit(jax.grad(lambda p: loss(p, state, BATCH, jax.random.key(0))[0].mean()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


def test_masks_follow_from_the_images_key_alone_in_any_parts_and_nan_is_told(built):
    method, params, _ = built
    images, keys = BATCH['image'], sampling.image_keys(jax.random.key(1), range(3))
    draw = jax.jit(lambda w, x, k, parts: method.sample(*w, x, k, 4, parts), static_argnums=3)
    masks = np.asarray(draw(Weights(params, NOW), images, keys, 1))
    assert masks.shape == (3, 4, 8, 8) and masks.dtype == bool
    assert 0.05 < masks.mean() < 0.95 and (masks[:, 0] != masks[:, 1]).any()
    np.testing.assert_array_equal(masks, draw(Weights(params, NOW), images, keys, 2))
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(masks[order], draw(Weights(params, NOW), images[order], keys[order], 1))
    error, _ = jax.jit(finite.seen(lambda x: method.sample(params, NOW, x, keys, 4)))(np.full_like(images, np.nan))
    assert error.get()


def test_several_classes_give_labels():
    method = methods.create(config_of(**{'data.num_classes': 2}))
    batch = {**BATCH, 'masks': 2 * BATCH['masks']}
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss, _, _ = jax.eval_shape(method.loss, params, state, batch, jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 3)
    masks = jax.eval_shape(lambda *given: method.sample(*given, keys, 4), params, state, batch['image'])
    assert loss.shape == (3,) and masks.shape == (3, 4, 8, 8) and masks.dtype == np.uint8


def test_two_masks_and_their_shares_are_learned():
    """One number moves all pixels in which the two masks differ: rank 1 can hold both, with any shares."""
    method = methods.create(config_of(**{'train.num_steps': 1000}))
    learned = known_distribution.learn(method, 1000, learning_rate=2e-2)
    assert abs(learned.share - known_distribution.SHARE) < 0.1 and learned.error < 1


def test_the_masks_of_an_image_share_its_network_and_what_is_recommended_can_be_run():
    assert methods.create(config_of(**{'sample.num_samples': 16})).evaluations == 1 / 16
    config = methods.recommend(config_of())
    assert (config.optim.learning_rate, config.train.batch_size) == (1e-3, 12)
    methods.create(config)


def test_fields_that_do_not_fit_are_told_in_a_line():
    with pytest.raises(UserError, match=r'image_size=8 is not a multiple of 16, .*method.filters'):
        methods.create(config_of(**{'method.filters': (8, 8, 8, 8, 8)}))
    with pytest.raises(UserError, match=r'method\.draws=5 is odd'):
        methods.create(config_of(**{'method.draws': 5, 'method.antithetic': True}))
