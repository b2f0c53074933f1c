"""HD95 and ASSD in mm, against distances of all surface voxels counted one by one."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ambdiff import surfaces

SPACING = (3.0, 0.7, 0.5)


def by_hand(a, b, spacing, flat):
    """(HD95, ASSD) of two masks [D, H, W] from all pairs of surface voxels."""

    def surface(mask):
        padded, found = np.pad(mask, 1), []
        steps = np.eye(3, dtype=int)[1 if flat else 0 :]
        for voxel in np.argwhere(mask):
            around = [padded[tuple(voxel + 1 + sign * step)] for sign, step in itertools.product((1, -1), steps)]
            if not all(around):
                found.append(voxel * np.array(spacing))
        return np.array(found)

    distances = cdist(surface(a), surface(b))
    there, back = distances.min(1), distances.min(0)
    return np.percentile(np.concatenate([there, back]), 95), (there.mean() + back.mean()) / 2


@pytest.mark.parametrize('depth', [5, 1])
def test_they_are_what_all_pairs_of_surface_voxels_give(depth):
    rng = np.random.default_rng(0)
    masks = rng.random((5, depth, 8, 9)) > 0.4
    hd95, assd = surfaces.pairwise(masks[:2], masks[2:], SPACING)
    assert hd95.shape == assd.shape == (2, 3)
    for row, column in itertools.product(range(2), range(3)):
        expected = by_hand(masks[row], masks[2 + column], SPACING, flat=depth == 1)
        assert (hd95[row, column], assd[row, column]) == pytest.approx(expected, rel=1e-5)


def test_two_parallel_plates_lie_as_far_apart_as_they_do():
    masks = np.zeros((2, 6, 4, 4), bool)
    masks[0, 1], masks[1, 4] = True, True
    hd95, assd = surfaces.pairwise(masks[:1], masks, SPACING)
    np.testing.assert_allclose(hd95, [[0, 9]])
    np.testing.assert_allclose(assd, [[0, 9]])


def test_an_empty_mask_has_no_distance():
    masks = np.zeros((2, 3, 4, 4), bool)
    masks[1, 1, 1, 1] = True
    hd95, assd = surfaces.pairwise(masks, masks, SPACING)
    for found in (hd95, assd):
        assert np.isnan(found).tolist() == [[True, True], [True, False]] and found[1, 1] == 0
    assert np.isnan(surfaces.pairwise(masks[:1], masks[:1], SPACING)[0]).all()
