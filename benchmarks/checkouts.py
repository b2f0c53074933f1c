"""Two versions of this project, in turn: the first mask, masks a second, training, memory, and all the rest.

  python benchmarks/checkouts.py --checkouts=../before,. --data=data_lidc.hdf5
      [--parts=start,sample,train,memory,files,evaluate,input] [--repeats=3] [--files=500]

For instance after `git worktree add ../before v0.1`. Every run is a fresh process that sees one checkout and what every
version has: `python -m ambdiff.main` and `ambdiff.predict`, configs/lidc.py:small, weights/lidc_small.safetensors and
its own default sampler, whatever those are. Each part is run by one checkout and then by the other, so that both meet
the same load; what has to be compiled is compiled in runs that are not counted, but for the first, cold mask.

  start     seconds of `predict` on one PNG, 16 masks, without (cold) and with (warm) its compiled program
  sample    masks a second of an evaluation, 16 and 64 masks an image
  train     images a second, from runs of a few and of more steps: start and end fall out
  memory    the largest resident set of the warm `predict` and of the longer training
  files     PNGs a second of `predict` with 2 masks each, from runs of a fifth and of all
  evaluate  seconds of an evaluation that are not sampling
  input     examples a second of benchmarks/input_pipeline.py, PHiSeg's layout

Prints of each checkout the median and the range, and the ratio of neighbouring runs.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import start_up
from PIL import Image

WEIGHTS = 'weights/lidc_small.safetensors'
SAMPLED = {16: 36, 64: 8}  # masks an image: images; whole chunks of what fits the config's memory, so no row is idle
STEPS = (4, 16)
# The learning rate does not depend on the number of steps: nor does the program, which is then compiled once.
TRAINING = ['--config.train.sample_every=0', '--config.optim.schedule=constant', '--config.optim.warmup_steps=0']
FILES_MASKS = 2  # of each of many files: what is not sampling is to show


@dataclasses.dataclass(frozen=True)
class Run:
    """A process that has ended: wall seconds, its largest resident set in MiB, and what it printed."""

    seconds: float
    mib: float
    said: str = ''


def rate(short: tuple[float, float], long: tuple[float, float]) -> float:
    """Things a second from two runs of (things, seconds): what both take besides falls out.

    NaN where the longer run took no longer, as on a machine that is busy with other work.
    """
    things, seconds = long[0] - short[0], long[1] - short[1]
    return things / seconds if seconds > 0 else math.nan


def ratios(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """After over before, of each pair."""
    return [b / a for a, b in zip(before, after, strict=True)]


def spread(values: Sequence[float]) -> str:
    """'median (least to most)' of those that are not NaN."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return 'nothing measured'
    digits = lambda value: f'{value:.0f}' if value >= 100 else f'{value:.3g}'
    return f'{digits(statistics.median(values))} ({digits(min(values))} to {digits(max(values))})'


