"""Weights as a file that runs with jax alone: the same masks, what it says of itself, mistakes."""

import json
import pathlib
import re
import zipfile

import jax
import numpy as np
import pytest
import tiny
from click.testing import CliRunner

from ambdiff import exported, methods
from ambdiff.cli.entry import ambdiff
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.prediction.result import Settings
from ambdiff.runtime import weights_file

DEPLOY = pathlib.Path(__file__).parents[1] / 'docs' / 'deploy.md'


def write_weights(path, method, **fields):
    config = tiny.config('', method, **fields)
    params = tiny.params(methods.create(config), np.zeros((1, tiny.SIZE, tiny.SIZE, 1), np.float32), away=0.3)
    weights_file.save_safetensors(path, methods.create(config).for_sampling(params), config, step=7, dtype='float32')
    return path


def open_file(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return json.loads(archive.read('ambdiff.json')), jax.export.deserialize(bytearray(archive.read('program.jax')))


@pytest.mark.parametrize('method', ['level_sets', 'cimd'])
def test_the_masks_are_those_of_the_sampler_for_any_number_of_images(method, tmp_path):
    weights = write_weights(tmp_path / 'tiny.safetensors', method)
    said, program = open_file(exported.write(weights, tmp_path / 'tiny.zip', ['cpu'], num_samples=3))
    assert (said['method'], said['num_samples'], said['step'], said['notice']) == (method, 3, 7, '')
    assert (said['input']['of_0'], said['input']['of_1'], said['image_size']) == (-1000, 400, tiny.SIZE)
    rng = np.random.default_rng(0)
    images, numbers = (
        rng.random((4, tiny.SIZE, tiny.SIZE, 1), np.float32),
        rng.integers(1 << 32, size=4, dtype=np.uint32),
    )
    model = CropSampler(str(weights))
    settings = Settings(seed=5, num_samples=3, num_steps=model.config.sample.num_steps, smallest_part=1, slices=1)
    expected = model.sample_crops(settings, images, numbers, list('abcd'))
    masks, finite = program.call(images, np.uint32(5), numbers)
    assert bool(finite) and 0 < expected.mean() < 1
    np.testing.assert_array_equal(np.asarray(masks), expected)
    np.testing.assert_array_equal(program.call(images[2:3], np.uint32(5), numbers[2:3])[0], expected[2:3])
    images[1, 3, 4] = np.nan
    assert not program.call(images, np.uint32(5), numbers)[1]


def test_the_page_on_deployment_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / 'tiny.safetensors', 'level_sets')
    done = CliRunner().invoke(
        ambdiff, ['export', 'tiny.safetensors', '-o', 'lidc_small.zip', '--platforms=cpu,cuda,tpu']
    )
    assert done.exit_code == 0 and 'lidc_small.zip: ' in done.output, done.output
    (code,) = re.findall(r'```python\n(.*?)```', DEPLOY.read_text('utf-8'), re.DOTALL)
    assert len([line for line in code.splitlines() if line and not line.startswith(('import', '#'))]) <= 20
    assert 'import ambdiff' not in code
    exec(compile(code, str(DEPLOY), 'exec'), {})  # the page's own lines
    assert 'of which empty' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (('lidc_smal', '-o', 'a.zip'), 'did you mean lidc_small?'),
        (('lidc_small', '-o', 'a.zip', '--platforms=gpu'), '--platforms=gpu is not known; choose of cpu,cuda,rocm,tpu'),
        (('lidc_small', '-o', 'a.zip', '--platforms=cpu,cpu'), 'name each platform once'),
        (('lidc_small', '-o', '.'), 'is a folder; name a file'),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exported, 'program', None)
    done = CliRunner().invoke(ambdiff, ['export', *words])
    assert done.exit_code == 2 and said in done.stderr and done.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_weights_that_learned_from_simulated_data_say_so_in_the_file():
    assert (
        'imulated' in exported.facts(CropSampler('weights/bone_us_small.safetensors').config, 'x', 1, ['cpu'])['notice']
    )
