"""Several processes over loopback: the same losses and masks as one, and the same end after any fault.

The runs are shared by the tests; every one is of 50 steps of the tiny model.
"""

import json
import signal

import jax
import numpy as np
import pytest
import tiny
from processes import finish, start, wait_for

from ambdiff.errors import UserError
from ambdiff.runtime import hosts

STEPS = 50
FIELDS = {'train.num_steps': STEPS, 'train.log_every': 1, 'train.checkpoint_every': 10, 'train.keep_checkpoints': 3}
# One evaluation, a level set of the raters' share: masks that hold something although little is learned yet.
FIELDS |= {'sample.num_steps': 1}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    # Seven images to evaluate: they divide over neither two nor four processes.
    return tiny.write_hdf5(tmp_path_factory.mktemp('data') / 'tiny.hdf5', {'train': 24, 'val': 8, 'test': 7})


@pytest.fixture(scope='module')
def one(data, tmp_path_factory):
    """One process with one device, uninterrupted."""
    workdir = tmp_path_factory.mktemp('one')
    assert finish(start(tiny.flags(data, workdir, **FIELDS), log=workdir / 'log')) == [0]
    return workdir


@pytest.fixture(scope='module')
def two(data, tmp_path_factory):
    """Two processes; kill -9 to one of them on the way, to the other one later, and the same command again."""
    workdir = tmp_path_factory.mktemp('two')
    flags = tiny.flags(data, workdir, **FIELDS)
    for step, victim in ((10, 1), (30, 0)):
        running = start(flags, 2, 1, workdir / 'log')
        wait_for(workdir / 'checkpoints' / str(step), running)
        running[victim].kill()
        statuses = finish(running, 300)
        assert statuses[victim] == -signal.SIGKILL and statuses[1 - victim] != 0
    assert finish(start(flags, 2, 1, workdir / 'log')) == [0, 0]
    return workdir


@pytest.fixture(scope='module')
def four(data, tmp_path_factory):
    """Four processes of two devices that split the state (FSDP); SIGTERM to one of them, and the rest on two of one.

    (workdir, exit statuses of the four)
    """
    workdir = tmp_path_factory.mktemp('four')
    flags = [*tiny.flags(data, workdir, **FIELDS), '--config.mesh.fsdp=True']
    running = start(flags, 4, 2, workdir / 'log')
    wait_for(workdir / 'checkpoints' / '10', running)
    running[2].send_signal(signal.SIGTERM)
    statuses = finish(running)
    assert finish(start([*flags, '--config.mesh.fsdp=False'], 2, 1, workdir / 'log')) == [0, 0]
    return workdir, statuses


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def masks(workdir):
    with np.load(workdir / 'evaluation' / 'masks.npz') as saved:
        return {name: saved[name] for name in saved.files}


def assert_same_run(workdir, one):
    mine, whole = losses(workdir), losses(one)
    assert list(mine) == list(whole) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(mine.values()), list(whole.values()), atol=1e-5)
    drawn, reference = masks(workdir), masks(one)
    assert len(reference['samples']) == 7 and reference['samples'].any()
    for name in reference:
        np.testing.assert_array_equal(drawn[name], reference[name])


def test_two_processes_learn_and_draw_what_one_device_does_through_kills(two, one):
    assert_same_run(two, one)
    said = (two / 'log.0').read_text()
    assert said.count('going on from step') == 2 and 'going on from step 0' not in said
    assert 'start all of them again' in said + (two / 'log.1').read_text()


def test_sigterm_to_one_of_four_processes_saves_on_all_at_the_same_step(four):
    workdir, statuses = four
    assert statuses == [0, 0, 0, 0]
    said = (workdir / 'log.0').read_text()
    step = int(said.split('stopped by SIGTERM at step ')[1].split(':')[0])
    assert step >= 10 and 'the same command goes on from there' in said
    assert f'going on from step {step} ' in said


def test_a_state_split_over_eight_devices_goes_on_on_two_to_the_same_end(four, one):
    assert_same_run(four[0], one)


def test_only_the_first_process_writes_and_speaks(four):
    workdir, _ = four
    assert 'step 5/50' in (workdir / 'log.0').read_text()
    for number in (1, 2, 3):
        said = (workdir / f'log.{number}').read_text()
        assert 'step 5/50' not in said and 'Traceback' not in said


def test_shares_cover_everything_and_are_equally_long(monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 4)
    shares = []
    for number in range(4):
        monkeypatch.setattr(jax, 'process_index', lambda number=number: number)
        shares.append(hosts.share(5).tolist())
    assert shares == [[0, 1], [2, 3], [4, 4], [4, 4]]


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (('127.0.0.1:1', 2, None), 'go together'),
        (('127.0.0.1:1', 2, 2), '--process_id=2 must lie in 0 .. 1'),
        ((None, None, None), '--coordinator_address=HOST:PORT'),
    ],
)
def test_processes_that_cannot_meet_are_told_how(arguments, said):
    with pytest.raises(UserError, match=said):
        hosts.join(*arguments)
