"""Samplers: plain functions of a denoise_fn, each one lax.scan over the steps of a (respaced) process.

    x_{T-1} ~ N(0, I) -> ... -> x_{-1}:  one call of denoise_fn(x_t, t) -> network output a step.

Every row has a key of its own, folded with the step: what a row becomes does not depend on the rows
beside it, nor on how many devices hold them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ambdiff.diffusion import gaussian
from ambdiff.finite import watched

Array = jax.Array
DenoiseFn = Callable[[Array, Array], Array]


def row_noise(keys: Array, step: int | Array, shape: tuple[int, ...]) -> Array:
    """Standard normal noise [R, *shape], row r from fold_in(keys[r], step)."""
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, step), shape)
    return jax.vmap(draw)(keys)


def _scan(diffusion: gaussian.GaussianDiffusion, denoise_fn: DenoiseFn, x: Array, keys, step_fn):
    timesteps = jnp.asarray(diffusion.timesteps)

    def body(xt, index):
        t = jnp.full(xt.shape[0], index)
        output = watched(denoise_fn(xt, timesteps[t]))
        noise = row_noise(keys, index, xt.shape[1:])
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


def level_set(share: Array, level: Array) -> Array:
    """A first mask from one evaluation at the last step T - 1 and a level per row.

    At t = T - 1 the denoiser sees the image alone, and its x0_hat is the share p of raters that mark each pixel. The
    set {p > level}, level ~ U(0, 1), is a coherent mask whose every pixel has that share, and empty where nobody is
    sure. Noised to an earlier step it starts the rest of the process, which mends its shape. Few large steps from
    pure noise instead follow the mean, p, and so drift to the majority's answer.

    Args:
      share: [..., H, W, C] p in [0, 1].
      level: [...] in (0, 1).

    Returns:
      [..., H, W] bool; for C > 1 (background first) labels, by the inverse of the classes' cumulative shares, so that
      each class too covers every pixel with its share.
    """
    level = level[..., None, None]
    if share.shape[-1] == 1:
        return share[..., 0] > level
    above = jnp.cumsum(share[..., 1:], axis=-1) > level[..., None]
    return jnp.where(above[..., -1], 1 + jnp.argmax(above, axis=-1), 0).astype(jnp.uint8)


def stratified_levels(key: Array, num_samples: int) -> Array:
    """N levels [N], one in each of N equal strata of (0, 1), in random order; each alone is uniform."""
    order_key, place_key = jax.random.split(key)
    order = jax.random.permutation(order_key, num_samples)
    return (order + jax.random.uniform(place_key, (num_samples,))) / num_samples


def stratified_noise(key: Array, num_samples: int, shape: tuple[int, int, int]) -> Array:
    """N starts that cover the normal distribution evenly: [N, H, W, C], each of them exactly N(0, I).

    Latin hypercube (McKay et al. 1979) of the coefficients of the orthonormal cosine transform: in every
    coefficient, low frequencies among them, one start lies in each of N strata of equal probability.
    """
    stratum_key, place_key = jax.random.split(key)
    strata = jnp.broadcast_to(jnp.arange(num_samples)[:, None, None, None], (num_samples, *shape))
    strata = jax.random.permutation(stratum_key, strata, axis=0, independent=True)
    place = jax.random.uniform(place_key, strata.shape, minval=1e-6, maxval=1 - 1e-6)
    coefficients = jax.scipy.special.ndtri((strata + place) / num_samples)
    return jax.scipy.fft.idctn(coefficients, axes=(1, 2), norm='ortho')
