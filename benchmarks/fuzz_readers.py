"""Damaged files of every format, read as training, the check and prediction read them: a value or one line, no more.

  python benchmarks/fuzz_readers.py [--seconds=60] [--seed=0] [--formats=png,tiff] [--workers=2] [--keep=FOLDER]
  python benchmarks/fuzz_readers.py --repeat=png:0:123      that one input again, its error in full

Input k of a seed is the same whenever it is made. It is read in a process of its own kind: what takes more than
SECONDS or MIB, ends the process, or raises anything but a UserError is a failure; it is printed with what
repeats it, and the exit status is 1. `refused` counts the inputs that were told of, `read` those that still made sense.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import time
import traceback
import zlib

import numpy as np
import tqdm

SECONDS = 20  # an input may take
MIB = 2048  # an input may take, beyond what the process has


def rng_of(name: str, seed: int, number: int) -> np.random.Generator:
    """What the damage of one input follows from."""
    return np.random.default_rng((zlib.crc32(name.encode()), seed, number))


def outcome(name: str, seed: int, number: int, folder: pathlib.Path) -> str:
    """'read', 'refused', or what is wrong, for one input."""
    from fuzz_formats import FORMATS

    from ambdiff.errors import UserError

    make, read = FORMATS[name]
    path = make(folder, rng_of(name, seed, number))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(path)
        found = 'read'
    except UserError as error:
        found = 'refused' if str(error).strip() else 'a UserError that says nothing'
    except Exception as error:  # what is looked for
        found = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found if grown < MIB else f'took {grown:.0f} MiB'


def work(inbox, outbox, seed: int, names: list[str], folder: str) -> None:
    """Reads inputs, one after the other: a number in, its outcome out."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # bars and what libraries say of damage
    while (number := inbox.recv()) is not None:
        name = names[number % len(names)]
        outbox.send(outcome(name, seed, number // len(names), pathlib.Path(folder)))


class Worker:
    """A forked process that reads inputs; it is killed and started anew where one takes too long or ends it."""

    def __init__(self, seed, names):
        self._arguments = seed, names
        self._folder = tempfile.mkdtemp(prefix='fuzz-')
        self.number, self._began = None, 0.0
        self._start()

    def _start(self):
        context = multiprocessing.get_context('fork')
        inbox, self._to = context.Pipe(False)
        self.results, outbox = context.Pipe(False)
        self._process = context.Process(target=work, args=(inbox, outbox, *self._arguments, self._folder), daemon=True)
        self._process.start()
        outbox.close()

    def give(self, number: int) -> None:
        """Starts on an input."""
        self.number, self._began = number, time.monotonic()
        self._to.send(number)

    def poll(self) -> str | None:
        """The outcome of its input, None while there is none."""
        try:
            if self.results.poll():
                return self.results.recv()
        except EOFError:
            self._process.join()
            found = f'the process ended with {self._process.exitcode}'
        else:
            if time.monotonic() - self._began < SECONDS:
                return None
            self._process.kill()
            self._process.join()
            found = f'took more than {SECONDS} s'
        self._start()
        return found

    def close(self) -> None:
        """Ends the process and removes its files."""
        self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def run(names, seconds, seed, workers, keep) -> int:
    """Reads inputs for a while; prints counts and failures, and returns how many of those there were."""
    counts = {name: collections.Counter() for name in names}
    failures, number, end = [], 0, time.monotonic() + seconds
    pool = [Worker(seed, names) for _ in range(workers)]
    with tqdm.tqdm(desc='inputs', unit='', mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
        busy = list(pool)
        for worker in pool:
            worker.give(number)
            number += 1
        while busy:
            multiprocessing.connection.wait([worker.results for worker in busy], 0.2)
            for worker in list(busy):
                if (found := worker.poll()) is None:
                    continue
                name, place = names[worker.number % len(names)], worker.number // len(names)
                kind = found if found in ('read', 'refused') else 'failures'
                counts[name][kind] += 1
                if kind == 'failures':
                    failures.append(f'{name}:{seed}:{place}')
                    bar.write(f'--repeat={failures[-1]}  {found}')
                bar.update()
                if time.monotonic() < end:
                    worker.give(number)
                    number += 1
                else:
                    busy.remove(worker)
    for worker in pool:
        worker.close()
    for failure in failures if keep else ():
        save(failure, keep)
    print(f'{"format":12}{"inputs":>8}{"read":>8}{"refused":>9}{"failures":>10}')
    for name, found in counts.items():
        print(f'{name:12}{found.total():8}{found["read"]:8}{found["refused"]:9}{found["failures"]:10}')
    print(f'{len(failures)} failures in {sum(found.total() for found in counts.values())} inputs, seed {seed}')
    return len(failures)


def save(what: str, keep: str) -> pathlib.Path:
    """Makes the input that --repeat names in a folder of its own."""
    from fuzz_formats import FORMATS

    name, seed, number = what.split(':')
    folder = pathlib.Path(keep) / what.replace(':', '-')
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[name][0](folder, rng_of(name, int(seed), int(number)))


def repeat(what: str) -> int:
    """Reads one input again and prints its error in full."""
    from fuzz_formats import FORMATS

    with tempfile.TemporaryDirectory() as folder:
        path = save(what, folder)
        try:
            FORMATS[what.partition(':')[0]][1](path)
        except Exception:  # shown as it is
            traceback.print_exc()
            return 1
    print('read')
    return 0


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--formats', default='', help='some of them, by comma; default all')
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    parser.add_argument('--keep', default='', help='a folder for the inputs that fail')
    parser.add_argument('--repeat', default='', help='FORMAT:SEED:NUMBER of a failure')
    arguments = parser.parse_args()
    from fuzz_formats import FORMATS

    names = arguments.formats.split(',') if arguments.formats else list(FORMATS)
    if unknown := {*names, *arguments.repeat.split(':')[:1]} - {*FORMATS, ''}:
        parser.error(f'no format {min(unknown)}; choose of {", ".join(FORMATS)}')
    if arguments.repeat:
        return repeat(arguments.repeat)
    return 1 if run(names, arguments.seconds, arguments.seed, arguments.workers, arguments.keep) else 0


if __name__ == '__main__':
    sys.exit(main())
