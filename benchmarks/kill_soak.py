"""Kills training, evaluation and prediction at random moments: do they end as if nothing had happened?

  python benchmarks/kill_soak.py --kills=200                       all three, a third of the kills each
  python benchmarks/kill_soak.py --program=train --kills=50 --processes=2 --cold

Each program runs on a tiny model once undisturbed; then with `kill -9`, to one of its processes or to all, again and
again until it has had its kills and may end; one that comes to its end before that is begun anew. Half of the moments
are uniform over a life, the others lie in a phase: start-up, compiling, stepping, saving, sampling, writing. Fails if
what is there at the end differs by a bit, if anything is half written after any kill, if a checkpoint or a finished
case is lost, if a killed run starts from zero although a checkpoint was there, if a process outlives its peers, or if a
traceback is shown. Says when the kills fell.

Lives are forked from a warm parent (`lives.py`); one in ten, and with --cold all, are started from nothing. What they
compile is kept on disk, so compiling means tracing and reading that.
"""

import argparse
import collections
import csv
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

# Lives are short: most of each would go into compiling well what runs for seconds.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / 'tests')]
os.environ['PYTHONPATH'] = os.pathsep.join([str(HERE.parent), str(HERE.parent / 'tests'), str(HERE)])
import lives  # noqa: E402
import processes  # noqa: E402
import tiny  # noqa: E402

from ambdiff import files  # noqa: E402


def partials(folder):
    """What is half written, by its name."""
    return [path.name for path in folder.rglob(f'{files.PARTIAL}*')]


class Train:
    """A training run; what it leaves are its checkpoints."""

    module, phases = 'ambdiff.main', ('start-up', 'compiling', 'stepping', 'stepping', 'stepping', 'saving')

    def __init__(self, data, folder, arguments):
        self.folder = folder
        fields = {'train.num_steps': arguments.steps, 'train.checkpoint_every': 10, 'train.keep_checkpoints': 3}
        self.flags = lambda workdir: [*tiny.flags(data, workdir, **fields), '--mode=train']
        self.steps = arguments.steps

    def newest(self, place):
        """The newest checkpoint."""
        names = [path.name for path in (place / 'checkpoints').glob('*') if path.name.isdigit()]
        return max(map(int, names), default=0)

    def phase(self, said, place):
        """Where a life is that has said this."""
        if 'starting at step' not in said and 'going on from step' not in said:
            return 'start-up'
        if 'compiled in' not in said:
            return 'compiling'
        return 'saving' if list((place / 'checkpoints').glob('*tmp*')) else 'stepping'

    def before(self, place):
        """What must still be there after a kill."""
        return self.newest(place)

    def check(self, place, said, before):
        """Fails if something is lost or half written."""
        assert not before or 'starting at step 0' not in said, f'started from zero although step {before} was saved'
        assert self.newest(place) >= before, f'checkpoint {before} is lost'

    def compare(self, place, whole):
        """Every array of the newest checkpoint is that of the undisturbed run."""
        assert self.newest(place) == self.newest(whole) == self.steps
        import orbax.checkpoint as ocp

        trees = []
        for one in (place, whole):
            with ocp.PyTreeCheckpointer() as checkpointer:
                trees.append(
                    [checkpointer.restore(one / 'checkpoints' / str(self.steps) / n) for n in ('state', 'ema')]
                )
        import jax

        jax.tree.map(np.testing.assert_array_equal, *trees)
        return f'{sum(np.size(x) for x in jax.tree.leaves(trees[0]))} numbers of step {self.steps}'


