"""Kills a small run at random moments and starts it again until it is done: does it end as if nothing had happened?

  python benchmarks/kill_soak.py --kills=50 --processes=2

Trains a tiny model twice: once undisturbed, once with `kill -9` to one of its processes, or to all, at random moments.
Fails if the final parameters differ by a bit, a checkpoint is lost, a process outlives its peers, or a run that was
killed starts from zero although a checkpoint was there. Prints the memory of the main process at the end of each life.
"""

import argparse
import math
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

# Lives are short: most of each would go into compiling well what runs for seconds.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

import jax
import numpy as np

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parents[1] / 'tests')]
import processes  # noqa: E402
import tiny  # noqa: E402

from ambdiff.runtime import checkpoint  # noqa: E402


def weights(workdir, config):
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights, step = checkpoint.load_weights(str(workdir), config, where)
    return step, [np.asarray(leaf) for leaf in jax.tree.leaves(weights)]


def newest(workdir):
    names = [p.name for p in (workdir / 'checkpoints').glob('*') if p.name.isdigit()]
    return max(map(int, names), default=None)


def memory(process):
    """MiB that a process holds, 0 once it is gone."""
    try:
        lines = pathlib.Path(f'/proc/{process.pid}/status').read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith('VmRSS'))
    except (OSError, StopIteration):
        return 0


def killed_once(flags, workdir, arguments, rng, startup, life):
    """One life of the run: True if it came to its end before it was killed."""
    before = newest(workdir)
    log = workdir / 'log'
    size = log.with_name('log.0').stat().st_size if log.with_name('log.0').exists() else 0
    running = processes.start(flags, arguments.processes, arguments.devices, log)
    alive = lambda: any(p.poll() is None for p in running)
    began = time.monotonic()
    # Most moments lie after the first new checkpoint, so that the run gets on; some before it.
    early = rng.uniform(0, startup) if rng.random() < 0.2 else math.inf
    while alive() and newest(workdir) == before and time.monotonic() - began < early:
        time.sleep(0.01)
    deadline = time.monotonic() + (rng.uniform(0, life) if early == math.inf else 0)
    while alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    used = memory(running[0])
    ended = all(p.poll() == 0 for p in running)
    victims = running if rng.random() < 0.5 else [rng.choice(running)]
    for victim in victims:
        if victim.poll() is None:
            victim.send_signal(signal.SIGKILL)
    statuses = processes.finish(running, 180)
    said = log.with_name('log.0').read_text()[size:]
    assert before is None or 'starting at step 0' not in said, f'started from zero although step {before} was saved'
    assert 'Traceback' not in said, said
    after = newest(workdir)
    assert (after or 0) >= (before or 0), f'checkpoint {before} is lost'
    print(f'killed {len(victims)} of {len(running)} at step {after}: statuses {statuses}, {used} MiB', flush=True)
    return ended


def soak(data, folder, arguments, rng):
    """Raises AssertionError, or TimeoutExpired of a process that does not end, if the run does not survive."""
    fields = {'train.num_steps': arguments.steps, 'train.checkpoint_every': 5, 'train.keep_checkpoints': 3}
    flags = lambda workdir: [*tiny.flags(data, workdir, **fields), '--mode=train']
    config = tiny.config(data, **fields)
    whole, killed = folder / 'whole', folder / 'killed'
    for workdir in (whole, killed):
        workdir.mkdir()
    began = time.monotonic()
    running = processes.start(flags(whole), arguments.processes, arguments.devices, whole / 'log')
    processes.wait_for(whole / 'checkpoints' / '5', running)
    startup = time.monotonic() - began
    assert set(processes.finish(running, 3600)) == {0}, (whole / 'log.0').read_text()
    a_step = (time.monotonic() - began - startup) / (arguments.steps - 5)
    print(f'undisturbed: {time.monotonic() - began:.0f} s, of which start-up {startup:.0f} s', flush=True)
    for number in range(arguments.kills):
        # So that all lives together see the run's end about when the last kill is done.
        left = (arguments.steps - (newest(killed) or 0)) / (arguments.kills - number)
        if killed_once(flags(killed), killed, arguments, rng, startup, 2 * a_step * max(left - 5, 1)):
            print(f'done before kill {number + 1}: give it more --steps', flush=True)
            break
    statuses = processes.finish(
        processes.start(flags(killed), arguments.processes, arguments.devices, killed / 'log'), 3600
    )
    assert set(statuses) == {0}, (killed / 'log.0').read_text()
    (step, mine), (last, reference) = weights(killed, config), weights(whole, config)
    assert step == last == arguments.steps
    for a, b in zip(mine, reference, strict=True):
        np.testing.assert_array_equal(a, b)
    print(f'the same {sum(a.size for a in mine)} parameters, bit for bit, at step {step}', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--processes', type=int, default=2)
    parser.add_argument('--devices', type=int, default=1, help='simulated devices of each process')
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        soak(tiny.write_hdf5(folder / 'tiny.hdf5'), folder, arguments, random.Random(arguments.seed))


if __name__ == '__main__':
    main()
