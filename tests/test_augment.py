"""Augmentation keeps an image and its masks together."""

import jax
import numpy as np

from ambdiff.data import augment


def test_image_and_masks_get_the_same_symmetry_and_all_eight_occur():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    image = np.repeat(image, 200, axis=0)
    masks = (image[..., 0][:, None] > np.array([3, 9])[None, :, None, None]).astype(np.uint8)
    out = jax.jit(augment.flips_and_turns)({'image': image, 'masks': masks}, jax.random.key(0))
    changed = np.asarray(out['image'])
    expected = changed[..., 0][:, None] > np.array([3, 9])[None, :, None, None]
    np.testing.assert_array_equal(np.asarray(out['masks']), expected)
    seen = {x.tobytes() for x in changed}
    square = image[0, ..., 0]
    turns = [np.rot90(s, k) for s in (square, square.T) for k in range(4)]
    assert seen == {np.ascontiguousarray(t[..., None]).tobytes() for t in turns}


def test_mirror_keeps_what_is_up_and_moves_image_and_masks_together():
    image = np.random.default_rng(1).random((64, 5, 5, 2))
    masks = (image[..., 0] > 0.5).astype(np.uint8)[:, None]
    out = augment.mirror({'image': image, 'masks': masks}, jax.random.key(0))
    mirrored = (out['image'] == image[:, :, ::-1]).all((1, 2, 3))
    kept = (out['image'] == image).all((1, 2, 3))
    assert (mirrored ^ kept).all() and 16 < int(mirrored.sum()) < 48
    np.testing.assert_array_equal(out['masks'][:, 0], (out['image'][..., 0] > 0.5).astype(np.uint8))
