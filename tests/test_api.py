"""`import ambdiff`: load, sample and predict from Python, as the command does it."""

import ast
import doctest
import importlib
import inspect
import pathlib
import re
import subprocess
import sys
import typing

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import ambdiff
from ambdiff.errors import UserError
from ambdiff.prediction import result
from ambdiff.prediction.crop_sampler import CropSampler

ROOT = pathlib.Path(__file__).parents[1]
DISC = np.where(tiny.disc((tiny.SIZE, tiny.SIZE), (8, 8)), 1.0, 0.0)
HU = DISC * 1200 - 900


@pytest.fixture(scope='module')
def model(weights):
    return ambdiff.load(weights)


@pytest.fixture
def noisy(monkeypatch):
    """A network whose masks follow from all that they may follow from: crop, number, seed, N and steps."""

    def sample(model, settings, crops, numbers, names):
        masks = []
        for crop, number in zip(crops, numbers, strict=True):
            seed = [int(number), settings.seed, settings.num_steps, *np.rint(crop * 255).astype(int).ravel()]
            masks.append(np.random.default_rng(seed).random((settings.num_samples, *crop.shape[:2])) < 0.5)
        return np.stack(masks)

    monkeypatch.setattr(CropSampler, 'sample_crops', sample)


def test_importing_it_imports_nothing_heavy_and_names_are_there():
    code = (
        'import sys, ambdiff; '
        "assert not {'jax', 'numpy', 'flax', 'absl'} & set(sys.modules), sorted(sys.modules); "
        'assert set(ambdiff.__all__) <= set(dir(ambdiff)); print(ambdiff.UserError.__mro__[1].__name__)'
    )
    run = subprocess.run([sys.executable, '-S', '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, 'ValueError\n'), run.stderr


def test_loading_a_file_of_weights_imports_nothing_that_sampling_can_do_without():
    late = {
        'orbax',
        'optax',
        'tensorstore',
        'tensorflow',
        'grain',
        'clu',
        'h5py',
        'highdicom',
        'nibabel',
        'scipy.ndimage',
    }
    code = f"import sys, ambdiff; ambdiff.load('lidc_small'); print(sorted({late!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == '[]\n'


def test_every_public_name_is_typed_and_documented_and_none_is_a_module():
    for name in set(ambdiff.__all__) - {'__version__'}:
        value = getattr(ambdiff, name)
        assert value.__doc__ and not inspect.ismodule(value), name
    several = (ambdiff.score, ambdiff.ged, ambdiff.hm_iou, ambdiff.Model.sample)
    forms = [form for function in several for form in typing.get_overloads(function)]
    assert len(forms) == 2 * len(several)  # one case, and with batched=True several
    for function in (ambdiff.load, ambdiff.Model.predict, ambdiff.Prediction.score, ambdiff.Prediction.save, *forms):
        signature = inspect.signature(function)
        assert signature.return_annotation is not signature.empty
        assert all(p.annotation is not p.empty or p.name == 'self' for p in signature.parameters.values())
    with pytest.raises(AttributeError, match="'ambdiff' has no attribute 'lod'"):
        _ = ambdiff.lod


def test_a_type_checker_sees_the_names_where_they_are_defined_and_no_others():
    tree = ast.parse((ROOT / 'ambdiff' / '__init__.py').read_text('utf-8'))
    seen = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING']
    named = {part.asname: node.module for node in seen[0].body for part in node.names}
    assert named == ambdiff._HOMES and set(named) | {'__version__'} == set(ambdiff.__all__)
    assert not any(isinstance(node, ast.FunctionDef) and node.name == '__getattr__' for node in tree.body)
    assert (ROOT / 'ambdiff' / 'py.typed').is_file()


@pytest.mark.parametrize('name', ['ambdiff.packaged', 'ambdiff.scoring', 'ambdiff.api.model'])
def test_the_examples_of_docstrings_give_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted >= 2 and not found.failed


def test_a_second_call_of_a_shape_compiles_nothing_and_gives_the_same(model):
    compiled = []
    listen = lambda event, seconds, **_: compiled.append(event) if 'backend_compile' in event else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        first = model.sample(HU, num_samples=2, num_steps=1, seed=3)
        assert compiled
        compiled.clear()
        again = model.sample(HU.tolist(), num_samples=2, num_steps=1, seed=3)
        other = model.sample(HU[::-1].astype(np.int16), num_samples=2, num_steps=1, seed=4)
        assert not compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert first.masks.shape == (2, tiny.SIZE, tiny.SIZE) and (first.masks != other.masks).any()
    three = model.sample([HU, HU[::-1], HU.T], num_samples=2, num_steps=1, seed=4, batched=True)
    made = dict(model._inner.sampler(three[0].drawn_with)._compiled)
    two = model.sample([HU[::-1], HU], num_samples=2, num_steps=1, seed=4, batched=True)
    assert model._inner.sampler(three[0].drawn_with)._compiled == made, 'a little larger shape serves'
    np.testing.assert_array_equal([two[0].masks, two[1].masks], [three[1].masks, three[0].masks])
    np.testing.assert_array_equal(two[0].masks, other.masks)


def test_a_prediction_says_all_that_the_samples_say_and_is_read_only(model, bright, tmp_path):
    found = model.sample(HU, num_samples=4, spacing=0.5)
    assert isinstance(found, ambdiff.Prediction) and found.masks.dtype == bool
    np.testing.assert_array_equal(found.masks[1:], np.repeat(DISC[None] > 0, 3, 0))
    assert found.empty_share == 0.25 and not found.masks[0].any()
    np.testing.assert_allclose(found.probability, DISC * 0.75)
    assert found.disagreement.max() == pytest.approx(0.8113, abs=1e-4)  # entropy of 3 in 4
    often, nothing = found.modes
    assert (often.share, nothing.share, nothing.empty) == (0.75, 0.25, True)
    np.testing.assert_array_equal(often.mask, DISC > 0)
    assert often.area == DISC.sum() * 0.25 and found.area['p50'] == often.area and 'mm' in often.words
    assert found.spacing == (0.5, 0.5) and found.affine is None
    for array in (found.masks, found.probability, found.disagreement, often.mask):
        assert not array.flags.writeable
    assert '4 masks of 16x16; 75%: ' in repr(found) and len(repr(found)) < 200
    html = found._repr_html_()
    assert len(html) < 200_000 and 'http://' not in html.replace('http://www.w3.org', '') and '75%' in html
    assert found.save(tmp_path / 'out') == tmp_path / 'out'
    (tmp_path / 'file').write_text('')
    for place, said in (('file', 'file is in the way'), ('file/below', 'file is a file; name a folder')):
        with pytest.raises(UserError, match=said):
            found.save(tmp_path / place)
    assert tiny.summary(tmp_path, 'out')['empty_share'] == 0.25


def test_a_prediction_is_scored_as_its_masks_are(model, bright):
    found = model.sample(HU, num_samples=4)
    raters = np.stack([DISC > 0, DISC < 0])
    assert found.draws == 'dependent'
    np.testing.assert_equal(found.score(raters), ambdiff.score(raters, found.masks, draws='dependent'))
    assert np.isnan(found.score(raters)['ged_unbiased'])


def test_values_scaled_and_stored_are_one_image(model, bright):
    scaled = (HU + 1000) / 1400
    one, other = model.sample(HU, at=(8, 8)), model.sample(scaled, scaled=True, at=[(8, 8)])
    np.testing.assert_array_equal(one.masks, other.masks)
    np.testing.assert_allclose(bright[0], bright[1], atol=1e-6)
    np.testing.assert_allclose(bright[0][..., 0], scaled, atol=1e-6)
    assert not one.notes and not other.notes


def test_images_of_any_size_are_sampled_together_as_alone(model, noisy):
    large = np.pad(HU, ((5, 9), (3, 2)), mode='reflect')
    both = model.sample([HU, large], num_samples=3, at=[None, (12, 10)], batched=True)
    assert [found.masks.shape for found in both] == [(3, 16, 16), (3, 30, 21)]
    np.testing.assert_array_equal(both[1].masks, model.sample(large, num_samples=3, at=(12, 10)).masks)
    outside = np.ones(large.shape, bool)
    outside[2:18, 4:20] = False
    assert not both[1].masks[:, outside].any() and both[1].masks.any()
    assert model.sample(large, num_samples=3).masks[:, outside].any(), 'without a point tiles cover it'
    stacked = model.sample(np.stack([HU, HU[::-1]])[..., None], num_samples=3, batched=True, at=(8, 8))
    np.testing.assert_array_equal(stacked[1].masks, model.sample(HU[::-1], num_samples=3, at=(8, 8)).masks)
    assert (stacked[0].masks != model.sample(HU, num_samples=3, seed=1, at=(8, 8)).masks).any()


def test_progress_is_told(model, bright, capfd):
    told = []
    model.sample(np.pad(HU, 8, mode='reflect'), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (9, 9)
    model.sample(HU, progress=True)
    assert '1/1' in capfd.readouterr().err


def test_files_are_predicted_as_by_the_command(model, noisy, weights, tmp_path):
    folder = tmp_path / 'in'
    (folder / 'sub').mkdir(parents=True)
    for number, name in enumerate(('a.png', 'sub/b.png')):
        Image.fromarray((np.pad(DISC, number) * 200 + 9).astype(np.uint8)).save(folder / name)
    assert tiny.run_predict(weights, folder, tmp_path / 'out', '--at=8,7', '--seed=5') == 0
    found = list(model.predict(folder, at=(8, 7), num_samples=4, num_steps=2, seed=5))
    assert [prediction.name for prediction in found] == ['a', 'sub/b']
    for prediction in found:
        for number, mask in enumerate(prediction.masks):
            written = np.asarray(Image.open(tmp_path / 'out' / prediction.name / f'samples_{number:02}.png'))
            np.testing.assert_array_equal(mask, written > 0)
        assert dict(prediction.settings) == tiny.summary(tmp_path / 'out', prediction.name)['settings']
    again = list(model.predict(str(folder / 'a.png'), at='8,7', num_samples=4, num_steps=2, seed=5))
    np.testing.assert_array_equal(again[0].masks, found[0].masks)


def test_a_faulty_case_is_a_warning_and_the_rest_goes_on(model, bright, tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / 'good.png')
    (tmp_path / 'bad.png').write_bytes(b'none')
    told = []
    with pytest.warns(UserWarning, match='bad.png') as warned:
        found = list(model.predict(tmp_path, progress=lambda *counts: told.append(counts)))
    assert [prediction.name for prediction in found] == ['good'] and len(warned) == 1
    assert told == [(1, 2), (2, 2)] and warned[0].filename == __file__
    with pytest.raises(UserError, match=r'bad\.png'):
        list(model.predict(tmp_path / 'bad.png'))


def test_what_a_model_is_for_is_said(model):
    said = repr(model)
    assert said.startswith('<ambdiff.Model tiny: cimd, trained for 7 steps') and '2 network evaluations' in said
    assert '[H, W] or [H, W, 1], HU (-1000 to 400 matter)' in said and 'crops of 16x16' in said
    assert 'not said in the weights' in said


def test_weights_that_learned_from_simulated_data_say_so_wherever_their_samples_show(monkeypatch, tmp_path):
    monkeypatch.setattr(CropSampler, 'sample_crops', tiny.sample_bright)
    model = ambdiff.load('bone_us_small')
    assert 'trained on: SIMULATED' in repr(model)
    model.sample(np.full((64, 64), 100.0), num_samples=2).save(tmp_path / 'out')
    said = 'the weights learned from simulated data'
    assert (
        said in (tmp_path / 'out' / 'summary.json').read_text()
        and said in (tmp_path / 'out' / 'index.html').read_text()
    )


@pytest.mark.parametrize(
    ('image', 'change', 'said'),
    [
        (HU[0], {}, r'image has shape 16, and \[H, W\] or \[H, W, 1\] is meant'),
        (HU[None], {}, r'image has shape 1x16x16.*channels come last, numpy.moveaxis\(image, 0, -1\)'),
        (np.stack([HU] * 5), {}, 'image has shape 5x16x16.* of several images or slices give batched=True'),
        (np.stack([HU] * 3, -1), {}, 'of a colour picture give one grey channel'),
        (HU[None, ..., None], {}, 'of several images give batched=True'),
        (HU, {'batched': True}, r'image\[0\] has shape 16, .*of one image leave out batched=True'),
        (np.zeros((0, 16)), {}, 'image: an image of 0x16 pixels'),
        ([], {'batched': True}, 'image holds no image'),
        ([[1.0, 2.0], [3.0]], {}, 'image cannot be read as an array'),
        ('scan.dcm', {}, r'image is text: give an array, and files to model.predict\(PATH\)'),
        (pathlib.Path('scan.dcm'), {'batched': True}, r'files to model.predict\(PATH\)'),
        (None, {}, r'image is no array \(NoneType\)'),
        (DISC > 0, {}, 'image is bool: give the image, not a mask'),
        (HU.astype(complex), {}, 'image is an array of complex128'),
        (np.where(DISC > 0, np.nan, HU), {}, r'that are NaN or infinite: give a value, .*nan=-1000'),
        (np.ma.masked_array(HU), {}, 'image is a masked array'),
        (HU, {'scaled': True}, 'look like HU, which are taken as they are: leave scaled=True out'),
        (DISC * 2 - 1, {'scaled': True}, r'-1 to 1 with scaled=True.*give \(image \+ 1\) / 2'),
        (DISC * 255, {'scaled': True}, 'give image / 255'),
        (DISC, {}, 'image has values 0 to 1, and HU .* are meant: give scaled=True where they are scaled'),
        (DISC * 2 - 1, {}, r'give \(image \+ 1\) / 2 with scaled=True'),
        ((DISC * 200).astype(np.uint8), {}, 'uint8 values 0 to 200, and HU .* are meant: give HU, or image / 255'),
        (DISC * 200, {}, 'where they are grey values give image / 255 with scaled=True|give image / 255 with scaled'),
        ((DISC * 900 + 24).astype(np.uint16), {}, 'unsigned numbers lack the rescale'),
        (DISC * 1e6 - 5, {}, 'slope'),
        (DISC * 3.5 - 1.2, {}, r'they look standardised; undo that, image \* std \+ mean'),
        (HU, {'num_samples': 0}, 'num_samples=0: give a whole number, 1 to 1000'),
        (HU, {'num_samples': 2.5}, 'num_samples=2.5: give a whole number'),
        (HU, {'num_steps': 2000}, 'num_steps=2000: give a whole number, 1 to 1000, the steps of the weights'),
        (HU, {'seed': -1}, 'seed=-1: give a whole number, 0 to 4294967295'),
        (HU, {'seed': True}, 'seed=True'),
        (HU, {'at': (40, 3)}, r'image: the point 40,3\S* lies outside the image: x 0 to 15, y 0 to 15'),
        (HU, {'at': '8,8'}, r"at='8,8': give \(x, y\) in pixels"),
        (HU, {'at': 8}, r'at=8: give \(x, y\)'),
        (HU, {'at': (8, np.nan)}, 'give finite numbers'),
        ([HU, HU], {'at': [(8, 8)], 'batched': True}, 'at has 1 entries for 2 images'),
        (HU, {'spacing': 0}, r'spacing=0: give \(row, column\)'),
    ],
)
def test_a_mistake_is_one_sentence_with_the_cure_before_anything_is_drawn(model, bright, image, change, said):
    with pytest.raises(ValueError, match=said) as raised:
        model.sample(image, **change)
    assert type(raised.value) is UserError and '\n' not in str(raised.value) and not bright


def test_a_tensor_with_gradients_is_told_how_to_be_given(model, bright):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    with pytest.raises(UserError, match=r'give \.detach\(\)\.cpu\(\)\.numpy\(\) of it'):
        model.sample(torch.tensor(HU, requires_grad=True))
    assert model.sample(torch.tensor(HU)).masks.any()


@pytest.mark.parametrize(
    ('path', 'change', 'said'),
    [
        ('nowhere.png', {}, 'nowhere.png: no such file or folder'),
        (HU, {}, r'path is ndarray: give a file or folder, and arrays to model.sample\(ARRAY\)'),
        ('.', {}, 'holds no PNG'),
        ('nowhere.png', {'num_samples': 0}, 'num_samples=0'),
    ],
)
def test_a_mistake_in_a_path_is_told_at_once(model, tmp_path, monkeypatch, path, change, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        model.predict(path, **change)


def test_weights_of_another_kind_are_told(tmp_path):
    (tmp_path / 'page.safetensors').write_text('<!DOCTYPE html>')
    for path, said in ((tmp_path / 'page.safetensors', 'a web page, not weights'), (tmp_path, 'checkpoint')):
        with pytest.raises(UserError, match=said) as raised:
            ambdiff.load(path)
        assert '\n' not in str(raised.value)


def test_the_values_of_other_modalities_are_checked_too(model, monkeypatch):
    data = model._inner.config.data
    for kind, image, said in (
        ('full_range', DISC * 200, r'uint8 or uint16 as stored are meant: give image.astype\(numpy.uint8\)'),
        ('full_range', DISC * -3, 'give values in 0 to 1 with scaled=True'),
        ('percentile', DISC * 2 - 1, r'give \(image \+ 1\) / 2 with scaled=True'),
        ('b_mode', DISC * 5 - 90, 'stored values are not negative'),
    ):
        with data.unlocked():
            monkeypatch.setitem(data, 'intensity', kind)
        with pytest.raises(UserError, match=said):
            model.sample(image)


def test_the_page_on_python_names_every_argument():
    text = (ROOT / 'docs' / 'api.md').read_text('utf-8')
    sample = re.findall(r'^\| `(\w+)` \|', text.partition('## model.sample')[2].partition('\n## ')[0], re.MULTILINE)
    assert sample == [name for name in inspect.signature(ambdiff.Model.sample).parameters if name != 'self']
    for function in ('model.predict', 'ambdiff.score'):
        (given,) = re.findall(rf'`{function}\((.*?=.*?)\)`', text)
        names = [part.partition('=')[0] for part in given.split(', ')]
        real = ambdiff.score if function == 'ambdiff.score' else ambdiff.Model.predict
        assert names == [name for name in inspect.signature(real).parameters if name != 'self']
    members = re.findall(r'`\.(\w+)', text.partition('## Prediction')[2].partition('\n## ')[0])
    assert all(
        hasattr(ambdiff.Prediction, m)
        or m in ('notes', 'draws')
        or hasattr(result.Answer, m)
        or m in result.Answer.__dataclass_fields__
        for m in members
    )
