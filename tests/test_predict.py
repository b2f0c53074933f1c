"""Predict: masks in the place and geometry of the input, the same whatever stands beside them.

Where geometry is tested, the network is replaced by one that marks what is bright: then the right masks are known.
"""

import json

import jax
import nibabel
import numpy as np
import pytest
import tiny
from PIL import Image

from ambdiff import modes
from ambdiff.errors import UserError
from ambdiff.prediction import inputs, points
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.runtime import checkpoint, checkpointer, sharding, weights_file


@pytest.mark.parametrize('kind', ['png', 'jpg', 'tif', 'png16'])
def test_pictures_give_masks_where_the_bright_disc_is(weights, bright, tmp_path, kind):
    mask = tiny.disc((30, 40), (12, 25))
    values = np.where(mask, 230, 20).astype(np.uint8)
    path = tmp_path / f'a.{kind.rstrip("16")}'
    picture = Image.fromarray(values.astype(np.uint16) * 257) if kind == 'png16' else Image.fromarray(values)
    picture.save(path, quality=100) if kind == 'jpg' else picture.save(path)
    assert tiny.run_predict(weights, path, tmp_path / 'out', '--at=24,13') == 0
    folder = tmp_path / 'out' / 'a'
    names = sorted(p.name for p in folder.iterdir())
    samples = [f'samples_{i:02}.png' for i in range(4)]
    assert names == sorted([*samples, 'probability.png', 'disagreement.png', 'summary.json', 'index.html'])
    read = [np.asarray(Image.open(folder / name)) for name in samples]
    assert not read[0].any()
    assert all((image == 255 * mask).all() for image in read[1:])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / 'probability.png')), np.rint(mask * 0.75 * 255))
    bits = modes.disagreement(np.array([0, 1, 1, 1])[:, None])[0]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / 'disagreement.png')), np.rint(mask * bits * 255))
    found = tiny.summary(tmp_path / 'out', 'a')
    assert (found['num_samples'], found['num_steps'], found['seed'], found['empty_share']) == (4, 2, 0, 0.25)
    assert found['area']['unit'] == 'px' and found['area']['p95'] == mask.sum()
    assert [(m['share'], m['empty'], m['area'], m['samples']) for m in found['modes']] == [
        (0.75, False, mask.sum(), [1, 2, 3]),
        (0.25, True, 0, [0]),
    ]
    assert any('no HU' in warning for warning in found['warnings'])
    assert len(bright) == 1


@pytest.mark.parametrize('with_point', [True, False])
def test_tiles_cover_the_whole_slice_and_agree_where_they_overlap(weights, bright, tmp_path, with_point):
    mask = tiny.disc((53, 70), (16, 16)) | tiny.disc((53, 70), (40, 60)) | tiny.disc((53, 70), (0, 69))
    Image.fromarray(np.where(mask, 230, 20).astype(np.uint8)).save(tmp_path / 'a.png')
    at = '--at=60,40; 16,16' if with_point else '--at='
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out', at) == 0
    drawn = np.asarray(Image.open(tmp_path / 'out/a/samples_01.png')) > 0
    if with_point:  # nothing was asked about the corner
        mask = mask & ~tiny.disc((53, 70), (0, 69))
        found = tiny.summary(tmp_path / 'out', 'a')['points']
        assert [(p['at'], p['area']['p95']) for p in found] == [
            ([60, 40], tiny.disc((53, 70), (40, 60)).sum()),
            ([16, 16], tiny.disc((53, 70), (16, 16)).sum()),
        ]
    np.testing.assert_array_equal(drawn, mask)


