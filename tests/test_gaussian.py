"""The Gaussian process against the released code's numbers and float64 NumPy, and its invariants."""

import archives
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ambdiff import convert
from ambdiff.diffusion import schedules
from ambdiff.diffusion.gaussian import GaussianDiffusion, discretized_gaussian_log_likelihood
from ambdiff.models.gaussian_encoder import axis_aligned_kl

STEPS = np.array([0, 1, 2, 40, 500, 998, 999])


@pytest.fixture(scope='module')
def released(shared):
    return archives.read(shared / 'fixtures' / 'diffusion.npz')


@pytest.fixture(scope='module')
def draws():
    """x0 of zeros and ones, noise, a network's output near the noise, and x_t, for each of STEPS."""
    rng = np.random.default_rng(5)
    shape = (len(STEPS), 6, 6, 1)
    x0 = rng.integers(0, 2, shape).astype(np.float64)
    noise = rng.normal(size=shape)
    v = rng.uniform(-1, 1, shape)
    output = np.concatenate([noise + 0.1 * rng.normal(size=shape), v], axis=-1)
    process = reference.Process()
    abar = process.at(process.abar, STEPS)
    return x0, noise, output, np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise


def _single(*arrays):
    return [np.asarray(a, np.float32) for a in arrays]


@pytest.mark.parametrize('name', ['linear', 'cosine'])
def test_tables_are_the_released_codes(released, record_property, name):
    process = GaussianDiffusion.create(1000, name)
    worst = 0.0
    for table, ours in (
        ('betas', process.betas),
        ('alphas_cumprod', process.alphas_cumprod),
        ('posterior_variance', process.posterior_variance),
        ('posterior_log_variance_clipped', process.posterior_log_variance),
    ):
        np.testing.assert_allclose(ours, released[f'{name}_{table}'], rtol=1e-10)
        worst = max(worst, reference.relative_error(ours, released[f'{name}_{table}']))
    record_property('tables', float(worst))


def test_every_loss_term_is_the_released_codes(released, shared, record_property):
    """In the released code AMN sees (image, mask) and ACN (image, predicted noise)."""
    image, x0, noise, output = (reference.nhwc(released[name]) for name in ('image', 'mask', 'noise', 'net'))
    t = released['t'].astype(np.int32)
    process = GaussianDiffusion.create()
    shapes = reference.shapes_in(archives.read(shared / 'fixtures' / 'encoders.npz'))

    def encode(seed, mask):
        weights = reference.seeded_weights(int(seed), shapes)
        module, variables = convert.encoder_from_torch(weights, 6)
        return jax.jit(module.apply)(variables, image, mask)

    xt = process.q_sample(x0, t, noise)
    terms = jax.jit(process.losses)(output, x0, xt, t, noise)
    amn = encode(released['amn_seed'], x0)
    acn = encode(released['acn_seed'], process.noise_hat(output, xt, t))
    terms['kl'] = axis_aligned_kl(*amn, *acn) / 1000
    terms['loss'] = terms['mse'] + terms['vlb'] + terms['kl']
    error = reference.relative_error(xt, reference.nhwc(released['x_t']))
    record_property('x_t', float(error))
    assert error < 1e-6
    for ours, theirs in (('mse', 'mse'), ('vlb', 'vb'), ('kl', 'kl'), ('loss', 'loss')):
        errors = np.asarray(terms[ours]) / released[f'loss_{theirs}'] - 1
        record_property(ours, float(np.abs(errors).max()))
        assert np.abs(errors).max() < 1e-5


