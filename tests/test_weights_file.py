"""Weights that were changed, damaged or made up are refused before anything is built from them."""

import json
import pathlib
import struct

import jax
import ml_collections
import numpy as np
import pytest
import tiny

from ambdiff.config import default
from ambdiff.errors import UserError
from ambdiff.runtime import checkpoint, checkpointer, weights_file

RELEASED = pathlib.Path(__file__).parents[1] / 'weights' / 'lidc_small_cimd.safetensors'
PARAMS = {'unet': {'conv': {'kernel': np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)}}}
NAME = 'unet/conv/kernel'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'weights.safetensors'
    weights_file.save_safetensors(path, PARAMS, tiny.config(''), step=7, dtype='float32')
    return path


def changed(path, metadata=lambda _: None, header=lambda _: None, values=lambda content: content):
    """Writes the file anew with its metadata, header or values changed."""
    content = path.read_bytes()
    length = struct.unpack('<Q', content[:8])[0]
    found = json.loads(content[8 : 8 + length])
    metadata(found['__metadata__'])
    header(found)
    packed = json.dumps(found).encode()
    path.write_bytes(struct.pack('<Q', len(packed)) + packed + values(content[8 + length :]))


def test_what_is_written_is_read(file):
    params, config, step = weights_file.load_safetensors(file)
    np.testing.assert_array_equal(params['unet']['conv']['kernel'], PARAMS['unet']['conv']['kernel'])
    assert step == 7 and config.data.image_size == tiny.SIZE and config.model.channel_mult == (1,)


def one_bit(content):
    return content[:5] + bytes([content[5] ^ 1]) + content[6:]


def other_step(metadata):
    metadata['step'] = '8'


def other_config(metadata):
    metadata['config'] = metadata['config'].replace('"seed": 0', '"seed": 1')


CHANGES = {
    'a bit of a value': {'values': one_bit},
    'the step': {'metadata': other_step},
    'the config': {'metadata': other_config},
    'the name of a tensor': {'header': lambda h: h.update({'unet/conv/bias': h.pop(NAME)})},
    'its shape': {'header': lambda h: h[NAME].update(shape=[4, 16])},
}


@pytest.mark.parametrize('what', CHANGES)
def test_a_file_that_was_changed_is_told_by_its_digest(file, what):
    changed(file, **CHANGES[what])
    with pytest.raises(UserError, match='is not as it was written'):
        weights_file.load_safetensors(file)


def of_before(metadata):
    """A file of a version that wrote no digest."""
    del metadata['digest']


def as_float(value):
    return lambda content: content[:8] + np.float32(value).tobytes() + content[12:]


DAMAGES = {
    'one NaN': ({'values': as_float(np.nan)}, 'holds values that are not finite'),
    'one infinity': ({'values': as_float(-np.inf)}, 'holds values that are not finite'),
    'a huge value': ({'values': as_float(3e8)}, r'holds 3e\+08, and weights are small'),
    'ones over all': ({'values': lambda content: b'\xff' * len(content)}, 'not finite'),
    'another type': ({'header': lambda h: h[NAME].update(dtype='I32')}, 'holds int32 instead of floats'),
    'a type of one byte': ({'header': lambda h: h[NAME].update(dtype='U8', shape=[256])}, 'holds uint8'),
    'cut short': ({'values': lambda content: content[:-1]}, 'is not a whole'),
}


@pytest.mark.parametrize('what', DAMAGES)
def test_a_file_without_digest_is_refused_where_its_values_cannot_be_meant(file, what):
    change, said = DAMAGES[what]
    changed(file, of_before)
    weights_file.load_safetensors(file)
    changed(file, **change)
    with pytest.raises(UserError, match=said):
        weights_file.load_safetensors(file)


def test_the_released_weights_pass(shared):
    params, config, _ = weights_file.load_safetensors(RELEASED)
    assert config.method.name == 'cimd' and params['unet']


def field(name, value):
    def change(metadata):
        of_before(metadata)
        config = json.loads(metadata['config'])
        group, _, last = name.rpartition('.')
        (config[group] if group else config)[last] = value
        metadata['config'] = json.dumps(config)

    return change


def text(value):
    def change(metadata):
        of_before(metadata)
        metadata['config'] = value

    return change


