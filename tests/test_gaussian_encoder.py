"""AMN and ACN against the released code's numbers and float64 NumPy; the KL against its general form."""

import archives
import jax
import numpy as np
import pytest
import reference

from ambdiff import convert
from ambdiff.models.gaussian_encoder import GaussianEncoder, axis_aligned_kl, mean_pool_ceil


def _shapes(latent_dim=6):
    """{name: shape} of the released encoder."""
    shapes, channels = {}, 2
    filters = [n for n in (32, 64, 128, 192) for _ in range(3)]
    for index, out in zip((0, 2, 4, 7, 9, 11, 14, 16, 18, 21, 23, 25), filters, strict=True):
        shapes[f'encoder.layers.{index}.weight'] = (out, channels, 3, 3)
        shapes[f'encoder.layers.{index}.bias'] = (out,)
        channels = out
    shapes['conv_layer.weight'] = (2 * latent_dim, channels, 1, 1)
    shapes['conv_layer.bias'] = (2 * latent_dim,)
    return shapes


def test_encoders_and_their_distance_are_the_released_codes(shared, record_property):
    file = archives.read(shared / 'fixtures' / 'encoders.npz')
    assert {n: tuple(s) for n, s in reference.shapes_in(file).items()} == _shapes()
    image = reference.nhwc(file['image'])
    answers = {}
    for name, mask in (('amn', file['mask']), ('acn', file['pred'])):
        weights = reference.seeded_weights(int(file[f'{name}_seed']), _shapes())
        module, variables = convert.encoder_from_torch(weights, 6)
        answers[name] = jax.jit(module.apply)(variables, image, reference.nhwc(mask))
        mu, log_sigma = answers[name]
        for key, ours in (('mu', mu), ('sigma', np.exp(log_sigma))):
            error = reference.relative_error(ours, file[f'{name}_{key}'])
            record_property(f'{name}_{key}', float(error))
            assert error < 2e-6
    kl = axis_aligned_kl(*answers['amn'], *answers['acn'])
    record_property('kl', float(reference.relative_error(kl, file['kl'])))
    np.testing.assert_allclose(kl, file['kl'], rtol=1e-5)


def test_encoder_is_that_of_a_float64_implementation_at_an_odd_size():
    weights = reference.seeded_weights(4, _shapes(latent_dim=3))
    module, variables = convert.encoder_from_torch(weights, 3)
    rng = np.random.default_rng(0)
    image, mask = rng.uniform(size=(2, 1, 11, 13)), rng.integers(0, 2, (2, 1, 11, 13))
    want = reference.encoder(weights, image, mask)
    got = jax.jit(module.apply)(variables, reference.nhwc(image), reference.nhwc(mask))
    for ours, theirs in zip(got, want, strict=True):
        assert ours.shape == (2, 3)
        assert reference.relative_error(ours, theirs) < 2e-6


def test_fresh_encoders_tell_masks_apart():
    mask = np.stack([np.zeros((8, 8, 1)), np.ones((8, 8, 1))]).astype(np.float32)
    init = jax.jit(GaussianEncoder(2, filters=(4,)).init_with_output)
    (mu, log_sigma), _ = init(jax.random.key(0), np.zeros_like(mask), mask)
    assert np.abs(np.asarray(mu[0] - mu[1])).max() > 1e-3
    assert np.abs(np.asarray(log_sigma[0] - log_sigma[1])).max() > 1e-3


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (1, 1)])
def test_pooling_averages_what_is_there_at_an_odd_border(size):
    x = np.random.default_rng(0).normal(size=(2, 3, *size))
    got = reference.nchw(mean_pool_ceil(reference.nhwc(x)))
    np.testing.assert_allclose(got, reference.mean_pool_ceil(x), atol=1e-6)


def test_distance_is_the_kullback_leibler_divergence_of_diagonal_gaussians():
    rng = np.random.default_rng(0)
    mu_a, log_a, mu_c, log_c = rng.normal(size=(4, 5, 3))
    a, c = (np.exp(2 * log)[:, None] * np.eye(3) for log in (log_a, log_c))
    trace = np.trace(np.linalg.inv(c) @ a, axis1=1, axis2=2)
    gap = (mu_c - mu_a)[:, None]
    distance = (gap @ np.linalg.inv(c) @ gap.swapaxes(1, 2))[:, 0, 0]
    want = (trace + distance - 3 + np.linalg.slogdet(c)[1] - np.linalg.slogdet(a)[1]) / 2
    got = axis_aligned_kl(*(x.astype(np.float32) for x in (mu_a, log_a, mu_c, log_c)))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_distance_of_a_gaussian_to_itself_is_zero():
    mu, log_sigma = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(axis_aligned_kl(mu, log_sigma, mu, log_sigma), 0, atol=1e-6)
