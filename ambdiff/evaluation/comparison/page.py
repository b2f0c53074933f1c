"""The page of a comparison: the runs' scores, their differences, and the images on which they differ most."""

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

from ambdiff.evaluation import report
from ambdiff.evaluation.comparison.paired import Comparison
from ambdiff.pages import plots
from ambdiff.pages.case import number, strips
from ambdiff.pages.frame import breakable, document, header

_CASES = 12  # shown
_COLUMNS = tuple(row for row in (*report.METRICS, *report.OLDER) if row[0] != 'calibration')


def page(found: Comparison) -> Iterable[str]:
    """The page, in pieces of text."""
    draws = ', '.join(dict.fromkeys(found.draws))
    facts = {
        'runs': ', '.join(found.names),
        'images': f'{len(found.cases)}, the same of all',
        'masks an image (N)': f'{found.num_samples}, {draws}',
    }
    notices = [*found.notes]
    if len(set(found.draws)) > 1:
        notices.append('Dependent samples score a lower GED at the same N than independent ones of the same model.')
    body = [
        header('The same images, several runs', facts, notices),
        _scores(found),
        _differences(found),
        *_cases(found),
    ]
    links = {'scores': 'Scores', 'differences': 'Differences', 'cases': 'Images'}
    return document('ambdiff compare', body, links)


def _scores(found) -> str:
    dots = [(name, means['ged'], errors['ged']) for name, (means, errors) in found.means.items()]
    ideals = [means['ged_ideal'] for means, _ in found.means.values()]
    level = ('ideal', ideals[0] if len(set(found.draws)) == 1 else math.nan)
    rows = {name: (means, errors, False) for name, (means, errors) in found.means.items()}
    return f"""<section><h2 id="scores">Scores</h2>
<figure>{plots.ruler_svg(dots, 'GED of the runs', level)}<figcaption>GED, lower is better; bars are one standard error.
Errors of single runs are mostly of the images, which all runs share: whether two runs differ, the differences below
say.</figcaption></figure>{_table(rows, 'Scores')}</section>"""


def _differences(found) -> str:
    first = found.names[0]
    rows = {f'{name} less {first}': (means, errors, True) for name, (means, errors) in found.differences.items()}
    error = 'of one patient together' if any(found.patients) else 'as independent, since patients are not known'
    return f"""<section><h2 id="differences">Differences to {breakable(first)}</h2>
{_table(rows, 'Differences')}<p class="read">Paired: the mean over images of a run's score less that of
{html.escape(first)} on the same image; ± is one standard error, images taken {error}. Bold is more than two standard
errors away from 0.</p></section>"""


def _table(rows, label: str) -> str:
    arrow = {True: '&nbsp;↑', False: '&nbsp;↓', None: ''}
    head = ''.join(f'<th scope="col" title="{note}">{name}{arrow[up]}</th>' for _, name, up, note in _COLUMNS)
    body = ''
    for name, (means, errors, difference) in rows.items():
        cells = ''.join(f'<td>{cell(means[key], errors[key], difference)}</td>' for key, *_ in _COLUMNS)
        body += f'<tr><th scope="row">{breakable(name)}</th>{cells}</tr>'
    # The first run stands out; of differences none does, for there bold says which are clear of 0.
    plain = ' plain' if any(difference for *_, difference in rows.values()) else ''
    return f"""<div class="wide{plain}" tabindex="0" role="region" aria-label="{label}"><table>
<thead><tr><th scope="col">Mean over images</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"""


def cell(mean: float, error: float, difference: bool = False) -> str:
    """A figure with its error; a difference has its sign, and is bold where it is clear of 0 by two errors."""
    if not math.isfinite(mean):
        return '–'
    text = f'{"+" if difference and mean > 0 else ""}{number(mean)}'
    text = f'<b>{text}</b>' if difference and error < math.inf and abs(mean) > 2 * error else text
    return f'{text}<small>± {number(error)}</small>'


def _cases(found) -> Iterable[str]:
    """The images on which GED differs most between runs, with the masks of all."""
    ged = np.stack([found.per_image[name]['ged'] for name in found.names])
    order = np.argsort(-(ged.max(0) - ged.min(0)), kind='stable')[:_CASES].tolist()
    alone = '' if found.images.any() else ' The images are not in the runs’ files: masks alone are shown.'
    yield f"""<section><h2 id="cases">Where the runs differ most</h2><p class="read">The {len(order)} images with the
largest difference in GED, the masks of all runs in one window.{alone}</p>"""
    yield from (case(found, index, found.names) for index in order)
    yield '</section>'


def case(found: Comparison, index: int, names: Sequence[str], kind: str = 'case') -> str:
    """One image with the masks of raters and of these runs in rows below each other; kind: the element's classes."""
    rows = [('Raters', found.raters[index])]
    for name in names:
        ged, hm_iou = (number(found.per_image[name][key][index]) for key in ('ged', 'hm_iou'))
        rows.append((f'{name}: GED {ged}, HM-IoU {hm_iou}', found.samples[name][index]))
    return f"""<article class="{kind}" id="case-{index}"><h3>{html.escape(found.cases[index])}</h3>
{strips(f'case-{index}', found.images[index], rows, 1)}</article>"""
