"""Slices on either side as channels: what readers, training and prediction make of config.data.neighbours."""

import numpy as np
import pytest
import tiny
from case_files import opened, save, settings, write_case

from ambdiff import config_check, methods, train
from ambdiff.config import default
from ambdiff.data import sources
from ambdiff.data.files import images, neighbours
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.prediction import crops
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.runtime import weights_file

SLICES, SIDE = 5, tiny.SIZE
STEP = 50  # of the value from one slice to the next, of 255


def write_volume(folder):
    """A case whose slices hold their number times STEP, each marked by two raters."""
    values = np.broadcast_to(np.arange(SLICES, dtype=np.uint8) * STEP, (SIDE, SIDE, SLICES)).copy()
    save(folder / 'image.nii.gz', values)
    for rater in range(2):
        mask = np.zeros(values.shape, np.uint8)
        mask[4 : 8 + rater, 4:9] = 1
        save(folder / f'mask_{rater}.nii.gz', mask)
    return folder


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('volumes')
    write_volume(folder / 'train' / 'one')
    return folder


def numbers(image):
    """Of each channel the number of the slice that it shows."""
    found = np.unique(np.rint(image * 255 / STEP), axis=2)
    assert image.dtype == np.float32 and found.shape[:2] == (SIDE, SIDE)
    return np.rint(image[0, 0] * 255 / STEP).astype(int).tolist()


@pytest.mark.parametrize('builder', ['', 'folder'])
@pytest.mark.parametrize('pattern', ['', 'image=image.nii.gz,mask=mask_*.nii.gz'])
@pytest.mark.parametrize(
    ('k', 'expected'),
    [
        (1, [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]),
        (2, [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 4], [2, 3, 4, 4, 4]]),
    ],
)
def test_a_slice_stands_between_those_beside_it_and_the_outermost_is_repeated(
    root, tmp_path, builder, pattern, k, expected
):
    fields = {'builder': builder, 'build_dir': str(tmp_path), 'pattern': pattern, 'num_raters': 2}
    plain = opened(root, **fields)
    source = opened(root, neighbours=k, channels=2 * k + 1, **fields)
    found = {source.place(row).slice: source[row] for row in range(len(source))}
    assert [numbers(found[z]['image']) for z in range(SLICES)] == expected
    for row in range(len(source)):
        np.testing.assert_array_equal(source[row]['masks'], plain[row]['masks'])
        np.testing.assert_array_equal(neighbours.own(source[row]['image'], k), plain[row]['image'])


def test_channels_of_an_image_stay_together(tmp_path):
    volume = np.arange(SIDE * SIDE * 3 * 2, dtype=np.float32).reshape(3, SIDE, SIDE, 2)
    stacked = neighbours.stacked(volume, 2, 1, 3)
    np.testing.assert_array_equal(stacked, np.concatenate([volume[1], volume[2], volume[2]], -1))
    np.testing.assert_array_equal(neighbours.own(stacked, 1), volume[2])


@pytest.mark.parametrize('kind', ['full_range', 'percentile'])
def test_prediction_shows_the_network_what_the_reader_showed_it(root, kind):
    data = settings(root, neighbours=1, channels=3, num_raters=2, intensity=kind)
    source = sources.open_source(data, 'train')
    read = {source.place(row).slice: source[row]['image'] for row in range(len(source))}
    volume = images.read(root / 'train' / 'one' / 'image.nii.gz', channels=neighbours.own_channels(data))
    plan = crops.Plan(volume, data, [], 1)
    assert [z for z, *_ in plan.crops] == list(range(SLICES))
    for (z, *_), crop in zip(plan.crops, plan.cut(), strict=True):
        np.testing.assert_allclose(crop, read[z], atol=1e-6)
        np.testing.assert_allclose(plan.images[z], read[z][..., 1:2], atol=1e-6)
    middle = crops.Plan(volume, data, [(8.0, 8.0, 2.0)], 1)
    ((z, *_),) = middle.crops
    np.testing.assert_allclose(next(middle.cut()), read[z], atol=1e-6)
    assert list(middle.images) == [z]