class Evaluate:
    """Evaluations of one file of weights, one after the other into one workdir."""

    module, phases = 'ambdiff.main', ('start-up', 'sampling', 'sampling', 'measuring', 'writing', 'writing')
    names = ('masks.npz', 'metrics.json', 'per_image.csv', 'report.html')

    def __init__(self, data, folder, arguments):
        del arguments
        weights = tiny.write_weights(folder / 'weights.safetensors')
        fields = {'sample.num_samples': 8, 'sample.num_steps': 8}
        self.flags = lambda workdir: [
            *tiny.flags(data, workdir, **fields),
            '--mode=evaluate',
            f'--config.checkpoint={weights}',
        ]

    def phase(self, said, place):
        """Where a life is that has said this."""
        if partials(place):
            return 'writing'
        if 'sampling:' not in said:
            return 'start-up'
        return 'measuring' if '100%' in said else 'sampling'

    def before(self, place):
        """What must still be there after a kill."""
        return {name: (place / 'evaluation' / name).exists() for name in self.names}

    def check(self, place, said, before):
        """Fails if something is lost or half written."""
        folder = place / 'evaluation'
        there = [name for name in self.names if (folder / name).exists()]
        assert len(there) in (0, len(self.names)), f'only {there}'
        assert all(not was or (folder / name).exists() for name, was in before.items()), 'a result is lost'
        if there:
            self.read(folder)

    def read(self, folder):
        """Reads what is there, and fails if it is not whole."""
        with np.load(folder / 'masks.npz') as arrays:
            masks = {name: arrays[name] for name in arrays}
        result = json.loads((folder / 'metrics.json').read_text())
        rows = list(csv.reader((folder / 'per_image.csv').read_text().splitlines()))
        assert len(rows) == result['num_images'] + 1 == len(masks['case']) + 1
        assert (folder / 'report.html').read_text().rstrip().endswith('</html>')
        for name in ('config', 'seconds_per_mask', 'device'):  # which say the workdir and how long it took
            del result[name]
        return masks, result, rows

    def compare(self, place, whole):
        """Fails unless what is there equals the undisturbed run; says what was compared."""
        one, other = self.read(place / 'evaluation'), self.read(whole / 'evaluation')
        assert one[0].keys() == other[0].keys() and one[1:] == other[1:]
        for name in one[0]:
            np.testing.assert_array_equal(one[0][name], other[0][name])
        return f'{one[0]["samples"].nbytes} bytes of masks and all metrics'


class Predict:
    """Predictions of some pictures, again and again: a folder whose cases are all done is emptied."""

    module, phases = 'ambdiff.predict', ('start-up', 'sampling', 'sampling', 'writing', 'writing', 'writing')
    count = 12

    def __init__(self, data, folder, arguments):
        del data, arguments
        weights = tiny.write_weights(folder / 'weights.safetensors')
        rng = np.random.default_rng(0)
        (folder / 'in').mkdir()
        for number in range(self.count):
            picture = np.where(tiny.disc((24, 24), rng.uniform(8, 16, 2), 5), 210, 40) + rng.integers(0, 9, (24, 24))
            Image.fromarray(picture.astype(np.uint8)).save(folder / 'in' / f'{number:02d}.png')
        self.flags = lambda output: [
            f'--checkpoint={weights}', f'--input={folder / "in"}', f'--output={output}', '--num_samples=4',
            '--num_steps=2', '--at=12,12',
        ]  # fmt: skip

    def finished(self, place):
        """The cases that are done."""
        return {path.parent.name for path in place.glob('[!.]*/summary.json')}

    def phase(self, said, place):
        """Where a life is that has said this."""
        if partials(place):
            return 'writing'
        return 'sampling' if 'predicting:' in said else 'start-up'

    def before(self, place):
        """What must still be there after a kill."""
        return self.finished(place)

    def check(self, place, said, before):
        """Fails if something is lost or half written."""
        assert before <= self.finished(place), 'a finished case is lost'
        for path in place.glob('[!.]*/'):
            self.read(path)
        for page in place.glob('index.html'):
            assert page.read_text().rstrip().endswith('</html>')

    def read(self, folder):
        """Reads what is there, and fails if it is not whole."""
        summary = json.loads((folder / 'summary.json').read_text())
        for name in summary['files']:
            Image.open(folder / name).load()
        assert (folder / 'index.html').read_text().rstrip().endswith('</html>')

    def compare(self, place, whole):
        """Fails unless what is there equals the undisturbed run; says what was compared."""
        content = lambda folder: {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob('*'))
            if path.is_file() and not path.name.startswith(('log', '.lock'))
        }
        one, other = content(place), content(whole)
        assert len(self.finished(place)) == self.count and one.keys() == other.keys()
        assert [name for name in one if one[name] != other[name]] == []
        return f'{len(one)} files of {self.count} cases'


