"""Augmentation inside jit, the same for an image and its masks: symmetries of the square; any turn, zoom and shift."""

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff import dihedral

Array = jax.Array


def for_training(batch: dict[str, Array], key: Array, data: ml_collections.ConfigDict) -> dict[str, Array]:
    """A batch of a training step, changed as config.data asks; everything random follows from the key."""
    if data.warp:
        batch = warp(batch, jax.random.fold_in(key, 1), data.warp, data.upright)
    if data.augment:
        batch = (mirror if data.upright else flips_and_turns)(batch, key)
    if data.rewindow:
        batch = rewindow(batch, jax.random.fold_in(key, 2), data.rewindow, data.hu_window)
    return batch


def flips_and_turns(batch: dict[str, Array], key: Array) -> dict[str, Array]:
    """Flips and quarter turns, random for each example: image [B, H, W, C] and masks [B, M, H, W], H = W."""
    k = jax.random.randint(key, (batch['image'].shape[0],), 0, 8)
    image, masks = dihedral.turn(batch['image'], k), dihedral.turn(batch['masks'], k, (2, 3))
    return {**batch, 'image': image, 'masks': masks}


def mirror(batch: dict[str, Array], key: Array) -> dict[str, Array]:
    """Left and right exchanged or not, at random for each example, for images that have a top; shapes as above."""
    k = 2 * jax.random.bernoulli(key, 0.5, (batch['image'].shape[0],))
    image, masks = dihedral.turn(batch['image'], k), dihedral.turn(batch['masks'], k, (2, 3))
    return {**batch, 'image': image, 'masks': masks}


def warp(batch: dict[str, Array], key: Array, strength: float, upright: bool) -> dict[str, Array]:
    """Half of the examples turned by any angle, zoomed and shifted: image [B, H, W, C], masks [B, M, H, W], H = W.

        angle ~ U(-pi, pi), |angle| <= strength pi / 4 in images with a top,
        zoom = (1 + strength)^u, u ~ U(-1, 1),     shift ~ U(-strength H / 4, strength H / 4) each way.

    The other half stays as it was, since interpolation smooths and images to predict are sharp.
    """
    size, side = batch['image'].shape[:2]
    which_key, angle_key, zoom_key, shift_key = jax.random.split(key, 4)
    most = strength * jnp.pi / 4 if upright else jnp.pi
    angle = jax.random.uniform(angle_key, (size, 1), minval=-most, maxval=most)
    zoom = (1 + strength) ** jax.random.uniform(zoom_key, (size, 1), minval=-1.0, maxval=1.0)
    reach = strength * side / 4
    shift = jax.random.uniform(shift_key, (2, size, 1), minval=-reach, maxval=reach)
    image, masks = resample(batch['image'], batch['masks'], angle, zoom, shift)
    moved = jax.random.bernoulli(which_key, 0.5, (size, 1, 1, 1))
    image = jnp.where(moved, image, batch['image'])
    return {**batch, 'image': image, 'masks': jnp.where(moved, masks, batch['masks'])}


def rewindow(batch: dict[str, Array], key: Array, share: float, window: tuple[float, float]) -> dict[str, Array]:
    """This share of the images as crops that were exported with another window of HU, drawn for each.

    low ~ U(-1450, -850), high ~ U(50, 900), then [low, high] -> [0, 1], clipped, to the power e^u, u ~ U(-1/4, 1/4).
    What `window`, the HU of 0 and of 1, has clipped stays lost. image [B, H, W, C] in [0, 1].
    """
    image = batch['image']
    draw = lambda key, least, most: jax.random.uniform(key, (len(image), 1, 1, 1), minval=least, maxval=most)
    which_key, low_key, high_key, power_key = jax.random.split(key, 4)
    low, high = draw(low_key, -1450.0, -850.0), draw(high_key, 50.0, 900.0)
    hu = window[0] + (window[1] - window[0]) * image
    # Above 0 only, for the power's derivative.
    other = jnp.clip((hu - low) / (high - low), 1e-6, 1.0) ** jnp.exp(draw(power_key, -0.25, 0.25))
    return {**batch, 'image': jnp.where(draw(which_key, 0.0, 1.0) < share, other, image)}


def resample(image: Array, masks: Array, angle: Array, zoom: Array, shift: Array) -> tuple[Array, Array]:
    """Images and masks turned about their centre, zoomed and shifted, each in its own way.

    Output pixel p, counted from the centre, shows p' = R(angle) (p - shift) / zoom of the input, between the four
    pixels around it: the image linear, a mask the label with most of the weight. Beyond its edges the input is
    reflected.

    Args:
      image: [B, H, W, C] float, H = W.
      masks: [B, M, H, W] labels.
      angle: [B, 1] radians.
      zoom: [B, 1] above 0.
      shift: [2, B, 1] pixels, rows and columns.

    Returns:
      image and masks, of the same shapes and types.
    """
    size, side = image.shape[:2]
    middle = (side - 1) / 2
    rows, columns = jnp.divmod(jnp.arange(side * side, dtype=jnp.float32)[None], side)
    rows, columns = (rows - middle - shift[0]) / zoom, (columns - middle - shift[1]) / zoom
    y = middle + jnp.cos(angle) * rows - jnp.sin(angle) * columns
    x = middle + jnp.sin(angle) * rows + jnp.cos(angle) * columns
    top, left = jnp.floor(y), jnp.floor(x)
    corners, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            corners.append((_reflect(top + down, side) * side + _reflect(left + right, side))[..., None])
            weights.append(((1 - jnp.abs(y - top - down)) * (1 - jnp.abs(x - left - right)))[..., None])

    pixels = image.reshape(size, side * side, -1)
    values = sum(w * jnp.take_along_axis(pixels, at, 1) for at, w in zip(corners, weights, strict=True))
    pixels = jnp.moveaxis(masks.reshape(size, -1, side * side), 1, 2)
    labels = [jnp.take_along_axis(pixels, at, 1) for at in corners]
    votes = [sum(w * (label == other) for other, w in zip(labels, weights, strict=True)) for label in labels]
    best = jnp.argmax(jnp.stack(votes), axis=0)
    chosen = jnp.take_along_axis(jnp.stack(labels), best[None], 0)[0]
    return values.reshape(image.shape).astype(image.dtype), jnp.moveaxis(chosen, 2, 1).reshape(masks.shape)


def _reflect(index: Array, side: int) -> Array:
    """Whole numbers as int32 in [0, side): beyond an edge as in a mirror that stands on its outermost pixel."""
    period = max(2 * (side - 1), 1)
    index = jnp.mod(index, period)
    return jnp.minimum(index, period - index).astype(jnp.int32)
