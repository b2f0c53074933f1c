"""The seam between a method and the rest: its state, its own config fields, the model's fields, from one file alone."""

import dataclasses
import json
import pathlib
from typing import Annotated, Literal

import devices
import forked
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from ambdiff import convert, evaluate, methods, optim, train
from ambdiff.config import default, use_method
from ambdiff.data import pipeline, sources
from ambdiff.errors import UserError
from ambdiff.methods.kit import fields, masks
from ambdiff.methods.kit.contract import Weights
from ambdiff.methods.kit.fields import Between
from ambdiff.models import unet
from ambdiff.runtime import checkpoint, sharding, weights_file

pytestmark = pytest.mark.usefixtures('mean_method')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_hdf5(tmp_path_factory.mktemp('data') / 'tiny.hdf5')


def config_of(data, **given):
    few = {'train.num_steps': 4, 'train.checkpoint_every': 2, 'optim.schedule': 'constant', 'optim.warmup_steps': 0}
    return tiny.config(data, method='mean', **few, **given)


@pytest.fixture(scope='module')
def run(mean_method, data, tmp_path_factory):
    """(config, workdir) of a finished run of 4 steps."""
    config, workdir = config_of(data), tmp_path_factory.mktemp('run') / 'work'
    assert train.train(config, workdir)
    return config, workdir


def stepped(config, number_of_devices=1):
    """The state after one step over so many devices, and the batch as it was augmented."""
    method, optimiser = methods.create(config), optim.create(config.optim, 4)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:number_of_devices]).reshape(-1, 1), ('data', 'model'))
    state = train.create_state(config, method, optimiser, jax.random.key(0))
    batch = pipeline.batch(sources.open_source(config.data, 'train'), range(8))
    place = lambda tree, where: jax.tree.map(lambda x: jax.device_put(x, where), tree)
    state = place(state, sharding.replicated(mesh))
    step = jax.jit(train.make_train_step(config, method, optimiser))
    return step(state, place(batch, sharding.batch_sharding(mesh)))[0], batch


def test_the_state_of_a_step_is_of_the_whole_batch_on_any_devices_and_in_any_parts(data):
    with devices.visible(8):
        for parts, number in ((1, 1), (1, 8), (2, 1), (2, 4)):
            config = config_of(data, **{'train.accumulation_steps': parts, 'data.augment': False})
            state, batch = stepped(config, number)
            assert int(state.carried['steps']) == 1
            np.testing.assert_allclose(state.carried['mean'], 0.5 * batch['image'][..., 0].mean(0), atol=1e-6)


def test_a_run_goes_on_with_the_state_it_had(run, data, tmp_path):
    config, whole = run
    part = config_of(data)
    for steps in (2, 4):
        part.train.num_steps = steps
        assert train.train(part, tmp_path / 'parts')
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    one, two = (checkpoint.load_weights(str(place), config, where)[0] for place in (whole, tmp_path / 'parts'))
    assert int(one.state['steps']) == 4 and one.params.keys() == {'share', 'helper'}
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_samples_are_drawn_from_the_newest_state_and_files_hold_it_without_what_sampling_leaves_out(run, tmp_path):
    config, workdir = run
    drawn = evaluate.evaluate(config, workdir)
    file = tmp_path / 'weights.safetensors'
    convert.pack_checkpoint(str(workdir), config, str(file))
    loaded = weights_file.unpacked(weights_file.load_safetensors(file)[0])
    assert loaded.params.keys() == {'share'}
    assert loaded.state['steps'].dtype == np.int32 and int(loaded.state['steps']) == 4
    assert loaded.state['mean'].dtype == np.float32 and loaded.state['mean'].any()

    # The file gives what the run gives, but for the parameters' half precision; without its state it does not.
    other = config.copy_and_resolve_references()
    other.checkpoint = str(file)
    again = evaluate.evaluate(other, tmp_path / 'again')
    assert again['metrics']['ged'] == pytest.approx(drawn['metrics']['ged'], abs=0.02)
    none = jax.tree.map(np.zeros_like, loaded.state)
    stateless = weights_file.packed(Weights(loaded.params, none))
    weights_file.save_safetensors(file, stateless, config, 4, 'float32')
    assert abs(evaluate.evaluate(other, tmp_path / 'without')['metrics']['ged'] - drawn['metrics']['ged']) > 0.05

    # Training that starts from it initialises what it leaves out.
    other.train.num_steps = 1
    assert train.train(other, tmp_path / 'from_file')
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights, _ = checkpoint.load_weights(str(tmp_path / 'from_file'), config, where)
    assert weights.params.keys() == {'share', 'helper'} and int(weights.state['steps']) == 1


def test_weights_of_another_method_or_architecture_are_refused(run):
    config, workdir = run
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    other = config.copy_and_resolve_references()
    other.method.decay, other.model.channels = 0.25, 16  # nothing that its architecture names
    checkpoint.load_weights(str(workdir), other, where)
    other.method.rank = 4
    with pytest.raises(UserError, match=r'another architecture \(method.rank: 3 -> 4\)'):
        checkpoint.load_weights(str(workdir), other, where)
    with pytest.raises(UserError, match='is of the method mean, the config of cimd'):
        checkpoint.load_weights(str(workdir), tiny.config('unused'), where)


def command_line(folder, *arguments):
    """The config's group method as a command sees it, or the line that it ends with."""
    program = (
        'import json, sys\n'
        'from absl import flags\n'
        'from ambdiff import command, methods\n'
        'methods.__path__.append(sys.argv.pop(1))\n'
        'command.define_config()\n'
        'command.parse_flags(sys.argv)\n'
        'print(json.dumps({**flags.FLAGS.config.method, "locked": flags.FLAGS.config.method.is_locked}))\n'
    )
    done = forked.run('-c', program, folder, *arguments)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()


