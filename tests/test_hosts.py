"""Several processes over loopback: the same losses and masks as one, and the same end after any fault.

Two runs of the tiny model, shared by the tests: one process from start to end, and a chain of processes and faults.
"""

import json
import signal

import jax
import numpy as np
import pytest
import tiny
from processes import finish, start, wait_for

from ambdiff import evaluate, train
from ambdiff.errors import UserError
from ambdiff.runtime import hosts

STEPS = 60
FIELDS = {'train.num_steps': STEPS, 'train.log_every': 1, 'train.checkpoint_every': 10, 'train.keep_checkpoints': 9}
# One evaluation, a level set of the raters' share: masks that hold something although little is learned yet.
FIELDS |= {'sample.num_steps': 1}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    # Seven images to evaluate: they do not divide over two processes.
    return tiny.write_hdf5(tmp_path_factory.mktemp('data') / 'tiny.hdf5', {'train': 24, 'val': 8, 'test': 7})


@pytest.fixture(scope='module')
def one(data, tmp_path_factory):
    """One process with one device, uninterrupted."""
    workdir = tmp_path_factory.mktemp('one')
    config = tiny.config(data, **FIELDS)
    assert train.train(config, workdir)
    evaluate.evaluate(config, workdir)
    return workdir


@pytest.fixture(scope='module')
def chain(data, tmp_path_factory):
    """One run by two processes of two devices that split the state (FSDP), then by two of one that hold it whole.

    The first two end by SIGTERM to the one that does not write. The others end by kill -9 to the second, and again by
    kill -9 to the first; the same command a third time ends the run. What the processes said is in the files
    split.0 .. 1 and whole.0 .. 1.
    """
    workdir = tmp_path_factory.mktemp('chain')
    flags = tiny.flags(data, workdir, **FIELDS)
    running = start([*flags, '--config.mesh.fsdp=True'], 2, 2, workdir / 'split')
    wait_for(workdir / 'checkpoints' / '10', running)
    running[1].send_signal(signal.SIGTERM)
    assert finish(running) == [0, 0]
    for victim in (1, 0):
        newest = max(int(p.name) for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())
        running = start(flags, 2, 1, workdir / 'whole')
        wait_for(workdir / 'checkpoints' / str(newest // 10 * 10 + 10), running)
        running[victim].kill()
        statuses = finish(running, 300)
        assert statuses[victim] == -signal.SIGKILL and statuses[1 - victim] != 0
    assert finish(start(flags, 2, 1, workdir / 'whole')) == [0, 0]
    return workdir


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def masks(workdir):
    with np.load(workdir / 'evaluation' / 'masks.npz') as saved:
        return {name: saved[name] for name in saved.files}


def test_any_processes_learn_and_sample_what_one_device_does_through_faults(chain, one):
    mine, whole = losses(chain), losses(one)
    assert list(mine) == list(whole) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(mine.values()), list(whole.values()), atol=1e-5)
    drawn, reference = masks(chain), masks(one)
    assert len(reference['samples']) == 7 and reference['samples'].any()
    for name in reference:
        np.testing.assert_array_equal(drawn[name], reference[name])


def test_sigterm_to_one_process_saves_on_all_at_the_same_step(chain):
    said = (chain / 'split.0').read_text()
    step = int(said.split('stopped by SIGTERM at step ')[1].split(':')[0])
    assert step >= 10 and 'the same command goes on from there' in said
    assert f'going on from step {step} ' in (chain / 'whole.0').read_text()


def test_killed_processes_go_on_from_the_newest_checkpoint_and_the_others_say_so(chain):
    said = (chain / 'whole.0').read_text()
    assert said.count('going on from step') == 3 and 'going on from step 0' not in said
    assert 'start all of them again' in said + (chain / 'whole.1').read_text()


def test_only_the_first_process_writes_and_speaks(chain):
    assert 'step 5/60' in (chain / 'split.0').read_text()
    said = (chain / 'split.1').read_text()
    assert 'step 5/60' not in said and 'Traceback' not in said


def test_shards_cover_everything_and_are_equally_long(monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 4)
    shards = []
    for number in range(4):
        monkeypatch.setattr(jax, 'process_index', lambda number=number: number)
        shards.append(hosts.shard(5).tolist())
    assert shards == [[0, 1], [2, 3], [4, 4], [4, 4]]


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
