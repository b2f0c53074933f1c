"""The method flow_ssn: its loss and its steps against float64 NumPy, the limit of one step, a known distribution."""

import jax
import jax.numpy as jnp
import known_distribution
import numpy as np
import pytest
import tiny
from scipy.special import softmax

from ambdiff import finite, methods, sampling
from ambdiff.config import default, small
from ambdiff.diffusion import starts
from ambdiff.errors import UserError
from ambdiff.methods.kit import masks as raters_and_masks

BATCH = {
    'image': np.random.default_rng(0).random((3, 8, 8, 1), np.float32),
    'masks': (np.random.default_rng(1).random((3, 4, 8, 8)) > 0.6).astype(np.uint8),
    'present': np.eye(4, dtype=bool)[[3, 0, 2]],
}
KEYS = sampling.image_keys(jax.random.key(1), range(3))


def config_of(**given):
    small = {'data.image_size': 8, 'model.patch_size': 1, 'method.flow_channels': 8, 'method.flow_mult': (1, 1)}
    return tiny.config('unused', 'flow_ssn', **{**small, **given})


@pytest.fixture(scope='module')
def built():
    """(method of 3 steps, params away from their start, loss compiled)."""
    method = methods.create(config_of(**{'sample.num_steps': 3}))
    params = tiny.params(method, BATCH['image'], away=0.3)
    for network in params.values():  # else one class is everywhere
        network['out_2']['bias'] *= 0
    return method, params, jax.jit(method.loss)


def test_loss_is_equation_2(built):
    method, params, loss = built
    key = jax.random.key(7)
    value, parts, state = loss(params, {}, BATCH, key)
    assert state == {}
    _, t_key, noise_key, *_ = jax.random.split(key, 5)
    t = np.float64(jax.random.uniform(t_key, (3,)))
    u = np.float64(method.mean(params, BATCH['image'])) + np.float64(jax.random.normal(noise_key, (3, 8, 8, 2)))
    y = np.eye(2)[BATCH['masks'][range(3), (3, 0, 2)]]
    yt = (1 - t)[:, None, None, None] * u + t[:, None, None, None] * y
    guess = softmax(np.float64(method.guess(params, np.float32(yt), np.float32(t))), axis=-1)
    np.testing.assert_allclose(value, -np.log((guess * y).sum(-1)).mean((1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(value, parts['cross_entropy'])


def test_an_absent_raters_mask_does_not_reach_the_loss_and_both_networks_learn(built):
    _, params, loss = built
    changed = {**BATCH, 'masks': np.where(BATCH['present'][..., None, None], BATCH['masks'], 1 - BATCH['masks'])}
    of = lambda batch: loss(params, {}, batch, jax.random.key(0))[0]
    np.testing.assert_array_equal(of(BATCH), of(changed))
    gradient = jax.jit(jax.grad(lambda p: loss(p, {}, BATCH, jax.random.key(0))[0].mean()))(params)
    for name in ('unet', 'flow'):
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient[name])) > 0, name


@pytest.fixture(scope='module')
def start(built):
    """u [3, 4, 8, 8, 2] of 4 masks an image, in float64."""
    method, params, _ = built
    rows = raters_and_masks.mask_keys(KEYS, 4)
    noise = jax.vmap(lambda row: starts.row_noise(row, 0, (8, 8, 2)))(rows)
    return np.float64(method.mean(params, BATCH['image']))[:, None] + np.float64(noise)


@pytest.mark.parametrize('steps', [1, 3])
def test_masks_are_those_of_eulers_steps_and_one_step_is_the_guess_at_the_start(built, start, steps):
    method, params, _ = built
    method = methods.create(config_of(**{'sample.num_steps': steps}))
    given = np.asarray(jax.jit(lambda x: method.sample(params, {}, x, KEYS, 4))(BATCH['image']))
    u = start.reshape(12, 8, 8, 2)
    guess = lambda y, t: softmax(np.float64(method.guess(params, np.float32(y), np.full(12, t, np.float32))), axis=-1)
    y = u
    for k in range(steps):
        y = y + (guess(y, k / steps) - u) / steps
    if steps == 1:
        np.testing.assert_allclose(y, guess(u, 0.0), atol=1e-6)
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)  # a mean of probabilities: nothing is left of the noise
    sure = np.abs(y[..., 1] - y[..., 0]) > 1e-4
    assert sure.mean() > 0.99 and 0.01 < given.mean() < 0.99
    np.testing.assert_array_equal(given.reshape(12, 8, 8)[sure], (y[..., 1] > y[..., 0])[sure])


def test_masks_follow_from_the_images_key_alone_in_any_parts_and_nan_is_told(built):
    method, params, _ = built
    images = BATCH['image']
    draw = jax.jit(lambda x, k, parts: method.sample(params, {}, x, k, 4, parts), static_argnums=2)
    masks = np.asarray(draw(images, KEYS, 1))
    assert masks.shape == (3, 4, 8, 8) and masks.dtype == bool and (masks[:, 0] != masks[:, 1]).any()
    np.testing.assert_array_equal(masks, draw(images, KEYS, 2))
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(masks[order], draw(images[order], KEYS[order], 1))
    error, _ = jax.jit(finite.seen(lambda x: method.sample(params, {}, x, KEYS, 4)))(np.full_like(images, np.nan))
    assert error.get()


def test_several_classes_give_labels():
    method = methods.create(config_of(**{'data.num_classes': 2}))
    batch = {**BATCH, 'masks': 2 * BATCH['masks']}
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss, _, _ = jax.eval_shape(method.loss, params, state, batch, jax.random.key(0))
    masks = jax.eval_shape(lambda *given: method.sample(*given, KEYS, 4), params, state, batch['image'])
    assert loss.shape == (3,) and masks.shape == (3, 4, 8, 8) and masks.dtype == np.uint8


def test_two_masks_and_their_shares_are_learned():
    """With a perfect guess and many steps the flow ends in the raters' distribution."""
    method = methods.create(config_of(**{'sample.num_steps': 10, 'data.image_size': 4, 'method.flow_mult': (1,)}))
    learned = known_distribution.learn(method, 200, batch_size=32, learning_rate=1e-2, size=4)
    assert abs(learned.share - known_distribution.SHARE) < 0.12 and learned.error < 0.3


@pytest.mark.parametrize('size', [64, 128])
def test_what_is_recommended_can_be_made_and_the_large_network_is_shared(size):
    config = small(default('flow_ssn'))
    config.data.image_size, config.sample.num_samples = size, 16
    method = methods.create(methods.recommend(config))
    assert method.evaluations == config.sample.num_steps + 1 / 16
    params, _ = jax.eval_shape(method.init, jax.random.key(0), {'image': np.zeros((1, size, size, 1), np.float32)})
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(params['flow']) < count(params['unet']) / 20


def test_fields_that_do_not_fit_are_told_in_a_line():
    with pytest.raises(UserError, match=r'image_size=8 is not a multiple of 16, .*method.flow_mult'):
        methods.create(config_of(**{'method.flow_mult': (1, 1, 1, 1, 1)}))
    with pytest.raises(UserError, match=r'sample.num_steps=0 is out of range'):
        methods.create(config_of(**{'sample.num_steps': 0}))
