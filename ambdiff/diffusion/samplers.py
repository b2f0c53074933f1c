"""Samplers: plain functions of a denoise_fn, each one lax.scan over the steps of a (respaced) process.

    x_{T-1} ~ N(0, I) -> ... -> x_{-1}:  one call of denoise_fn(x_t, t) -> network output a step.

Every row has a key of its own, folded with the step: what a row becomes does not depend on the rows
beside it, nor on how many devices hold them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ambdiff.diffusion import gaussian, starts
from ambdiff.finite import watched

Array = jax.Array
DenoiseFn = Callable[[Array, Array], Array]


def _scan(diffusion: gaussian.GaussianDiffusion, denoise_fn: DenoiseFn, x: Array, keys, step_fn):
    timesteps = jnp.asarray(diffusion.timesteps)

    def body(xt, index):
        t = jnp.full(xt.shape[0], index)
        output = watched(denoise_fn(xt, timesteps[t]))
        noise = starts.row_noise(keys, index, xt.shape[1:])
        return step_fn(output, xt, t, noise), None

    return jax.lax.scan(body, x, jnp.arange(diffusion.num_steps - 1, -1, -1))[0]


def ancestral(diffusion: gaussian.GaussianDiffusion, denoise_fn: DenoiseFn, x: Array, keys: Array, clip: bool) -> Array:
    """Ancestral sampling (Ho et al. 2020, algorithm 2).

    Args:
      diffusion: the process, respaced to the steps to take.
      denoise_fn: (x_t [R, H, W, 1], t [R] of the full schedule) -> network output.
      x: [R, H, W, 1] standard normal start.
      keys: [R] key of each row.
      clip: clip x0_hat to [-1, 1].

    Returns:
      [R, H, W, 1] the clean end.
    """
    step = lambda output, xt, t, noise: diffusion.ddpm_step(output, xt, t, noise, clip)
    return _scan(diffusion, denoise_fn, x, keys, step)


def ddim(
    diffusion: gaussian.GaussianDiffusion,
    denoise_fn: DenoiseFn,
    x: Array,
    keys: Array,
    clip: bool,
    eta: float,
) -> Array:
    """DDIM (Song et al. 2021); eta = 0 is deterministic given x, eta = 1 has the ancestral variance.

    Arguments and result as of `ancestral`.
    """
    step = lambda output, xt, t, noise: diffusion.ddim_step(output, xt, t, t - 1, noise, eta, clip)
    return _scan(diffusion, denoise_fn, x, keys, step)
