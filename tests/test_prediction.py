"""The value that predict writes and Python code works with: masks as bits, merged as in the plain formula."""

import json
import types

import numpy as np
import pytest
import tiny

from ambdiff import metrics, modes
from ambdiff.api.prediction import Prediction
from ambdiff.data.files.volume import Volume
from ambdiff.prediction import crops, merge, points, samples
from ambdiff.prediction.follow import Region
from ambdiff.prediction.result import Settings

NAN = (np.nan, np.nan, np.nan)


def data(size=16, **more):
    fields = {
        'image_size': size,
        'intensity': 'full_range',
        'hu_window': (-1000.0, 400.0),
        'spacing': 0.0,
        'neighbours': 0,
    }
    return types.SimpleNamespace(**fields | more)


@pytest.mark.parametrize('num_classes', [1, 2, 3, 4])
def test_masks_held_as_bits_are_the_masks(num_classes):
    rng = np.random.default_rng(num_classes)
    masks = rng.integers(0, num_classes + 1, (5, 4, 9, 13)).astype(np.uint8)
    masks[:, [0, 2]] = 0
    held = samples.Samples(5, (4, 9, 13), [3, 1], num_classes)
    for z in (1, 3):
        held.put(z, slice(0, 2), masks[:2, z])
        for number in (2, 3, 4):
            held.put(z, number, masks[number, z])
    np.testing.assert_array_equal(np.stack([held.whole(number) for number in range(5)]), masks)
    np.testing.assert_array_equal(held.on_slice(3), masks[:, 3])
    np.testing.assert_array_equal(held.on_slice(2), masks[:, 2])
    np.testing.assert_array_equal(held.plane(4, 1), masks[4, 1])
    assert held.plane(0, 2) is None
    np.testing.assert_array_equal(held.pixels(), (masks[:, [1, 3]] > 0).sum((2, 3)))
    np.testing.assert_array_equal(held.marked(1), (masks[:, 1] > 0).any(0))
    np.testing.assert_array_equal(held.cut(range(1, 4), (2, 3, 8, 11))[2], masks[2, 1:4, 2:8, 3:11])
    planes = {1: 1, 2: 2, 3: 2, 4: 3}[num_classes]
    assert samples.size(5, (4, 9, 13), 2, num_classes) == planes * 5 * 2 * 9 * 2


@pytest.mark.parametrize('num_classes', [1, 2])
def test_crops_are_merged_as_the_formula_says(monkeypatch, num_classes):
    rng = np.random.default_rng(0)
    plan = crops.Plan(Volume(np.zeros((2, 30, 41, 1), np.uint8)), data(), [], 1)
    masks = rng.integers(0, num_classes + 1, (len(plan.crops), 6, 16, 16)).astype(np.uint8)
    monkeypatch.setattr(merge, '_BUDGET', 4 * num_classes * 30 * 41 * 4)  # four samples at a time, then two
    merging = merge.Merge(plan, 6, num_classes)
    for mask in masks:
        assert not merging.done
        merging.add(mask)
    side = np.sin(np.pi * (np.arange(16) + 0.5) / 16) ** 2
    weight = np.outer(side, side)
    wanted = np.zeros((6, 2, 30, 41), int)
    for z in range(2):
        shares, total = np.zeros((num_classes + 1, 6, 30, 41)), np.zeros((30, 41))
        for (at, top, left), mask in zip(plan.crops, masks, strict=True):
            if at == z:
                inside = (slice(top, top + 16), slice(left, left + 16))
                total[inside] += weight
                for label in range(num_classes + 1):
                    shares[label][:, *inside] += weight * (mask == label)
        assert (total > 0).all()
        near = np.sort(shares / total, axis=0)
        clear = near[-1] - near[-2] > 1e-5  # elsewhere two crops disagree at equal weight
        found = np.stack([merging.samples.whole(number)[z] for number in range(6)])
        np.testing.assert_array_equal(found[clear], shares.argmax(0)[clear])
        assert clear.mean() > 0.95
        wanted[:, z] = found
    assert merging.done and merging.samples.slices == (0, 1)