def without_step(metadata):
    del metadata['digest'], metadata['step']


CONFIGS = {
    'endless blocks': (field('model.num_res_blocks', 10**7), r'config\.model\.num_res_blocks=10000000 is out of range'),
    'no size': (field('data.image_size', 0), r'config\.data\.image_size=0 is out of range'),
    'null size': (field('data.image_size', None), r'data\.image_size is None instead of a whole number'),
    'true size': (field('data.image_size', True), r'data\.image_size is True instead'),
    'fractional size': (field('data.image_size', 16.5), r'data\.image_size is 16\.5 instead'),
    'nan window': (field('data.hu_window', [float('nan'), 1.0]), r'data\.hu_window is list instead'),
    'window of one': (field('data.hu_window', [1.0]), r'must be a pair'),
    'window reversed': (field('data.hu_window', [5, -5]), r'low below high'),
    'infinite spacing': (field('data.spacing', float('inf')), r'data\.spacing is inf instead of a number'),
    'endless number': (field('data.spacing', 10**400), r'data\.spacing is 1000'),
    'endless levels': (field('model.channel_mult', [1] * 10**5), r'model\.channel_mult is list instead'),
    'endless steps': (field('diffusion.num_steps', 10**9), r'config\.diffusion\.num_steps=1000000000 is out of range'),
    'a group that is none': (field('model', 3), 'model is 3 instead of fields'),
    'text for a number': (field('model.channels', '64'), r"model\.channels is '64' instead of a whole number"),
    'a field inside a field': (field('seed', {'a': 1}), 'seed is dict instead of a whole number'),
    'unknown choice': (field('method.loss', 'none'), r'config\.method\.loss'),
    'no object': (text('[]'), 'has a damaged config'),
    'empty': (text('{}'), 'it has no data'),
    'no JSON': (text('{'), 'has damaged metadata'),
    'deep': (text('[' * 10**5), 'has damaged metadata'),
    'deep inside': (text('{"data": ' + '[' * 10**5 + ']' * 10**5 + '}'), 'has damaged metadata'),
    'no step': (without_step, 'has damaged metadata'),
}


@pytest.mark.parametrize('what', CONFIGS)
def test_a_config_that_comes_with_weights_is_held_to_the_checks_of_a_config_file(file, what):
    change, said = CONFIGS[what]
    changed(file, change)
    for load in (weights_file.load_safetensors, checkpoint.load_config):
        with pytest.raises(UserError, match=said) as error:
            load(file)
        assert len(str(error.value)) < 400


def test_memory_to_draw_with_is_not_for_a_stranger_to_say(file):
    changed(file, field('sample.memory_mib', 1e9))
    assert checkpoint.load_config(file).sample.memory_mib == default().sample.memory_mib


@pytest.mark.parametrize(
    ('value', 'dtype', 'said'), [(np.nan, 'float32', 'not finite'), (7e4, 'float16', 'as float16')]
)
def test_values_that_cannot_be_packed_are_told_and_nothing_is_written(tmp_path, value, dtype, said):
    params = {'a': np.array([1.0, value], np.float32)}
    with pytest.raises(UserError, match=said):
        weights_file.save_safetensors(tmp_path / 'w.safetensors', params, ml_collections.ConfigDict(), 0, dtype)
    assert not list(tmp_path.iterdir())


def test_averages_of_a_checkpoint_that_are_not_finite_are_refused(tmp_path, weights):
    params, config, _ = weights_file.load_safetensors(weights)
    params['unet']['out_2']['bias'] = params['unet']['out_2']['bias'] * np.float32(np.nan)
    with checkpointer.Checkpointer(tmp_path) as saved:
        saved.save(3, {'step': np.int32(3)}, {'ema': params}, config)
    with pytest.raises(UserError, match=r'3 is damaged: unet/out_2/bias holds values that are not finite'):
        checkpoint.load_weights(str(tmp_path), config, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def test_a_digest_is_of_names_types_and_shapes_too():
    one = {'a': np.zeros((2, 3), np.float32)}
    others = [{'b': one['a']}, {'a': one['a'].T}, {'a': one['a'].astype(np.float16)}, {'a': one['a'] + 1}]
    digests = [weights_file._digest(tensors, '{}', '1') for tensors in (one, *others)]
    assert len(set(digests)) == 5
