"""Training: resume, faults, fields that do not suit, batches."""

import json
import pathlib
import signal

import devices
import jax
import numpy as np
import processes
import pytest
import tiny

from ambdiff import config_check, methods, optim, train
from ambdiff.data import pipeline, sources
from ambdiff.data.shuffle import Shuffled
from ambdiff.errors import UserError
from ambdiff.runtime import checkpointer, sharding


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_hdf5(tmp_path_factory.mktemp('data') / 'tiny.hdf5')


def load_run(workdir, config):
    method = methods.create(config)
    optimiser = optim.create(config.optim, config.train.num_steps)
    abstract = jax.eval_shape(lambda k: train.create_state(config, method, optimiser, k), jax.random.key(0))
    state = {'step': abstract.step, 'params': abstract.params, 'opt_state': abstract.opt_state}
    here = lambda tree: sharding.on(tree, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with checkpointer.Checkpointer(pathlib.Path(workdir)) as saved:
        return saved.latest_step, *saved.restore(
            saved.latest_step, here(state), here(checkpointer.sampling_item(abstract.weights)), config
        )


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def test_accumulated_gradient_is_the_mean_over_its_parts(data, mean_method):
    config = tiny.config(data, 'mean', **{'train.accumulation_steps': 2, 'data.augment': False})
    method, optimiser = methods.create(config), optim.create(config.optim, 12)
    state = tiny.state(config, method, optimiser)
    params = state.params
    source = sources.open_source(config.data, 'train')
    batch = pipeline.batch(source, range(8))
    _, metrics = jax.jit(train.make_train_step(config, method, optimiser))(state, batch)
    key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 0))[1]
    loss = jax.jit(method.loss)
    halves = [{n: v[i::2] for n, v in batch.items()} for i in range(2)]
    parts = [loss(params, state.carried, x, jax.random.fold_in(key, i))[0].mean() for i, x in enumerate(halves)]
    np.testing.assert_allclose(float(metrics['loss']), float(sum(parts) / 2), rtol=1e-5)


@pytest.fixture(scope='module')
def interrupted(data, tmp_path_factory):
    """One run three times: by one command until kill -9 and until SIGTERM, by another process to the end.

    (workdir, its step at SIGTERM, what it said until then, its last step, what it said to the end)
    """
    folder = tmp_path_factory.mktemp('interrupted')
    workdir = folder / 'run'

    # With a constant learning rate where the run ends may be said later.
    fields = {'train.num_steps': 100_000, 'train.keep_checkpoints': 1000, 'optim.schedule': 'constant'}
    flags = [*tiny.flags(data, workdir, **fields), '--config.optim.schedule=constant']
    run = processes.start(flags, log=folder / 'killed')
    processes.wait_for(workdir / 'checkpoints' / '4', run)
    run[0].kill()
    assert processes.finish(run) == [-signal.SIGKILL]
    saved = max(int(p.name) for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())
    run = processes.start(flags, log=folder / 'stopped')
    processes.wait_for(workdir / 'checkpoints' / str(saved + 4), run)
    run[0].terminate()
    assert processes.finish(run) == [0]
    stopped = (folder / 'stopped.0').read_text()
    step = int(stopped.split('stopped by SIGTERM at step ')[1].split(':')[0])
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.logger, 'info', lambda text, *values: said.append(text % values))
        assert train.train(tiny.config(data, **{**fields, 'train.num_steps': step + 6}), workdir)
    return workdir, step, stopped, step + 6, '\n'.join(said)


def test_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(interrupted, data, tmp_path):
    workdir, stopped_at, stopped, last, said = interrupted
    assert 'going on from step' in stopped and f'going on from step {stopped_at} ' in said
    fields = {'train.num_steps': last, 'train.checkpoint_every': last, 'optim.schedule': 'constant'}
    config = tiny.config(data, **fields)
    assert train.train(config, tmp_path / 'whole')
    first, second = load_run(tmp_path / 'whole', config), load_run(workdir, config)
    assert first[0] == second[0] == last
    assert_same(first[1:], second[1:])
    steps = [json.loads(line)['step'] for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert steps == sorted(set(steps)), 'a step is logged twice'


def test_terminated_run_saves_and_says_how_to_go_on(interrupted):
    workdir, step, said, *_ = interrupted
    assert 'the same command goes on from there' in said and 'Traceback' not in said
    assert (workdir / 'checkpoints' / str(step)).is_dir()


def test_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_checkpoint(
    data, mean_method, tmp_path, monkeypatch
):
    # No config may ask for it: it stands for whatever spoils a loss.
    monkeypatch.setitem(config_check._RANGES, 'optim.learning_rate', (0, 1e38))
    config = tiny.config(data, 'mean', **{'optim.learning_rate': 1e35, 'optim.clip_norm': 0.0})
    config.train.checkpoint_every, config.train.max_rollbacks = 1, 2
    with pytest.raises(UserError, match=r'not finite .* at step \d+, after 2 rollbacks .* is kept') as error:
        train.train(config, tmp_path / 'run')
    kept = int(str(error.value).split('; step ')[1].split()[0])
    config.optim.learning_rate = 1e35
    step, state, ema = load_run(tmp_path / 'run', config)
    assert step == kept
    for leaf in jax.tree.leaves((state['params'], ema)):
        assert np.isfinite(np.asarray(leaf)).all()


@pytest.mark.parametrize(
    ('field', 'value', 'named'),
    [
        ('train.batch_size', 12, 'config.train.batch_size=12 is not a multiple of the 8 devices'),
        ('train.accumulation_steps', 3, 'accumulation_steps=3'),
        ('data.image_size', 18, 'config.data.image_size=18 is not a multiple of 4'),
        ('model.num_groups', 3, 'num_groups=3 does not divide'),
        ('method.loss', 'dice', 'mse, cross_entropy'),
        ('method.name', 'gan', "method.name='gan' is not known; use one of ccdm, cimd"),
        ('method.vlb_weight', 1.0, 'learned_variance'),
        ('diffusion.schedule', 'quadratic', 'linear, cosine, shifted_cosine'),
        ('diffusion.prediction', 'eps', 'cross_entropy'),
        ('sample.num_steps', 1001, 'sample.num_steps=1001 must lie in 1 .. 1000'),
        ('sample.eta', 2.0, 'config.sample.eta=2.0 is out of range'),
        ('train.keep_checkpoints', 0, 'config.train.keep_checkpoints=0'),
        ('model.num_heads', 3, 'attention heads'),
        ('optim.schedule', 'step', 'constant'),
        ('optim.warmup_steps', -1, 'warmup_steps=-1'),
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