@pytest.mark.parametrize('clip', [True, False])
def test_reverse_process_is_the_released_codes(released, record_property, clip):
    output, x = reference.nhwc(released['net']), reference.nhwc(released['x'])
    t = released['t'].astype(np.int32)
    p = GaussianDiffusion.create().p_mean_variance(output, x, t, clip)
    p['pred_xstart'] = p.pop('pred_x0')
    for name, ours in p.items():
        theirs = reference.nhwc(released[f'{"clip" if clip else "noclip"}_{name}'])
        record_property(name, float(reference.relative_error(ours, theirs)))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_losses_are_those_of_a_float64_implementation(draws):
    x0, noise, output, xt = draws
    mse, bits = reference.Process().losses(output, x0, xt, STEPS, noise)
    got = jax.jit(GaussianDiffusion.create().losses)(*_single(output, x0, xt), STEPS, *_single(noise))
    np.testing.assert_allclose(got['mse'], mse, rtol=1e-5)
    np.testing.assert_allclose(got['vlb'], bits, rtol=2e-5)


@pytest.mark.parametrize('x0', [-1.0, 0.0, 1.0])
def test_likelihood_far_in_the_tails_keeps_its_digits(x0):
    """At t = 0 sigma is 0.007: ten sigmas away float32 has lost 1 - cdf, the log likelihood must not."""
    mean = x0 + np.array([-0.045, -0.03, 0.0, 0.01, 0.045])
    cdf = lambda z: (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) / 2
    high = 1.0 if x0 == 1 else cdf((x0 - mean + 1 / 255) / 0.0073)
    low = 0.0 if x0 == -1 else cdf((x0 - mean - 1 / 255) / 0.0073)
    want = np.log(np.maximum(high - low, 1e-12))
    ones = np.ones(5, np.float32)
    got = discretized_gaussian_log_likelihood(
        np.float32(x0) * ones, mean.astype(np.float32), np.log(np.float32(0.0073)) * ones
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_likelihood_of_all_grey_values_sums_to_one():
    x = np.linspace(-1, 1, 256).astype(np.float32)
    for mean, sigma in ((0.1, 0.02), (0.99, 0.3), (-3.0, 1.0)):
        like = np.full_like(x, mean), np.full_like(x, np.log(sigma))
        total = np.exp(discretized_gaussian_log_likelihood(x, *like), dtype=np.float64).sum()
        assert total == pytest.approx(1, abs=1e-4)


def test_posterior_is_bayes_rule_in_float64(draws):
    x0, _, _, xt = draws
    want_mean, want_variance = reference.Process().posterior(x0, xt, STEPS)
    mean, variance, log_variance = GaussianDiffusion.create().posterior(*_single(x0, xt), STEPS)
    np.testing.assert_allclose(mean, want_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance[:, 0, 0, 0], want_variance[:, 0, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(log_variance[1:], np.log(variance[1:]), rtol=1e-5)
    np.testing.assert_array_equal(log_variance[0], log_variance[1])


@pytest.mark.parametrize('name', schedules.NAMES)
@pytest.mark.parametrize('num_steps', [1000, 10])
def test_a_posterior_step_of_a_noised_mask_is_a_less_noised_mask(name, num_steps):
    """Integrating q(x_{t-1} | x_t, x0) over q(x_t | x0) gives q(x_{t-1} | x0) (float64 tables)."""
    process = GaussianDiffusion.create(1000, name).respace(num_steps)
    abar, prev, betas = process.alphas_cumprod, process.alphas_cumprod_prev, process.betas
    on_x0 = betas * np.sqrt(prev) / (1 - abar)
    on_xt = (1 - prev) * np.sqrt(1 - betas) / (1 - abar)
    np.testing.assert_allclose(on_x0 + on_xt * np.sqrt(abar), np.sqrt(prev), rtol=1e-9)
    total = process.posterior_variance + on_xt**2 * (1 - abar)
    np.testing.assert_allclose(total, 1 - prev, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize('name', schedules.NAMES)
def test_schedules_end_in_noise_and_decrease(name):
    abar = schedules.alphas_cumprod(name, 1000)
    assert abar.dtype == np.float64
    assert np.all(np.diff(abar) < 0)
    assert abar[0] > 0.99 and 0 < abar[-1] < 1e-3


def test_schedules_keep_their_known_values():
    """Constants from the definitions, evaluated once in 30-digit arithmetic."""
    known = {
        'linear': [0.9999, 0.077796658, 4.0358298e-5],
        'cosine': [0.99995872, 0.49228517, 2.4287669e-9],
        'shifted_cosine': [0.99919188, 0.2677325, 9.0777306e-5],
    }
    for name, values in known.items():
        got = schedules.alphas_cumprod(name, 1000)[[0, 500, 999]]
        np.testing.assert_allclose(got, values, rtol=1e-7)


@pytest.mark.parametrize('num_steps', [1, 7, 8, 999, 1000])
def test_respacing_keeps_the_noise_level_of_the_steps_it_keeps(num_steps):
    full = GaussianDiffusion.create()
    short = full.respace(num_steps)
    assert short.num_steps == num_steps == len(set(short.timesteps))
    assert short.timesteps[-1] == 999
    assert np.all(np.diff(short.timesteps) > 0)
    np.testing.assert_array_equal(short.alphas_cumprod, full.alphas_cumprod[short.timesteps])


@pytest.mark.parametrize('num_steps', [0, 1001])
def test_more_steps_than_there_are_raise(num_steps):
    with pytest.raises(ValueError, match=f'1 to 1000 steps, got {num_steps}'):
        GaussianDiffusion.create().respace(num_steps)


def test_noising_has_the_mean_and_variance_of_its_step():
    process = GaussianDiffusion.create()
    noise = np.random.default_rng(0).normal(size=(2, 128, 128, 1)).astype(np.float32)
    t = np.array([300, 999])
    xt = np.asarray(process.q_sample(np.ones_like(noise), t, noise), np.float64)
    abar = process.alphas_cumprod[t]
    np.testing.assert_allclose(xt.mean((1, 2, 3)), np.sqrt(abar), atol=0.03)
    np.testing.assert_allclose(xt.var((1, 2, 3)), 1 - abar, rtol=0.03)


def test_learned_variance_runs_from_the_posteriors_to_beta(draws):
    x0, _, _, xt = _single(*draws)
    process = GaussianDiffusion.create()
    for v, table in ((1.0, process.betas), (-1.0, np.exp(process.posterior_log_variance))):
        output = np.concatenate([x0, np.full_like(x0, v)], axis=-1)
        variance = process.p_mean_variance(output, xt, STEPS, clip=False)['variance'][:, 0, 0, 0]
        np.testing.assert_allclose(variance, table[STEPS], rtol=1e-5)


def test_bound_is_zero_for_the_true_noise_and_the_posteriors_variance(draws):
    x0, noise, _, xt = _single(*draws)
    output = np.concatenate([noise, -np.ones_like(noise)], axis=-1)
    bits = GaussianDiffusion.create().losses(output, x0, xt, STEPS, noise)['vlb']
    np.testing.assert_allclose(bits[1:], 0, atol=1e-5)
    assert bits[0] > 0


def test_bound_trains_the_variance_alone(draws):
    x0, noise, output, xt = _single(*draws)
    process = GaussianDiffusion.create()
    bound = lambda output: process.losses(output, x0, xt, STEPS, noise)['vlb'].sum()
    gradient = jax.jit(jax.grad(bound))(output)
    np.testing.assert_array_equal(gradient[..., 0], 0)
    assert np.all(np.abs(gradient[..., 1]).max((1, 2)) > 0)
    assert np.all(np.isfinite(gradient))


def test_clip_bounds_the_predicted_mask(draws):
    _, noise, output, _ = _single(*draws)
    process = GaussianDiffusion.create()
    free = process.p_mean_variance(output, 5 * noise, STEPS, clip=False)['pred_x0']
    clipped = process.p_mean_variance(output, 5 * noise, STEPS, clip=True)['pred_x0']
    assert np.abs(free).max() > 1
    np.testing.assert_array_equal(clipped, np.clip(free, -1, 1))


def test_logits_become_masks_of_the_range_and_imply_the_noise_that_made_xt(draws):
    _, noise, _, _ = _single(*draws)
    process = GaussianDiffusion.create(learned_variance=False, prediction='x0', mask_range=(-1.0, 1.0))
    logits = np.where(noise > 0, 30.0, -30.0).astype(np.float32)
    x0 = process.to_range((noise > 0).astype(np.float32))
    xt = process.q_sample(x0, STEPS, noise)
    np.testing.assert_allclose(process.pred_x0(logits, xt, STEPS, clip=False), x0, atol=1e-6)
    np.testing.assert_array_equal(process.to_mask(x0), noise[..., 0] > 0)
    np.testing.assert_allclose(process.noise_hat(logits, xt, STEPS), noise, atol=2e-4)
    assert np.all(np.asarray(process.losses(logits, x0, xt, STEPS, noise)['mse']) < 1e-6)


def test_outputs_of_the_wrong_number_of_channels_raise(draws):
    x0, _, output, xt = _single(*draws)
    with pytest.raises(ValueError, match='needs 1 output channels, got 2'):
        GaussianDiffusion.create(learned_variance=False).pred_x0(output, xt, STEPS, clip=False)
    with pytest.raises(ValueError, match='needs 2 output channels, got 1'):
        GaussianDiffusion.create().pred_x0(x0, xt, STEPS, clip=False)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'schedule': 'quadratic'}, "unknown schedule 'quadratic'; known: linear"),
        ({'prediction': 'v'}, "unknown prediction 'v'"),
        ({'mask_range': (1.0, 0.0)}, 'low < high'),
        ({'num_steps': 0}, 'at least 1 step, got 0'),
    ],
)
def test_a_process_that_cannot_be_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianDiffusion.create(**arguments)


