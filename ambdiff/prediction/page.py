"""The pages of predict: one of each case, and one over all cases, each a single file that needs no network.

Each point of a case has a row of its own, with its own answers. The page over all cases holds the rows closed and inert
(<template>), so that hundreds open at once; it is put together from the cases' own pages one after the other, never all
of them in memory.
"""

import hashlib
import html
import math
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

from ambdiff import files
from ambdiff.pages import case
from ambdiff.pages.frame import document, header
from ambdiff.prediction import earlier, views
from ambdiff.prediction.finding import Finding
from ambdiff.prediction.result import Result
from ambdiff.text import printable

TITLE = 'Plausible masks'
NOTICE = 'Research software, not a medical device. Masks are made by a model; nobody has checked them.'
_ROW = re.compile('<!--case-->(.*?)<!--/case-->', re.DOTALL)


def write(path: pathlib.Path, prediction: Result, names: Sequence[str], warnings: Sequence[str]) -> bytes:
    """Writes the page of a case, which links the files of these names; returns its content."""
    content = ''.join(document(f'{prediction.title}: plausible masks', _parts(prediction, names, warnings), {}))
    path.write_bytes(content.encode())
    return content.encode()


def notebook(prediction: Result) -> str:
    """The page of a case in a frame, for a notebook's cell."""
    content = ''.join(document(prediction.title, _parts(prediction, (), prediction.notes), {}))
    title = f'title="Plausible masks of {html.escape(prediction.title, quote=True)}"'
    frame = f'{title} style="width:100%;height:640px;border:0" sandbox="allow-scripts"'
    return f'<iframe srcdoc="{html.escape(content, quote=True)}" {frame}></iframe>'


def _parts(prediction: Result, names: Sequence[str], warnings: Sequence[str]) -> Iterator[str]:
    facts = {
        'input': prediction.title,
        **_facts(
            {
                'weights': prediction.weights,
                'network_evaluations_per_mask': prediction.evaluations,
                **vars(prediction.drawn_with),
            }
        ),
    }
    yield header(TITLE, facts, [NOTICE])
    yield case.how_to_read(len(prediction.raters), len(prediction.samples), prediction.drawn_with.smallest_part)
    yield f'<h2>{"Points" if len(prediction.findings) > 1 else "Case"}</h2><div id="cases">'
    for number, finding in enumerate(prediction.findings):
        yield f'<!--case-->{_row(prediction, finding, number, names, warnings)}<!--/case-->'
    yield '</div>'


def _row(prediction: Result, finding: Finding, number: int, names: Sequence[str], warnings: Sequence[str]) -> str:
    """A case, or one point of it: its headline, which opens the pictures."""
    name = f'c{hashlib.sha256(prediction.name.encode()).hexdigest()[:10]}-{number}'
    body, thumbnail = views.pictures(name, prediction, finding)
    notes = ''.join(f'<p class="warning">{html.escape(note)}</p>' for note in warnings)
    divided = -sum(answer.share * math.log2(answer.share) for answer in finding.modes)
    shown = html.escape(prediction.name_of(finding), quote=True)
    folder = f'<a href="./">{html.escape(prediction.name)}</a>'
    sizes = f'<p class="read">Of samples that mark something: {finding.sizes}.</p>' if finding.sizes else ''
    where = f'Files in {folder}: {_file_links([*names, "summary.json"])}.' if names else ''
    return f"""<details open class="case" id="{name}" data-name="{shown}"
data-divided="{divided:.4f}" data-empty="{finding.empty_share:.4f}"><summary><img
src="{thumbnail}" alt="" width="52" height="52"><h3>{shown}</h3>
<span>{html.escape(finding.headline)}</span></summary><div class="body">{notes}{sizes}
{body}<p class="read">{where}</p></div>
</details>"""


def write_index(output: pathlib.Path, results: Sequence[earlier.WrittenResult], failed: Mapping[str, str]) -> None:
    """Writes index.html over these results; failed: {title: reason}."""
    title = f'{TITLE}: {len(results)} cases'
    files.write_whole(output / 'index.html', document(title, _index(output, results, failed), {}))


def _index(output: pathlib.Path, results: Sequence[earlier.WrittenResult], failed: Mapping[str, str]) -> Iterator[str]:
    summaries = [result.summary for result in results]
    facts = {'cases': str(len(results))}
    for key in _facts(summaries[0]) if summaries else ():
        values = dict.fromkeys(_facts(summary)[key] for summary in summaries)
        facts[key] = ', '.join(list(values)[:3]) + (' ..' if len(values) > 3 else '')
    yield header(TITLE, facts, [NOTICE])
    if failed:
        items = ''.join(f'<li>{html.escape(printable(reason))}</li>' for reason in failed.values())
        line = f'{len(failed)} could not be predicted'
        yield f'<details class="warning"><summary>{line}</summary><ul>{items}</ul></details>'
    if not summaries:
        return
    most = max(len(summary['raters']) for summary in summaries)
    yield case.how_to_read(most, summaries[0]['num_samples'], summaries[0]['smallest_part'])
    several = sum(len(summary['points']) or 1 for summary in summaries) > 1
    if several:
        yield """<div class="list"><label>Find by name<input type="search" id="filter"></label><label>Order<select
id="order"><option value="name">name</option><option value="divided">most divided first</option><option
value="empty">most often nothing first</option></select></label><span id="count" role="status"></span></div>"""
    yield '<h2 id="list">Cases</h2><div id="cases">'
    place = 0
    for result in results:
        folder = urllib.parse.quote(result.folder.relative_to(output).as_posix())
        for row in _ROW.findall(result.page()):
            yield _closed(row, folder, place) if several else _linked(row, folder)
            place += 1
    yield '</div>'


def _closed(row: str, folder: str, place: int) -> str:
    """A row inert until it is opened: what is not looked at costs a browser nothing."""
    row = _linked(row, folder)
    row = row.replace('<details open', f'<details data-place="{place}"', 1)
    page = f'<noscript><a href="{folder}/index.html">Open its page</a></noscript>'
    row = row.replace('<div class="body">', f'{page}<template><div class="body">', 1)
    return f'{row.removesuffix("</details>")}</template></details>'


def _linked(row: str, folder: str) -> str:
    """A row whose links to the files beside its own page lead there from a page above; folder is quoted."""
    return row.replace('<a href="./', f'<a href="{folder}/')


def _file_links(names: Sequence[str]) -> str:
    """The names, of many samples the first and the last, as links to the files."""
    link = lambda name: f'<a href="./{urllib.parse.quote(name)}">{html.escape(name)}</a>'
    samples = [name for name in names if name.startswith('samples_')]
    others = [link(name) for name in names if name not in samples]
    many = [f'{link(samples[0])} .. {link(samples[-1])}'] if len(samples) > 2 else [link(name) for name in samples]
    return ', '.join([*many, *others])


def _facts(summary: Mapping) -> dict[str, str]:
    return {
        'weights': f'{summary["weights"]["name"]}, step {summary["weights"]["step"]}',
        'masks a case (N)': str(summary['num_samples']),
        'network evaluations a mask': f'{summary["network_evaluations_per_mask"]:g}',
        'seed': str(summary['seed']),
        'smallest part counted': f'{summary["smallest_part"]} px',
    }
