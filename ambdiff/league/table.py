"""The table of a league: a row for each run, for the mean of an entry's seeds, for foreign masks and for each baseline.

league.json   all of it, null where a figure is undefined
league.csv    the same, a line a row
league.md     what a README shows of it

Figures are means over images with standard errors clustered by patient; differences are paired, image by image, to the
row that is the reference. Over seeds: the mean of each image's scores over the seeds, which then counts as one run, and
the standard deviation of the seeds' means.
"""

import csv
import dataclasses
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import metrics
from ambdiff.evaluation.comparison.paired import Comparison
from ambdiff.evaluation.scores import Means
from ambdiff.league import reader
from ambdiff.league.costs import Costs, History

BASELINES = {  # the name of `foreign.of_baselines`: what it is called, and what it is
    'other_patients': ('other patients', 'masks of other patients, whatever the image'),
    'raters_resampled': ('raters, again', 'an oracle: draws from the very masks it is measured on'),
    'majority': ('majority', 'an oracle: what half of these raters mark, every time'),
    'empty': ('nothing', 'the empty mask, always'),
}


@dataclasses.dataclass(frozen=True)
class Group:
    """The rows of one who takes part.

    Attributes:
      name: of the entry, of foreign masks or of a baseline.
      kind: 'method', 'foreign' or 'baseline'.
      runs: names in the comparison: the group's own, or several of seeds.
      method: its name, '' of other groups.
      training: its steps, batch size and learning rate.
      costs: of the method.
      seconds_per_mask: of each run, measured at evaluation.
      histories: of each run.
    """

    name: str
    kind: str
    runs: Sequence[str]
    method: str = ''
    training: Mapping[str, object] | None = None
    costs: Costs | None = None
    seconds_per_mask: Sequence[float] = ()
    histories: Sequence[History] = ()


def rows(groups: Sequence[Group], found: Comparison, reference: str) -> list[dict]:
    """The rows, methods and foreign masks by their GED, baselines last; a mean over seeds stands before its seeds."""
    patients = found.patients if any(found.patients) else None
    scored = {name: values for name, values in found.per_image.items()}
    for group in groups:
        if len(group.runs) > 1:
            each = [found.per_image[run] for run in group.runs]
            scored[group.name] = metrics.mean_of(each)
    base = scored[reference]
    made = []
    for group in groups:
        parts = [_row(run, group, index, scored, base, found, patients) for index, run in enumerate(group.runs)]
        made.append([_mean(group, parts, scored, base, patients), *parts] if len(parts) > 1 else parts)
    last = lambda part: (part[0]['kind'] == 'baseline', part[0]['metrics']['ged'])
    return [row for part in sorted(made, key=last) for row in part]


def _scores(values, base, patients) -> dict[str, Means]:
    means, errors = metrics.summarize(values, patients)
    less = metrics.summarize({key: values[key] - base[key] for key in values}, patients)
    return {'metrics': means, 'stderr': errors, 'difference': less[0], 'difference_stderr': less[1]}


def _row(run, group: Group, index: int, scored, base, found: Comparison, patients) -> dict:
    samples = found.samples[run]
    row = {
        'name': run,
        'kind': group.kind,
        'of': group.name,
        'method': group.method or None,
        'seeds': 1,
        'runs': [run],
        'draws': found.draws[found.names.index(run)],
        **_scores(scored[run], base, patients),
        'spread': None,
        'empty_share': float((~samples.any((2, 3))).mean()),
        'reader': reader.summary(found.raters, samples, patients),
    }
    return row | _facts(group, [index])


def _mean(group: Group, parts: Sequence[dict], scored, base, patients) -> dict:
    """The row of several seeds."""
    mean = lambda values: float(np.mean(values))
    spread = {key: float(np.std([p['metrics'][key] for p in parts], ddof=1)) for key in parts[0]['metrics']}
    readers = [part['reader'] for part in parts]
    return {
        **parts[0],
        'name': group.name,
        'seeds': len(parts),
        'runs': list(group.runs),
        **_scores(scored[group.name], base, patients),
        'spread': spread,
        'empty_share': mean([part['empty_share'] for part in parts]),
        # Errors are of the images, which seeds share: about those of one seed.
        'reader': {
            'mean': {key: mean([r['mean'][key] for r in readers]) for key in readers[0]['mean']},
            'stderr': {key: mean([r['stderr'][key] for r in readers]) for key in readers[0]['stderr']},
            'each': [
                {key: mean([r['each'][i][key] for r in readers]) for key in one}
                for i, one in enumerate(readers[0]['each'])
            ],
        },
    } | _facts(group, range(len(parts)))


