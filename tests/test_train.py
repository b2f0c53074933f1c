"""Training: topology, resume, faults, what a run writes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import devices
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ambdiff import methods, optim, train
from ambdiff.data import pipeline, sources
from ambdiff.data.shuffle import Shuffled
from ambdiff.errors import UserError
from ambdiff.runtime import checkpoint, sharding

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_hdf5(tmp_path_factory.mktemp('data') / 'tiny.hdf5')


def load_run(workdir, config):
    method = methods.create(config)
    optimiser = optim.create(config.optim, config.train.num_steps)
    abstract = jax.eval_shape(lambda k: train.create_state(config, method, optimiser, k), jax.random.key(0))
    state = {'step': abstract.step, 'params': abstract.params, 'opt_state': abstract.opt_state}
    here = lambda tree: sharding.on(tree, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with checkpoint.Checkpointer(pathlib.Path(workdir)) as saved:
        return saved.latest_step, *saved.restore(
            saved.latest_step, here(state), here(checkpoint.sampling_item(abstract.weights)), config
        )


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def losses(data, num_devices, steps=3):
    config = tiny.config(data)
    with devices.visible(num_devices):
        mesh = sharding.create_mesh(config.mesh)
    method, optimiser = methods.create(config), optim.create(config.optim, 12)
    place = lambda tree, sharding: jax.tree.map(lambda x: jax.device_put(x, sharding), tree)
    state = train.create_state(config, method, optimiser, jax.random.key(0))
    state = place(state, sharding.replicated(mesh))
    batches = Shuffled(sources.open_source(config.data, 'train'), config.seed)
    step_fn = jax.jit(train.make_train_step(config, method, optimiser), donate_argnums=0)
    values = []
    for step in range(steps):
        rows = range(step * 8, step * 8 + 8)
        state, metrics = step_fn(state, place(pipeline.batch(batches, rows), sharding.batch_sharding(mesh)))
        values.append(float(metrics['loss']))
    return values, state


def test_same_step_gives_same_loss_on_1_2_and_8_devices(data):
    one, state = losses(data, 1)
    assert one[0] != one[2]
    for number in (2, 8):
        other, other_state = losses(data, number)
        np.testing.assert_allclose(other, one, atol=1e-6)
        close = lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-4)
        jax.tree.map(close, state.params, other_state.params)


def test_accumulated_gradient_is_the_mean_over_its_parts(data):
    config = tiny.config(data, **{'train.accumulation_steps': 2, 'data.augment': False})
    method, optimiser = methods.create(config), optim.create(config.optim, 12)
    state = train.create_state(config, method, optimiser, jax.random.key(0))
    # Away from the zero-initialised output, where most gradients vanish.
    params = jax.tree.map(lambda p: p + 0.05 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), state.params)
    state = state.replace(params=params)
    source = sources.open_source(config.data, 'train')
    batch = pipeline.batch(source, range(8))
    _, metrics = jax.jit(train.make_train_step(config, method, optimiser))(state, batch)
    key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 0))[1]
    loss = jax.jit(method.loss)
    parts = [
        loss(params, {}, {n: v[i::2] for n, v in batch.items()}, jax.random.fold_in(key, i))[0].mean() for i in range(2)
    ]
    np.testing.assert_allclose(float(metrics['loss']), float(sum(parts) / 2), rtol=1e-5)


def test_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(data, tmp_path):
    """kill -9 at two moments of a real run, started again by the same command each time."""
    arguments = lambda workdir: [
        sys.executable,
        '-m',
        'ambdiff.main',
        '--mode=train',
        *tiny.flags(data, workdir),
    ]
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '1'}
    start = lambda workdir: subprocess.Popen(
        arguments(workdir), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    whole_run = start(whole)
    for wanted in (4, 8):
        run = start(killed)
        deadline = time.monotonic() + 240
        while not (killed / 'checkpoints' / str(wanted)).is_dir():
            assert run.poll() is None or run.returncode == 0, run.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    last = start(killed)
    assert 'going on from step' in last.communicate(timeout=240)[1]
    assert last.returncode == 0
    assert whole_run.communicate(timeout=240) and whole_run.returncode == 0
    config = tiny.config(data)
    first, second = load_run(whole, config), load_run(killed, config)
    assert first[0] == second[0] == config.train.num_steps
    assert_same(first[1:], second[1:])
    steps = [json.loads(line)['step'] for line in (killed / 'metrics.jsonl').read_text().splitlines()]
    assert steps == sorted(set(steps)), 'a step is logged twice'


def test_terminated_run_saves_and_says_how_to_go_on(data, tmp_path):
    arguments = tiny.flags(data, tmp_path / 'run', **{'train.num_steps': 100_000})
    run = subprocess.Popen(
        [sys.executable, '-m', 'ambdiff.main', *arguments],
        cwd=ROOT,
        env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / 'run' / 'checkpoints' / '4').is_dir():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 0
    assert 'stopped by SIGTERM' in said and 'Traceback' not in said
    step = int(said.split('stopped by SIGTERM at step ')[1].split(':')[0])
    assert (tmp_path / 'run' / 'checkpoints' / str(step)).is_dir()


def test_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_checkpoint(data, tmp_path):
    config = tiny.config(data, **{'optim.learning_rate': 1e35, 'optim.clip_norm': 0.0})
    config.train.checkpoint_every, config.train.max_rollbacks = 1, 2
    with pytest.raises(UserError, match=r'not finite .* at step \d+, after 2 rollbacks .* is kept') as error:
        train.train(config, tmp_path / 'run')
    kept = int(str(error.value).split('; step ')[1].split()[0])
    config.optim.learning_rate = 1e35
    step, state, ema = load_run(tmp_path / 'run', config)
    assert step == kept
    for leaf in jax.tree.leaves((state['params'], ema)):
        assert np.isfinite(np.asarray(leaf)).all()


def test_workdir_of_another_config_is_refused_by_field(data, tmp_path):
    config = tiny.config(data)
    assert train.train(config, tmp_path / 'run')
    config.model.dropout = 0.1
    with pytest.raises(UserError, match=r'model.dropout: 0.0 -> 0.1'):
        train.train(config, tmp_path / 'run')


@pytest.mark.parametrize(
    ('field', 'value', 'named'),
    [
        ('train.batch_size', 12, 'config.train.batch_size=12 is not a multiple of the 8 devices'),
        ('train.accumulation_steps', 3, 'accumulation_steps=3'),
        ('data.image_size', 18, 'config.data.image_size=18 is not a multiple of 4'),
        ('model.num_groups', 3, 'num_groups=3 does not divide'),
        ('method.loss', 'dice', 'mse, cross_entropy'),
        ('method.name', 'gan', "method.name='gan' is not known; use one of cimd"),
        ('method.vlb_weight', 1.0, 'learned_variance'),
        ('diffusion.schedule', 'quadratic', 'linear, cosine, shifted_cosine'),
        ('diffusion.prediction', 'eps', 'cross_entropy'),
        ('sample.num_steps', 1001, 'sample.num_steps=1001 must lie in 1 .. 1000'),
        ('sample.eta', 2.0, 'config.sample.eta=2.0 is out of range'),
        ('train.keep_checkpoints', 0, 'config.train.keep_checkpoints=0'),
        ('model.num_heads', 3, 'attention heads'),
        ('optim.schedule', 'step', 'constant'),
        ('optim.warmup_steps', 12, 'warmup_steps=12'),
        ('mesh.data', 3, '8 devices'),
    ],
)
def test_unsuitable_fields_are_named_with_the_cure(data, tmp_path, field, value, named):
    config = tiny.config(data, **{field: value})
    with devices.visible(8), pytest.raises(UserError) as error:
        train.train(config, tmp_path / 'run')
    assert named in str(error.value)
    assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_batches_are_a_function_of_the_step_alone_and_cover_every_epoch(data):
    config = tiny.config(data)
    source = sources.open_source(config.data, 'train')
    first, again = (Shuffled(source, 3) for _ in range(2))
    assert_same(pipeline.batch(first, range(40, 48)), pipeline.batch(again, range(40, 48)))
    epochs = [[first[e * len(source) + i]['case'] for i in range(len(source))] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(e['case'] for e in source)
    assert epochs[0] != epochs[1]
