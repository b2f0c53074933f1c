"""league.html: who is ahead by how much, what it takes, how it learned, and the same images marked by everybody."""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ambdiff.evaluation import report
from ambdiff.evaluation.cases import evenly_spaced
from ambdiff.evaluation.comparison.page import case, cell
from ambdiff.evaluation.comparison.paired import Comparison
from ambdiff.league.table import BASELINES
from ambdiff.pages import charts, plots
from ambdiff.pages.case import number
from ambdiff.pages.frame import document, header

CASES = 12  # shown
_ROOM = 15  # letters of a name in a figure
_TOLD = {key: (title, up, note) for key, title, up, note in (*report.METRICS, *report.OLDER)}
_FIRST = ('ged', 'ged_excess', 'hm_iou')
_PARTS = ('emptiness_error', 'ged_shape', 'diversity_samples', 'd_max', 's_c', 'd_a', 'ci', 'ged_unbiased')
_COSTS = (
    ('Parameters', 'costs', 'parameters', 'numbers learned'),
    ('in sampling', 'costs', 'sampling_parameters', 'those that sampling reads'),
    ('Evaluations a mask', 'costs', 'network_evaluations_per_mask', 'of a network; masks of an image may share them'),
    ('FLOP a mask', 'costs', 'flops_per_mask', 'an N-th of those of an image'),
    ('FLOP an image', 'costs', 'flops_per_image', 'all N masks'),
    ('Seconds a mask', 'costs', 'seconds_per_mask', 'measured at evaluation'),
    ('Images seen', 'training', 'images', 'in training, repeated ones counted again'),
    ('Batch', 'training', 'batch_size', 'images a step'),
    ('Learning rate', 'training', 'learning_rate', 'its peak'),
    ('Training FLOP', 'training', 'flops', 'all steps'),
    ('Training time', 'training', 'seconds', 'of its steps, compiling and looks at validation left out'),
)


def page(table: Mapping, found: Comparison) -> Iterable[str]:
    """The page, in pieces of text; table: what league.json holds; found: the comparison of all runs."""
    patients = f' of {table["num_patients"]} patients' if table['num_patients'] else ''
    agree = table['rows'][0]['reader']['mean']['raters']
    facts = {
        'data': table['data'],
        'scored on': f'{table["num_images"]} images{patients}, {table["split"]}',
        'masks an image (N)': f'{table["samples_per_image"]}, independent',
        'training budget': _budget(table),
        'ideal GED': number(table['ged_ideal']),
        'raters leave empty': f'{table["empty_share_raters"]:.1%}',
        'raters agree (IoU)': number(agree),
        'device': table['device'],
    }
    notices = [*table['notes'], *(f'{name} is not in the table: {why}' for name, why in table['missing'].items())]
    body = [
        header('The league', facts, notices),
        _scores(table),
        _takes(table),
        _learned(table, _colours(_methods(table))),
        _searched(table['search']),
        *_cases(table, found),
    ]
    links = {'scores': 'Scores', 'takes': 'Costs', 'learned': 'Learning', 'cases': 'Images'}
    text = ''.join(body)
    return document('ambdiff league', [text], {i: name for i, name in links.items() if f'id="{i}"' in text})


def _budget(table: Mapping) -> str:
    budget = table['budget']
    if 'minutes' in budget:
        return f'{budget["minutes"]:g} minutes of each'
    seen = {row['training']['images'] for row in table['rows'] if row['training']}
    if len(seen) == 1:
        return f'{seen.pop()} images of each'
    return f'{min(seen)} to {max(seen)} images' if seen else 'none'


