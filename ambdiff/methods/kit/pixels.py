"""Masks as logits of every pixel: log p(y) = sum over pixels of log softmax(logits)[y].

Two logits a pixel are those of background and foreground, K + 1 those of labels 0 .. K. A single one is foreground's,
with background's at 0: the same law with half the parameters at the end.
"""

import jax
import jax.numpy as jnp

from ambdiff.methods.kit import cross_entropy

Array = jax.Array


def channels(num_classes: int) -> int:
    """Logits a pixel, config.data.num_classes being 1 (foreground or not: 2 logits) or K > 1 (K + 1)."""
    return num_classes + 1


def one_hot(masks: Array, num_classes: int) -> Array:
    """Masks [..., H, W] of 0 and 1, or of labels 0 .. K -> [..., H, W, channels] float32, background first."""
    return jax.nn.one_hot(masks, channels(num_classes))


def log_probability(logits: Array, masks: Array) -> Array:
    """log p of masks [..., H, W] under logits [..., H, W, C], summed over pixels: [...], where the two broadcast."""
    if logits.shape[-1] == 1:
        return -cross_entropy.sigmoid(logits[..., 0], masks.astype(logits.dtype)).sum((-2, -1))
    chosen = jax.nn.one_hot(masks, logits.shape[-1])
    return (jax.nn.log_softmax(logits) * chosen).sum((-3, -2, -1))


def to_mask(logits: Array, num_classes: int) -> Array:
    """The likeliest mask under logits [..., H, W, C]: [..., H, W], bool or (K > 1) uint8 labels."""
    if logits.shape[-1] == 1:
        return logits[..., 0] > 0
    if num_classes == 1:
        return logits[..., 1] > logits[..., 0]
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)
