"""Predict on whole volumes: a forecast and a bar of crops."""

import nibabel
import numpy as np
import pytest
import tiny

from ambdiff.prediction import watch
from ambdiff.prediction.inputs import Input


@pytest.fixture
def volume(tmp_path):
    """A NIfTI of six slices, each of nine tiles."""
    values = np.random.default_rng(0).integers(0, 255, (40, 40, 6), np.uint8)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / 'v.nii.gz')
    return tmp_path / 'v.nii.gz'


class Bar:
    """What is kept of a bar of tqdm."""

    def __init__(self):
        self.total, self.n, self.said = 0, 0, ''

    def update(self, count):
        self.n += count

    def set_postfix_str(self, text):
        self.said = text


def test_large_cases_are_forecast_from_their_first_crops_and_small_ones_not_spoken_of():
    bar, said = Bar(), []
    shown = watch.Forecast(bar, said.append, 4, 18)
    small, large, faulty = (Input(name, f'{name}.nii', ()) for name in ('small', 'large', 'faulty'))
    shown.begun(small, 1, 18)
    assert bar.total == 4 * 18 and not said
    shown.sampled(small, 18, 99.0)
    shown.ended(small)
    shown.begun(large, 300, 36300)
    assert said == ['ambdiff: large.nii: 36,300 crops on 300 slices']
    shown.sampled(large, 18, 18.0)
    shown.sampled(large, 18, 90.0)
    assert len(said) == 2 and 'large.nii: about 10.1 h; cheaper: points' in said[1]
    shown.ended(faulty)
    shown.ended(large)
    assert (bar.n, bar.said) == (18 + 36300, '3/4 cases') and bar.total == 18 + 36300 + round(36318 / 2)


@pytest.mark.parametrize(('seconds', 'text'), [(9.6, '10 s'), (80, '1 min'), (5000, '83 min'), (64800, '18.0 h')])
def test_durations_are_told_in_one_unit(seconds, text):
    assert watch.duration(seconds) == text


def test_the_bar_counts_crops(weights, bright, volume, tmp_path, capfd):
    tiny.run_predict(weights, volume, tmp_path / 'out')
    said = capfd.readouterr().err
    assert '54/54' in said.replace('.0', '') and '1/1 cases' in said
