"""Single reverse steps against the released code's numbers, and what whole samplers must keep."""

import archives
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ambdiff.diffusion import samplers, starts
from ambdiff.diffusion.gaussian import GaussianDiffusion

MEAN, DEVIATION = 0.3, 0.2


@pytest.fixture(scope='module')
def released(shared):
    return archives.read(shared / 'fixtures' / 'diffusion.npz')


@pytest.fixture(scope='module')
def process():
    return GaussianDiffusion.create(learned_variance=False)


def _keys(rows, seed=0):
    return jax.random.split(jax.random.key(seed), rows)


def _start(keys, shape):
    return starts.row_noise(keys, 10_000, shape)


def _true_denoiser(process):
    """The noise to expect given x_t if every pixel of x_0 is N(MEAN, DEVIATION^2)."""
    table = jnp.asarray(process.alphas_cumprod, jnp.float32)

    def denoise_fn(xt, t):
        abar = table[t][:, None, None, None]
        gain = jnp.sqrt(abar) * DEVIATION**2 / (abar * DEVIATION**2 + 1 - abar)
        x0 = MEAN + gain * (xt - jnp.sqrt(abar) * MEAN)
        return (xt - jnp.sqrt(abar) * x0) / jnp.sqrt(1 - abar)

    return denoise_fn


@pytest.mark.parametrize('clip', [True, False])
def test_one_step_is_the_released_codes(released, record_property, clip):
    output, x, z = (reference.nhwc(released[name]) for name in ('net', 'x', 'z'))
    t = released['t'].astype(np.int32)
    process = GaussianDiffusion.create()
    steps = {'ddpm_sample': process.ddpm_step(output, x, t, z, clip)}
    for eta in (0.0, 0.5, 1.0):
        steps[f'ddim_eta{eta}'] = process.ddim_step(output, x, t, t - 1, z, eta, clip)
    for name, ours in steps.items():
        theirs = reference.nhwc(released[f'{"clip" if clip else "noclip"}_{name}'])
        for row, want in zip(np.asarray(ours), theirs, strict=True):
            assert reference.relative_error(row, want) < 1e-6
        record_property(name, float(reference.relative_error(ours, theirs)))


def test_ddim_with_eta_one_has_the_ancestral_mean_and_variance(process):
    rng = np.random.default_rng(0)
    t = np.array([1, 2, 50, 500, 999])
    output, xt = rng.normal(size=(2, 5, 4, 4, 1)).astype(np.float32)
    x0 = process.pred_x0(output, xt, t, clip=True)
    mean, variance, _ = process.posterior(x0, xt, t)
    step = lambda noise: process.ddim_step(output, xt, t, t - 1, noise, 1.0, clip=True)
    ddim_mean = step(np.zeros_like(xt))
    # 1 - abar in float32 is good to 1e-3 at t = 1.
    np.testing.assert_allclose(ddim_mean, mean, rtol=1e-3, atol=1e-4)
    sigma = step(np.ones_like(xt)) - ddim_mean
    np.testing.assert_allclose(sigma**2, variance, rtol=2e-3)


def test_ddim_with_eta_zero_adds_no_noise(process):
    output, xt, noise = np.random.default_rng(0).normal(size=(3, 2, 4, 4, 1)).astype(np.float32)
    t = np.array([10, 900])
    a, b = (process.ddim_step(output, xt, t, t - 10, n, 0.0, clip=False) for n in (noise, 0 * xt))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('step', ['ddpm', 'ddim'])
def test_the_last_step_ends_at_the_predicted_mask(process, step):
    output, xt, noise = np.random.default_rng(0).normal(size=(3, 2, 4, 4, 1)).astype(np.float32)
    t = np.zeros(2, int)
    if step == 'ddpm':
        end = process.ddpm_step(output, xt, t, noise, clip=True)
    else:
        end = process.ddim_step(output, xt, t, t - 1, noise, 1.0, clip=True)
    np.testing.assert_allclose(end, process.pred_x0(output, xt, t, clip=True), atol=1e-6)


@pytest.mark.parametrize(
    ('num_steps', 'eta'),
    [(1000, None), (500, 0.0), (1000, 1.0)],
    ids=['ancestral', 'ddim', 'ddim eta 1'],
)
def test_a_true_denoiser_gives_samples_of_the_data(process, num_steps, eta):
    short, keys, denoise_fn = process.respace(num_steps), _keys(2), _true_denoiser(process)

    @jax.jit
    def draw(x):
        if eta is None:
            return samplers.ancestral(short, denoise_fn, x, keys, clip=False)
        return samplers.ddim(short, denoise_fn, x, keys, clip=False, eta=eta)

    x = np.asarray(draw(_start(keys, (64, 64, 1))), np.float64)
    np.testing.assert_allclose(x.mean((1, 2, 3)), MEAN, atol=0.015)
    np.testing.assert_allclose(x.std((1, 2, 3)), DEVIATION, rtol=0.04)


def test_network_is_told_the_steps_of_the_full_schedule(process):
    seen = []

    def denoise_fn(xt, t):
        jax.debug.callback(lambda t: seen.append(t.tolist()), t, ordered=True)
        return jnp.zeros_like(xt)

    keys = _keys(2)
    x = samplers.ddim(process.respace(4), denoise_fn, _start(keys, (2, 2, 1)), keys, True, 0.0)
    jax.block_until_ready(x)
    jax.effects_barrier()
    assert seen == [[t, t] for t in (999, 749, 499, 249)]


def test_a_sample_depends_on_its_key_and_not_on_its_neighbours(process):
    keys, denoise_fn = _keys(4), _true_denoiser(process)

    def draw(keys):
        start = _start(keys, (4, 4, 1))
        return samplers.ancestral(process.respace(5), denoise_fn, start, keys, clip=True)

    together = np.asarray(draw(keys))
    np.testing.assert_allclose(draw(keys[2:3]), together[2:3], atol=1e-6)
    np.testing.assert_allclose(draw(keys[::-1]), together[::-1], atol=1e-6)
    assert len(np.unique(together[:, 0, 0, 0])) == 4


def test_noise_of_a_row_changes_with_the_step():
    keys = _keys(2)
    a, b = (np.asarray(starts.row_noise(keys, step, (3, 3, 1))) for step in (0, 1))
    assert np.abs(a - b).min() > 1e-5
    assert np.abs(a[0] - a[1]).min() > 1e-5


def test_stratified_starts_cover_every_direction_and_are_normal():
    from scipy import fft, stats

    draw = jax.jit(lambda key: starts.stratified_noise(key, 8, (16, 16, 1)))
    drawn = np.stack([draw(jax.random.key(seed)) for seed in range(12)]).astype(np.float64)
    coefficients = fft.dctn(drawn, axes=(2, 3), norm='ortho')
    # Of the eight starts one lies in each eighth of the normal distribution, in every coefficient.
    strata = np.floor(8 * stats.norm.cdf(coefficients)).astype(int)
    counts = (np.sort(strata, axis=1) == np.arange(8)[:, None, None, None]).mean()
    assert counts > 0.999
    assert stats.kstest(drawn[:, 0].ravel(), 'norm').pvalue > 1e-3
    assert np.abs(np.corrcoef(drawn[:, 0].reshape(12, -1)) - np.eye(12)).max() < 0.35
