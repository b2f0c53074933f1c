"""PHiSeg: its loss against float64 NumPy, the order of its latents, its draws, and a known distribution it learns."""

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
from ambdiff.models import latent_pyramid

RNG = np.random.default_rng(0)
BATCH = {
    'image': RNG.random((3, 8, 8, 1), np.float32),
    'masks': (RNG.random((3, 3, 8, 8)) > 0.6).astype(np.uint8),
    'present': np.array([[True, True, True], [True, False, True], [False, True, False]]),
}


def create(num_classes=1, **own):
    config = default('phiseg')
    config.data.image_size, config.data.num_classes = 8, num_classes
    small = {'filters': (4, 4, 6, 6), 'latent_levels': 3, 'num_layers': 1, 'num_groups': 2}
    config.method.update({**small, **own})
    return methods.create(config)


@pytest.fixture(scope='module')
def built():
    """(method, params, loss compiled)."""
    method = create(kl_weight=0.5)
    return method, tiny.params(method, BATCH['image'], away=0.3), jax.jit(method.loss)


@pytest.fixture(scope='module')
def drawn(built):
    """(the sampler compiled, keys of the images, 6 masks of each): without the posterior."""
    method, params, _ = built
    params = method.for_sampling(params)
    assert set(params) == {'prior', 'decoder'}
    draw = jax.jit(lambda x, k: method.sample(params, {}, x, k, 6, 2))
    keys = sampling.image_keys(jax.random.key(1), range(3))
    return draw, keys, np.asarray(draw(BATCH['image'], keys))


def test_divergence_of_maps_is_numpys_and_monte_carlos():
    arrays = [RNG.normal(size=(2, 2, 3, 2)) for _ in range(2)] + [RNG.uniform(0.5, 2, (2, 2, 3, 2)) for _ in range(2)]
    mean_q, mean_p, sigma_q, sigma_p = arrays
    law = lambda mean, sigma: latent_pyramid.Law(jnp.asarray(mean, jnp.float32), jnp.asarray(sigma, jnp.float32))
    got = np.asarray(latent_pyramid.kl_divergence(law(mean_q, sigma_q), law(mean_p, sigma_p)))
    away = (mean_q - mean_p) / sigma_p
    closed = np.log(sigma_p / sigma_q) + 0.5 * ((sigma_q / sigma_p) ** 2 + away**2 - 1)
    np.testing.assert_allclose(got, closed.sum((1, 2, 3)), rtol=1e-5)
    z = mean_q + sigma_q * RNG.normal(size=(40_000, *mean_q.shape))
    log = lambda mean, sigma: -np.log(sigma) - 0.5 * ((z - mean) / sigma) ** 2
    np.testing.assert_allclose(got, (log(mean_q, sigma_q) - log(mean_p, sigma_p)).mean(0).sum((1, 2, 3)), rtol=0.02)


