"""Raters and masks: what choosing one rater in training and N masks in sampling take, for any method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def draw_rater(key: Array, present: Array) -> Array:
    """A rater [B] for each example, chosen uniformly among those who are there; present [B, M] bool."""
    u = jax.random.randint(key, (len(present),), 0, present.sum(1))
    return jnp.take_along_axis(jnp.argsort(~present, axis=1), u[:, None], axis=1)[:, 0]


def of_rater(masks: Array, rater: Array) -> Array:
    """Masks [B, M, H, W] and a rater [B] -> that rater's mask [B, H, W]."""
    return jnp.take_along_axis(masks, rater[:, None, None, None], axis=1)[:, 0]


def mask_keys(keys: Array, num_samples: int) -> Array:
    """The keys [B, N] of the N masks of images with keys [B]: mask n's follows from its image's key and n."""
    fold = lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(num_samples))
    return jax.vmap(fold)(keys)


def by_parts(sample: Callable[..., Array], parts: int, shared: Any, *arrays: Array) -> Array:
    """Samples the N masks of every image in so many equal parts, one after the other, to save memory.

    Args:
      sample: (shared, *arrays) -> result, all with rows [R, ...] in front: R = B images x N / parts masks.
      parts: divides N.
      shared: a tree of [B, ...], what the masks of an image have in common (the image, a network's features of it): it
        is repeated for each of them.
      arrays: [B, N, ...], at least one.

    Returns:
      [B, N, ...]
    """
    batch, num_samples = arrays[0].shape[:2]

    def one(part):
        rows = part[0].shape[1]
        repeated = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), shared)
        result = sample(repeated, *(x.reshape(-1, *x.shape[2:]) for x in part))
        return result.reshape(batch, rows, *result.shape[1:])

    # [B, N, ..] -> [parts, B, N / parts, ..]: the image axis, which devices share, stays whole.
    divide = lambda x: jnp.moveaxis(x.reshape(batch, parts, -1, *x.shape[2:]), 1, 0)
    joined = jnp.moveaxis(jax.lax.map(one, tuple(map(divide, arrays))), 0, 1)
    return joined.reshape(batch, num_samples, *joined.shape[3:])
