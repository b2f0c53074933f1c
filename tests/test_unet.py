"""The U-Net against the released code's numbers, against float64 NumPy, and its invariants."""

import json

import archives
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ambdiff import convert
from ambdiff.models import layers
from ambdiff.models.unet import UNet

TINY = {
    'in_channels': 2,
    'model_channels': 32,
    'out_channels': 2,
    'num_res_blocks': 1,
    'attention_resolutions': (2,),
    'channel_mult': (1, 2),
}
OPTIONS = {
    'plain': {'num_heads': 2},
    'pooled resampling, fractional widths, heads on the way up': {
        'model_channels': 64,
        'channel_mult': (0.5, 1),
        'conv_resample': False,
        'num_heads_upsample': 4,
    },
    'all the others': {
        'num_res_blocks': 2,
        'attention_resolutions': (1, 2),
        'num_head_channels': 16,
        'use_scale_shift_norm': True,
        'resblock_updown': True,
        'use_new_attention_order': True,
    },
}


def _module(**options):
    """A U-Net as wide as OPTIONS says, and its seeded weights in the released code's form."""
    options = TINY | options
    fields = {k: v for k, v in options.items() if k != 'in_channels'}
    module = UNet(**fields)
    x = jax.ShapeDtypeStruct((1, 8, 8, options['in_channels']), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    abstract = jax.eval_shape(module.init, jax.random.key(0), x, t)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, np.float32), abstract)
    shapes = {name: array.shape for name, array in convert.unet_to_torch(zeros).items()}
    return options, reference.seeded_weights(3, shapes)


@pytest.fixture(scope='module')
def tiny():
    """(module, variables, x, t): the plain network with seeded weights, none of them zero."""
    options, weights = _module()
    module, variables = convert.unet_from_torch(weights, **options)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 2)).astype(np.float32)
    return module, variables, x, np.array([999, 3])


def _fixture_error(shared, name):
    file = archives.read(shared / 'fixtures' / f'unet_{name}.npz')
    weights = reference.seeded_weights(int(file['seed']), reference.shapes_in(file))
    module, variables = convert.unet_from_torch(weights, **json.loads(str(file['config'])))
    x, t = reference.nhwc(file['x']), file['t'].astype(np.int32)
    y = jax.jit(module.apply)(variables, x, t)
    size = sum(leaf.size for leaf in jax.tree.leaves(variables))
    return np.abs(np.asarray(y) - reference.nhwc(file['y'])).max(), size


@pytest.mark.parametrize('name', ['plain', 'scale_shift', 'resblock_updown', 'new_attention_order'])
def test_output_is_the_released_codes(shared, record_property, name):
    error, _ = _fixture_error(shared, name)
    record_property('max_abs_error', float(error))
    assert error < 1e-5


def test_output_at_the_papers_setting_is_the_released_codes(shared, record_property):
    error, size = _fixture_error(shared, 'paper')
    record_property('max_abs_error', float(error))
    assert size == 85_603_842
    assert error < 5e-5


@pytest.mark.parametrize('name', OPTIONS)
def test_output_is_that_of_a_float64_implementation(name, record_property):
    options, weights = _module(**OPTIONS[name])
    module, variables = convert.unet_from_torch(weights, **options)
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(2, 8, 8, 2)), np.array([999, 0])
    unet = reference.UNet(weights, **options)
    want = unet(reference.nchw(x), t)
    got = reference.nchw(jax.jit(module.apply)(variables, x.astype(np.float32), t))
    record_property('max_abs_error', float(np.abs(got - want).max()))
    assert unet.used == weights.keys()
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize('block', [layers.ResBlock(4, 2), layers.SelfAttention(2, 2)])
def test_a_fresh_block_passes_its_input_through(block):
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)
    more = (np.ones((1, 8), np.float32), False) if isinstance(block, layers.ResBlock) else ()
    init = jax.jit(lambda key: block.init_with_output(key, x, *more))
    y, variables = init(jax.random.key(0))
    np.testing.assert_array_equal(y, x)
    first = variables['params']['in_conv' if more else 'qkv']
    assert np.abs(first['kernel']).max() > 0


def test_size_that_does_not_divide_raises(tiny):
    module, variables, _, t = tiny
    with pytest.raises(ValueError, match=r'10x9 is not a multiple of 2'):
        jax.eval_shape(module.apply, variables, jnp.zeros((2, 10, 9, 2)), t)