def test_an_array_may_hold_the_slices_beside_it_as_channels():
    data = settings('', neighbours=1, channels=3)
    values = np.stack([np.full((SIDE, SIDE), value, np.uint8) for value in (10, 20, 30)], -1)[None]
    plan = crops.Plan(Volume(values), data, [], 1)
    np.testing.assert_array_equal(next(plan.cut()) * np.float32(255), values[0])
    np.testing.assert_array_equal(plan.images[0] * np.float32(255), values[0, ..., 1:2])


def test_channels_that_are_no_multiple_are_refused_with_the_cure():
    config = default()
    config.data.neighbours = 1
    with pytest.raises(UserError, match=r'config\.data\.channels is 1, .*--config\.data\.channels=3 for images of 1'):
        config_check.check(config)
    config.data.channels = 3
    config_check.check(config)


def test_what_has_no_volumes_is_refused_in_one_line(tmp_path):
    write_case(tmp_path / 'pictures' / 'train' / 'one')
    tiny.write_hdf5(tmp_path / 'crops.hdf5')
    cure = r'config\.data\.neighbours is 1; set --config\.data\.neighbours=0 --config\.data\.channels=1$'
    for fields in (
        {'path': str(tmp_path / 'pictures')},
        {'path': str(tmp_path / 'pictures'), 'builder': 'folder', 'build_dir': str(tmp_path / 'built')},
        {'path': str(tmp_path / 'crops.hdf5')},
        {'builder': 'lidc_simulated'},
        {'builder': 'ms_mri_simulated'},
    ):
        with pytest.raises(UserError, match=cure) as refused:
            sources.open_source(settings(**{'path': '', 'neighbours': 1, 'channels': 3} | fields), 'train')
        assert '\n' not in str(refused.value)


@pytest.fixture(scope='module')
def weights(root, tmp_path_factory):
    """Those of a training step on the volume."""
    folder = tmp_path_factory.mktemp('run')
    fields = {'neighbours': 1, 'channels': 3, 'num_raters': 2, 'intensity': 'full_range'}
    config = tiny.config(root, **{f'data.{name}': value for name, value in fields.items()})
    config.train.num_steps = config.train.checkpoint_every = 1
    config.train.batch_size = 4
    assert train.train(config, folder / 'work')
    return folder / 'work'


def test_weights_know_their_neighbours_and_predict_volumes_alone(weights, root, tmp_path, monkeypatch, capsys):
    seen = []

    def record(model, settings, crops, numbers, names):
        seen.extend(crops)
        return tiny.sample_bright(model, settings, crops, numbers, names)

    monkeypatch.setattr(CropSampler, 'sample_crops', record)
    assert CropSampler(str(weights)).config.data.neighbours == 1
    assert tiny.run_predict(weights, root / 'train' / 'one' / 'image.nii.gz', tmp_path / 'out') == 0
    assert [numbers(crop) for crop in seen] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    write_case(tmp_path / 'case')
    capsys.readouterr()
    assert tiny.run_predict(weights, tmp_path / 'case' / 'image.png', tmp_path / 'none') == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if 'image.png' in line]
    assert 'give the volume it is from' in said


def test_weights_of_before_had_none(tmp_path):
    config = tiny.config('')
    with config.unlocked():
        del config.data.neighbours
    drawn = tiny.params(methods.create(tiny.config('')), np.zeros((1, SIDE, SIDE, 1), np.float32))
    weights_file.save_safetensors(tmp_path / 'old.safetensors', drawn, config, step=1, dtype='float32')
    assert CropSampler(str(tmp_path / 'old.safetensors')).config.data.neighbours == 0


def test_pictures_of_an_evaluation_are_of_the_slice_itself(root):
    source = opened(root, neighbours=1, channels=3, num_raters=2)
    cases = cases_lib.load(source, range(len(source)))
    shown = cases_lib.shown(cases, 1)
    np.testing.assert_array_equal(shown.images, cases.images[..., 1:2])
    assert shown.names == cases.names