def _scores(table: Mapping) -> str:
    rows = table['rows']
    leaders = [row for row in rows if row['name'] == row['of']]
    dots = [(_short(row), row['metrics']['ged'], row['stderr']['ged']) for row in leaders]
    plot = plots.ruler_svg(dots, 'GED of all', ('ideal', table['ged_ideal']))
    ged, excess, hm_iou = map(_column, _FIRST)
    columns = [
        ged,
        (f'less {html.escape(table["reference"])}', 'paired difference of GED, image by image', _less(table)),
        excess,
        hm_iou,
        ('Empty', 'share of samples that mark nothing', lambda row: f'{row["empty_share"]:.1%}'),
        ('Agreement', 'mean IoU of a sample with a rater: the model as one more reader', _reader('model')),
        ('less raters’', 'less the raters’ agreement with each other', _reader('difference')),
    ]
    clustered = 'slices of one patient taken together' if table['num_patients'] else 'images taken as independent'
    seeds = ''
    if any(row['seeds'] > 1 for row in rows):
        seeds = ' The mean over seeds of a method stands above them, the seeds’ spread below its GED.'
    return f"""<section><h2 id="scores">Scores</h2>
<figure>{plot}<figcaption>GED, lower is better; bars are one standard error. Errors of single rows are mostly of the
images, which all share: whether two rows differ, their paired difference says. The ideal is what a model that marks
exactly as the raters do would get.</figcaption></figure>
{_table(rows, columns, 'Scores')}<p class="read">± is one standard error, {clustered}; bold differences are more than
two of them away from 0.{seeds} Agreement: one more rater, as good as the others, would agree with them as they agree
with each other.</p><h3>Parts and older scores</h3>
{_table(rows, [_column(key) for key in _PARTS], 'Parts and older scores')}<p class="read">D max, sensitivity, diversity
agreement and CI grow with the number of samples, and masks of other patients can score high on them without a look at
the image: trust GED and HM-IoU first.</p></section>"""


def _short(row: Mapping) -> str:
    """A row's name where there is little room."""
    name = BASELINES.get(row['name'], (row['name'],))[0]
    return name if len(name) <= _ROOM else f'{name[: _ROOM - 1]}…'


def _column(key: str) -> tuple[str, str, Callable]:
    title, up, note = _TOLD[key]
    arrow = {True: '&nbsp;↑', False: '&nbsp;↓', None: ''}[up]

    def show(row):
        text = cell(row['metrics'][key], row['stderr'][key])
        return text + (f'<small>seeds ± {number(row["spread"][key])}</small>' if row['spread'] and key == 'ged' else '')

    return f'{title}{arrow}', note, show


def _less(table: Mapping) -> Callable:
    """The paired difference to the reference; a dash in its own row."""

    def show(row):
        own = row['name'] == table['reference']
        return '–' if own else cell(row['difference']['ged'], row['difference_stderr']['ged'], True)

    return show


def _reader(which: str) -> Callable:
    """A figure of the model as one more reader."""

    def show(row):
        told = row['reader']
        return cell(told['mean'][which], told['stderr'][which], which == 'difference')

    return show


def _table(rows: Sequence[Mapping], columns: Sequence[tuple[str, str, Callable]], label: str) -> str:
    """(title, note, row -> text) columns; titles, notes and texts are HTML."""
    head = ''.join(f'<th scope="col" title="{note}">{title}</th>' for title, note, _ in columns)
    body = ''
    for row in rows:
        name, note = BASELINES.get(row['name'], (row['name'], ''))
        if row['kind'] == 'foreign':
            note = 'masks given'
        if row['draws'] == 'dependent':
            note += ', dependent draws: lower than independent ones would be'
        if row['seeds'] > 1:
            note = f'mean of {row["seeds"]} seeds'
        cells = ''.join(f'<td>{show(row)}</td>' for _, _, show in columns)
        kind = ' class="seed"' if row['name'] != row['of'] else ''
        # Long names break between words.
        shown = html.escape(name).replace('+', '<wbr>+').replace('.', '.<wbr>').replace('_', '_<wbr>')
        body += f'<tr{kind}><th scope="row">{shown}<small>{note}</small></th>{cells}</tr>'
    return f"""<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>
<thead><tr><th scope="col"></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"""


def excess_against_cost(table: Mapping) -> str:
    """The methods as an inline SVG: excess over the ideal level against FLOP a mask; '' without a method."""
    rows = _methods(table)
    points = [
        (_short(row), row['costs']['flops_per_mask'], row['metrics']['ged_excess'], row['stderr']['ged_excess'])
        for row in rows
    ]
    axes = 'FLOP a mask', 'excess over the ideal GED'
    return charts.points_svg(points, axes, 'Excess over the ideal GED against FLOP a mask', _colours(rows))