class Checkout:
    """The commands of one checkout; what a part has run, the next need not run in the same turn."""

    def __init__(self, folder: pathlib.Path, place: pathlib.Path, arguments: argparse.Namespace):
        """place: a folder of its own for what it writes."""
        self.folder, self.place, self._arguments = folder, place, arguments
        self._done: dict[tuple, Run] = {}
        place.mkdir()

    def new_turn(self) -> None:
        """Forgets the runs."""
        self._done.clear()

    def run(self, *words: object, cache: str = 'cache') -> Run:
        """A process; ends this one where it fails."""
        environment = start_up.environment(self.folder, self.place / cache, self.place)
        # Small programs are kept too: the turns differ in nothing else.
        environment |= {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
        with tempfile.TemporaryFile('w+') as said:
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *map(str, words)], cwd=self.folder, env=environment, stdout=said, stderr=said
            )
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read()
        if process.returncode:
            sys.exit(f'{" ".join(map(str, words))} in {self.folder} failed:\n{text[-2000:]}')
        return Run(seconds, used.ru_maxrss / 2**10, text)

    def _once(self, key: tuple, *words: object, cache: str = 'cache') -> Run:
        if key not in self._done:
            self._done[key] = self.run(*words, cache=cache)
        return self._done[key]

    def predict(self, path: pathlib.Path, masks: int, cold: bool = False) -> Run:
        """A file or folder, into a new folder."""
        output, empty = self.place / 'predictions', self.place / 'empty'
        for folder in (output, empty):
            shutil.rmtree(folder, ignore_errors=True)
        flags = [f'--checkpoint={WEIGHTS}', f'--input={path}', f'--output={output}', f'--num_samples={masks}']
        key, cache = ('predict', path, masks, cold), empty.name if cold else 'cache'
        return self._once(key, '-m', 'ambdiff.predict', *flags, cache=cache)

    def train(self, steps: int) -> Run:
        """So many steps from nothing."""
        flags = [f'--config.train.num_steps={steps}', f'--config.train.batch_size={self._arguments.batch}', *TRAINING]
        return self._main(('train', steps), 'train', *flags)

    def evaluate(self, masks: int) -> tuple[Run, float]:
        """(the run, its seconds a mask) of so many masks an image."""
        flags = [f'--config.checkpoint={WEIGHTS}', f'--config.sample.num_samples={masks}']
        key = ('evaluate', masks)
        run = self._main(key, 'evaluate', *flags, f'--config.evaluate.max_images={SAMPLED[masks]}')
        return run, json.loads((self._workdir(key) / 'evaluation/metrics.json').read_text())['seconds_per_mask']

    def _workdir(self, key: tuple) -> pathlib.Path:
        return self.place / '_'.join(map(str, key))

    def _main(self, key: tuple, mode: str, *flags: str) -> Run:
        if key not in self._done:
            shutil.rmtree(self._workdir(key), ignore_errors=True)
        common = ['--config=configs/lidc.py:small', f'--config.data.path={self._arguments.data}']
        return self._once(
            key, '-m', 'ambdiff.main', *common, f'--mode={mode}', f'--workdir={self._workdir(key)}', *flags
        )


# Of each part: what a checkout takes, {figure: value}. `inputs` holds the PNG and the folders of them.


def start(checkout: Checkout, inputs: dict) -> dict[str, float]:
    """The cold one compiles into a folder of its own."""
    return {
        'first mask, cold [s]': checkout.predict(inputs['one'], 16, cold=True).seconds,
        'first mask, warm [s]': checkout.predict(inputs['one'], 16).seconds,
    }


def sample(checkout: Checkout, inputs: dict) -> dict[str, float]:
    """Both take the time of sampling alone, without compiling."""
    return {f'masks/s, {masks} an image': 1 / checkout.evaluate(masks)[1] for masks in SAMPLED}


def train(checkout: Checkout, inputs: dict) -> dict[str, float]:
    """Every step takes as many images."""
    short, long = ((steps * inputs['batch'], checkout.train(steps).seconds) for steps in STEPS)
    return {'training images/s': rate(short, long)}


def memory(checkout: Checkout, inputs: dict) -> dict[str, float]:
    """Of each process alone, libraries included."""
    return {
        'memory of predict [MiB]': checkout.predict(inputs['one'], 16).mib,
        'memory of training [MiB]': checkout.train(STEPS[1]).mib,
    }


def files(checkout: Checkout, inputs: dict) -> dict[str, float]:
    """With as many masks of each."""
    runs = [(count, checkout.predict(folder, FILES_MASKS).seconds) for count, folder in inputs['many']]
    return {'files/s of predict': rate(*runs)}


def evaluate(checkout: Checkout, inputs: dict) -> dict[str, float]:
    """Start, reading, scoring and the report."""
    run, seconds = checkout.evaluate(16)
    return {'evaluation without sampling [s]': run.seconds - seconds * 16 * SAMPLED[16]}


def reading(checkout: Checkout, inputs: dict) -> dict[str, float]:
    """As training reads."""
    run = checkout.run(checkout.folder / 'benchmarks/input_pipeline.py', '--layouts=hdf5')
    (line,) = [line.split() for line in run.said.splitlines() if line.startswith('hdf5')]
    return {'examples/s read': float(line[3])}


PARTS: dict[str, Callable[[Checkout, dict], dict[str, float]]] = {
    'start': start,
    'sample': sample,
    'train': train,
    'memory': memory,
    'files': files,
    'evaluate': evaluate,
    'input': reading,
}


