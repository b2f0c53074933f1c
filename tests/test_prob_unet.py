"""The Probabilistic U-Net: its loss against float64 NumPy, its draws, and a known distribution that it learns."""

import jax
import jax.numpy as jnp
import known_distribution
import numpy as np
import pytest
import tiny

from ambdiff import methods, sampling
from ambdiff.config import default
from ambdiff.errors import UserError
from ambdiff.methods.kit import masks

RNG = np.random.default_rng(0)
BATCH = {
    'image': RNG.random((3, 8, 8, 1), np.float32),
    'masks': (RNG.random((3, 3, 8, 8)) > 0.6).astype(np.uint8),
    'present': np.array([[True, True, True], [True, False, True], [False, True, False]]),
}


def create(num_classes=1, **own):
    config = default('prob_unet')
    config.data.image_size, config.data.num_classes = 8, num_classes
    small = {'filters': (8, 16), 'num_layers': 1, 'latent_dim': 2, 'head_layers': 3}
    config.method.update({**small, **own})
    return methods.create(config)


@pytest.fixture(scope='module')
def built():
    """(method, params, loss compiled)."""
    method = create(latent_dim=3, image_range=(-1.0, 1.0), kl_weight=5.0)
    return method, tiny.params(method, BATCH['image'], away=0.1), jax.jit(method.loss)


def test_loss_is_the_cross_entropy_of_all_pixels_and_the_weighted_divergence(built):
    method, params, loss = built
    key = jax.random.key(3)
    value, parts, _ = loss(params, {}, BATCH, key)

    rater_key, draw_key, _ = jax.random.split(key, 3)
    y = masks.of_rater(jnp.asarray(BATCH['masks']), masks.draw_rater(rater_key, jnp.asarray(BATCH['present'])))
    x = 2 * BATCH['image'] - 1

    @jax.jit
    def networks(params):
        prior = method.encoder.apply({'params': params['prior']}, x)
        posterior = method.encoder.apply({'params': params['posterior']}, jnp.concatenate([x, y[..., None]], -1))
        features, _ = method.unet.apply({'params': params['unet']}, x)
        return prior, posterior, features, posterior.draw_relaxed(draw_key, 1, 1.0)

    prior, posterior, features, z = networks(params)
    z = np.float64(z[:, 0])

    head = jax.tree.map(np.float64, params['head'])
    h = np.concatenate([np.float64(features), np.broadcast_to(z[:, None, None], (3, 8, 8, 3))], -1)
    h = np.maximum(h @ head['kernel'] + head['bias'], 0)
    h = np.maximum(h @ head['layers_0']['kernel'] + head['layers_0']['bias'], 0)
    logits = (h @ head['last']['kernel'] + head['last']['bias'])[..., 0]
    cross_entropy = np.logaddexp(0, np.where(np.asarray(y) > 0, -logits, logits)).sum((1, 2))
    np.testing.assert_allclose(parts['cross_entropy'], cross_entropy, rtol=1e-5)

    sigma = lambda law: np.diagonal(np.float64(law.scale[:, 0]), axis1=1, axis2=2)
    a, b = sigma(posterior), sigma(prior)
    away = np.float64(posterior.mean - prior.mean)[:, 0]
    kl = (np.log(b / a) + (a**2 + away**2) / (2 * b**2) - 0.5).sum(-1)
    np.testing.assert_allclose(parts['kl'], 5 * kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, parts['cross_entropy'] + parts['kl'], rtol=1e-6)


def test_an_absent_raters_mask_does_not_reach_the_loss(built):
    _, params, loss = built
    changed = {**BATCH, 'masks': np.where(BATCH['present'][..., None, None], BATCH['masks'], 1 - BATCH['masks'])}
    before, after = (loss(params, {}, batch, jax.random.key(0))[0] for batch in (BATCH, changed))
    np.testing.assert_array_equal(before, after)


def test_masks_follow_from_the_images_key_alone_and_need_no_posterior(built):
    method, params, _ = built
    params = method.for_sampling(params)
    assert set(params) == {'unet', 'prior', 'head'}
    draw = jax.jit(lambda x, k, parts: method.sample(params, {}, x, k, 6, parts), static_argnums=2)
    keys, order = sampling.image_keys(jax.random.key(1), range(3)), np.array([2, 0, 1])
    drawn = np.asarray(draw(BATCH['image'], keys, 1))
    assert drawn.shape == (3, 6, 8, 8) and drawn.dtype == bool
    assert len(np.unique(drawn.reshape(18, -1), axis=0)) > 3
    np.testing.assert_array_equal(drawn[order], draw(BATCH['image'][order], keys[order], 1))
    np.testing.assert_array_equal(drawn, draw(BATCH['image'], keys, 3))


def test_every_network_learns_with_a_mixture_and_several_classes():
    method = create(num_classes=2, latent='mixture', kl_draws=8, num_groups=4)
    params = tiny.params(method, BATCH['image'], away=0.1)
    batch = {**BATCH, 'masks': BATCH['masks'] + BATCH['masks'][:, ::-1]}
    gradient = jax.jit(jax.grad(lambda p: method.loss(p, {}, batch, jax.random.key(0))[0].mean()))(params)
    assert set(gradient) == {'unet', 'prior', 'posterior', 'head'}
    for network in gradient.values():
        largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(network))
        assert np.isfinite(largest) and largest > 0
    draw = jax.jit(lambda p, keys: method.sample(p, {}, BATCH['image'], keys, 2))
    drawn = np.asarray(draw(params, jax.random.split(jax.random.key(1), 3)))
    assert drawn.shape == (3, 2, 8, 8) and drawn.dtype == np.uint8 and set(np.unique(drawn)) <= {0, 1, 2}


@pytest.mark.parametrize('family', ['axis', 'mixture'])
def test_two_masks_are_learned_with_their_shares(family):
    # With w = 1 the loss is an upper bound of a rater's mean - log p(y), which is least where the model is the raters':
    # their entropy, .611 nats. Two Gaussians can be two answers; one is cut by the head, which costs some more. Before
    # the posterior tells the raters apart there is a long plateau, as of no latent at all: 300 steps do not leave it.
    method = create(latent=family, components=2, kl_draws=30, kl_weight=1.0)
    learned = known_distribution.learn(method, steps=1000, learning_rate=5e-3, num_samples=1000)
    assert abs(learned.share - known_distribution.SHARE) < 0.1
    assert learned.error < 1  # of 16 pixels in which the two masks differ
    reached = learned.loss[-200:].mean()
    assert 0.55 < reached < (0.75 if family == 'mixture' else 1.6)


def test_recommended_settings_are_the_public_codes():
    config = methods.recommend(default('prob_unet'))
    assert (config.optim.learning_rate, config.train.batch_size, config.optim.clip_norm) == (1e-4, 5, 0.0)
    methods.check(config)
    assert methods.create(config).evaluations == 1 / config.sample.num_samples


@pytest.mark.parametrize(
    ('own', 'said'),
    [
        ({'filters': (4,) * 5}, 'config.data.image_size=8 is not a multiple of 16'),
        ({'filters': ()}, 'config.method.filters needs'),
        ({'num_groups': 3}, r'config.method.filters=\(8, 16\) must be multiples of num_groups=3'),
        ({'latent': 'cauchy'}, 'use one of axis, low_rank, full, mixture'),
    ],
)
def test_fields_that_do_not_suit_are_told(own, said):
    with pytest.raises(UserError, match=said):
        create(**own)
