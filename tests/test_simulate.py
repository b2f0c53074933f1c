"""Simulated crops: calibrated on real ones, reproducible, and blind to who marked what."""

import numpy as np
import pytest
from scipy import ndimage

from ambdiff.data.lidc import outlines, phantom


@pytest.fixture(scope='module')
def crops():
    """HU [n, 64, 64] and masks [n, 4, 64, 64] of the largest slice of each of some 700 nodules."""
    images, masks = [], []
    for nodule in outlines.read_nodules(max_patients=240):
        found = outlines.slice_masks(nodule, 64)
        if found:
            k = max(found, key=lambda k: found[k].sum())
            images.append(phantom.simulate(found[k], nodule.ratings, f'{nodule.name}_{k}'))
            masks.append(found[k])
    return np.array(images, np.float32) + phantom.LOW, np.array(masks)


@pytest.fixture(scope='module')
def case():
    nodule = next(n for n in outlines.read_nodules(max_patients=3) if len(n.ratings) == 4)
    found = outlines.slice_masks(nodule, 64)
    k = max(found, key=lambda k: found[k].sum())
    return found[k], nodule.ratings, nodule.name


def core_and_rim(crops, readers):
    """Median HU, an image each, of pixels that all, and that some, of so many readers marked."""
    core, rim = [], []
    for image, masks in zip(*crops, strict=True):
        votes = masks.sum(0)
        if masks.any((1, 2)).sum() == readers and (votes == readers).any():
            core.append(np.median(image[votes == readers]))
            disputed = (votes > 0) & (votes < readers)
            rim.append(np.median(image[disputed]) if disputed.any() else np.nan)
    return np.array(core), np.array(rim)


def test_lung_and_tissue_are_as_measured_on_real_crops(crops):
    image, _ = crops
    assert abs(np.median(image[image < -500]) - -850) < 20
    assert 0.24 < (image > -200).mean() < 0.34  # real: 0.26 to 0.32
    tissue = image[(image > -200) & (image < 200)]
    assert abs(np.median(tissue) - 18) < 20


# Measured on real crops: the core's median HU by number of readers; 80 HU for sampling.
@pytest.mark.parametrize(('readers', 'expected'), [(1, -358), (2, -244), (3, -148), (4, -48)])
def test_core_is_denser_the_more_readers_drew_it(crops, readers, expected):
    core, _ = core_and_rim(crops, readers)
    assert abs(np.median(core) - expected) < 80


@pytest.mark.parametrize('readers', [2, 3, 4])
def test_disputed_rim_is_faint(crops, readers):
    core, rim = core_and_rim(crops, readers)
    assert -600 < np.nanmedian(rim) < -360  # real: -520 to -450
    assert np.nanmedian(rim) < np.median(core) - 150


def test_brightness_does_not_give_the_number_of_readers_away(crops):
    one, four = core_and_rim(crops, 1)[0], core_and_rim(crops, 4)[0]
    auc = (one[:, None] < four).mean()
    assert 0.7 < auc < 0.95  # real crops: 0.82


def test_noise_is_as_strong_as_measured(crops):
    image, _ = crops
    second = image[:, :, 2:] - 2 * image[:, :, 1:-1] + image[:, :, :-2]
    lung = ndimage.maximum_filter(image, (0, 3, 3))[:, :, 1:-1] < -700
    sigma = [1.4826 * np.median(np.abs(s[m])) / np.sqrt(6) for s, m in zip(second, lung, strict=True) if m.sum() > 50]
    assert abs(np.median(sigma) - 13) < 3
    low, high = np.percentile(sigma, [5, 95])
    assert 3 < low < 8 and 25 < high < 90  # real: 4 to 86


def test_vessels_and_blobs_that_nobody_drew_are_there(crops):
    image, masks = crops
    bright = 0
    for hu, union in zip(image, masks.any(1), strict=True):
        labels, count = ndimage.label(ndimage.gaussian_filter(hu, 0.7) > -600)
        marked = set(np.unique(labels[ndimage.binary_dilation(union, iterations=2)]))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        bright += sum(5 <= sizes[k] <= 60 and k not in marked for k in range(1, count + 1))
    assert bright / len(image) > 1


def test_same_case_same_image_and_other_case_other_image(case):
    masks, ratings, name = case
    first = phantom.simulate(masks, ratings, name)
    assert first.dtype == np.uint16 and first.shape == (64, 64) and first.max() <= 1400
    np.testing.assert_array_equal(first, phantom.simulate(masks, ratings, name))
    assert (first != phantom.simulate(masks, ratings, name + 'x')).mean() > 0.5


def test_order_of_readers_does_not_show(case):
    masks, ratings, name = case
    first = phantom.simulate(masks, ratings, name)
    for order in ([3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]):
        np.testing.assert_array_equal(first, phantom.simulate(masks[order], ratings[order], name))


def test_split_of_votes_does_not_show():
    # Two readers marked A and B; or one marked their union and one their intersection: same votes.
    masks = np.zeros((4, 64, 64), np.uint8)
    masks[0, 20:36, 24:40] = masks[1, 26:44, 24:40] = 1
    other = np.zeros_like(masks)
    other[0], other[1] = masks[0] | masks[1], masks[0] & masks[1]
    ratings = np.full((2, 4), 4.0)
    np.testing.assert_array_equal(phantom.simulate(masks, ratings, 'case'), phantom.simulate(other, ratings, 'case'))


def test_ratings_show():
    masks = np.zeros((4, 64, 64), np.uint8)
    rows, columns = np.mgrid[:64, :64] - 32
    masks[:] = np.hypot(rows, columns) < 8

    def mean(pixels, **changes):
        rating = {'subtlety': 5, 'texture': 5, 'spiculation': 1, 'calcification': 6} | changes
        ratings = np.full((4, 4), [rating[name] for name in outlines.RATINGS], np.float32)
        return np.mean([phantom.simulate(masks, ratings, f'{k}')[pixels].mean() for k in range(120)])

    core = np.hypot(rows, columns) < 5
    around = (np.hypot(rows, columns) > 9) & (np.hypot(rows, columns) < 13)
    assert mean(core, texture=1) < mean(core) - 200
    assert mean(core, subtlety=1) < mean(core) - 80
    assert mean(core, calcification=3) > mean(core) + 50
    assert mean(around, spiculation=5) > mean(around) + 12


def test_larger_crops_hold_more_of_the_same():
    nodule = outlines.read_nodules(max_patients=1)[0]
    k, masks = next(iter(outlines.slice_masks(nodule, 128).items()))
    image = phantom.simulate(masks, nodule.ratings, f'{nodule.name}_{k}')
    assert image.shape == (128, 128) and -920 < np.median(image[image < 500]) - 1000 < -760