def test_loss_is_every_levels_cross_entropy_and_divergence_weighed_by_powers_of_4(built):
    method, params, loss = built
    key = jax.random.key(3)
    value, parts, _ = loss(params, {}, BATCH, key)

    rater_key, noise_key = jax.random.split(key)
    y = masks.of_rater(jnp.asarray(BATCH['masks']), masks.draw_rater(rater_key, jnp.asarray(BATCH['present'])))
    one_hot = np.stack([1 - np.asarray(y), y], -1).astype(np.float32)
    seen = {'prior': BATCH['image'] - 0.5, 'posterior': np.concatenate([BATCH['image'], one_hot], -1) - 0.5}

    @jax.jit
    def networks(params):
        latents = {}

        def from_posterior(i, law):
            latents[i] = law.mean + law.sigma * jax.random.normal(jax.random.fold_in(noise_key, i), law.mean.shape)
            return latents[i]

        def laws(network, draw):
            features = method.encoder.apply({'params': params[network]['encoder']}, seen[network])
            assert [f.shape[1] for f in features] == [8, 4, 2, 1]
            return method.pyramid.apply({'params': params[network]['latents']}, features[1:], draw)

        q, p = laws('posterior', from_posterior), laws('prior', lambda i, _: latents[i])
        return q, p, method.decoder.apply({'params': params['decoder']}, [latents[i] for i in range(3)])

    q, p, decoded = networks(params)
    assert [law.mean.shape[1:] for law in p] == [(4, 4, 2), (2, 2, 2), (1, 1, 2)]
    for i in range(3):
        mean_q, sigma_q, mean_p, sigma_p = (np.float64(a) for a in (*q[i], *p[i]))
        kl = np.log(sigma_p / sigma_q) + (sigma_q**2 + (mean_q - mean_p) ** 2) / (2 * sigma_p**2) - 0.5
        np.testing.assert_allclose(parts[f'kl_{i}'], 0.5 * (1, 4, 16)[i] * kl.sum((1, 2, 3)), rtol=1e-4)
    for i, logits in enumerate(decoded):
        logits = np.float64(logits)
        of_y = np.take_along_axis(logits, np.asarray(y)[..., None].astype(int), -1)[..., 0]
        cross_entropy = np.log(np.exp(logits).sum(-1)) - of_y
        np.testing.assert_allclose(parts[f'cross_entropy_{i}'], cross_entropy.sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(value, sum(parts.values()), rtol=1e-6)


def test_finer_levels_add_to_the_logits_of_coarser_ones_and_reach_no_others(built):
    method, params, _ = built
    decode = jax.jit(lambda latents: method.decoder.apply({'params': params['decoder']}, latents))
    latents = [jnp.asarray(RNG.normal(size=(1, n, n, 2)), jnp.float32) for n in (4, 2, 1)]
    sums = [np.asarray(logits) for logits in decode(latents)]
    for level in range(3):
        changed = decode([z + 1.0 if i == level else z for i, z in enumerate(latents)])
        for i in range(3):
            assert np.array_equal(changed[i], sums[i]) == (i > level)
    for i in (1, 2):  # a level's own part is enlarged from 1 / 2^i of the resolution
        own = sums[i] - (sums[i + 1] if i < 2 else 0)
        blocks = own.reshape(8 // 2**i, 2**i, 8 // 2**i, 2**i, 2)
        np.testing.assert_allclose(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape), atol=1e-5)
        assert np.ptp(blocks) > 1e-3


def test_a_latent_follows_from_the_next_coarser_one_alone(built):
    method, params, _ = built

    @jax.jit
    def laws(latents):
        features = method.encoder.apply({'params': params['prior']['encoder']}, BATCH['image'])[1:]
        return method.pyramid.apply({'params': params['prior']['latents']}, features, lambda i, _: latents[i])

    latents = [jnp.asarray(RNG.normal(size=(3, n, n, 2)), jnp.float32) for n in (4, 2, 1)]
    before = laws(latents)
    for changed in range(3):
        after = laws([z + 1.0 if i == changed else z for i, z in enumerate(latents)])
        for i in range(3):
            assert np.array_equal(before[i].mean, after[i].mean) == (i != changed - 1)


def test_an_absent_raters_mask_does_not_reach_the_loss(built):
    _, params, loss = built
    changed = {**BATCH, 'masks': np.where(BATCH['present'][..., None, None], BATCH['masks'], 1 - BATCH['masks'])}
    before, after = (loss(params, {}, batch, jax.random.key(0))[0] for batch in (BATCH, changed))
    np.testing.assert_array_equal(before, after)


def test_masks_follow_from_the_images_key_alone_and_need_no_posterior(drawn):
    draw, keys, masks_drawn = drawn
    assert masks_drawn.shape == (3, 6, 8, 8) and masks_drawn.dtype == bool
    assert len(np.unique(masks_drawn.reshape(18, -1), axis=0)) > 9
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(masks_drawn[order], draw(BATCH['image'][order], keys[order]))


def test_two_masks_are_learned_with_their_shares():
    method = create(filters=(8, 8, 8), latent_levels=2, latent_dim=1)
    learned = known_distribution.learn(method, steps=1000, learning_rate=5e-3, num_samples=1000)
    assert abs(learned.share - known_distribution.SHARE) < 0.1
    assert learned.error < 1  # of 16 pixels in which the two masks differ
    # The last cross-entropy and the divergences bound the raters' entropy, .611 nats, from above.
    assert 0.55 < learned.loss[-200:].mean() < 6


def test_every_network_learns_several_classes_without_norms():
    method = create(num_classes=2, num_groups=0, filters=(4, 6), latent_levels=1)
    params = tiny.params(method, BATCH['image'], away=0.1)
    batch = {**BATCH, 'masks': BATCH['masks'] + BATCH['masks'][:, ::-1]}
    gradient = jax.jit(jax.grad(lambda p: method.loss(p, {}, batch, jax.random.key(0))[0].mean()))(params)
    assert set(gradient) == {'prior', 'posterior', 'decoder'}
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0
    draw = jax.jit(lambda p, keys: method.sample(p, {}, BATCH['image'], keys, 2))
    masks_drawn = np.asarray(draw(params, jax.random.split(jax.random.key(1), 3)))
    assert masks_drawn.dtype == np.uint8 and set(np.unique(masks_drawn)) <= {0, 1, 2}


@pytest.mark.parametrize(('image_size', 'levels'), [(128, (7, 5)), (64, (6, 4)), (16, (4, 2)), (256, (7, 5))])
def test_recommended_settings_are_the_public_codes_with_a_coarsest_latent_of_2_pixels(image_size, levels):
    config = default('phiseg')
    config.data.image_size = image_size
    methods.recommend(config)
    clip = 0.0 if image_size >= 128 else 1.0  # as published only where runs are as long as published ones
    assert (config.optim.learning_rate, config.train.batch_size, config.optim.clip_norm) == (1e-3, 12, clip)
    assert (len(config.method.filters), config.method.latent_levels) == levels
    assert methods.create(config).encoder.filters[:3] == (32, 64, 128)


@pytest.mark.parametrize(
    ('own', 'said'),
    [
        ({'filters': (4,) * 5}, 'config.data.image_size=8 is not a multiple of 16'),
        ({'latent_levels': 5}, 'config.method.latent_levels=5 is more than the 4 resolutions'),
        ({'num_groups': 4}, 'must be multiples of num_groups=4'),
    ],
)
def test_fields_that_do_not_suit_are_told(own, said):
    with pytest.raises(UserError, match=said):
        create(**own)
