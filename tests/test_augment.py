"""Augmentation keeps an image and its masks together."""

import jax
import numpy as np
import pytest
from scipy import ndimage

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


def test_turn_zoom_and_shift_are_those_of_an_independent_interpolation():
    rng = np.random.default_rng(2)
    image, masks = rng.random((3, 9, 9, 2)), rng.integers(0, 3, (3, 2, 9, 9)).astype(np.uint8)
    angle, zoom, shift = rng.uniform(-3, 3, (3, 1)), rng.uniform(0.6, 1.5, (3, 1)), rng.uniform(-2, 2, (2, 3, 1))
    out, labels = jax.jit(augment.resample)(image.astype(np.float32), masks, angle, zoom, shift)
    p = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0), indexing='ij'))
    for b in range(3):
        c, s = np.cos(angle[b, 0]), np.sin(angle[b, 0])
        q = np.tensordot([[c, -s], [s, c]], (p - 4 - shift[:, b, :, None]) / zoom[b, 0], axes=1) + 4
        linear = lambda x, q=q: ndimage.map_coordinates(x, q, order=1, mode='mirror')
        for channel in range(2):
            np.testing.assert_allclose(out[b, ..., channel], linear(image[b, ..., channel]), atol=2e-5)
        for rater in range(2):
            shares = np.stack([linear((masks[b, rater] == k).astype(float)) for k in range(3)])
            clear = np.diff(np.sort(shares, axis=0)[1:], axis=0)[0] > 1e-4
            np.testing.assert_array_equal(labels[b, rater][clear], shares.argmax(0)[clear])


@pytest.mark.parametrize('upright', [False, True])
def test_warp_leaves_half_as_it_was_and_keeps_masks_on_their_image(upright):
    # A short bar along the columns: its place, size and direction tell what was done.
    rows, columns = np.mgrid[:64, :64]
    bar = (np.abs(rows - 31.5) < 2) & (np.abs(columns - 31.5) < 5)
    image = np.repeat(bar[None, ..., None].astype(np.float32), 200, 0)
    batch = {'image': image, 'masks': image[..., 0][:, None].astype(np.uint8)}
    out = jax.jit(lambda b, k: augment.warp(b, k, 0.2, upright))(batch, jax.random.key(0))
    values, masks = np.asarray(out['image'])[..., 0], np.asarray(out['masks'])[:, 0]
    clear = np.abs(values - 0.5) > 1e-4
    np.testing.assert_array_equal(masks[clear], (values > 0.5)[clear])
    moved = (masks != bar).any((1, 2))
    assert 70 < moved.sum() < 130
    area = masks[moved].sum((1, 2)) / bar.sum()
    assert 0.55 < area.min() < 0.8 and 1.25 < area.max() < 1.65
    places = np.array([np.argwhere(mask).mean(0) for mask in masks[moved]]) - 31.5
    assert 2.5 < np.abs(places).max() < 3.7
    angles = []
    for mask in masks[moved]:
        spread = np.cov(np.argwhere(mask).T)
        angles.append(abs(0.5 * np.arctan2(2 * spread[0, 1], spread[1, 1] - spread[0, 0])))
    assert 0.1 < max(angles) < 0.22 if upright else max(angles) > 1.4
