"""benchmarks/methods/split.py: a denoiser in two parts, of which one runs once an image."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ambdiff import methods, sampling
from ambdiff.errors import UserError
from ambdiff.runtime import flops

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'


@pytest.fixture
def split(monkeypatch):
    """Puts the method where methods are found; gives one by its fields."""
    monkeypatch.setattr(methods, '__path__', [*methods.__path__, str(BENCHMARKS / 'methods')])

    def make(**fields):
        fields = {'sample.noise': 'independent', 'method.light_channels': 4} | fields
        return methods.create(tiny.config('', method='split', **fields))

    return make


def test_the_image_part_runs_once_an_image_whatever_masks_and_steps_there_are(split):
    masks, steps = 32, 4
    method = split(**{'sample.num_samples': masks, 'sample.num_steps': steps, 'method.orientations': 1})
    of = lambda *shape, dtype=np.float32: jax.ShapeDtypeStruct((1, *shape), dtype)
    image, mask = of(tiny.SIZE, tiny.SIZE, 1), of(tiny.SIZE, tiny.SIZE, 1)
    params, _ = jax.eval_shape(method.init, jax.random.key(0), {'image': image})
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    all_of_it = flops.of_function(lambda *a: method.sample(*a, masks), params, {}, image, keys)
    once = flops.of_function(method.features, params, image)
    features = of(tiny.SIZE, tiny.SIZE, method.fields.features)
    light = flops.of_function(method._denoise, params, features, mask, of(dtype=np.int32))
    # Beside the network only what each step does to each pixel.
    assert once > light and 1 < (all_of_it - once) / (masks * steps * light) < 1.3


def test_masks_are_those_of_both_parts_evaluated_together(split):
    method = split(**{'method.orientations': 8, 'method.light_patch': 2})
    images = np.random.default_rng(0).random((2, tiny.SIZE, tiny.SIZE, 1), np.float32)
    keys = sampling.image_keys(jax.random.key(1), range(2))
    params = tiny.params(method, images, away=0.3)
    whole = lambda b, xt, t: method._denoise(params, method.features(params, b), xt, t)
    once = jax.jit(lambda: method.sample(params, {}, images, keys, 4))()
    every_time = jax.jit(lambda: method.reverse.sample(whole, jnp.asarray(images), keys, 4, 1))()
    assert 0.02 < once.mean() < 0.98 and (once[:, 0] != once[:, 1]).any()
    np.testing.assert_array_equal(once, every_time)


def test_several_draws_of_an_image_are_one_example(split):
    method = split(**{'method.repeats': 3})
    shape = (2, tiny.SIZE, tiny.SIZE)
    batch = {'image': jnp.zeros((*shape, 1)), 'masks': jnp.zeros((2, 4, *shape[1:]), jnp.uint8)}
    batch['present'] = jnp.ones((2, 4), bool)
    params = jax.eval_shape(method.init, jax.random.key(0), batch)[0]
    loss, parts, _ = jax.eval_shape(method.loss, params, {}, batch, jax.random.key(0))
    assert loss.shape == parts['cross_entropy'].shape == (2,)


def test_what_it_cannot_do_is_told_in_a_line(split):
    with pytest.raises(UserError, match='one class'):
        split(**{'data.num_classes': 2})


def test_the_table_and_the_picture_have_every_network(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = runpy.run_path(str(BENCHMARKS / 'splits.py'))
    with pytest.raises(SystemExit, match='0'):
        script['main'](['--help'])
    names = ('ged', 'ged_excess', 'hm_iou', 'difference')
    figures = {name: '0.25' for name in names} | {f'{name}_stderr': '0.01' for name in names}
    rows = [
        {'row': row, 'share': share, 'settings': f'sample.num_steps={steps}', 'flop_a_mask': 1e8 * steps, 'empty': 0.3}
        for row, share in (('level_sets', 0), ('split+light_channels=8', 0.023), ('cimd', 1))
        for steps in (1, 2)
    ]
    script['write'](tmp_path, [row | figures for row in rows])
    table, drawn = (tmp_path / 'splits.md').read_text(), (tmp_path / 'splits.svg').read_text()
    assert '| 2.3% | sample.num_steps=2 | 0.200 | 0.250 ± 0.010 |' in table and table.count('\n') == 8
    assert all(f'>{name}</text>' in drawn for name in ('level_sets', 'split 2.3%', 'cimd'))
