"""Logits of pixels against NumPy in float64: one, two and several a pixel."""

import jax.numpy as jnp
import numpy as np
import pytest

from ambdiff.methods.kit import pixels


@pytest.mark.parametrize(('num_classes', 'count'), [(1, 1), (1, 2), (2, 3)])
def test_log_probability_and_the_likeliest_mask_are_those_of_the_softmax(num_classes, count):
    rng = np.random.default_rng(count)
    logits = rng.normal(0, 3, (2, 4, 5, 6, count))
    masks = rng.integers(0, num_classes + 1, (2, 1, 5, 6)).astype(np.uint8)
    whole = np.concatenate([np.zeros_like(logits), logits], -1) if count == 1 else logits
    share = np.exp(whole) / np.exp(whole).sum(-1, keepdims=True)
    index = np.broadcast_to(masks, share.shape[:-1])[..., None].astype(int)
    expected = np.log(np.take_along_axis(share, index, -1)).sum((2, 3, 4))
    logits, masks = jnp.asarray(logits, jnp.float32), jnp.asarray(masks)
    np.testing.assert_allclose(pixels.log_probability(logits, masks), expected, rtol=1e-5)
    drawn = np.asarray(pixels.to_mask(logits, num_classes))
    assert drawn.dtype == (np.uint8 if num_classes > 1 else bool)
    np.testing.assert_array_equal(drawn, share.argmax(-1))
    assert pixels.one_hot(masks, num_classes).shape == (2, 1, 5, 6, pixels.channels(num_classes))


def test_logits_that_are_sure_of_another_mask_stay_finite():
    logits = jnp.full((1, 2, 2, 1), 1e4)
    np.testing.assert_allclose(pixels.log_probability(logits, jnp.zeros((1, 2, 2), jnp.uint8)), [-4e4])
