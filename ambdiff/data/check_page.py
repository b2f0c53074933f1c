"""The page of `ambdiff.data.check`: one HTML file that makes no request, with what was found and pictures."""

import html
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import figures
from ambdiff.data.example import Example
from ambdiff.data.survey import Survey
from ambdiff.report_page import STYLE

_MOST_FAULTS = 500  # shown; more are counted


def write(
    path: pathlib.Path,
    name: str,
    surveys: Mapping[str, Survey],
    pictures: Mapping[str, Sequence[Example]],
    notes: Sequence[str],
    faults: Sequence[str],
    *,
    simulated: bool,
) -> None:
    """Writes the page to `path`, whole or not at all; name is what was read, the others as `check.examine` gives."""
    body = [f'<header><h1>What {html.escape(name)} holds</h1>']
    if simulated:
        body.append('<p class="notice">These images are simulated.</p>')
    body += [_facts(surveys), '</header>', _list('Notes', notes), _list('Faults', faults)]
    body += [_section(split, pictures[split]) for split in surveys]
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>ambdiff data check</title>
<style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>
"""
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)


def _facts(surveys):
    columns = {split: survey.rows() for split, survey in surveys.items()}
    heads = ''.join(f'<th>{split}</th>' for split in columns)
    rows = ''.join(
        f'<tr><th>{row}</th>{"".join(f"<td>{html.escape(column[row])}</td>" for column in columns.values())}</tr>'
        for row in next(iter(columns.values()))
    )
    return f'<div class="wide"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _list(title, lines):
    if not lines:
        return f'<section><h2>{title}: none</h2></section>'
    items = ''.join(f'<li>{html.escape(line)}</li>' for line in lines[:_MOST_FAULTS])
    more = f'<p>and {len(lines) - _MOST_FAULTS} more</p>' if len(lines) > _MOST_FAULTS else ''
    return f'<section><h2>{title}: {len(lines)}</h2><ul>{items}</ul>{more}</section>'


def _section(split, examples):
    cards = ''.join(_card(found) for found in examples)
    return (
        f'<section><h2>Pictures: {split}</h2><p class="read">As the network sees them, spread evenly over the split. '
        'The raters have no order; an outline that is not there is a rater who drew nothing.</p>'
        f'<div class="pair">{cards}</div></section>'
    )


def _card(found):
    height, width = found['image'].shape[:2]
    outlines, keys = [], []
    for rater, (mask, present) in enumerate(zip(found['masks'] > 0, found['present'], strict=True)):
        colour = figures.RATER_COLOURS[rater % len(figures.RATER_COLOURS)]
        outlines.append(figures.mask_svg(mask, colour))
        area = int(np.count_nonzero(mask))
        what = (f'{area} pixels' if area else 'nothing drawn') if present else 'missing'
        keys.append(f'<span><i class="key" style="background:{colour}"></i>{what}</span>')
    plain = [figures.data_uri(figures.png(picture)) for picture in figures.pictures(found['image'])]
    frame = f'viewBox="0 0 {width} {height}" role="img"'
    panels = [
        f'<figure><svg {frame} aria-label="channel {number + 1}"><image href="{picture}" width="{width}" '
        f'height="{height}"/></svg></figure>'
        for number, picture in enumerate(plain)
    ]
    panels.append(
        f'<figure class="outlines"><svg {frame} aria-label="the raters\' outlines"><image href="{plain[0]}" '
        f'width="{width}" height="{height}"/>{"".join(outlines)}</svg></figure>'
    )
    patient = f' <small>patient {html.escape(found["patient"])}</small>' if found['patient'] else ''
    return (
        f'<article class="case"><h3>{html.escape(found["case"])}{patient}</h3><p class="chips">{"".join(keys)}</p>'
        f'<div class="panels">{"".join(panels)}</div></article>'
    )
