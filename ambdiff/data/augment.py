"""Augmentation inside jit: symmetries of the square, the same for an image and its masks."""

import jax

from ambdiff import symmetries

Array = jax.Array


def flips_and_turns(batch: dict[str, Array], key: Array) -> dict[str, Array]:
    """Flips and quarter turns, drawn for each example: image [B, H, W, C] and masks [B, M, H, W], H = W."""
    k = jax.random.randint(key, (batch['image'].shape[0],), 0, 8)
    image, masks = symmetries.turn(batch['image'], k), symmetries.turn(batch['masks'], k, (2, 3))
    return {**batch, 'image': image, 'masks': masks}


def mirror(batch: dict[str, Array], key: Array) -> dict[str, Array]:
    """Left and right exchanged or not, drawn for each example, for images that have a top; shapes as above."""
    k = 2 * jax.random.bernoulli(key, 0.5, (batch['image'].shape[0],))
    image, masks = symmetries.turn(batch['image'], k), symmetries.turn(batch['masks'], k, (2, 3))
    return {**batch, 'image': image, 'masks': masks}