@pytest.mark.parametrize(
    ('order', 'signs'), [((0, 1, 2), (-1, 1, 1)), ((2, 0, 1), (1, -1, -1)), ((1, 0, 2), (-1, -1, -1))]
)
def test_nifti_results_are_in_the_files_own_geometry(weights, bright, tmp_path, order, signs):
    rng = np.random.default_rng(0)
    centre = np.array([21, 13, 3])
    hu = np.where(np.stack([tiny.disc((40, 30), (centre[0], centre[1]))] * 7, -1), 30, -900).astype(np.int16)
    hu[..., [0, 1, 5, 6]] = -900
    hu += rng.integers(0, 5, hu.shape, dtype=np.int16)
    affine = np.diag([0.6, 0.8, 2.5, 1.0])
    affine[:3, 3] = (-50, 20, 100)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, (to, sign) in enumerate(zip(order, signs, strict=True)):
        turn[axis, to] = sign
        turn[axis, 3] = hu.shape[axis] - 1 if sign < 0 else 0
    stored = np.moveaxis(hu[:: signs[0], :: signs[1], :: signs[2]], (0, 1, 2), order)
    image = nibabel.Nifti1Image(stored, affine @ turn)
    nibabel.save(image, tmp_path / 'v.nii.gz')
    place = np.linalg.inv(turn) @ [*centre, 1]
    assert (
        tiny.run_predict(weights, tmp_path / 'v.nii.gz', tmp_path / 'out', f'--at={",".join(map(str, place[:3]))}') == 0
    )
    folder = tmp_path / 'out' / 'v'
    samples = nibabel.load(folder / 'samples.nii.gz')
    assert samples.shape == (*stored.shape, 4)
    for name in ('samples', 'probability', 'disagreement'):
        result = nibabel.load(folder / f'{name}.nii.gz')
        np.testing.assert_allclose(result.affine, image.affine, atol=1e-4)
        np.testing.assert_allclose(result.header.get_zooms()[:3], image.header.get_zooms(), rtol=1e-5)
    drawn = np.asarray(samples.dataobj)[..., 1] > 0
    world = nibabel.affines.apply_affine(samples.affine, np.argwhere(drawn)).mean(0)
    wanted = nibabel.affines.apply_affine(affine, np.argwhere((hu > -500) & (np.arange(7) == 3))).mean(0)
    assert np.abs(world - wanted).max() < 0.6
    assert tiny.summary(tmp_path / 'out', 'v')['area']['unit'] == 'mm^2'


def write_nifti(path, mask, spacing):
    hu = np.where(mask, 300, -900).astype(np.int16).T[..., None]
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([spacing[1], spacing[0], 3.0, 1])), path)


@pytest.mark.parametrize(
    ('trained', 'spacing', 'radius'), [(1.0, (0.5, 0.5), 9.0), (0.7, (1.1, 1.1), 4.5), (0.0, (1.0, 0.5), 3.5)]
)
def test_slices_are_resampled_to_the_spacing_of_the_weights_and_back(
    weights, bright, tmp_path, trained, spacing, radius
):
    params, _, step = weights_file.load_safetensors(weights)
    config = checkpoint.load_config(weights).copy_and_resolve_references()
    config.data.spacing = trained
    weights_file.save_safetensors(tmp_path / 'w.safetensors', params, config, step, 'float32')
    mask = tiny.disc((60, 64), (33, 21), radius)
    write_nifti(tmp_path / 'a.nii', mask, spacing)
    assert tiny.run_predict(tmp_path / 'w.safetensors', tmp_path / 'a.nii', tmp_path / 'out', '--at=21,33') == 0
    drawn = np.asarray(nibabel.load(tmp_path / 'out/a/samples.nii.gz').dataobj)[:, :, 0, 1].T > 0
    assert drawn.shape == mask.shape
    assert np.abs(np.argwhere(drawn).mean(0) - np.argwhere(mask).mean(0)).max() < 0.5
    assert abs(drawn.sum() / mask.sum() - 1) < 0.15
    # The disc in the crop is as large as its millimetres and the spacing of the weights say.
    wanted = mask.sum() * np.prod(spacing) / (trained or 0.5) ** 2
    assert abs((bright[0] > 0.5).sum() / wanted - 1) < 0.15
    assert any('resampled' in warning for warning in tiny.summary(tmp_path / 'out', 'a')['warnings'])


def test_what_cannot_be_brought_to_the_training_range_is_named(weights, bright, tmp_path, capfd):
    params, _, step = weights_file.load_safetensors(weights)
    config = checkpoint.load_config(weights).copy_and_resolve_references()
    config.data.spacing = 0.7
    weights_file.save_safetensors(tmp_path / 'w.safetensors', params, config, step, 'float32')
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(tmp_path / 'grey.png')
    assert tiny.run_predict(tmp_path / 'w.safetensors', tmp_path / 'grey.png', tmp_path / 'out', '--at=9,9') == 0
    said = capfd.readouterr().err
    assert 'grey.png: no HU: its 8-bit range is taken as -1000 to 400 HU' in said
    assert 'grey.png: pixel spacing unknown' in said


