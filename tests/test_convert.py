"""Released checkpoints in and out: exact both ways, and nothing a stranger's file can do but be refused."""

import dataclasses
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import safetensors.numpy

from ambdiff import convert, methods
from ambdiff.config import default
from ambdiff.errors import UserError
from ambdiff.models.gaussian_encoder import GaussianEncoder
from ambdiff.released import files
from ambdiff.runtime import checkpoint

ARGUMENTS = {
    'image_size': 8,
    'in_channels': 5,
    'model_channels': 32,
    'out_channels': 2,
    'num_res_blocks': 1,
    'attention_resolutions': (2,),
    'channel_mult': (1, 2),
}


def _config(**fields):
    """The config of ARGUMENTS' network; fields as 'group.field': value."""
    config = default()
    config.data.image_size = 8
    config.model.channels = 32
    config.model.channel_mult = (1, 2)
    config.model.num_res_blocks = 1
    config.model.attention_resolutions = (2,)
    config.method.image_repeats = 4
    config.method.encoders = 'frozen'
    for name, value in fields.items():
        group, field = name.split('.')
        config[group][field] = value
    return config


@pytest.fixture(scope='module')
def state_dict():
    """A released U-Net's weights of five input channels."""
    method = methods.create(_config())
    batch = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)}
    abstract = jax.eval_shape(method.init, jax.random.key(0), batch)[0]['unet']
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, np.float32), abstract)
    shapes = {n: a.shape for n, a in convert.unet_to_torch({'params': zeros}).items()}
    return reference.seeded_weights(11, shapes)


@pytest.fixture(scope='module')
def question():
    """Image and x_t [2, 8, 8, 1] each, t [2], and the answer to four copies of the image and x_t."""
    rng = np.random.default_rng(0)
    image, xt = rng.normal(size=(2, 2, 8, 8, 1)).astype(np.float32)
    return image, xt, np.array([999, 20])


@pytest.fixture(scope='module')
def answer(state_dict, question):
    image, xt, t = question
    x = np.concatenate([image] * 4 + [xt], axis=-1)
    return reference.UNet(state_dict, **ARGUMENTS)(reference.nchw(x), t)


def _run(network, question, copies):
    module, variables = network
    image, xt, t = question
    return reference.nchw(jax.jit(module.apply)(variables, np.concatenate([image] * copies + [xt], axis=-1), t))


def _same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype == np.float32
        np.testing.assert_array_equal(a[name], b[name])


def test_unet_there_and_back_is_exact(state_dict):
    _, variables = convert.unet_from_torch(state_dict, **ARGUMENTS)
    _same(convert.unet_to_torch(variables), state_dict)


def test_encoder_there_and_back_is_exact():
    state = {'conv_layer.weight': (8, 192, 1, 1), 'conv_layer.bias': (8,)}
    channels = 2
    for index in (0, 2, 4, 7, 9, 11, 14, 16, 18, 21, 23, 25):
        out = (32, 64, 128, 192)[index // 7]
        state |= {f'encoder.layers.{index}.weight': (out, channels, 3, 3)}
        state |= {f'encoder.layers.{index}.bias': (out,)}
        channels = out
    weights = reference.seeded_weights(1, state)
    module, variables = convert.encoder_from_torch(weights, 4)
    assert module.latent_dim == 4
    _same(convert.encoder_to_torch(variables), weights)
    with pytest.raises(UserError, match=r'conv_layer.weight \[8, 192, 1, 1\] instead of \[12,'):
        convert.encoder_from_torch(weights, 6)


def test_folding_the_repeated_image_keeps_the_answer(state_dict, question, answer, record_property):
    folded = convert.unet_from_torch(state_dict, **ARGUMENTS, fold_repeated_image=True)
    assert folded[1]['params']['input_blocks_0_0']['kernel'].shape == (3, 3, 2, 32)
    got = _run(folded, question, copies=1)
    whole = _run(convert.unet_from_torch(state_dict, **ARGUMENTS), question, copies=4)
    record_property('max_abs_difference', float(np.abs(got - whole).max()))
    np.testing.assert_allclose(got, whole, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got, answer, rtol=0, atol=2e-5)


def test_copies_made_for_the_released_code_fold_back_exactly(state_dict):
    _, variables = convert.unet_from_torch(state_dict, **ARGUMENTS, fold_repeated_image=True)
    back = convert.unet_to_torch(variables, copies_of_image=4)
    assert back['input_blocks.0.0.weight'].shape == (32, 5, 3, 3)
    _, again = convert.unet_from_torch(back, **ARGUMENTS, fold_repeated_image=True)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_a_state_dict_that_does_not_fit_names_ten_keys_of_each_fault(state_dict):
    names = sorted(state_dict)
    broken = {name: state_dict[name] for name in names[12:]}
    broken |= {f'extra.{n:02}': np.zeros(1) for n in range(11)}
    broken |= {name: np.zeros(3) for name in names[12:30]}
    with pytest.raises(UserError) as error:
        convert.unet_from_torch(broken, **ARGUMENTS)
    message = str(error.value)
    assert '\n' not in message
    assert f'12 missing: {", ".join(names[:10])} and 2 more' in message
    assert 'extra.09 and 1 more' in message and 'extra.10' not in message
    assert f'18 mis-shaped: {names[12]} [3] instead of ' in message and 'and 8 more' in message
    assert names[22] not in message


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ({'model_channels': 64}, r'time_embed.0.weight|input_blocks.0.0.bias \[32\] instead of \[64\]'),
        ({'dims': 3}, 'only 2-D'),
        ({'num_classes': 10}, 'class-conditional'),
        ({'model_channels': 40}, '40 channels do not divide into 32 norm groups'),
        ({'num_heads': 3}, '64 channels do not divide into 3 heads'),
        ({'in_channels': 1, 'fold_repeated_image': True}, 'no image channel to fold'),
        ({'in_channels': 4, 'fold_repeated_image': True}, r'\[32, 5, 3, 3\] instead of \[32, 2, '),
    ],
)
def test_arguments_that_do_not_fit_are_named(state_dict, argument, message):
    with pytest.raises(UserError, match=message):
        convert.unet_from_torch(state_dict, **ARGUMENTS | argument)


