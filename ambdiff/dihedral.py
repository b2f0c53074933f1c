"""The eight symmetries of the square: flips, turns and transpositions, one of its own for each row of a batch.

Symmetry k of 0 .. 7 flips the rows if bit 0 is set, then mirrors the columns if bit 1 is set, then transposes if bit 2
is set; 0 leaves everything in place.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def _bits(k: Array) -> list[Array]:
    return [(k & bit) > 0 for bit in (1, 2, 4)]


def _pick(condition: Array, a: Array, b: Array) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def turn(x: Array, k: Array, axes: tuple[int, int] = (1, 2)) -> Array:
    """x [B, ...] with row b under symmetry k[b] of its `axes` (height, width), which are equally long."""
    flip, mirror, transpose = _bits(k)
    x = _pick(flip, jnp.flip(x, axes[0]), x)
    x = _pick(mirror, jnp.flip(x, axes[1]), x)
    return _pick(transpose, jnp.swapaxes(x, *axes), x)


def turn_back(x: Array, k: Array, axes: tuple[int, int] = (1, 2)) -> Array:
    """The inverse of `turn`."""
    flip, mirror, transpose = _bits(k)
    x = _pick(transpose, jnp.swapaxes(x, *axes), x)
    x = _pick(mirror, jnp.flip(x, axes[1]), x)
    return _pick(flip, jnp.flip(x, axes[0]), x)


def count(upright: bool) -> int:
    """How many symmetries there are; of images with a top only the mirror and none."""
    return 2 if upright else 8


def cycle(num_samples: int, upright: bool) -> np.ndarray:
    """A symmetry [N] for each of N masks, every one in turn."""
    return _of_number(np.arange(num_samples, dtype=np.int32) % count(upright), upright)


def draw(keys: Array, upright: bool) -> Array:
    """A symmetry for each of the keys, of their shape, each of them equally likely."""
    one = lambda key: jax.random.randint(key, (), 0, count(upright))
    return _of_number(jax.vmap(one)(keys.reshape(-1)).reshape(keys.shape), upright)


def _of_number(number: Array, upright: bool) -> Array:
    return number * 2 if upright else number
