"""What the sampler's choices do to quality and cost: GED_N, excess, HM-IoU and FLOP a mask, over values of any fields.

  python benchmarks/sampler_quality.py --config=configs/lidc.py:small_cimd --config.data.path=data_lidc.hdf5 \
      --config.checkpoint=weights/lidc_small_cimd.safetensors --vary=sample.num_steps=1,2,4,8 \
      --vary=sample.noise=independent,stratified [--splits=validation,test] [--csv=rows.csv] [--plot=excess.svg]

Every row samples config.sample.num_samples masks an image from the same weights and seed, in one combination of the
values; +- is the standard error, clustered by patient where patients are known. `difference` is GED less the first
row's, image by image, whose error is far smaller than that of either. FLOP are the compiler's count, loops as often as
they run, an N-th of what the N masks of an image take.

--csv adds the rows to a file, and --plot draws all independent rows of that file: excess over the ideal level against
FLOP a mask, so that several weights come together in one picture.
"""

import csv
import itertools
import pathlib

import jax
import numpy as np
from absl import app, flags

from ambdiff import command, methods, metrics, sampling
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.league import costs
from ambdiff.pages import charts
from ambdiff.runtime import sharding
from ambdiff.runtime.checkpoint import load_weights

_SHOWN = ('ged', 'ged_excess', 'emptiness_error', 'hm_iou', 'difference')


def combinations(config, vary) -> list[dict[str, object]]:
    """{'group.field': value} of each row, from texts 'group.field=value,value'.

    Raises:
      UserError: no such field, or a value of another type.
    """
    choices = []
    for text in vary:
        name, _, values = text.partition('=')
        group, _, field = name.partition('.')
        if group not in config or not field or field not in config[group]:
            raise UserError(f'--vary={text}: no field {name}; write group.field=value,value')
        kind = type(config[group][field])
        try:
            choices.append([(name, kind(value)) for value in values.split(',')])
        except ValueError as error:
            raise UserError(f'--vary={text}: {name} takes {kind.__name__}') from error
    return [dict(combination) for combination in itertools.product(*choices)]


def load(config, splits):
    """The cases of all splits, one after the other."""
    found = []
    for split in splits:
        source = sources.open_source(config.data, split)
        found.append(cases_lib.load(source, cases_lib.evenly_spaced(len(source), config.evaluate.max_images)))
    return found


def compare(config, choices, splits, first=None):
    """A row for each of the choices, as `combinations` gives them, all from config.checkpoint.

    Args:
      config: is changed.
      choices: {'group.field': value} each.
      splits: names of those whose images are taken.
      first: GED of each image that `difference` is to; None: the first row's.

    Returns:
      (rows, first)
    """
    mesh = sharding.create_mesh(config.mesh)
    found = load(config, splits)
    images, raters, present = (np.concatenate([getattr(c, n) for c in found]) for n in ('images', 'raters', 'present'))
    patients = [patient for cases in found for patient in cases.patients]
    key = jax.random.key(config.seed)
    weights, step = load_weights(config.checkpoint, config, sharding.replicated(mesh))
    print(
        f'{config.checkpoint}, step {step}, {"+".join(splits)}: {len(images)} images, '
        f'N = {config.sample.num_samples}, seed {config.seed}'
    )
    rows = []
    for chosen in choices:
        for name, value in chosen.items():
            group, field = name.split('.')
            config[group][field] = value
        methods.check(config)
        method = methods.create(config)
        sampler = sampling.Sampler(config, method, mesh)
        samples = sampler(weights, images, sampling.image_keys(key, range(len(images))))
        values = metrics.per_class(raters, samples, config.data.num_classes, sampler.draws, present)[0]
        ged = np.asarray(values['ged'])
        first = ged if first is None else first
        values['difference'] = ged - first
        means, errors = metrics.summarize(values, patients if any(patients) else None)
        flop = costs.of(config).mask_flops
        words = ' '.join(f'{name}={value}' for name, value in chosen.items())
        shown = ' '.join(f'{n} {means[n]:.4f} +- {errors[n]:.4f}' for n in _SHOWN if np.isfinite(means[n]))
        empty = float(np.mean(~samples.any((2, 3))))
        print(f'{words}: {shown} empty {empty:.1%} GFLOP a mask {flop / 1e9:.3f}', flush=True)
        figures = {n: f'{means[n]:.5f}' for n in _SHOWN} | {f'{n}_stderr': f'{errors[n]:.5f}' for n in _SHOWN}
        about = {
            'weights': pathlib.Path(config.checkpoint).stem,
            'splits': '+'.join(splits),
            'images': len(images),
        }
        about |= {'num_samples': config.sample.num_samples, 'draws': sampler.draws, 'settings': words}
        about |= {'evaluations_a_mask': f'{method.evaluations:g}', 'flop_a_mask': f'{flop:.0f}'}
        rows.append(about | figures | {'empty': f'{empty:.4f}'})
    return rows, first


def save(rows, table: str, plot: str) -> None:
    """Adds the rows to --csv, and draws all of it into --plot."""
    path = pathlib.Path(table)
    if path.is_file():
        with path.open(newline='') as file:
            rows = [*csv.DictReader(file), *rows]
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    if not plot:
        return
    points = [
        (
            f'{row["weights"]}, {float(row["evaluations_a_mask"]):.3g}',
            *(float(row[n]) for n in ('flop_a_mask', 'ged_excess', 'ged_excess_stderr')),
        )
        for row in rows
        if row['draws'] == 'independent'
    ]
    kinds = list(dict.fromkeys(name.partition(',')[0] for name, *_ in points))
    colours = {name: charts.COLOURS[kinds.index(name.partition(',')[0])] for name, *_ in points}
    axes = 'FLOP a mask', 'excess over the ideal GED'
    picture = charts.points_svg(points, axes, 'Excess over the ideal GED against FLOP a mask', colours)
    pathlib.Path(plot).write_text(charts.as_file(picture), 'utf-8')


def main():
    # Defined here, so that who imports this for its functions gets no flags.
    command.define_config()
    vary = flags.DEFINE_multi_string('vary', ['sample.num_steps=4,8,16'], 'A field and its values.')
    splits = flags.DEFINE_list('splits', ['validation'], 'The splits whose images are taken, together.')
    table = flags.DEFINE_string('csv', '', 'A file that the rows are added to.')
    plot = flags.DEFINE_string('plot', '', 'An SVG of excess against FLOP a mask, of all rows of --csv.')

    def run(argv):
        del argv
        if plot.value and not table.value:
            return command.fail('--plot draws the rows of a file: give --csv as well')
        config = flags.FLAGS.config
        try:
            rows, _ = compare(config, combinations(config, vary.value), splits.value)
        except UserError as error:
            return command.fail(error)
        if table.value:
            save(rows, table.value, plot.value)
        return 0

    app.run(run, flags_parser=command.parse_flags)


if __name__ == '__main__':
    main()