def _facts(group: Group, which: Sequence[int]) -> dict:
    """What is not a score: costs of the method, and times of these runs of it."""
    if group.costs is None:
        return {'costs': None, 'training': None}
    costs, mean = group.costs, lambda values: float(np.mean(values))
    histories = [group.histories[index] for index in which]
    return {
        'costs': {
            'parameters': costs.parameters,
            'sampling_parameters': costs.sampling_parameters,
            'network_evaluations_per_mask': costs.network_evaluations,
            'flops_per_mask': costs.mask_flops,
            'flops_per_image': costs.image_flops,
            'seconds_per_mask': mean([group.seconds_per_mask[index] for index in which]),
        },
        'training': {
            **(group.training or {}),
            'images': costs.images,
            'flops': costs.training_flops,
            'seconds': mean([history.seconds for history in histories]),
        },
    }


def curves(groups: Sequence[Group]) -> list[dict]:
    """Looks at validation of each run: {'name', 'of', 'images', 'flops', 'ged'}, lists of one length."""
    made = []
    for group in groups:
        for run, history in zip(group.runs, group.histories, strict=True) if group.costs else ():
            looks = [look for look in history.looks if math.isfinite(look.get('ged', math.nan))]
            steps = [look['step'] for look in looks]
            share = group.costs.images / group.training['steps']
            made.append(
                {
                    'name': run,
                    'of': group.name,
                    'images': [step * share for step in steps],
                    'flops': [step * group.costs.step_flops for step in steps],
                    'ged': [look['ged'] for look in looks],
                }
            )
    return made


def as_csv(table: Mapping) -> str:
    """A line a row; figures, their standard errors and differences in columns of their own; blank where undefined."""
    text = io.StringIO()
    flat = [_flat(row) for row in table['rows']]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    writer = csv.DictWriter(text, columns, restval='')
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping) -> dict:
    """One level of names, 'metrics.ged'; what is undefined is left out."""
    cells = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            cells |= {f'{name}.{key}': cell for key, cell in _flat(value).items()}
        elif isinstance(value, float):
            cells |= {name: f'{value:.6g}'} if math.isfinite(value) else {}
        elif not isinstance(value, list):
            cells[name] = '' if value is None else value
    return cells


def as_markdown(table: Mapping) -> str:
    """The table as a README shows it, from what league.json holds; of several seeds their mean alone."""
    number, reference = table['samples_per_image'], table['reference']
    titles = ['', f'GED{number}', 'excess', f'less {_escaped(reference)}', 'HM-IoU', 'empty']
    titles += ['parameters', 'GFLOP a mask', 's a mask', 'min of training']
    lines = [_line(titles), _line(['---'] * len(titles))]
    for row in table['rows']:
        if row['name'] != row['of']:
            continue
        name = row['name'] + (f' ({row["seeds"]} seeds)' if row['seeds'] > 1 else '')
        if row['kind'] == 'baseline':
            name = '{} ({})'.format(*BASELINES[name])
        pm = lambda key, row=row: _pm(row['metrics'][key], row['stderr'][key])
        less = '' if row['of'] == reference else _pm(row['difference']['ged'], row['difference_stderr']['ged'])
        cells = [_escaped(name), pm('ged'), pm('ged_excess'), less, pm('hm_iou'), f'{row["empty_share"]:.1%}']
        lines.append(_line([*cells, *_costs(row)]))
    lines += [
        '',
        f'{table["num_images"]} images of {table["split"]}, N = {number}; ± is one standard error, clustered by '
        f'{table["stderr_clustered_by"]}. The ideal GED{number} is {_pm(table["ged_ideal"], None)}; raters left '
        f'{table["empty_share_raters"]:.1%} empty.',
    ]
    return '\n'.join(lines) + '\n'


def _costs(row: Mapping) -> list[str]:
    if not row['costs']:
        return [''] * 4
    costs = row['costs']
    return [
        f'{costs["parameters"] / 1e6:.1f} M',
        f'{costs["flops_per_mask"] / 1e9:.3g}',
        f'{costs["seconds_per_mask"]:.2g}',
        f'{row["training"]["seconds"] / 60:.1f}',
    ]


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _escaped(name: str) -> str:
    return html.escape(name, quote=False).replace('|', r'\|')


def _pm(mean: float | None, error: float | None) -> str:
    """None, as in JSON, and NaN are undefined."""
    known = lambda value: value is not None and math.isfinite(value)
    if not known(mean):
        return '–'
    return f'{mean:.3f}' + (f' ± {error:.3f}' if known(error) else '')
