"""Where the first seconds go: `ambdiff predict` on one PNG, and the same in Python, each in fresh processes.

  python benchmarks/start_up.py [--repeats=5] [--weights=lidc_small] [--masks=16] [--checkouts=.,../before]

Cold is with an empty compile cache, warm with one that holds the program. Python's bytecode is there in both, as after
the first start of an installation: starts that are not counted write it. Every number is a median over the repeats,
with the range of the totals; of several checkouts each repeat runs all, one after the other, and the masks' digests
tell whether they are bit-equal. A busy machine makes all of it longer. `--repeats=1` is a short run.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image
from start_up_clock import KINDS

CLOCK = pathlib.Path(__file__).with_name('start_up_clock.py')
ROOT = CLOCK.parents[1]
SIZE = 64  # of the image: one crop of the weights that come along
OUTSIDE = 'Python itself'  # its start before the clock's, and its end


def made(folder):
    """(a PNG, the same in [0, 1] as .npy): a blurred disc in noise."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    disc = 120 * np.exp(-((rows - 30) ** 2 + (columns - 34) ** 2) / 90)
    image = (60 + disc + np.random.default_rng(0).normal(0, 8, disc.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(image).save(folder / 'image.png')
    np.save(folder / 'image.npy', image / np.float32(255))
    return folder / 'image.png', folder / 'image.npy'


def environment(checkout, cache, folder):
    """Of a process that sees this checkout, compile cache, and a folder for Python's bytecode."""
    places = {
        'PYTHONPATH': checkout,
        'JAX_COMPILATION_CACHE_DIR': cache,
        'PYTHONPYCACHEPREFIX': folder / 'bytecode',
        'PYTHONDONTWRITEBYTECODE': '',  # without it half of a start would go into compiling Python
    }
    return os.environ | {name: str(place) for name, place in places.items()}


def folders(parser, names):
    """The checkouts that a flag names, "," between them; ends where one is none."""
    found = [pathlib.Path(name).resolve() for name in names.split(',')]
    for folder in found:
        if not (folder / 'ambdiff' / '__init__.py').is_file():
            parser.error(f'no checkout of this project in {folder}')
    return found


def run(checkout, cache, folder, *arguments):
    """(what the clock says, wall seconds) of one process."""
    said = folder / 'said.json'
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, CLOCK, said, *map(str, arguments)],
        env=environment(checkout, cache, folder),
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(f'{" ".join(map(str, arguments))} in {checkout} failed:\n{done.stderr[-2000:]}')
    return json.loads(said.read_text()), wall


def predict(checkout, cache, arguments, folder, images):
    """As `run`, of the command."""
    shutil.rmtree(folder / 'output', ignore_errors=True)
    flags = ['--output', folder / 'output', '--weights', arguments.weights, '--num-samples', arguments.masks]
    return run(checkout, cache, folder, 'predict', images[0], *flags)


def python(checkout, cache, arguments, folder, images):
    """As `run`, of the same in Python."""
    return run(checkout, cache, folder, 'python', images[1], arguments.weights, arguments.masks)


def once(checkout, arguments, folder, images):
    """{column: {row: value}} of one cold and one warm start of each kind, and the digest of the masks."""
    columns, cache = {}, folder / 'cache'
    shutil.rmtree(cache, ignore_errors=True)
    for state in ('cold', 'warm'):
        said, wall = predict(checkout, cache, arguments, folder, images)
        (phase,) = said['phases'].values()
        inside = sum(phase[kind] for kind in KINDS)
        columns[f'predict, {state}'] = {**phase, OUTSIDE: wall - inside}
    shutil.rmtree(cache)
    for state in ('cold', 'warm'):
        said, _ = python(checkout, cache, arguments, folder, images)
        for name, phase in said['phases'].items():
            if state == 'cold' or name == 'first sample':
                columns[name if name != 'first sample' else f'first sample, {state}'] = {**phase, OUTSIDE: 0.0}
    return columns, said['digest']


def total(column):
    return sum(column[kind] for kind in (*KINDS, OUTSIDE))


def table(rounds):
    """Lines of a table in Markdown from several `once` of one checkout."""
    names = list(rounds[0])
    yield '| seconds | ' + ' | '.join(names) + ' |'
    yield '| --- |' + ' ---: |' * len(names)
    for row in (OUTSIDE, *KINDS):
        yield f'| {row} | ' + ' | '.join(f'{statistics.median(r[n][row] for r in rounds):.2f}' for n in names) + ' |'
    totals = {name: [total(r[name]) for r in rounds] for name in names}
    middle = ' | '.join(f'{statistics.median(t):.2f} ({min(t):.2f} to {max(t):.2f})' for t in totals.values())
    yield f'| all | {middle} |'
    programs = ' | '.join(str(round(statistics.median(r[name]['programs'] for r in rounds))) for name in names)
    yield f'| programs compiled or read | {programs} |'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--weights', default='lidc_small')
    parser.add_argument('--masks', type=int, default=16)
    parser.add_argument('--checkouts', default=str(ROOT), help='folders of this project, "," between them')
    arguments = parser.parse_args()
    checkouts = folders(parser, arguments.checkouts)
    rounds, digests = {checkout: [] for checkout in checkouts}, {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        images = made(folder)
        for checkout in checkouts:
            predict(checkout, folder / 'first', arguments, folder, images)
            python(checkout, folder / 'first', arguments, folder, images)
        for _ in range(arguments.repeats):
            for checkout in checkouts:
                columns, digests[checkout] = once(checkout, arguments, folder, images)
                rounds[checkout].append(columns)
    load = os.getloadavg()[0]
    print(f'{os.cpu_count()} cores, load {load:.1f}; medians of {arguments.repeats}, the range of the totals')
    for checkout in checkouts:
        print(f'\n{checkout.name}: {arguments.masks} masks of {arguments.weights}, digest {digests[checkout][:16]}')
        print('\n'.join(table(rounds[checkout])))
    for checkout in checkouts[1:]:
        same = 'bit-equal' if digests[checkout] == digests[checkouts[0]] else 'OTHER'
        print(f'\n{checkout.name} over {checkouts[0].name}, paired (masks {same}):')
        for name in rounds[checkout][0]:
            pairs = zip(rounds[checkout], rounds[checkouts[0]], strict=True)
            ratios = [total(ours[name]) / total(first[name]) for ours, first in pairs]
            print(f'  {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})')


if __name__ == '__main__':
    main()
