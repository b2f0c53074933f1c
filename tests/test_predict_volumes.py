"""Predict on whole volumes: a forecast and a bar of crops, a first pass, and going on within a case."""

import types

import nibabel
import numpy as np
import pytest
import tiny

from ambdiff import sampling
from ambdiff.data.files.volume import Volume
from ambdiff.prediction import crops, merge, unfinished, watch
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.prediction.inputs import Input
from ambdiff.prediction.result import Settings

DATA = types.SimpleNamespace(
    image_size=16, intensity='full_range', hu_window=(-1000.0, 400.0), spacing=0.0, neighbours=0
)


def small_chunks(size):
    """The class of samplers whose chunks have this size."""

    class Small(sampling.Sampler):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.chunk = size

    return Small


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


def test_with_a_first_pass_the_forecast_is_a_range():
    said = []
    shown = watch.Forecast(Bar(), said.append, 1, 18, dearer=8)
    large = Input('large', 'large.nii', ())
    shown.begun(large, 300, 36000)
    shown.screened(large, 18, 9, 0.18)
    assert 'about 6 min to 54 min; cheaper: points (--at), or' in said[1]


@pytest.mark.parametrize(('seconds', 'text'), [(9.6, '10 s'), (80, '1 min'), (5000, '83 min'), (64800, '18.0 h')])
def test_durations_are_told_in_one_unit(seconds, text):
    assert watch.duration(seconds) == text


def test_the_bar_counts_crops(weights, bright, volume, tmp_path, capfd):
    tiny.run_predict(weights, volume, tmp_path / 'out')
    said = capfd.readouterr().err
    assert '54/54' in said and '1/1 cases' in said


def bits_of(folder):
    """The masks, and what is said beside how and where they were made."""
    said = tiny.summary(folder.parent, folder.name)
    return np.asarray(nibabel.load(folder / 'samples.nii.gz').dataobj), said['modes'], said['warnings']


@pytest.mark.parametrize('more', [(), ('--screen=0.5',)])
def test_a_case_goes_on_within_itself_after_a_kill_and_its_masks_are_the_same(
    weights, bright, volume, tmp_path, monkeypatch, more
):
    monkeypatch.setattr(sampling, 'Sampler', small_chunks(5))
    monkeypatch.setattr(unfinished, '_SECONDS', 0.0)
    monkeypatch.setattr(CropSampler, 'screen', lambda m, s, crops, *_: (crops.mean((1, 2, 3)) > 0.5) * 1.0)
    assert tiny.run_predict(weights, volume, tmp_path / 'whole', *more) == 0
    sampled = len(bright)
    bright.clear()
    sample = CropSampler.sample_crops

    def killed(model, settings, crops, numbers, names):
        if len(bright) > sampled / 2:
            raise KeyboardInterrupt
        return sample(model, settings, crops, numbers, names)

    monkeypatch.setattr(CropSampler, 'sample_crops', killed)
    assert tiny.run_predict(weights, volume, tmp_path / 'out', *more) == 130
    kept = list((tmp_path / 'out' / '.unfinished').rglob('*.npz'))
    assert len(kept) >= 2 and not (tmp_path / 'out' / 'v').exists()
    monkeypatch.setattr(CropSampler, 'sample_crops', sample)
    kept[0].write_bytes(kept[0].read_bytes()[:-40])  # damaged: that slice is made again
    bright.clear()
    assert tiny.run_predict(weights, volume, tmp_path / 'out', *more) == 0
    assert len(bright) < 0.8 * sampled, 'slices that were done are not sampled again'
    for one, other in zip(bits_of(tmp_path / 'out' / 'v'), bits_of(tmp_path / 'whole' / 'v'), strict=True):
        assert np.array_equal(one, other)
    assert not list((tmp_path / 'out').rglob('*.npz'))


def test_slices_of_other_settings_are_not_gone_on_with(weights, bright, volume, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, '_SECONDS', 0.0)
    left = unfinished.Unfinished(tmp_path / 'out', 'v', {'seed': 3})
    values = np.zeros((2, 20, 20, 1), np.uint8)
    merging = merge.Merge(crops.Plan(Volume(values), DATA, [], 1), 4, 1)
    for _ in range(len(merging.left) - 1):
        merging.add(np.ones((4, 16, 16), bool))
    left.keep(merging)
    assert set(left.read()) == {0} and left.read()[0].bits.any()
    assert not unfinished.Unfinished(tmp_path / 'out', 'v', {'seed': 4}).read()
    assert not left.read(), 'and they are removed'


def test_tiles_in_which_the_first_pass_shows_nothing_are_left_empty_and_counted(
    weights, bright, volume, tmp_path, monkeypatch
):
    shares = iter(np.tile([0.0, 0.25, 1.0], 18))
    monkeypatch.setattr(CropSampler, 'screen', lambda m, s, crops, *_: np.array([next(shares) for _ in crops]))
    assert tiny.run_predict(weights, volume, tmp_path / 'out', '--screen=0.25') == 0
    assert len(bright) == 18
    masks, _, warned = bits_of(tmp_path / 'out' / 'v')
    # Of each three tiles along a row the last alone is sampled: what the first alone covers is empty.
    ends = [masks[:12], masks[28:], masks[:, :12], masks[:, 28:]]
    assert sum(end.any() for end in ends) == 3
    assert any('36 of 54 tiles were not sampled' in note for note in warned)


@pytest.mark.parametrize('wrong', ['1', '-0.1', 'nan'])
def test_a_share_of_screening_that_is_none_is_refused(weights, volume, tmp_path, capfd, wrong):
    with pytest.raises(SystemExit, match='2'):
        tiny.run_predict(weights, volume, tmp_path / 'out', f'--screen={wrong}')
    assert '--screen=' in capfd.readouterr().err


def test_the_first_pass_is_one_step_of_one_orientation(weights):
    model = CropSampler(weights)
    crops = np.random.default_rng(0).random((2, tiny.SIZE, tiny.SIZE, 1), np.float32)
    settings = Settings(4, 2, 0, 1, 1)
    shares = model.screen(settings, crops, np.zeros(2, np.uint32), ['a', 'b'])
    assert shares.shape == (2,) and (shares >= 0).all() and (shares <= 1).all()
    assert model.screener().evaluations <= model.sampler(settings).evaluations