def test_masks_depend_on_seed_and_content_alone(weights, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'in'
    folder.mkdir()
    for number in range(11):
        Image.fromarray(rng.integers(0, 255, (tiny.SIZE, tiny.SIZE), np.uint8)).save(folder / f'{number:02}.png')
    assert tiny.run_predict(weights, folder, tmp_path / 'all') == 0
    (tmp_path / 'other name.png').write_bytes((folder / '09.png').read_bytes())
    one = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), sharding.AXES)
    monkeypatch.setattr(sharding, 'local_mesh', lambda: one)
    assert tiny.run_predict(weights, tmp_path / 'other name.png', tmp_path / 'one') == 0
    assert tiny.run_predict(weights, tmp_path / 'other name.png', tmp_path / 'seed', '--seed=1') == 0
    read = lambda folder: np.stack([np.asarray(Image.open(folder / f'samples_{i:02}.png')) for i in range(4)])
    (alone,), (other,) = ([p for p in (tmp_path / n).iterdir() if p.is_dir()] for n in ('one', 'seed'))
    together = read(tmp_path / 'all' / '09')
    assert 0 < (together > 0).mean() < 1
    # Another batch shape may round a logit at the threshold the other way.
    assert (read(alone) == together).mean() > 0.999
    assert (read(other) != together).mean() > 0.01
    assert (read(tmp_path / 'all' / '08') != together).mean() > 0.01


def write_rated(folder, size=(30, 40)):
    """A case of the `folder` layout: two raters marked something, a third one did not."""
    folder.mkdir(parents=True)
    mask = tiny.disc(size, (12, 25))
    Image.fromarray(np.where(mask, 230, 20).astype(np.uint8)).save(folder / 'image.png')
    for name, drawn in (('ann', mask), ('bob', tiny.disc(size, (12, 25), 5)), ('cy', 0 * mask)):
        Image.fromarray(np.uint8(255 * drawn)).save(folder / f'mask_{name}.png')


@pytest.mark.parametrize('alone', [True, False])
def test_masks_beside_an_image_are_its_raters_and_no_cases(weights, bright, tmp_path, alone):
    write_rated(tmp_path / 'in' / 'case1')
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / 'in' / 'mask_of_nothing.png')
    source = tmp_path / 'in' / 'case1' / 'image.png' if alone else tmp_path / 'in'
    assert tiny.run_predict(weights, source, tmp_path / 'out', '--at=24,13') == 0
    found = {json.loads(p.read_text())['input']: p.parent for p in (tmp_path / 'out').rglob('summary.json')}
    assert set(found) == ({'image.png'} if alone else {'case1/image.png', 'mask_of_nothing.png'})
    case = found[min(found)]
    assert json.loads((case / 'summary.json').read_text())['raters'] == ['mask_ann.png', 'mask_bob.png', 'mask_cy.png']
    for page in (case / 'index.html', tmp_path / 'out' / 'index.html'):
        assert page.read_text('utf-8').count('rater 3') and 'each rater’s outline' in page.read_text('utf-8')


def test_a_raters_mask_that_changed_makes_the_case_anew_and_one_that_does_not_fit_is_named(
    weights, bright, tmp_path, capfd
):
    write_rated(tmp_path / 'in')
    again = lambda: tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out', '--at=24,13')
    assert [again(), again()] == [0, 0] and len(bright) == 1
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / 'in' / 'mask_bob.png')
    assert again() == 0 and len(bright) == 2
    Image.fromarray(np.zeros((30, 41), np.uint8)).save(tmp_path / 'in' / 'mask_bob.png')
    assert again() == 2
    error = capfd.readouterr().err
    assert 'mask_bob.png: ' in error and 'image and masks must have the same size' in error


