"""The body in a CT: lungs are of it, the air around it and the table are not."""

import types

import numpy as np
import pytest

from ambdiff.data.files.volume import Volume
from ambdiff.prediction import body, crops

DATA = types.SimpleNamespace(
    image_size=16,
    channels=1,
    num_classes=1,
    intensity='hu_window',
    hu_window=(-1000.0, 400.0),
    spacing=0.0,
    neighbours=0,
)


def phantom(slices=3, open_lung=False, units='HU', spacing=3.0):
    """A chest of 128 x 128 pixels: an ellipse of tissue, two lungs of air, a table that touches the back."""
    rows, columns = np.mgrid[:128, :128]
    inside = lambda row, column, tall, wide: ((rows - row) / tall) ** 2 + ((columns - column) / wide) ** 2 < 1
    hu = np.full((128, 128), -1000.0, np.float32)
    chest = inside(60, 64, 30, 45)
    hu[chest] = 40
    hu[inside(58, 44, 20, 13) | inside(58, 84, 20, 13)] = -880
    if open_lung:  # as where the trachea leaves the slice
        hu[:60, 62:66] = -1000
    hu[89:91] = -100  # the table, below all of it
    hu[108:112, 10:118] = 0  # and its frame
    return Volume(np.stack([hu] * slices)[..., None], units=units, spacing=(5.0, spacing, spacing)), chest


@pytest.mark.parametrize('open_lung', [False, True])
def test_lungs_are_of_the_body_and_air_and_table_are_not(open_lung):
    volume, chest = phantom(open_lung=open_lung)
    found = body.find(volume)[1]
    assert found.shape == (128, 128)
    assert (found & chest).sum() > 0.99 * chest.sum()
    assert not found[95:].any() and (found & ~chest).sum() < 0.15 * chest.sum()


def test_tiles_of_air_are_left_out_and_counted_unless_all_are_wanted_or_points_given():
    volume, chest = phantom()
    every = crops.Plan(volume, DATA, [], 1, everywhere=True)
    plan = crops.Plan(volume, DATA, [], 1)
    left_out = set(every.crops) - set(plan.crops)
    assert len(left_out) > len(every.crops) / 3
    assert not any(chest[y : y + 16, x : x + 16].any() for _, y, x in left_out)
    covered = np.zeros_like(chest)
    for _, y, x in plan.crops:
        covered[y : y + 16, x : x + 16] = True
    assert covered[chest].all()
    assert any(f'{len(left_out)} of {len(every.crops)} tiles' in note for note in plan.notes)
    assert not any('tiles' in note for note in every.notes)
    assert len(crops.Plan(volume, DATA, [(2.0, 2.0, 1.0)], 1).crops) == 1


@pytest.mark.parametrize(
    'change', [{'units': 'scaled'}, {'spacing': 1.5}, {'spacing': np.nan}], ids=['no HU', 'small field', 'no spacing']
)
def test_nothing_is_left_out_where_the_body_cannot_be_told(change):
    volume, _ = phantom(slices=1, **change)
    assert crops.Plan(volume, DATA, [], 1).crops == crops.Plan(volume, DATA, [], 1, everywhere=True).crops


def test_the_grid_of_the_body_covers_fields_that_it_does_not_divide():
    volume, chest = phantom(slices=1)
    fine = np.repeat(np.repeat(volume.values, 3, 1), 3, 2)[:, :-2, :-1]
    plan = crops.Plan(Volume(fine, units='HU', spacing=(5.0, 1.0, 1.0)), DATA, [], 1)
    covered = np.zeros(fine.shape[1:3], bool)
    for _, y, x in plan.crops:
        covered[y : y + 16, x : x + 16] = True
    assert covered[np.kron(chest, np.ones((3, 3), bool))[:-2, :-1]].all() and not covered.all()
