"""The configs of the three modalities: the paper's settings, and variants that need no data and say so."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest
import tiny

from ambdiff import dihedral, methods, plan, train
from ambdiff.data import sources

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'


def get_config(name, variant=''):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def count(config):
    """The number of parameters that sampling needs."""
    size = config.data.image_size
    batch = {'image': jax.ShapeDtypeStruct((1, size, size, config.data.channels), np.float32)}
    params = jax.eval_shape(methods.create(config).init, jax.random.key(0), batch)[0]
    return sum(leaf.size for leaf in jax.tree.leaves(params['unet']))


@pytest.mark.parametrize(('name', 'channels', 'raters'), [('lidc', 1, 4), ('bone_us', 1, 4), ('ms_mri', 4, 2)])
def test_the_papers_setting_of_each_modality(name, channels, raters):
    config = get_config(name)
    assert (config.data.image_size, config.data.channels, config.data.num_raters) == (128, channels, raters)
    assert (config.diffusion.num_steps, config.sample.num_steps, config.diffusion.prediction) == (1000, 1000, 'eps')
    # 85,603,842 with five input channels; each one less takes 3 x 3 x 128 weights.
    assert count(config) == 85_603_842 - (4 - channels) * 3 * 3 * 128


@pytest.mark.parametrize('name', ['lidc', 'bone_us', 'ms_mri'])
def test_the_simulated_variant_needs_no_data_says_so_and_is_small(name):
    config = get_config(name, 'simulated')
    assert config.data.path == '' and config.data.builder == f'{name}_simulated'
    assert 'imulated' in sources.notice(config.data)
    assert count(config) < 2e6
    assert config.train.num_steps * config.train.batch_size < 20_000


def test_simulated_ct_is_the_demo():
    assert get_config('lidc', 'simulated').to_dict() == get_config('demo').to_dict()


def test_base_is_the_design_of_small_for_an_accelerator_and_costs_what_it_states(tmp_path):
    config = get_config('lidc', 'base')
    assert (config.method.name, config.data.image_size, config.sample.noise) == ('level_sets', 128, 'independent')
    assert 16e6 < count(config) < 18e6
    method = methods.create(config)
    image = jax.ShapeDtypeStruct((1, 128, 128, 1), np.float32)
    params = jax.eval_shape(method.init, jax.random.key(0), {'image': image})[0]
    evaluation = jax.jit(lambda params, image: method._outputs(params, image)[0])
    assert 4.2e9 < evaluation.lower(params, image).cost_analysis()['flops'] < 4.4e9

    # A run begins: data is read and placed, and the step takes it, traced at its size and width but not computed.
    config.data.path = str(tiny.write_hdf5(tmp_path / 'data.hdf5', size=130))
    plan.check(config)
    run = train._Setup(config)
    batch = run.load(0)
    assert batch['image'].shape == (64, 128, 128, 1)
    after, said = jax.eval_shape(train.make_train_step(config, run.method, run.optimiser), run.abstract, batch)
    kinds = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert kinds(after) == kinds(run.abstract) and {'loss', 'energy', 'grad_norm'} <= set(said)


@pytest.mark.parametrize('name', ['lidc', 'bone_us', 'ms_mri'])
def test_a_variant_that_does_not_exist_is_named(name):
    with pytest.raises(ValueError, match=f"configs/{name}.py has no variant 'tiny'; it has .*simulated"):
        get_config(name, 'tiny')


def test_images_that_have_a_top_are_mirrored_in_sampling_and_never_turned():
    turned = []
    for name, variant in (('bone_us', 'simulated'), ('ms_mri', 'simulated'), ('lidc', 'small_cimd')):
        config = get_config(name, variant)
        assert config.sample.symmetries
        turned.append(np.asarray(dihedral.cycle(8, methods.create(config).reverse.upright)).tolist())
    assert turned == [[0, 2] * 4, [0, 2] * 4, list(range(8))]
    assert methods.create(get_config('bone_us', 'small')).orientations == (0, 2)