def test_a_csv_names_the_points_of_each_file(weights, bright, tmp_path):
    (tmp_path / 'in').mkdir()
    for name in ('a.png', 'b.png', 'c.png'):
        mask = tiny.disc((40, 40), (10, 10)) | tiny.disc((40, 40), (30, 28))
        Image.fromarray(np.where(mask, 200, 9).astype(np.uint8)).save(tmp_path / 'in' / name)
    (tmp_path / 'points.csv').write_text('file,x,y\na.png,10,10\nb.png,28,30\nb.png,10,10\n')
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out', f'--at={tmp_path / "points.csv"}') == 0
    areas = {p.parent.name: json.loads(p.read_text())['area']['p95'] for p in tmp_path.glob('out/*/summary.json')}
    assert set(areas) == {'a', 'b'} and areas['b'] == 2 * areas['a']
    sources = [item.source for item in inputs.find([tmp_path / 'in'], tmp_path / 'out').inputs]
    (tmp_path / 'points.csv').write_text('file,x,y\nz.png,10,10\n')
    with pytest.raises(UserError, match='line 2: the input holds no file'):
        points.parse(str(tmp_path / 'points.csv'), sources)


def test_a_volume_needs_a_slice_for_each_point(weights, bright, tmp_path, capfd):
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 20, 5), np.int16), np.diag([1, 1, 3, 1])), tmp_path / 'v.nii')
    assert tiny.run_predict(weights, tmp_path / 'v.nii', tmp_path / 'out', '--at=3,3') == 2
    assert 'v.nii: has 5 slices: give points as x,y,z' in capfd.readouterr().err


def test_several_classes_keep_their_labels(weights, tmp_path, monkeypatch):
    def sample(model, settings, crops, numbers, names):
        grey = crops[:, None, ..., 0]
        labels = np.where(grey > 0.7, 2, np.where(grey > 0.3, 1, 0))
        return np.repeat(labels, settings.num_samples, 1)

    monkeypatch.setattr(CropSampler, 'sample_crops', sample)
    load = checkpoint.load_config

    def several(path):
        config = load(path).copy_and_resolve_references()
        config.data.num_classes = 2
        return config

    monkeypatch.setattr(checkpoint, 'load_config', several)
    monkeypatch.setattr(checkpoint, 'load_weights', lambda *_: ({}, 0))
    wanted = np.where(tiny.disc((40, 40), (20, 20), 4), 2, np.where(tiny.disc((40, 40), (20, 20), 8), 1, 0))
    Image.fromarray(np.array([9, 130, 240], np.uint8)[wanted]).save(tmp_path / 'a.png')
    assert tiny.run_predict(weights, tmp_path / 'a.png', tmp_path / 'out') == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'out/a/samples_00.png')), wanted)
    assert (np.asarray(Image.open(tmp_path / 'out/a/disagreement.png')) == 0).all()


def test_weights_bring_their_config_and_older_ones_take_the_defaults(weights, tmp_path):
    params, trained, step = weights_file.load_safetensors(weights)
    saved = json.loads(trained.to_json())
    assert checkpoint.load_config(weights).data.image_size == tiny.SIZE
    from ambdiff.config import default

    class Older:
        """A config of before data.hu_window and others were there, and with a field that has since gone."""

        def to_json(self):
            for name in ('hu_window', 'intensity', 'spacing'):
                del saved['data'][name]
            saved['model']['gone'] = 3
            return json.dumps(saved)

    weights_file.save_safetensors(tmp_path / 'old.safetensors', params, Older(), step)
    older = checkpoint.load_config(tmp_path / 'old.safetensors')
    assert older.data.hu_window == default().data.hu_window and older.model.channel_mult == (1,)
    with pytest.raises(UserError, match='there are no weights'):
        checkpoint.load_config(tmp_path / 'nothing')


def test_a_workdir_or_a_step_of_it_serves_as_weights(weights, tmp_path):
    params, _, _ = weights_file.load_safetensors(weights)
    config = checkpoint.load_config(weights)
    with checkpointer.Checkpointer(tmp_path / 'work') as saved:
        for step in (3, 5):
            saved.save(step, {'step': np.int32(step)}, {'ema': params}, config)
    Image.fromarray(np.zeros((tiny.SIZE, tiny.SIZE), np.uint8)).save(tmp_path / 'a.png')
    for source, step in (('work', 5), ('work/checkpoints/3', 3)):
        output = tmp_path / f'out{step}'
        assert tiny.run_predict(tmp_path / source, tmp_path / 'a.png', output, '--num_steps=1') == 0
        assert tiny.summary(output, 'a')['weights']['step'] == step
