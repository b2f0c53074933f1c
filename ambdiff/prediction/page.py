"""The pages of predict: one of each case, and one over all cases, each a single file that needs no network.

The page over all cases holds them closed and inert (<template>), so that hundreds open at once; it is put together from
the cases' own pages one after the other, never all of them in memory.
"""

import hashlib
import html
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ambdiff import files, modes
from ambdiff.modes import Mode
from ambdiff.pages import case, figures
from ambdiff.pages.frame import document, header
from ambdiff.prediction.crops import Plan

MOST_SLICES = 6  # of a volume that are shown, those on which most is drawn
TITLE = 'Plausible masks'
NOTICE = 'Research software, not a medical device. Masks are drawn by a model; nobody has checked them.'
_START, _END = '<!--case-->', '<!--/case-->'


def write_case(
    folder: pathlib.Path,
    plan: Plan,
    samples: np.ndarray,
    raters: np.ndarray,
    found: Sequence[Mode],
    spacing: tuple[float, float],
    summary: Mapping,
) -> None:
    """Writes index.html of a case.

    samples [N, Z, H, W]; raters [M, Z, H, W] of packed bits (`predict_cases.Case.raters`); found: its answers; spacing
    (row, column) in mm; summary: of summary.json.
    """
    name = 'c' + hashlib.sha256(summary['case'].encode()).hexdigest()[:10]
    body, first = '', None
    for number, (z, box, local, answers) in enumerate(_views(plan, samples, found)):
        title = _title(plan, samples.shape[1], z, box)
        outlines = np.unpackbits(raters[:, z], axis=-1, count=samples.shape[3]).astype(bool)
        drawn = case.view(
            f'{name}-{number}',
            plan.images[z],
            outlines if box is None else _inside(outlines, box),
            local,
            spacing,
            plan.window,
            answers,
        )
        body += f'<section class="view">{f"<h3>{title}</h3>" if title else ""}{drawn}</section>'
        first = first or (z, local)
    warnings = ''.join(f'<p class="warning">{html.escape(note)}</p>' for note in summary['warnings'])
    words = modes.sentence(found, [mode['words'] for mode in summary['modes']])
    divided = -sum(mode.share * math.log2(mode.share) for mode in found)
    row = f"""<details class="case" id="{name}" data-name="{html.escape(summary['input'], quote=True)}"
data-divided="{divided:.4f}" data-empty="{summary['empty_share']:.4f}"><summary><img
src="{_thumbnail(plan, *first)}" alt="" width="52" height="52"><b>{html.escape(summary['input'])}</b>
<span>{html.escape(words)}</span></summary><div class="body">{warnings}{body}<p class="read">Files in
<a href="FOLDER">{html.escape(summary['case'])}</a>: {_file_names(summary['files'])}.</p></div></details>"""
    facts = {'input': summary['input'], **_facts(summary)}
    parts = [
        header(TITLE, facts, [NOTICE]),
        case.how_to_read(len(raters), len(samples)),
        '<div id="cases">',
        _START + row.replace('<details', '<details open', 1).replace('href="FOLDER"', 'href="."') + _END,
        '</div>',
    ]
    files.write_whole(folder / 'index.html', document(f'{summary["input"]}: plausible masks', parts, {}))


def write_index(output: pathlib.Path, folders: Sequence[pathlib.Path], failed: Mapping[str, str]) -> None:
    """Writes index.html over the finished cases in these folders; failed: {source: reason}."""
    files.write_whole(output / 'index.html', document(f'{TITLE}: {len(folders)} cases', _index(folders, failed), {}))


