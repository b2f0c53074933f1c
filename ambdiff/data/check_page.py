"""The page of `ambdiff.data.check`: one HTML file, with what was found and pictures."""

import html
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import files
from ambdiff.data.example import Example
from ambdiff.data.survey import Survey
from ambdiff.pages import figures
from ambdiff.pages.frame import document, header

_MOST_FAULTS = 500  # shown; more are counted


def write(
    path: pathlib.Path,
    name: str,
    surveys: Mapping[str, Survey],
    pictures: Mapping[str, Sequence[Example]],
    notes: Sequence[str],
    faults: Sequence[str],
    notice: str = '',
) -> None:
    """Writes the page to `path`, whole or not at all.

    name is what was read, notice a line that must not be missed; the others are as `check.examine` gives them.
    """
    body = [
        header(f'What {name} holds', {}, [notice]),
        f'<section>{_table(surveys)}</section>',
        _list('notes', 'Notes', notes),
        _list('faults', 'Faults', faults),
        *(_section(split, pictures[split]) for split in surveys),
    ]
    links = {'notes': 'Notes', 'faults': 'Faults'} | {split: split.capitalize() for split in surveys}
    files.write_whole(path, document('ambdiff data check', body, links))


def _table(surveys):
    columns = {split: survey.rows() for split, survey in surveys.items()}
    heads = ''.join(f'<th scope="col">{split}</th>' for split in columns)
    rows = ''.join(
        f'<tr><th scope="row">{row}</th>'
        f'{"".join(f"<td>{html.escape(column[row])}</td>" for column in columns.values())}</tr>'
        for row in next(iter(columns.values()))
    )
    return (
        '<div class="wide plain" tabindex="0" role="region" aria-label="What the splits hold"><table><thead><tr>'
        f'<th scope="col">Split</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _list(name, title, lines):
    if not lines:
        return f'<section><h2 id="{name}">{title}: none</h2></section>'
    items = ''.join(f'<li>{html.escape(line)}</li>' for line in lines[:_MOST_FAULTS])
    more = f'<p>and {len(lines) - _MOST_FAULTS} more</p>' if len(lines) > _MOST_FAULTS else ''
    return f'<section><h2 id="{name}">{title}: {len(lines)}</h2><ul>{items}</ul>{more}</section>'


def _section(split, examples):
    cards = ''.join(_card(found) for found in examples)
    return (
        f'<section><h2 id="{split}">Pictures: {split}</h2><p class="read">As the network sees them, spread evenly over '
        'the split. The raters have no order; an outline that is not there is a rater who marked nothing.</p>'
        f'<div class="pair">{cards}</div></section>'
    )


def _card(found):
    height, width = found['image'].shape[:2]
    outlines, keys = [], []
    for rater, (mask, present) in enumerate(zip(found['masks'] > 0, found['present'], strict=True)):
        colour = figures.RATER_COLOURS[rater % len(figures.RATER_COLOURS)]
        outlines.append(figures.mask_svg(mask, colour))
        area = int(np.count_nonzero(mask))
        what = (f'{area} pixels' if area else 'nothing marked') if present else 'missing'
        keys.append(f'<span><i class="key" style="background:{colour}"></i>{what}</span>')
    plain = [
        f'<image href="{figures.data_uri(figures.png(picture))}" width="{width}" height="{height}"/>'
        for picture in figures.pictures(found['image'])
    ]
    contents = {f'channel {number + 1}': picture for number, picture in enumerate(plain)}
    contents["the raters' outlines"] = plain[0] + ''.join(outlines)
    panels = [
        f'<figure class="outlines"><button type="button" class="zoom"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}">{inner}</svg></button></figure>'
        for label, inner in contents.items()
    ]
    patient = f' <small>patient {html.escape(found["patient"])}</small>' if found['patient'] else ''
    return (
        f'<article class="case"><h3>{html.escape(found["case"])}{patient}</h3><p class="chips">{"".join(keys)}</p>'
        f'<div class="panels">{"".join(panels)}</div></article>'
    )
