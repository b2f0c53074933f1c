"""Crops that are unlike the lung weights' training crops are told; ordinary ones and other weights' are not."""

import h5py
import numpy as np
import pytest

from ambdiff.config import default
from ambdiff.prediction import unlike

ORDINARY = np.random.default_rng(0).uniform(0.05, 0.6, (64, 64, 1)).astype(np.float32)
LUNG_SPACING = (0.7, 0.7)


def data_of(**fields):
    data = default().data
    data.image_size = 64
    data.update(**fields)
    return data


@pytest.mark.parametrize(
    ('crop', 'said'),
    [
        (np.full((64, 64, 1), 0.3, np.float32), 'hardly any contrast'),
        (np.round(np.linspace(0, 1, 4096)).reshape(64, 64, 1).astype(np.float32), '100% of the pixels at the ends'),
        (ORDINARY * 0.1 + 0.85, 'unlike'),
    ],
)
def test_a_crop_unlike_the_training_crops_is_told(crop, said):
    (note,) = unlike.notes(data_of(), LUNG_SPACING, [crop], 1)
    assert said in note and 'do not rely on' in note
    (note,) = unlike.notes(data_of(), LUNG_SPACING, [ORDINARY, crop], 2)
    assert note.startswith('1 of 2 crops are unlike')


def test_ordinary_crops_and_weights_of_other_crops_are_left_alone():
    odd = np.zeros((64, 64, 1), np.float32)
    assert unlike.notes(data_of(), LUNG_SPACING, [ORDINARY], 1) == []
    for fields in ({'image_size': 128}, {'intensity': 'percentile'}, {'hu_window': (-160.0, 240.0)}):
        assert unlike.notes(data_of(**fields), LUNG_SPACING, [odd], 1) == []


def test_pixels_of_an_unusual_size_are_told_unless_they_are_resampled_or_unknown():
    (note,) = unlike.notes(data_of(), (3.0, 3.0), [ORDINARY], 1)
    assert note.startswith('pixels of 3 mm')
    assert unlike.notes(data_of(spacing=0.7), (3.0, 3.0), [ORDINARY], 1) == []
    assert unlike.notes(data_of(), (np.nan, np.nan), [ORDINARY], 1) == []


def test_no_real_crop_of_any_split_is_called_unlike(shared):
    with h5py.File(shared / 'data' / 'data_lidc.hdf5') as file:
        for split in ('train', 'val', 'test'):
            images = file[split]['images'][:, 3:67, 3:67][..., None] + 0.5
            for image in images:
                assert unlike.notes(data_of(), LUNG_SPACING, [image], 1) == []
