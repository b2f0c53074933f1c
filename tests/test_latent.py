"""Latent distributions against float64 NumPy and SciPy, and their divergences against Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from ambdiff.models import latent


def make(seed, components=1, dim=3, batch=2):
    rng = np.random.default_rng(seed)
    scale = np.tril(rng.normal(0, 0.4, (batch, components, dim, dim)), -1)
    scale += rng.uniform(0.5, 1.5, (batch, components, dim, 1)) * np.eye(dim)
    weight = rng.dirichlet(np.ones(components), batch)
    arrays = (np.log(weight), rng.normal(size=(batch, components, dim)), scale)
    return latent.Latent(*(jnp.asarray(a, jnp.float32) for a in arrays)), arrays


@pytest.mark.parametrize('components', [1, 3])
def test_log_density_is_the_mixtures(components):
    law, (log_weight, mean, scale) = make(0, components)
    z = np.random.default_rng(1).normal(size=(2, 5, 3))
    expected = [
        [
            logsumexp(
                [
                    log_weight[b, k] + multivariate_normal(mean[b, k], scale[b, k] @ scale[b, k].T).logpdf(z[b, n])
                    for k in range(components)
                ]
            )
            for n in range(5)
        ]
        for b in range(2)
    ]
    np.testing.assert_allclose(law.log_density(jnp.asarray(z, jnp.float32)), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize('components', [1, 3])
def test_draws_have_the_mean_and_covariance_of_the_mixture(components):
    law, (log_weight, mean, scale) = make(2, components)
    weight = np.exp(log_weight)
    centre = np.einsum('bk,bki->bi', weight, mean)
    second = np.einsum(
        'bk,bkij->bij', weight, scale @ np.swapaxes(scale, -1, -2) + mean[..., None] * mean[..., None, :]
    )
    covariance = second - centre[..., None] * centre[:, None]
    for draw in (law.draw(jax.random.key(0), 40_000), law.draw_relaxed(jax.random.key(1), 40_000, 0.5)):
        draw = np.asarray(draw)
        np.testing.assert_allclose(draw.mean(1), centre, atol=0.04)
        np.testing.assert_allclose([np.cov(d.T) for d in draw], covariance, atol=0.08)


def test_closed_divergence_is_that_of_numpy_and_of_monte_carlo():
    (q, (_, mean_q, scale_q)), (p, (_, mean_p, scale_p)) = make(3), make(4)
    expected = []
    for b in range(2):
        cov_q, cov_p = (s[b, 0] @ s[b, 0].T for s in (scale_q, scale_p))
        away, inverse = mean_p[b, 0] - mean_q[b, 0], np.linalg.inv(cov_p)
        ratio = np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]
        expected.append(0.5 * (np.trace(inverse @ cov_q) + away @ inverse @ away - 3 + ratio))
    np.testing.assert_allclose(latent.kl_divergence(q, p), expected, rtol=1e-5)
    sampled = latent.kl_monte_carlo(q, p, jax.random.key(0), 100_000, 0.5)
    np.testing.assert_allclose(sampled, expected, rtol=0.05)


def test_divergence_of_mixtures_is_the_integral():
    (q, (w_q, m_q, s_q)), (p, (w_p, m_p, s_p)) = make(5, 2, dim=1), make(6, 3, dim=1)
    grid = np.linspace(-15, 15, 20_001)
    density = lambda w, m, s, b: sum(
        np.exp(w[b, k]) * multivariate_normal(m[b, k], s[b, k] ** 2).pdf(grid) for k in range(w.shape[1])
    )
    expected = []
    for b in range(2):
        a, c = density(w_q, m_q, s_q, b), density(w_p, m_p, s_p, b)
        expected.append(np.sum(a * (np.log(a + 1e-300) - np.log(c + 1e-300))) * (grid[1] - grid[0]))
    np.testing.assert_allclose(
        latent.kl_monte_carlo(q, p, jax.random.key(0), 200_000, 0.5), expected, rtol=0.06, atol=0.01
    )


@pytest.mark.parametrize('family', latent.FAMILIES)
def test_every_family_learns_all_of_its_parameters_and_starts_finite(family):
    encoder = latent.LatentEncoder(family, latent_dim=3, rank=2, components=2, filters=(4,), num_layers=1)
    x = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 2)), jnp.float32)
    params = jax.jit(encoder.init)(jax.random.key(0), x)

    def loss(params):
        law = encoder.apply(params, x)
        z = law.draw_relaxed(jax.random.key(1), 4, 0.5)
        return jnp.square(z - 1).mean() - law.log_density(jnp.ones((2, 1, 3))).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)