def prepare(checkout: Checkout, inputs: dict, parts: Sequence[str]) -> None:
    """The runs that are not counted: they compile what the parts need, and write Python's bytecode.

    Sampling needs none: compiling is not in a mask's seconds.
    """
    if {'start', 'memory'} & {*parts}:
        checkout.predict(inputs['one'], 16)
    if {'train', 'memory'} & {*parts}:
        checkout.train(STEPS[0])
    if 'evaluate' in parts:
        checkout.evaluate(16)
    for _, folder in inputs['many']:  # the program is that of as many crops as are sampled together
        checkout.predict(folder, FILES_MASKS)
    checkout.new_turn()


def many(folder: pathlib.Path, count: int) -> pathlib.Path:
    """A folder of so many PNGs, none like another."""
    folder.mkdir()
    image = np.asarray(Image.open(start_up.made(folder)[0]))
    (folder / 'image.png').unlink()
    (folder / 'image.npy').unlink()
    for number in range(count):
        Image.fromarray(np.roll(image, number, axis=(0, 1)) + np.uint8(number // 64)).save(folder / f'{number:05d}.png')
    return folder


def measured(checkouts: Sequence[Checkout], inputs: dict, parts: Sequence[str], repeats: int) -> list[dict]:
    """Of each checkout {figure: its values}, by turns."""
    values = [{} for _ in checkouts]
    for _ in range(repeats):
        for checkout in checkouts:
            checkout.new_turn()
        for part in parts:
            for checkout, kept in zip(checkouts, values, strict=True):
                for figure, value in PARTS[part](checkout, inputs).items():
                    kept.setdefault(figure, []).append(value)
    return values


def table(names: Sequence[str], values: Sequence[dict]) -> list[str]:
    """Lines in Markdown: a figure each, of both checkouts, and the paired ratio."""
    before, after = values
    lines = [f'| | {names[0]} | {names[1]} | {names[1]} / {names[0]}, paired |', '|---|---:|---:|---:|']
    return lines + [
        f'| {figure} | {spread(before[figure])} | {spread(after[figure])} | '
        f'{spread(ratios(before[figure], after[figure]))} |'
        for figure in before
    ]


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--checkouts', required=True, help='BEFORE,AFTER: two folders of this project')
    parser.add_argument('--data', default='data_lidc.hdf5', help='what --config.data.path takes')
    parser.add_argument('--parts', default=','.join(PARTS))
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--files', type=int, default=500)
    parser.add_argument('--batch', type=int, default=32, help='images a training step, of both')
    arguments = parser.parse_args()
    folders, parts = start_up.folders(parser, arguments.checkouts), arguments.parts.split(',')
    if len(folders) != 2:
        parser.error('--checkouts takes two folders, "," between them')
    if unknown := {*parts} - {*PARTS}:
        parser.error(f'no part {min(unknown)}; choose of {", ".join(PARTS)}')
    if {'sample', 'train', 'memory', 'evaluate'} & {*parts} and not pathlib.Path(arguments.data).exists():
        parser.error(f'there is no {arguments.data}; --data=PATH names data for configs/lidc.py')
    if arguments.files < 5:
        parser.error('--files must be at least 5: a fifth of them is the shorter run')
    arguments.data = pathlib.Path(arguments.data).resolve()
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        counts = (arguments.files // 5, arguments.files)
        inputs = {'one': start_up.made(place)[0], 'batch': arguments.batch}
        inputs['many'] = [(count, many(place / f'files{count}', count)) for count in counts] * ('files' in parts)
        checkouts = [Checkout(folder, place / str(number), arguments) for number, folder in enumerate(folders)]
        began = time.perf_counter()
        for checkout in checkouts:
            prepare(checkout, inputs, parts)
        values = measured(checkouts, inputs, parts, arguments.repeats)
    minutes, load = (time.perf_counter() - began) / 60, os.getloadavg()[0]
    print(f'{os.cpu_count()} cores, load {load:.1f}, {minutes:.0f} minutes; medians of {arguments.repeats}, the range')
    print('\n'.join(table([folder.name for folder in folders], values)))


if __name__ == '__main__':
    main()