def test_parameters_of_another_width_are_refused_by_name():
    params = {'kernel': np.zeros((3, 3, 2, 4), np.float32), 'bias': np.zeros(4, np.float32)}
    with pytest.raises(flax.errors.ScopeParamShapeError, match='kernel'):
        layers.Conv(5).apply({'params': params}, np.zeros((1, 4, 4, 2), np.float32))


def test_narrow_network_names_the_norm_groups_that_do_not_divide():
    with pytest.raises(ValueError, match='20 channels do not divide into 32 norm groups'):
        jax.eval_shape(UNet(20, 2, 1, (2,), (1,)).init, jax.random.key(0), jnp.zeros((1, 8, 8, 2)), jnp.zeros(1))


def test_bfloat16_compute_stays_close_to_float32(tiny):
    module, variables, x, t = tiny
    full = np.asarray(jax.jit(module.apply)(variables, x, t))
    half = jax.jit(module.clone(dtype=jnp.bfloat16).apply)(variables, x, t)
    assert half.dtype == jnp.float32
    error = np.abs(np.asarray(half) - full).max() / np.abs(full).max()
    assert 1e-6 < error < 0.05


def test_remat_changes_neither_output_nor_gradient():
    options, weights = _module(channel_mult=(1,), num_res_blocks=0)
    module, variables = convert.unet_from_torch(weights, **options)
    again, _ = convert.unet_from_torch(weights, **options, use_checkpoint=True)
    assert again.remat
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 2)).astype(np.float32)

    def run(network):
        def loss(variables):
            y = network.apply(variables, x, np.array([999, 3]))
            return jnp.square(y).mean(), y

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)

    (_, want), want_gradient = run(module)
    (_, got), gradient = run(again)
    np.testing.assert_allclose(got, want, atol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(want_gradient), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_dropout_acts_in_training_only(tiny):
    module, variables, x, t = tiny
    dropping = module.clone(dropout=0.5)
    apply = jax.jit(dropping.apply, static_argnames='train')
    rngs = {'dropout': jax.random.key(0)}
    trained = apply(variables, x, t, train=True, rngs=rngs)
    other = apply(variables, x, t, train=True, rngs={'dropout': jax.random.key(1)})
    assert np.abs(np.asarray(trained - other)).max() > 1e-2
    np.testing.assert_allclose(apply(variables, x, t, train=False), jax.jit(module.apply)(variables, x, t), atol=1e-5)


def test_a_pointwise_convolution_has_einsums_gradients():
    draw = np.random.default_rng(0).normal
    x, kernel, weight = (jnp.asarray(draw(size=s), jnp.float32) for s in ((2, 3, 5, 4), (4, 6), (2, 3, 5, 6)))
    plain = lambda x, kernel: jnp.einsum('bhwc,cd->bhwd', x, kernel)
    gradients = lambda f: jax.grad(lambda *a: (f(*a) * weight).sum(), argnums=(0, 1))(x, kernel)
    np.testing.assert_array_equal(layers.pointwise(x, kernel), plain(x, kernel))
    for ours, einsums in zip(gradients(layers.pointwise), gradients(plain), strict=True):
        np.testing.assert_allclose(ours, einsums, rtol=1e-5, atol=1e-5)


def test_patches_are_cut_and_put_back_in_place():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    cut = layers.space_to_depth(x, 2)
    assert cut.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(cut[1, 1, 2].reshape(2, 2, 3), x[1, 2:4, 4:6])
    np.testing.assert_array_equal(layers.depth_to_space(cut, 2), x)


def test_patch_size_keeps_the_resolution_of_the_answer():
    module = UNet(32, 1, 1, (2,), (1, 2), patch_size=2)
    assert module.stride == 4
    x, t = jnp.zeros((1, 8, 12, 2)), jnp.zeros(1, int)
    y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x, t)
    assert y.shape == (1, 8, 12, 1)
    assert variables['params']['input_blocks_0_0']['kernel'].shape == (3, 3, 8, 32)


def test_upsampling_repeats_and_downsampling_averages():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    up = np.asarray(layers.upsample(jnp.asarray(x)))
    np.testing.assert_array_equal(up, x.repeat(2, axis=1).repeat(2, axis=2))
    down = np.asarray(layers.downsample(jnp.asarray(x)))
    np.testing.assert_allclose(down[1, 1, 2], x[1, 2:4, 4:6].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(layers.downsample(jnp.asarray(up)), x, rtol=1e-6)