def _methods(table: Mapping) -> list[Mapping]:
    """The rows of trained methods, one for all seeds."""
    return [row for row in table['rows'] if row['kind'] == 'method' and row['name'] == row['of']]


def _colours(rows: Sequence[Mapping]) -> dict[str, str]:
    return {_short(row): charts.COLOURS[i % len(charts.COLOURS)] for i, row in enumerate(rows)}


def _takes(table: Mapping) -> str:
    rows = _methods(table)
    if not rows:
        return ''
    plot = excess_against_cost(table)
    columns = [(title, note, _cost(group, key)) for title, group, key, note in _COSTS]
    return f"""<section><h2 id="takes">What it takes</h2>
<figure>{plot}<figcaption>Lower and further left is better: nearer to what the raters' own distribution would score, for
less arithmetic. FLOP are the compiler's count, loops as often as they run.</figcaption></figure>
{_table(rows, columns, 'Costs')}</section>"""


def _cost(group: str, key: str) -> Callable:
    def show(row):
        value = row[group][key]
        if key == 'seconds':
            return f'{value / 60:.1f} min' if value >= 60 else f'{value:.1f} s'
        if key in ('learning_rate', 'seconds_per_mask', 'network_evaluations_per_mask'):
            return f'{value:.3g}'
        return charts.si(value)

    return show


def _learned(table: Mapping, colours: Mapping[str, str]) -> str:
    """GED on a few images of validation over images and over FLOP."""
    made = []
    for key, axis, logarithmic in (('images', 'training images', False), ('flops', 'training FLOP', True)):
        curves = [(_short({'name': curve['of']}), curve[key], curve['ged']) for curve in table['curves']]
        axes = (axis, 'GED on validation')
        made.append(charts.curves_svg(curves, axes, f'GED on validation over {axis}', colours, logarithmic))
    if not any(made):
        return ''
    return f"""<section><h2 id="learned">How it learned</h2><div class="pair">
<figure><h3>By images seen</h3>{made[0]}</figure><figure><h3>By FLOP of training</h3>{made[1]}</figure></div>
<p class="read">GED of a few images of the validation split, the same for all, while each run trains: a rough picture;
the table above is the measurement.</p></section>"""


def _searched(search: Mapping) -> str:
    if not search:
        return ''
    body = ''
    for name, trials in search['trials'].items():
        cells = ''.join(
            f'<td>{"<b>" if trial["chosen"] else ""}{number(trial["ged"])}{"</b>" if trial["chosen"] else ""}'
            f'<small>{trial["learning_rate"]:.3g}</small></td>'
            for trial in trials
        )
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    factors = next(iter(search['trials'].values()))
    head = ''.join(f'<th scope="col">× {trial["factor"]:g}</th>' for trial in factors)
    return f"""<section><h2 id="search">Learning rates tried</h2><div class="wide plain" tabindex="0" role="region"
aria-label="Learning rates"><table><thead><tr><th scope="col">GED on validation</th>{head}</tr></thead><tbody>{body}
</tbody></table></div><p class="read">Each method's own learning rate times a factor, for {search['images']} images;
bold is what the method then trained with.</p></section>"""


def _cases(table: Mapping, found: Comparison) -> Iterable[str]:
    """The same images marked by everybody, from those that the raters agree on to those they do not."""
    diversity = found.per_image[found.names[0]]['diversity_raters']
    order = np.argsort(np.where(np.isnan(diversity), -math.inf, diversity), kind='stable')
    chosen = order[evenly_spaced(len(order), CASES)]
    leaders = [row for row in table['rows'] if row['kind'] != 'baseline' and row['name'] == row['of']]
    names = [row['runs'][0] for row in leaders]  # of several seeds the first
    yield f"""<section><h2 id="cases">The same images</h2><p class="read">{len(chosen)} of {len(order)} images,
from those that the raters agree on to those on which they differ most: first the raters' masks, then each method's
{table['samples_per_image']} samples by area, all in one window. Choose a picture to enlarge it.</p>"""
    yield from (case(found, int(index), names, 'case compact') for index in chosen)
    yield '</section>'
