"""Where the reverse process starts: noise, level sets, and both stratified over the N masks of an image.

Noise is standard normal. A row's follows from a key of its own (`row_noise`). Stratified, the N starts of one image are
a Latin hypercube sample in the cosine basis: each is still exactly N(0, I), but together they cover every direction
evenly (McKay et al. 1979), so that the shares of the answers among N masks vary less.

A level set is a first mask from the share p of raters that mark each pixel, {p > level} with level ~ U(0, 1): it keeps
the shares of rare answers, above all of the empty one, that a few large steps from pure noise lose.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def row_noise(keys: Array, stream: int | Array, shape: tuple[int, ...]) -> Array:
    """Standard normal noise [R, *shape], row r from fold_in(keys[r], stream)."""
    noise = lambda key: jax.random.normal(jax.random.fold_in(key, stream), shape)
    return jax.vmap(noise)(keys)


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


def stratified_levels(key: Array, num_samples: int) -> Array:
    """N levels [N], one in each of N equal strata of (0, 1), in random order; each alone is uniform."""
    order_key, place_key = jax.random.split(key)
    order = jax.random.permutation(order_key, num_samples)
    return (order + jax.random.uniform(place_key, (num_samples,))) / num_samples


def noise(kind: str, keys: Array, rows: Array, stream: int, row_stream: int, shape: tuple[int, int, int]) -> Array:
    """Standard normal noise [B, N, H, W, C] for N masks of each of B images.

    Args:
      kind: 'stratified' over the masks of an image, or 'independent'.
      keys: [B], the images'; 'stratified' takes the stream `stream` of each.
      rows: [B, N], the masks'; 'independent' takes the stream `row_stream` of each.
      stream: see `keys`.
      row_stream: see `rows`.
      shape: (H, W, C).
    """
    if kind == 'stratified':
        one = lambda key: stratified_noise(jax.random.fold_in(key, stream), rows.shape[1], shape)
        return jax.vmap(one)(keys)
    return jax.vmap(lambda row: row_noise(row, row_stream, shape))(rows)


def levels(kind: str, keys: Array, stream: int, num_samples: int) -> Array:
    """Levels [B, N] in (0, 1) for N masks of each of B images: `kind`, `keys` and `stream` as of `noise`."""
    levels = stratified_levels if kind == 'stratified' else lambda key, number: jax.random.uniform(key, (number,))
    return jax.vmap(lambda key: levels(jax.random.fold_in(key, stream), num_samples))(keys)


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
