"""The method ccdm: its loss and steps against float64 NumPy, a known distribution (its process: test_categorical)."""

import jax
import jax.numpy as jnp
import known_distribution
import numpy as np
import pytest
import tiny
from scipy.special import softmax

from ambdiff import finite, methods, sampling
from ambdiff.errors import UserError

BATCH = {
    'image': np.random.default_rng(0).random((3, 8, 8, 1), np.float32),
    'masks': (np.random.default_rng(1).random((3, 4, 8, 8)) > 0.6).astype(np.uint8),
    'present': np.eye(4, dtype=bool)[[3, 0, 2]],
}
KEYS = sampling.image_keys(jax.random.key(1), range(3))


def config_of(**given):
    small = {
        'data.image_size': 8,
        'model.patch_size': 1,
        'diffusion.num_steps': 40,
        'sample.num_steps': 3,
    }
    return tiny.config('unused', 'ccdm', **{**small, **given})


@pytest.fixture(scope='module')
def built():
    """(method of 3 steps, params away from their start, loss compiled)."""
    method = methods.create(config_of())
    return method, tiny.params(method, BATCH['image'], away=0.3), jax.jit(method.loss)


def step_probs(abar, p, xt, s, t):
    """p(x_s | x_t) by enumerating x_0 and x_s; p and xt [..., 2], s and t numbers."""
    a, eye = abar[t] / abar[s], np.eye(2)
    towards = a * xt + (1 - a) / 2
    result = np.zeros_like(p)
    for k in range(2):
        joint = towards * (abar[s] * eye[k] + (1 - abar[s]) / 2)
        result += p[..., [k]] * joint / joint.sum(-1, keepdims=True)
    return result


def test_loss_is_equation_2(built):
    method, params, loss = built
    key = jax.random.key(7)
    value, _, state = loss(params, {}, BATCH, key)
    assert state == {}
    abar = np.float64(method.process.abar)
    _, t_key, noise_key, _ = jax.random.split(key, 4)
    t = np.asarray(jax.random.randint(t_key, (3,), 1, 41))
    x0 = np.eye(2)[BATCH['masks'][range(3), (3, 0, 2)]]
    q = abar[t][:, None, None, None] * x0 + (1 - abar[t][:, None, None, None]) / 2
    xt = np.eye(2)[np.asarray(jax.random.categorical(noise_key, jnp.log(jnp.float32(q))))]
    p = softmax(np.float64(method.logits(params, BATCH['image'], np.float32(xt), t)), axis=-1)
    for b in range(3):
        truth, model = (step_probs(abar, law, xt[b], t[b] - 1, t[b]) for law in (x0[b], p[b]))
        expected = (truth * (np.log(np.maximum(truth, 1e-12)) - np.log(model))).sum()
        np.testing.assert_allclose(value[b], expected, rtol=1e-3)


def test_an_absent_raters_mask_does_not_reach_the_loss_and_all_parameters_learn(built):
    _, params, loss = built
    changed = {**BATCH, 'masks': np.where(BATCH['present'][..., None, None], BATCH['masks'], 1 - BATCH['masks'])}
    of = lambda batch: loss(params, {}, batch, jax.random.key(0))[0]
    np.testing.assert_array_equal(of(BATCH), of(changed))
    gradient = jax.jit(jax.grad(lambda p: loss(p, {}, BATCH, jax.random.key(0))[0].mean()))(params)
    assert float(jnp.abs(gradient['unet']['input_blocks_0_0']['kernel']).max()) > 0


def test_masks_follow_from_the_images_key_alone_in_any_parts_and_nan_is_told(built):
    method, params, _ = built
    images = BATCH['image']
    draw = jax.jit(lambda x, k, parts: method.sample(params, {}, x, k, 4, parts), static_argnums=2)
    masks = np.asarray(draw(images, KEYS, 1))
    assert masks.shape == (3, 4, 8, 8) and masks.dtype == bool and (masks[:, 0] != masks[:, 1]).any()
    assert 0.05 < masks.mean() < 0.95
    np.testing.assert_array_equal(masks, draw(images, KEYS, 2))
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(masks[order], draw(images[order], KEYS[order], 1))
    error, _ = jax.jit(finite.seen(lambda x: method.sample(params, {}, x, KEYS, 4)))(np.full_like(images, np.nan))
    assert error.get()


class Knows:
    """In the place of the network: p(x_0 | x_t) of pixels that are 1 with the share that the image shows, exactly."""

    def __init__(self, abar):
        self.abar = jnp.asarray(abar)

    def apply(self, _, x, t):
        share = jnp.stack([1 - x[..., 2], x[..., 2]], axis=-1)
        abar = self.abar[t.astype(int)][:, None, None, None]
        return jnp.log(share * (abar * x[..., :2] + (1 - abar) / 2))


def test_with_the_true_answer_steps_of_any_length_end_in_the_pixels_shares():
    """All but the last: its answer is the likeliest, not a draw, as in the public code; what precedes it is a draw."""
    shares = np.linspace(0.1, 0.9, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    for steps in (2, 10):
        method = methods.create(config_of(**{'sample.num_steps': steps, 'method.image_range': (0.0, 1.0)}))
        object.__setattr__(method, 'unet', Knows(method.process.abar))
        masks = jax.jit(lambda x, method=method: method.sample({'unet': None}, {}, x, KEYS[:1], 2000))(shares)
        s = method.process.times(steps)[-2]
        # The last x_s is 1 with q(x_s = 1), and the answer to it 1 where Bayes' rule says more than a half.
        abar = np.float64(method.process.abar[s])
        share = np.float64(shares[0, ..., 0])
        one = abar * share + (1 - abar) / 2
        after = lambda x, abar=abar, share=share: (
            share * (abar * x + (1 - abar) / 2) > (1 - share) * (abar * (1 - x) + (1 - abar) / 2)
        )
        expected = one * after(1) + (1 - one) * after(0)
        close = np.abs(np.asarray(masks)[0].mean(0) - expected)
        assert close.max() < 4 * np.sqrt(0.25 / 2000), (steps, close.max())


def test_several_classes_give_labels():
    method = methods.create(config_of(**{'data.num_classes': 2}))
    batch = {**BATCH, 'masks': 2 * BATCH['masks']}
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss, _, _ = jax.eval_shape(method.loss, params, state, batch, jax.random.key(0))
    masks = jax.eval_shape(lambda *given: method.sample(*given, KEYS, 4), params, state, batch['image'])
    assert loss.shape == (3,) and masks.shape == (3, 4, 8, 8) and masks.dtype == np.uint8


def test_two_masks_and_their_shares_are_learned():
    """A chain of draws holds any distribution of masks."""
    method = methods.create(config_of(**{'diffusion.num_steps': 10, 'sample.num_steps': 10}))
    learned = known_distribution.learn(method, 300, batch_size=16, learning_rate=1e-2)
    assert abs(learned.share - known_distribution.SHARE) < 0.1 and learned.error < 1


@pytest.mark.parametrize('size', [64, 128])
def test_what_is_recommended_can_be_made_and_every_step_is_an_evaluation(size):
    config = methods.recommend(tiny.config('unused', 'ccdm', **{'data.image_size': size}))
    assert methods.create(config).evaluations == config.sample.num_steps
    assert config.diffusion.num_steps == 250


def test_more_steps_than_the_process_has_are_refused():
    with pytest.raises(UserError, match=r'sample.num_steps=41 is out of range: 1 to 40'):
        methods.create(config_of(**{'sample.num_steps': 41}))