def test_only_slices_with_points_are_held():
    volume = Volume(np.zeros((50, 64, 64, 1), np.uint8))
    few, all_slices = crops.Plan(volume, data(), [(9.0, 9.0, 20.0)], 1), crops.Plan(volume, data(), [], 1)
    assert list(few.images) == [20] and len(all_slices.images) == 50
    need = lambda plan, number: plan.memory(number, 1) - plan.memory(0, 1)
    held = 50 * 64 * 64 / 8
    assert need(all_slices, 10**6) / 10**6 > held
    assert need(few, 10**6) < need(all_slices, 10**6) / 1.3


@pytest.mark.parametrize(
    ('axes', 'flips'), [((2, 1, 0), (False, False, False)), ((0, 2, 1), (True, False, True)), ((1, 0, 2), (True,) * 3)]
)
def test_a_pixel_of_the_page_has_the_point_that_leads_back_to_it(axes, flips):
    volume = Volume(np.zeros((5, 7, 9, 1)), 'nifti', file_axes=axes, file_flips=flips)
    z, row, column = 3, 1, 6
    text = points.pattern(volume, z)
    for letter, value, size in (('X', column, 9), ('Y', row, 7)):  # as the page's script does
        text = text.replace(f'-{letter}', str(size - 1 - value)).replace(letter, str(value))
    assert points.to_volume(tuple(map(float, text.split(','))), volume) == (z, row, column)


@pytest.mark.parametrize('kind', ['picture', 'dicom'])
def test_a_pixel_of_a_picture_is_column_and_row(kind):
    assert points.pattern(Volume(np.zeros((1, 7, 9, 1)), kind), 0) == 'X,Y'
    assert points.pattern(Volume(np.zeros((4, 7, 9, 1)), kind), 2) == 'X,Y,2'


