"""Augmentation inside jit: symmetries of the square, the same for an image and its masks."""

import jax
import jax.numpy as jnp

Array = jax.Array


def flips_and_turns(batch: dict[str, Array], key: Array) -> dict[str, Array]:
    """Flips and quarter turns, drawn for each example: image [B, H, W, C] and masks [B, M, H, W], H = W."""
    flip, mirror, transpose = jax.random.bernoulli(key, 0.5, (3, batch['image'].shape[0]))

    def change(x: Array, axes: tuple[int, int]) -> Array:
        pick = lambda condition, a, b: jnp.where(condition[:, None, None, None], a, b)
        x = pick(flip, jnp.flip(x, axes[0]), x)
        x = pick(mirror, jnp.flip(x, axes[1]), x)
        return pick(transpose, jnp.swapaxes(x, *axes), x)

    return {**batch, 'image': change(batch['image'], (1, 2)), 'masks': change(batch['masks'], (2, 3))}


def mirror(batch: dict[str, Array], key: Array) -> dict[str, Array]:
    """Left and right exchanged or not, drawn for each example, for images that have a top; shapes as above."""
    drawn = jax.random.bernoulli(key, 0.5, (batch['image'].shape[0],))[:, None, None, None]
    change = lambda x, axis: jnp.where(drawn, jnp.flip(x, axis), x)
    return {**batch, 'image': change(batch['image'], 2), 'masks': change(batch['masks'], 3)}
