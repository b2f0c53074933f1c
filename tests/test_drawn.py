"""Masks from outlines that are drawn into pictures: simulated ones, whose outlines are known."""

import numpy as np
import pytest
from drawn_files import draw, ellipse, enclosed, fundus, radii, riga, save
from layout_files import fails
from pattern_files import areas, everything, settings

from ambdiff.data import check
from ambdiff.data.files import images
from ambdiff.data.pattern import drawn
from ambdiff.data.pattern.presets import PRESETS

SIZE = 128
DISC, CUP = ellipse(SIZE, 0.27), ellipse(SIZE, 0.13)


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def found(tmp_path, *outlines, quality=90, **style):
    """The regions recovered from a clean and a drawn-in picture that both went through JPEG."""
    clean = fundus(np.random.default_rng(0), SIZE)
    pictures = []
    for name, picture in (('clean', clean), ('drawn', draw(clean, *outlines, **style))):
        save(tmp_path / f'{name}.jpg', picture, quality)
        pictures.append(images.read(tmp_path / f'{name}.jpg', channels=3).values[0])
    return drawn.regions(*pictures, 2)


@pytest.mark.parametrize(
    'style',
    [{}, {'width': 1}, {'width': 4}, {'colour': (0, 0, 255)}, {'colour': (255, 255, 255)}, {'quality': 75}],
    ids=lambda style: '-'.join(map(str, style)) or 'plain',
)
def test_both_regions_are_those_that_were_outlined_whatever_the_pen(tmp_path, style):
    disc, cup = found(tmp_path, DISC, CUP, **style)
    assert iou(disc, enclosed(SIZE, DISC)) > 0.96 and iou(cup, enclosed(SIZE, CUP)) > 0.92
    assert not (cup & ~disc).any()


@pytest.mark.parametrize('shift', [0.13, 0.14, 0.15])
def test_a_cup_that_touches_the_disc_is_still_told_from_the_ring(tmp_path, shift):
    moved = ellipse(SIZE, 0.13, shift)
    disc, cup = found(tmp_path, DISC, moved)
    whole = enclosed(SIZE, DISC) | enclosed(SIZE, moved)
    assert iou(disc, whole) > 0.93 and iou(cup, enclosed(SIZE, moved) & enclosed(SIZE, DISC)) > 0.85


def test_faint_lines_are_found_and_small_gaps_closed(tmp_path):
    disc, cup = found(tmp_path, DISC, CUP, strength=0.25)
    assert iou(disc, enclosed(SIZE, DISC)) > 0.95 and iou(cup, enclosed(SIZE, CUP)) > 0.9
    assert iou(found(tmp_path, DISC, CUP[3:])[1], enclosed(SIZE, CUP)) > 0.9


def test_what_cannot_be_told_is_not_guessed(tmp_path):
    for outlines, said in (
        ((), 'shows nothing'),
        ((DISC,), 'has no two closed outlines'),
        ((DISC, CUP[60:]), 'has no two closed outlines'),
        ((DISC, CUP, ellipse(SIZE, 0.06)), 'has no two closed outlines'),
    ):
        with pytest.raises(drawn.NotFound, match=said):
            found(tmp_path, *outlines)
    pictures = [fundus(np.random.default_rng(seed), SIZE) for seed in (0, 1)]
    with pytest.raises(drawn.NotFound, match='almost everywhere'):
        drawn.regions(pictures[0], 255 - pictures[1], 2)


def test_riga_is_read_with_its_known_faults(tmp_path):
    riga(tmp_path)
    first = tmp_path / 'MESSIDOR' / 'image1-1.tif'
    first.rename(first.with_name('Image1-1.tif'))
    data = settings(tmp_path, 'riga', image_size=96, num_raters=3)
    cases = everything(tmp_path, 'riga', image_size=96, num_raters=3)
    assert len(cases) == 5 and cases['MESSIDOR/image1'][1]['image'].shape == (96, 96, 3)
    for case in ('BinRushed/BinRushed1-Corrected/image1', 'Magrabia/MagrabiFemale/image26'):
        example = cases[case][1]
        assert example['present'].all()
        for label, part in ((2, 1), (1, 0)):
            expected = [enclosed(96, ellipse(96, radii(rater)[part])).sum() for rater in (1, 2, 3)]
            marked = [np.count_nonzero(mask >= label) for mask in example['masks']]
            assert sorted(marked) == pytest.approx(expected, rel=0.08)
    for case in ('BinRushed/BinRushed1-Corrected/image44', 'MESSIDOR/image1'):
        assert cases[case][1]['present'].all()
    surveys, _, faults = check.examine(data)
    remarks = [line for survey in surveys.values() for line in survey.remarks()]
    assert not faults
    for name in ('MagrabiFemale/image48', 'MagrabiaMale/ImageXY'):
        assert any(name in line and 'no clean picture' in line for line in remarks), remarks
    cups = everything(tmp_path, 'riga,classes=cup,drop=disc', image_size=96, num_raters=3, num_classes=1)
    assert all(len(areas(example)) == 3 for _, example in cups.values())
    assert PRESETS['riga'].fields['num_classes'] == 2


def test_an_outline_that_does_not_close_leaves_its_rater_out_and_a_picture_of_another_size_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        clean = fundus(rng, SIZE)
        save(tmp_path / f'image{number}prime.tif', clean)
        save(tmp_path / f'image{number}-1.tif', draw(clean, DISC, CUP))
        save(tmp_path / f'image{number}-2.tif', draw(clean, DISC, CUP[70:]))
    cases = everything(tmp_path, 'riga', num_raters=2)
    assert all(example['present'].sum() == 1 for _, example in cases.values())
    surveys, _, faults = check.examine(settings(tmp_path, 'riga', num_raters=2))
    assert not faults and any('rater 2 has no two closed outlines' in line for line in surveys['train'].remarks())
    discs = everything(tmp_path, 'riga,classes=disc,drop=cup', num_raters=2, num_classes=1)
    assert all(example['present'].all() for _, example in discs.values())
    for number in range(3):
        save(tmp_path / f'image{number}-1.tif', fundus(rng, 64))
    fails(settings(tmp_path, 'riga', num_raters=2), 'train', 'image', '64x64 pixels')