def test_steps_can_be_traced(draws):
    x0, noise, _, _ = _single(*draws)
    process = GaussianDiffusion.create()
    traced = jax.jit(process.q_sample)(x0, jnp.asarray(STEPS), noise)
    np.testing.assert_allclose(traced, process.q_sample(x0, STEPS, noise), rtol=1e-6, atol=1e-7)


def test_candidate_weights_are_the_posterior_over_candidates():
    rng = np.random.default_rng(5)
    process = GaussianDiffusion.create(1000, 'shifted_cosine', False, 'x0', (-1.0, 1.0))
    candidates = np.where(rng.random((5, 3, 4, 4, 1)) > 0.5, 1.0, -1.0)
    t = np.array([0, 200, 600, 900, 999])
    abar = process.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    xt = np.sqrt(abar) * candidates[:, 0] + np.sqrt(1 - abar) * rng.normal(size=(5, 4, 4, 1))
    weights_of = jax.jit(process.candidate_weights)
    arguments = [jnp.asarray(a, jnp.float32) for a in (candidates, xt)]
    everyone = np.ones((5, 3), bool)
    weights = weights_of(arguments[0], everyone, arguments[1], t)
    log_density = -np.square(xt[:, None] - np.sqrt(abar)[:, None] * candidates) / (2 * (1 - abar)[:, None])
    log_weight = log_density.sum((2, 3, 4))
    expected = np.exp(log_weight - log_weight.max(1, keepdims=True))
    np.testing.assert_allclose(weights, expected / expected.sum(1, keepdims=True), atol=1e-5)
    assert weights[0, 0] > 0.999  # little noise: x_t tells the raters apart
    np.testing.assert_allclose(weights[-1], 1 / 3, atol=0.1)  # all noise: it does not
    without = weights_of(arguments[0], everyone & [False, True, True], arguments[1], t)
    assert not without[:, 0].any()
    others = np.exp(log_weight[:, 1:] - log_weight[:, 1:].max(1, keepdims=True))
    np.testing.assert_allclose(without[:, 1:], others / others.sum(1, keepdims=True), atol=1e-5)