def test_half_precision_weights_become_float32(state_dict):
    half = {name: array.astype(np.float16) for name, array in state_dict.items()}
    _, variables = convert.unet_from_torch(half, **ARGUMENTS, use_fp16=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def _weights_of(place, config):
    """Parameters that evaluating `place` would load."""
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return methods.create(config), checkpoint.load_weights(str(place), config, where)[0].params


@pytest.fixture
def released_file(tmp_path, state_dict):
    path = tmp_path / 'savedmodel.safetensors'
    safetensors.numpy.save_file(state_dict, path)
    return path


@pytest.mark.parametrize('name', ['run', 'run.safetensors'])
def test_a_released_file_becomes_a_checkpoint_and_back(released_file, tmp_path, state_dict, name):
    config, place = _config(), tmp_path / name
    convert.import_checkpoint(str(released_file), config, str(place))
    _, params = _weights_of(place, config)
    _same(convert.unet_to_torch({'params': params['unet']}), state_dict)
    back = tmp_path / 'back.safetensors'
    arguments = convert.export_checkpoint(str(place), config, str(back))
    _same(files.read_state_dict(back), state_dict)
    convert.unet_from_torch(files.read_state_dict(back), **arguments)
    assert not list(tmp_path.glob('.*'))


def test_masks_are_sampled_from_a_converted_checkpoint(released_file, tmp_path, monkeypatch):
    """With the image fed once; the trained encoders, which the file has not, are new."""
    create = methods.create
    narrow = GaussianEncoder(filters=(4,))
    monkeypatch.setattr(methods, 'create', lambda c: dataclasses.replace(create(c), encoder=narrow))
    fields = {'method.image_repeats': 1, 'method.encoders': 'trained', 'sample.num_steps': 2}
    config = _config(**fields)
    convert.import_checkpoint(str(released_file), config, str(tmp_path / 'run'))
    method, params = _weights_of(tmp_path / 'run', config)
    assert params.keys() == {'unet', 'amn', 'acn'}
    assert np.abs(params['amn']['conv_0_0']['kernel'] - params['acn']['conv_0_0']['kernel']).max() > 0
    images = np.random.default_rng(0).uniform(size=(1, 8, 8, 1)).astype(np.float32)
    draw = jax.jit(lambda keys: method.sample(params, {}, images, keys, 16))
    masks = np.asarray(draw(jax.random.split(jax.random.key(0), 1)))
    assert masks.shape == (1, 16, 8, 8) and masks.dtype == bool
    assert 0 < masks.mean() < 1


def test_a_taken_folder_is_left_alone(released_file, tmp_path):
    (tmp_path / 'run' / 'checkpoints').mkdir(parents=True)
    with pytest.raises(UserError, match='is taken'):
        convert.import_checkpoint(str(released_file), _config(), str(tmp_path / 'run'))


def test_networks_that_the_released_code_lacks_are_not_exported(tmp_path):
    for field, value in (('model.patch_size', 2), ('model.num_groups', 8)):
        with pytest.raises(UserError, match=f'config.{field}={value}'):
            convert.export_checkpoint('nowhere', _config(**{field: value}), str(tmp_path / 'x'))


def test_command_ends_with_one_line_and_status_2_on_a_cut_file(released_file, tmp_path):
    cut = tmp_path / 'cut.safetensors'
    cut.write_bytes(released_file.read_bytes()[:1000])
    command = [sys.executable, '-m', 'ambdiff.convert', f'--from_torch={cut}']
    command += ['--config=configs/lidc.py', f'--output={tmp_path / "run"}']
    folder = pathlib.Path(__file__).parents[1]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(f'ambdiff: {cut} is not a whole .safetensors file')
    assert done.stderr.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_a_pt_file_of_another_width_names_its_keys(state_dict, tmp_path):
    torch = pytest.importorskip('torch')
    pt = tmp_path / 'savedmodel.pt'
    torch.save({name: torch.tensor(array) for name, array in state_dict.items()}, pt)
    config = _config(**{'model.channels': 64})
    with pytest.raises(UserError, match=r'savedmodel.pt: .*127 mis-shaped: input_blocks'):
        convert.import_checkpoint(str(pt), config, str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()
