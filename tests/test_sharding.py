"""Placement over devices: what it changes (bytes, messages), and what it must not (the loss)."""

import devices
import jax
import numpy as np
import pytest
import tiny

from ambdiff import train
from ambdiff.errors import UserError
from ambdiff.runtime import flops, sharding

STEPS = 3


@pytest.fixture(scope='module', autouse=True)
def eight_devices(one_device):
    with devices.visible(8):
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_hdf5(tmp_path_factory.mktemp('data') / 'tiny.hdf5')


def config(data, **fields):
    return tiny.config(data, **{'model.channel_mult': (1, 2), 'data.warp': 0.25, **fields})


def compiled_run(data, number=8, start=None, **fields):
    """(the compiled run on so many devices, losses of three steps, the state after them, what compiling said).

    With the state `start` it begins there, and compiles nothing for a state of its own.
    """
    said = []
    with devices.visible(number), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.logger, 'info', lambda text, *values: said.append(text % values))
        run = train._Setup(config(data, **fields))
        state = run.start() if start is None else jax.device_put(start, run.shardings)
        run.compile(state)
    losses = []
    for step in range(STEPS):
        state, metrics = run.step_fn(state, run.load(step))
        losses.append(float(metrics['loss']))
    return run, losses, state, said


@pytest.fixture(scope='module')
def start(data):
    return jax.tree.map(np.asarray, train._Setup(config(data)).start())


@pytest.fixture(scope='module')
def plain(data, start):
    return compiled_run(data, start=start)


@pytest.fixture(scope='module')
def one(data, start):
    return compiled_run(data, 1, start)


@pytest.fixture(scope='module')
def fsdp(data):
    return compiled_run(data, **{'mesh.fsdp': True})


@pytest.fixture(scope='module')
def tall(data, start):
    return compiled_run(data, start=start, **{'mesh.model': 2})


def gradient_bytes(run):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(run.abstract.params))


def test_a_step_on_eight_devices_reduces_the_gradient_once_and_moves_nothing_else(plain):
    run, *_ = plain
    moved = flops.communicated(run.step_fn)
    assert set(moved) == {'all-reduce'}, 'the batch is placed anew'
    assert gradient_bytes(run) <= moved['all-reduce'] <= gradient_bytes(run) + 64


def test_fsdp_holds_an_eighth_on_each_device(plain, fsdp):
    (whole, *_), (run, _, state, _) = plain, fsdp
    for name in ('params', 'ema', 'opt_state'):
        mine = sharding.bytes_per_device(getattr(run.abstract, name))
        everything = sharding.bytes_per_device(getattr(whole.abstract, name))
        assert everything / 8 <= mine <= everything / 8 + 8, name
        held = sum(x.addressable_data(3).nbytes for x in jax.tree.leaves(getattr(state, name)))
        assert held == mine, f'{name} is not where the plan says after {STEPS} steps'


@pytest.mark.parametrize('other', ['one', 'fsdp', 'tall'])
def test_neither_devices_nor_placement_change_the_loss(plain, other, request):
    assert plain[1][0] != plain[1][2]
    _, losses, state, _ = request.getfixturevalue(other)
    np.testing.assert_allclose(losses, plain[1], atol=1e-6)
    close = lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-4)
    jax.tree.map(close, state.params, plain[2].params)


def test_model_axis_splits_the_rows_of_the_widest_level_alone(tall):
    run, *_ = tall
    assert dict(run.mesh.shape) == {'data': 4, 'model': 2}
    text = run.step_fn.as_text()
    # Batch 8 over 4, then 4 rows of 4 columns of 8 channels over 2; the level below has 2 rows of 16, whole.
    assert 'f32[2,2,4,8]' in text, 'no activation is split'
    assert 'f32[2,2,2,16]' in text and 'collective-permute' in flops.communicated(run.step_fn)


def test_start_names_the_mesh_and_what_each_device_holds(fsdp):
    said = '\n'.join(fsdp[3])
    assert '8 x cpu (data 8, model 1)' in said
    for word in ('parameters', 'EMA', 'optimiser', 'activations', 'GFLOP', 'reduce'):
        assert word in said


def test_local_copy_is_whole(fsdp):
    _, _, state, _ = fsdp
    mesh = sharding.local_mesh()
    copy = sharding.local_copy(state.ema, mesh)
    for mine, split in zip(jax.tree.leaves(copy), jax.tree.leaves(state.ema), strict=True):
        assert mine.is_fully_replicated
        np.testing.assert_array_equal(mine.addressable_data(5), np.asarray(split))


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'mesh.model': 3}, 'config.mesh.model=3 does not divide 8 devices'),
        ({'mesh.model': 2, 'mesh.data': 8}, 'config.mesh.data=8 x config.mesh.model=2 does not fit 8 devices'),
        ({'mesh.model': 8, 'data.image_size': 16}, 'a U-Net level of 4 rows does not divide'),
        ({'mesh.model': 2, 'mesh.height_levels': 2}, 'config.mesh.height_levels=2 must lie in 1 .. 1'),
    ],
)
def test_a_mesh_that_does_not_fit_is_told(data, fields, said):
    with pytest.raises(UserError) as error:
        train._Setup(tiny.config(data, **fields))
    assert said in str(error.value)
