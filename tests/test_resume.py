"""What a run may change when it goes on: every config field is of one stated class."""

import json
import shutil

import jax
import numpy as np
import pytest

from ambdiff.config import default
from ambdiff.errors import UserError
from ambdiff.runtime import checkpoint, checkpointer, weights_file

# Nothing that a step depends on, but for rounding: any of these may change from one part of a run to the next.
FREE = {
    'checkpoint': 'where the run began from; it has checkpoints of its own now',
    'data.path': 'the data is known by what it holds',
    'data.build_dir': 'where what is built lies',
    'data.accept_changes': 'is about going on',
    'model.remat': 'computes the same again instead of keeping it',
    'train.num_steps': 'how far the run goes',
    'train.log_every': 'what is told when',
    'train.checkpoint_every': 'what is saved when',
    'train.keep_checkpoints': 'what is kept',
    'train.sample_every': 'what is shown when',
    'train.sample_images': 'what is shown',
    'train.spike_factor': 'what counts as a fault',
    'train.max_rollbacks': 'how often a fault is forgiven',
}
# Whole groups that training does not depend on; `mesh` is how many devices share it.
FREE_GROUPS = ('sample', 'evaluate', 'mesh')


def fields():
    for group, value in default().items():
        yield from [f'{group}.{name}' for name in value] if hasattr(value, 'keys') else [group]


def other(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + 'x'
    return (*value, 7) if isinstance(value, tuple | list) else value + 1


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A checkpointer whose checkpoint 1 knows its data, and the abstract tree of state and averages."""
    tree = {'a': np.zeros(2, np.float32)}
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with checkpointer.Checkpointer(tmp_path_factory.mktemp('run')) as saved:
        saved.save(1, tree, tree, default(), {'data': {'by': 'content'}})
        saved.wait()
        yield saved, {'a': jax.ShapeDtypeStruct((2,), np.float32, sharding=where)}


@pytest.mark.parametrize('field', list(fields()))
def test_every_field_may_change_on_resuming_or_is_named(saved, field):
    saved, tree = saved
    config = default()
    group, _, name = field.rpartition('.')
    place = config[group] if group else config
    with place.unlocked():
        place[name] = other(place[name])
    if field in FREE or group in FREE_GROUPS:
        saved.restore(1, tree, tree, config)
    else:
        with pytest.raises(UserError, match=rf'another config \({field}: '):
            saved.restore(1, tree, tree, config)


def test_where_data_lies_may_not_change_for_a_run_that_does_not_know_its_data(tmp_path, saved):
    tree = saved[1]
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)
    config = default()
    with checkpointer.Checkpointer(tmp_path) as saved:
        saved.save(1, zeros, zeros, config)
        config.data.path = 'elsewhere'
        saved.wait()
        with pytest.raises(UserError, match=r'data\.path:  -> elsewhere'):
            saved.restore(1, tree, tree, config)


def test_a_workdir_that_is_deleted_during_a_run_is_told_when_the_next_checkpoint_is_due(tmp_path):
    tree = {'a': np.zeros(2, np.float32)}
    with (
        pytest.raises(UserError, match='has gone while the run was going'),
        checkpointer.Checkpointer(tmp_path / 'run') as c,
    ):
        c.save(1, tree, tree, default())
        c.wait()
        shutil.rmtree(tmp_path / 'run')
        c.save(2, tree, tree, default())


MANIFESTS = {
    'empty': '{}',
    'a list': '[]',
    'deep': '[' * 10**5,
    'odd': '{"ema/x": 3}',
    'no JSON': '\x00',
    'a number': '7',
}


@pytest.mark.parametrize('what', MANIFESTS)
def test_a_manifest_that_does_not_say_what_is_there_is_damage(tmp_path, weights, what, caplog):
    params, config, _ = weights_file.load_safetensors(weights)
    with checkpointer.Checkpointer(tmp_path) as saved:
        for step in (1, 2):
            saved.save(step, {'step': np.int32(step)}, {'ema': params}, config)
    (tmp_path / 'checkpoints' / '2' / 'manifest.json').write_text(MANIFESTS[what])
    (tmp_path / 'checkpoints' / '²').mkdir()
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    assert checkpoint.load_weights(str(tmp_path), config, where)[1] == 1
    assert 'checkpoint 2 ' in caplog.text
    assert json.loads((tmp_path / 'checkpoints' / '1' / 'manifest.json').read_text())
