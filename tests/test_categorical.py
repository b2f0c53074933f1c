"""The label diffusion against float64 NumPy: its composition over skipped steps, posterior, reverse step and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambdiff.diffusion.categorical import CategoricalDiffusion


def one_hot(labels, classes):
    return np.eye(classes)[labels]


@pytest.fixture(params=[2, 3])
def case(request):
    """(process, x0, xt, p, s, t) with one-hot x0 and xt and a network's probabilities, all [4, 5, 6, K]."""
    rng = np.random.default_rng(request.param)
    classes = request.param
    draw = lambda: one_hot(rng.integers(0, classes, (4, 5, 6)), classes)
    return (
        CategoricalDiffusion.create(50, classes),
        draw(),
        draw(),
        rng.dirichlet(np.ones(classes), (4, 5, 6)),
        np.array([0, 3, 20, 48]),
        np.array([1, 17, 21, 50]),
    )


def bayes(process, x0, xt, s, t):
    """q(x_s | x_t, x_0) by enumerating x_s."""
    classes, abar = process.num_classes, process.abar.astype(np.float64)
    result = np.zeros_like(x0)
    for b in range(len(x0)):
        a = abar[t[b]] / abar[s[b]]
        for j in range(classes):
            to_xt = a * xt[b, ..., j] + (1 - a) / classes  # P(x_t | x_s = j)
            result[b, ..., j] = to_xt * (abar[s[b]] * x0[b, ..., j] + (1 - abar[s[b]]) / classes)
    return result / result.sum(-1, keepdims=True)


def test_two_transitions_are_one_over_the_steps_between(case):
    process, x0, _, _, s, t = case
    over = process.q_probs(jnp.asarray(x0), jnp.asarray(s))
    # q(t | 0) = sum over x_s of q(t | s) q(s | 0): the transition is affine in x_s.
    np.testing.assert_allclose(
        process.transition_probs(over, jnp.asarray(s), jnp.asarray(t)),
        process.q_probs(jnp.asarray(x0), jnp.asarray(t)),
        rtol=1e-5,
    )


def test_posterior_is_bayes_rule_and_at_the_clean_end_the_mask_itself(case):
    process, x0, xt, _, s, t = case
    posterior = process.posterior_probs(*map(jnp.asarray, (x0, xt, s, t)))
    np.testing.assert_allclose(posterior, bayes(process, x0, xt, s, t), rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(posterior[0], x0[0], atol=1e-6)


def test_reverse_step_is_the_posterior_averaged_over_the_networks_answer(case):
    process, _, xt, p, s, t = case
    classes = process.num_classes
    expected = sum(
        p[..., [k]] * bayes(process, np.broadcast_to(np.eye(classes)[k], xt.shape), xt, s, t) for k in range(classes)
    )
    np.testing.assert_allclose(process.reverse_probs(*map(jnp.asarray, (p, xt, s, t))), expected, rtol=2e-5, atol=1e-7)


def test_loss_is_the_divergence_of_reverse_from_posterior_and_zero_for_the_truth(case):
    process, x0, xt, p, _, t = case
    s = t - 1
    classes = process.num_classes
    q = bayes(process, x0, xt, s, t)
    reverse = sum(
        p[..., [k]] * bayes(process, np.broadcast_to(np.eye(classes)[k], xt.shape), xt, s, t) for k in range(classes)
    )
    expected = (q * (np.log(np.maximum(q, 1e-300)) - np.log(reverse))).sum((1, 2, 3))
    loss = process.loss(*map(jnp.asarray, (p, x0, xt, t)))
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(process.loss(*map(jnp.asarray, (x0, x0, xt, t))), 0, atol=1e-4)


def test_exact_reverse_steps_of_any_length_lead_to_the_same_distribution():
    """A known p(x_0 | x_t): one pixel, share .7 of class 1. Many small and few large steps end at .7."""
    process = CategoricalDiffusion.create(40, 2)
    share = jnp.asarray([0.3, 0.7])

    def end(num_steps):
        """The distribution [2] at t = 0, carried exactly over both values of x_t."""
        law = jnp.asarray([0.5, 0.5])
        for t, s in zip(process.times(num_steps)[:-1], process.times(num_steps)[1:], strict=True):
            rows = []
            for value in range(2):
                xt = jax.nn.one_hot(jnp.full((1, 1, 1), value), 2)
                likelihood = process.transition_probs(xt, jnp.array([0]), jnp.array([t]))
                p = likelihood * share[None, None, None]
                p = p / p.sum(-1, keepdims=True)
                rows.append(process.reverse_probs(p, xt, jnp.array([s]), jnp.array([t]))[0, 0, 0])
            law = law @ jnp.stack(rows)
        return np.asarray(law)

    for num_steps in (40, 7, 1):
        np.testing.assert_allclose(end(num_steps), share, atol=2e-3)


def test_schedule_ends_in_noise_and_sizes_that_mean_nothing_are_named():
    process = CategoricalDiffusion.create(250)
    assert process.abar[0] == 1 and process.abar[-1] < 1e-3 and (np.diff(process.abar) < 0).all()
    assert process.times(5).tolist() == [250, 200, 150, 100, 50, 0]
    with pytest.raises(ValueError, match='at least'):
        CategoricalDiffusion.create(0)