def test_a_methods_own_fields_are_given_on_the_command_line_and_locked():
    folder = methods.__path__[-1]
    demo = '--config=configs/demo.py'
    given = command_line(folder, demo, '--config.method.name=mean', '--config.method.rank=5')
    assert given == {'name': 'mean', 'decay': 0.5, 'rank': 5, 'locked': True}
    # The name that is there already leaves what the file says.
    given = command_line(folder, '--config=configs/lidc.py:released', '--config.method.name=cimd')
    assert given['encoders'] == 'frozen' and given['image_repeats'] == 4
    said = command_line(folder, demo, '--config.method.name=mean', '--config.method.rnak=5')
    assert said == 'ambdiff: there is no config field method.rnak; did you mean config.method.rank?'
    said = command_line(folder, demo, '--config.method.rank=5')
    assert said.startswith('ambdiff: there is no config field method.rank')
    assert 'method.name=' in command_line(folder, demo, '--config.method.name=median')


def test_a_config_file_takes_a_method_and_sets_its_fields():
    config = default('mean')
    config.method.rank = 7
    methods.check(config)
    assert use_method(config, 'cimd').method.latent_dim == 6 and 'rank' not in config.method
    config.lock()
    assert use_method(config, 'mean').method.rank == 3
    with pytest.raises(AttributeError):
        config.method.rnak = 1
    config = default()
    config.method.name = 'mean'
    with pytest.raises(UserError, match=r"fields of another method than 'mean' .*use_method\(config, 'mean'\)"):
        methods.create(config)


@dataclasses.dataclass(frozen=True)
class Fields:
    kind: Literal['a', 'b'] = 'a'
    rank: Annotated[int, Between(1, 8)] = 2
    weights: Annotated[tuple[float, float], Between(0)] = (0.0, 1.0)
    widths: tuple[int, ...] = (8, 16)


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('kind', 'c', "config.method.kind='c' is not known; use one of a, b"),
        ('rank', 9, 'config.method.rank=9 is out of range: 1 to 8'),
        ('weights', (0.0, -1.0), 'config.method.weights=(0.0, -1.0) is out of range'),
        ('weights', (0.0, float('nan')), 'config.method.weights=(0.0, nan) is out of range'),
        ('weights', (1.0,), 'config.method.weights=(1.0,) must be 2 values'),
        ('widths', (8,), ''),
    ],
)
def test_fields_are_read_as_frozen_values_and_checked(name, value, said):
    group = ml_collections.ConfigDict(fields.defaults(Fields))
    assert fields.read(Fields, group) == Fields()
    group[name] = value
    if not said:
        assert fields.read(Fields, group) == Fields(**{name: value})
        return
    with pytest.raises(UserError) as error:
        fields.read(Fields, group)
    assert str(error.value).startswith(said)


CHANGED = {
    'channels': 64,
    'channel_mult': (1, 2),
    'num_res_blocks': 1,
    'attention_resolutions': (4,),
    'num_heads': 2,
    'num_head_channels': 16,
    'num_heads_upsample': 4,
    'use_new_attention_order': True,
    'num_groups': 16,
    'use_scale_shift_norm': True,
    'resblock_updown': True,
    'conv_resample': False,
    'dropout': 0.1,
    'patch_size': 2,
    'remat': True,
    'dtype': 'bfloat16',
}


def test_every_field_of_the_model_reaches_the_network():
    model = default().model
    assert set(CHANGED) == set(model)
    plain = unet.from_config(model, 128, 2)
    networks = {plain}
    for name, value in CHANGED.items():
        other = default().model
        assert other[name] != value
        other[name] = value
        networks.add(unet.from_config(other, 128, 2))
    networks |= {unet.from_config(model, 128, 1), unet.from_config(model, 128, 2, lambda h, level: h)}
    assert len(networks) == 1 + len(CHANGED) + 2 == 1 + len(dataclasses.fields(unet.UNet)) - 2  # parent and name


def test_a_drawn_rater_is_present_and_each_is_drawn_alike():
    present = np.array([[True, False, True, True], [False, True, False, False]])
    draw = jax.vmap(lambda key: masks.draw_rater(key, jnp.asarray(present)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 3000)))
    shares = (drawn[:, 0, None] == np.arange(4)).mean(0)
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
    assert (drawn[:, 1] == 1).all()


def test_parts_give_the_same_masks_and_share_what_an_images_masks_have_in_common():
    image, rows = jnp.arange(3.0)[:, None], jnp.arange(12.0).reshape(3, 4)
    draw = lambda shared, row: shared['image'][:, 0] * 100 + row
    expected = np.arange(3)[:, None] * 100 + np.arange(12).reshape(3, 4)
    for parts in (1, 2, 4):
        np.testing.assert_array_equal(masks.by_parts(draw, parts, {'image': image}, rows), expected)


def test_a_methods_recommended_settings_are_its_own_and_a_method_without_any_changes_nothing():
    config = default('mean')
    before = config.to_json()
    assert methods.recommend(config) is config and config.to_json() == before
    with open(pathlib.Path(methods.__path__[-1]) / 'eager.py', 'w', encoding='utf-8') as file:
        file.write('def recommend(config):\n    config.optim.learning_rate = 0.5\n    return config\n')
    assert methods.recommend(use_method(config, 'eager')).optim.learning_rate == 0.5