def soak(program, place, whole, kills, arguments, rng):
    """Kills a program so often; returns {phase: how many kills fell there}. Raises AssertionError on any fault."""
    for folder in (place, whole):
        folder.mkdir()
    several = (arguments.processes, arguments.devices)
    life = lambda folder, warm: lives.Life(program.module, program.flags(folder), folder / 'log', warm, several)
    began, once = time.monotonic(), life(whole, False)
    assert set(once.end()) == {0}, once.said()
    lasts = time.monotonic() - began
    print(f'{program.__class__.__name__.lower()}: undisturbed {lasts:.1f} s', flush=True)
    fell = collections.Counter()
    while fell.total() < kills:
        before = program.before(place)
        one = life(place, not (arguments.cold or rng.random() < 0.1))
        wanted = rng.choice(program.phases)
        if rng.random() < 0.5:
            moment = time.monotonic() + rng.uniform(0, min(lasts, 20))
            one.until(lambda moment=moment: time.monotonic() > moment, 600)
        else:
            one.until(lambda one=one, wanted=wanted: program.phase(one.said(), place) == wanted, 120)
            one.until(lambda: False, rng.uniform(0, 0.2) if wanted in ('start-up', 'compiling', 'stepping') else 0)
        phase, alive = program.phase(one.said(), place), one.alive()
        victims = one.running if rng.random() < 0.5 else [rng.choice(one.running)]
        for victim in victims:
            if victim.poll() is None:
                victim.send_signal(signal.SIGKILL)
        statuses, said = processes.finish(one.running, 180), one.said()
        assert 'Traceback' not in said, said
        program.check(place, said, before)
        if alive:
            fell[phase] += 1
            print(f'kill {fell.total()} in {phase}: statuses {statuses}', flush=True)
        else:
            assert set(statuses) == {0}, (statuses, said)
            program.compare(place, whole)
            for path in place.glob('[!l]*'):  # another run from the start; the log goes on
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    last = life(place, not arguments.cold)
    assert set(last.end()) == {0}, last.said()
    program.check(place, last.said(), program.before(place))
    assert not partials(place), partials(place)
    print(f'{program.__class__.__name__.lower()}: {fell.total()} kills; the same {program.compare(place, whole)}')
    return fell


PROGRAMS = {'train': Train, 'evaluate': Evaluate, 'predict': Predict}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--program', choices=[*PROGRAMS, 'all'], default='all')
    parser.add_argument('--kills', type=int, default=200, help='over all programs')
    parser.add_argument('--processes', type=int, default=1, help='of a training, for --program=train --cold')
    parser.add_argument('--devices', type=int, default=1, help='simulated devices of each process, with --cold')
    parser.add_argument('--steps', type=int, default=300, help='of a training')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--cold', action='store_true', help='start every life from nothing')
    arguments = parser.parse_args()
    if arguments.processes > 1 and not (arguments.cold and arguments.program == 'train'):
        parser.error('several processes need --program=train --cold')
    chosen = [*PROGRAMS] if arguments.program == 'all' else [arguments.program]
    rng, total = random.Random(arguments.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'compiled')
        data = tiny.write_hdf5(folder / 'tiny.hdf5')
        for number, name in enumerate(chosen):
            kills = arguments.kills // len(chosen) + (number < arguments.kills % len(chosen))
            home = folder / name
            home.mkdir()
            total[name] = soak(
                PROGRAMS[name](data, home, arguments), home / 'killed', home / 'whole', kills, arguments, rng
            )
    print(f'{sum(c.total() for c in total.values())} kills survived')
    for name, fell in total.items():
        print(f'  {name}: ' + ', '.join(f'{phase} {count}' for phase, count in sorted(fell.items())))


if __name__ == '__main__':
    main()