def prediction(masks, spacing=NAN, at=(), regions=(), num_classes=1, smallest_part=1, slices=1):
    """masks [N, Z, H, W] of an image that is grey."""
    shape = masks.shape[1:]
    return Prediction(
        name='a/b',
        title='a/b.png',
        samples=samples.Samples.of(masks, num_classes),
        volume=Volume(np.broadcast_to(np.uint8(0), (*shape, 1)), spacing=spacing),
        images={z: np.full((*shape[1:], 1), 0.5, np.float32) for z in range(shape[0])},
        window=(0.0, 1.0, ''),
        points=at,
        regions=regions,
        raters=np.zeros((0, *shape[:2], -(-shape[2] // 8)), np.uint8),
        rater_names=(),
        notes=('a note',),
        drawn_with=Settings(len(masks), 2, 0, smallest_part, slices),
        weights={'name': 'w', 'step': 3, 'sha256': '0'},
        draws='independent',
        evaluations=0.5,
        settings={'seed': 0},
    )


def two_lesions():
    """Four samples [4, 1, 40, 60]: one marks nothing, one only the left lesion, two both."""
    left, right = tiny.disc((40, 60), (20, 12), 4), tiny.disc((40, 60), (20, 45), 6)
    return np.stack([left & right, left, left | right, left | right])[:, None], left.sum(), right.sum()


def test_a_prediction_says_what_its_masks_do():
    masks, left, right = two_lesions()
    found = prediction(masks, (3.0, 0.5, 2.0))
    assert found.masks.dtype == bool and found.masks.shape == (4, 40, 60)
    np.testing.assert_array_equal(found.masks, masks[:, 0])
    np.testing.assert_allclose(found.probability, masks.mean((0, 1)))
    np.testing.assert_allclose(found.disagreement, modes.disagreement(masks[:, 0]), atol=1e-6)
    assert found.empty_share == 0.25 and found.spacing == (0.5, 2.0) and found.affine is None
    assert found.area['p95'] <= left + right and found.area['mean'] == pytest.approx((3 * left + 2 * right) / 4)
    assert [(m.share, m.area, m.empty) for m in found.modes] == [
        (0.5, left + right, False),
        (0.25, 0, True),
        (0.25, left, False),
    ]
    np.testing.assert_array_equal(found.modes[0].mask, masks[2, 0])
    with pytest.raises(ValueError, match='read-only'):
        found.masks[0, 0, 0] = True
    raters = np.stack([masks[1, 0], masks[2, 0]])
    wanted = metrics.measure(raters[None], masks[None, :, 0], 'independent')
    assert found.score(raters) == pytest.approx({name: value[0] for name, value in wanted.items()}, nan_ok=True)
    with pytest.raises(ValueError, match='give masks of the same image'):
        found.score(raters[:, :20])


def test_parts_too_small_to_count_are_drawn_and_not_told_as_answers(tmp_path):
    masks, left, _ = two_lesions()
    masks[0, 0, 2:4, 30], masks[1, 0, 35, 57] = True, True  # two pixels, and one
    assert [answer.share for answer in prediction(masks).modes] == [0.5, 0.25, 0.25]
    assert prediction(masks, smallest_part=2).empty_share == 0
    found = prediction(masks, smallest_part=3)
    assert found.empty_share == 0.25 and found.modes[1].empty and not found.modes[1].mask.any()
    assert found.modes[2].area == left and found.modes[2].mask.sum() == left
    np.testing.assert_array_equal(found.masks, masks[:, 0])
    found.save(tmp_path / 'x')
    assert json.loads((tmp_path / 'x' / 'summary.json').read_text())['smallest_part'] == 3
    assert 'fewer than 3 pixels' in (tmp_path / 'x' / 'index.html').read_text()


def test_a_volume_keeps_its_axis_of_slices():
    masks = np.concatenate([two_lesions()[0]] * 3, 1)
    found = prediction(masks, (3.0, 0.5, 2.0))
    assert found.masks.shape == masks.shape and found.probability.shape == (3, 40, 60)
    assert found.spacing == (3.0, 0.5, 2.0) and found.modes[0].mask.shape == (3, 40, 60)


def test_each_point_has_its_own_answers(tmp_path):
    masks, left, right = two_lesions()
    at = ((12.0, 20.0), (45.0, 20.0))
    regions = (Region(0, 4, 0, 36, 28, 0, 1), Region(0, 4, 30, 36, 60, 0, 1))
    found = prediction(masks, at=at, regions=regions)
    assert [finding.empty_share for finding in found.findings] == [0.25, 0.5]
    assert [max(answer.area for answer in finding.modes) for finding in found.findings] == [left, right]
    assert [len(finding.modes) for finding in found.findings] == [2, 2]
    assert found.empty_share == 0.25
    assert [found.name_of(finding) for finding in found.findings] == ['a/b.png at 12,20', 'a/b.png at 45,20']
    found.save(tmp_path / 'x')
    summary = json.loads((tmp_path / 'x' / 'summary.json').read_text())
    assert [(p['at'], p['empty_share']) for p in summary['points']] == [([12, 20], 0.25), ([45, 20], 0.5)]
    page = (tmp_path / 'x' / 'index.html').read_text()
    assert page.count('<details open class="case"') == 2 and 'a note' in page


def test_a_notebook_shows_the_page():
    shown = prediction(two_lesions()[0])._repr_html_()
    assert (
        shown.startswith('<iframe')
        and 'sandbox' in shown
        and 'title="Plausible masks of ' in shown
        and '&lt;svg' in shown
    )


def test_answers_found_slice_by_slice_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    masks = (rng.random((9, 4, 12, 13)) < 0.02).astype(np.uint8) * rng.integers(1, 3, (9, 1, 1, 1), np.uint8)
    masks[3] = 0
    held = samples.Samples.of(masks, 2)
    assert modes.find_in_parts(held.on_slices()) == modes.find(masks)
    assert modes.words(held, modes.find(masks), (1, 1)) == modes.words(masks, modes.find(masks), (1, 1))