def _index(folders: Sequence[pathlib.Path], failed: Mapping[str, str]) -> Iterator[str]:
    summaries = [json.loads((folder / 'summary.json').read_text('utf-8')) for folder in folders]
    facts = {'cases': str(len(folders))}
    for key in _facts(summaries[0]) if summaries else ():
        values = dict.fromkeys(_facts(summary)[key] for summary in summaries)
        facts[key] = ', '.join(list(values)[:3]) + (' ..' if len(values) > 3 else '')
    yield header(TITLE, facts, [NOTICE])
    if failed:
        items = ''.join(f'<li>{html.escape(reason)}</li>' for reason in failed.values())
        line = f'{len(failed)} could not be predicted'
        yield f'<details class="warning"><summary>{line}</summary><ul>{items}</ul></details>'
    if not summaries:
        return
    most = max(len(summary['raters']) for summary in summaries)
    yield case.how_to_read(most, summaries[0]['num_samples'])
    if len(folders) > 1:
        yield """<div class="list"><label>Find by name<input type="search" id="filter"></label><label>Order<select
id="order"><option value="name">name</option><option value="divided">most divided first</option><option
value="empty">most often nothing first</option></select></label><span id="count" role="status"></span></div>"""
    yield '<h2 id="list">Cases</h2><div id="cases">'
    for place, folder in enumerate(folders):
        text = (folder / 'index.html').read_text('utf-8')
        row = text[text.index(_START) + len(_START) : text.index(_END)]
        name = html.escape(folder.name, quote=True)
        row = row.replace('<a href=".">', f'<a href="{name}/">', 1)
        row = row.replace('<details open', f'<details data-place="{place}"{"" if len(folders) > 1 else " open"}', 1)
        if len(folders) > 1:
            # Inert until its row is opened: what is not looked at costs a browser nothing.
            page = f'<noscript><a href="{name}/index.html">Open its page</a></noscript>'
            row = row.replace('<div class="body">', f'{page}<template><div class="body">', 1)
            row = f'{row.removesuffix("</details>")}</template></details>'
        yield row
    yield '</div>'


def _file_names(files: Sequence[str]) -> str:
    """The names, of many samples the first and the last."""
    samples = [file for file in files if file.startswith('samples_')]
    others = [file for file in files if file not in samples]
    many = [f'{samples[0]} .. {samples[-1]}'] if len(samples) > 2 else samples
    return ', '.join([*many, *others])


def _facts(summary: Mapping) -> dict[str, str]:
    return {
        'weights': f'{summary["weights"]["name"]}, step {summary["weights"]["step"]}',
        'masks a case (N)': str(summary['num_samples']),
        'network evaluations a mask': str(summary['num_steps']),
        'seed': str(summary['seed']),
    }


def _views(plan: Plan, samples: np.ndarray, found: Sequence[Mode]) -> Iterable[tuple]:
    """(slice, point's box or None, masks [N, H, W] bool on it, answers) of what is shown.

    Of several points each has its own answers; of a volume, the answers are those of all slices.
    """
    if len(plan.boxes) > 1:
        for z, *box in plan.boxes:
            local = _inside(samples[:, z] > 0, box)
            yield z, box, local, modes.find(local)
        return
    area = (samples > 0).sum((0, 2, 3))
    shown = np.sort(np.argsort(-area, kind='stable')[:MOST_SLICES])
    shown = [z for z in shown.tolist() if area[z]] or [plan.crops[len(plan.crops) // 2][0]]
    for z in shown:
        yield z, None, samples[:, z] > 0, found


def _inside(masks: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Masks [N, H, W] bool with nothing outside a point's box."""
    top, left, bottom, right = box
    local = np.zeros_like(masks)
    local[:, top:bottom, left:right] = masks[:, top:bottom, left:right]
    return local


def _title(plan: Plan, slices: int, z: int, box) -> str:
    title = f'Slice {z} of 0 to {slices - 1}' if slices > 1 else ''
    if box:
        middle = ((box[1] + box[3]) // 2, (box[0] + box[2]) // 2)
        title = f'{title}{", " if title else ""}around column {middle[0]}, row {middle[1]}'
    return title[:1].upper() + title[1:]


def _thumbnail(plan: Plan, z: int, masks: np.ndarray) -> str:
    top, left, tall, wide = case.crop(masks.any(0))
    pixels = figures.pictures(plan.images[z])[0][top : top + tall, left : left + wide]
    return figures.jpeg_uri(pixels, 64)
