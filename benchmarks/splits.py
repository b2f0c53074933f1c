"""How much of a denoiser must see x_t: what is gained by work done once a mask and step, and what it costs.

  python benchmarks/splits.py --data=data_lidc.hdf5 [--workdir=runs/splits] [group.field=value ..]

trains ROWS from a random start on the league's terms (docs/league.md): `methods/split.py` with light parts of several
sizes, between its two ends: level_sets, where all of the network sees the image alone, and cimd, where all of it sees
x_t. It writes the league's page of them to the workdir, and beside it splits.csv, splits.md and splits.svg, in which
each is sampled in several ways (`choices`). Interrupt it at any moment: the same command goes on.

A difference is to the first row, image by image; +- is the standard error, clustered by patient. FLOP are the
compiler's count, loops as often as they run, an N-th of what the N masks of an image take.
"""

import argparse
import csv
import io
import logging
import pathlib
import sys

import jax
import numpy as np
import sampler_quality  # beside this file

from ambdiff import command, files, methods
from ambdiff.errors import UserError
from ambdiff.league import entries, flow, runs
from ambdiff.pages import charts
from ambdiff.runtime import flops
from ambdiff.runtime.checkpoint import load_config

HERE = pathlib.Path(__file__).parent
# From what sees the least of x_t to what sees the most.
ROWS = (
    'level_sets',
    'split+light_channels=4+light_patch=8',
    'split+light_channels=8',
    'split+light_channels=20',
    'split+light_channels=32',
    'cimd',
)
AXES = 'FLOP a mask', 'excess over the ideal GED'


def choices(method: str) -> list[dict[str, object]]:
    """How a method is sampled: {'group.field': value} each, the first as its weights would be used."""
    if method == 'level_sets':
        return [{'method.orientations': count} for count in (2, 1, 8)]
    steps = [{'sample.num_steps': count} for count in (8, 4, 2, 1)]
    if method == 'cimd':
        return steps
    return [{'method.orientations': 1} | one for one in steps] + [{'method.orientations': 2} | steps[0]]


def light_share(config) -> float:
    """FLOP of the part that sees x_t over those of the other, by one evaluation of each."""
    method, size = methods.create(config), config.data.image_size
    of = lambda channels: jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    image = of(config.data.channels)
    params, _ = jax.eval_shape(method.init, jax.random.key(0), {'image': image})
    seen = of(config.method.features), of(1), jax.ShapeDtypeStruct((1,), np.int32)
    return flops.of_function(method._denoise, params, *seen) / flops.of_function(method.features, params, image)


def measured(run: runs.Run, path: str, splits: list[str], first) -> tuple[list[dict], np.ndarray]:
    """Rows of a finished run, as `sampler_quality.compare` gives them, with its name and what of the work sees x_t."""
    config = load_config(str(run.folder))
    config.checkpoint, config.data.path = str(run.folder), path
    ends = {'level_sets': 0.0, 'cimd': 1.0}
    share = ends.get(config.method.name)
    share = light_share(config) if share is None else share
    rows, first = sampler_quality.compare(config, choices(config.method.name), splits, first)
    return [{'row': run.entry, 'share': f'{share:.5f}', **row} for row in rows], first


def as_markdown(rows: list[dict]) -> str:
    """The table of docs/method.md."""
    head = 'sees x_t', 'sampled', 'GFLOP a mask', 'GED16', 'excess', 'HM-IoU', 'empty', 'less level_sets'
    lines = [head, ['---'] * len(head)]
    for row in rows:
        pair = lambda name, row=row: f'{float(row[name]):.3f} ± {float(row[name + "_stderr"]):.3f}'
        cells = [f'{float(row["share"]):.1%}', row['settings'], f'{float(row["flop_a_mask"]) / 1e9:.3f}']
        cells += [pair('ged'), pair('ged_excess'), pair('hm_iou'), f'{float(row["empty"]):.1%}', pair('difference')]
        lines.append(cells)
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)


def picture(rows: list[dict]) -> str:
    """Excess against FLOP a mask, a curve for each network over its steps, or over orientations."""
    curves = {}
    for row in rows:
        if row['row'] == 'level_sets' or 'orientations=2' not in row['settings']:
            share = float(row['share'])
            name = row['row'] if share in (0, 1) else f'split {share:.1%}'
            curves.setdefault(name, []).append((float(row['flop_a_mask']), float(row['ged_excess'])))
    lines = [(name, *zip(*sorted(points), strict=True)) for name, points in curves.items()]
    colours = dict(zip(curves, charts.COLOURS, strict=False))
    return charts.as_file(charts.curves_svg(lines, AXES, f'{AXES[1]} against {AXES[0]}', colours, logarithmic=True))


def write(workdir: pathlib.Path, rows: list[dict]) -> None:
    """splits.csv, splits.md and splits.svg."""
    with files.whole_files(*(workdir / f'splits.{kind}' for kind in ('csv', 'md', 'svg'))) as (table, page, drawn):
        page.write(as_markdown(rows).encode())
        drawn.write(picture(rows).encode())
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
        table.write(text.getvalue().encode())


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--data', required=True, help='As config.data.path.')
    parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/splits'))
    parser.add_argument('--rows', default=','.join(ROWS), help='Who is trained, as --methods of the league.')
    parser.add_argument('--splits', default='test', help='Whose images are measured, together: validation,test.')
    parser.add_argument('fields', nargs='*', default=[], help='Fields of the config for all.')
    flags = parser.parse_args(argv)
    methods.__path__.append(str(HERE / 'methods'))
    command.log(logging.INFO)
    command.keep_compiled()
    file, fields = str(HERE.parent / 'configs' / 'league.py'), [f'data.path={flags.data}', *flags.fields]
    status = flow.league(flow.Request(file, fields, flags.workdir, flags.rows))
    rows, first = [], None
    for entry in entries.read(flags.rows, '1', file, fields):
        run = runs.run(entry.name, entry.config, f'{entry.name}-{entry.config.seed}', flags.workdir)
        if runs.finished(run):
            found, first = measured(run, flags.data, flags.splits.split(','), first)
            rows += found
            write(flags.workdir, rows)
    return status


if __name__ == '__main__':
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(command.fail(error))
