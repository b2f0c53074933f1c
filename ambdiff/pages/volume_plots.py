"""How much raters and samples mark of a volume: area by slice, and how often each volume occurs, as inline SVG."""

import numpy as np

from ambdiff.pages import figures
from ambdiff.pages.charts import si
from ambdiff.pages.plots import svg

_LEFT, _TOP, _WIDE, _TALL, _RIGHT = 62, 12, 330, 150, 32
_BARS = 10


def area_by_slice(raters: np.ndarray, samples: np.ndarray, start: int, unit: str) -> str:
    """Area on each slice: the middle and 5 to 95 % of samples [N, Z], each rater [M, Z]; a line where the page is.

    start: the slice that is shown first; a click into the plot turns to a slice (volume.js).
    """
    depth = samples.shape[1]
    most = max(float(samples.max(initial=0)), float(raters.max(initial=0)), 1e-9)
    x = lambda z: _LEFT + _WIDE * (z + 0.5) / depth
    y = lambda area: _TOP + _TALL * (1 - area / most)
    line = lambda areas: 'L'.join(f'{x(z):.1f} {y(area):.1f}' for z, area in enumerate(areas))
    low, middle, high = np.quantile(samples, (0.05, 0.5, 0.95), axis=0)
    back = 'L'.join(f'{x(z):.1f} {y(low[z]):.1f}' for z in reversed(range(depth)))
    parts = [
        *_axis(most),
        f'<path class="band" d="M{line(high)}L{back}z"/>',
        f'<path class="median" d="M{line(middle)}"/>',
    ]
    for areas, colour in zip(raters, figures.RATER_COLOURS * (1 + len(raters) // 8), strict=False):
        parts.append(f'<path d="M{line(areas)}" class="of-rater" style="stroke:{colour}"/>')
    at = f'{x(start):.1f}'
    parts.append(f'<line class="cursor" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_TOP + _TALL}"/>')
    parts.append(_below('slice'))
    who = 'Samples (median, 5 to 95 %)' + (' and raters' if len(raters) else '')
    plot = svg(_LEFT + _WIDE + _RIGHT, _TOP + _TALL + 40, f'Area by slice: {who.lower()}', parts)
    places = f'data-across="{_LEFT} {_WIDE}"'
    return (
        f'<figure class="by-slice" {places}>{plot}<figcaption>{who}: area on each slice, {unit}.</figcaption></figure>'
    )


def histogram(raters: np.ndarray, samples: np.ndarray, unit: str) -> str:
    """How many of the samples have each volume [N], empty ones in a bar of their own; each rater's [M] as a line."""
    marked = samples[samples > 0]
    most = max(float(samples.max(initial=0)), float(raters.max(initial=0)), 1e-9)
    counts, edges = np.histogram(marked, _BARS, (0, most))
    bars = [('nothing', int((samples == 0).sum())), *zip(edges[1:], counts.tolist(), strict=True)]
    tallest = max(count for _, count in bars)
    wide = _WIDE / (len(bars) + 0.5)
    place = lambda index: _LEFT + wide * (index + (0.5 if index else 0))
    x = lambda volume: place(1) + wide * _BARS * volume / most
    parts = _axis(tallest)
    for index, (edge, count) in enumerate(bars):
        tall = _TALL * count / tallest if tallest else 0
        left, kind = place(index) + 1, 'model' if index else 'baseline'
        said = 'nothing' if not index else f'{si(edge - most / _BARS)} to {si(edge)} {unit}'
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{_TOP + _TALL - tall:.1f}" width="{wide - 2:.1f}" '
            f'height="{tall:.1f}"><title>{count} of {len(samples)} samples: {said}</title></rect>'
        )
    for number, (volume, colour) in enumerate(
        zip(raters, figures.RATER_COLOURS * (1 + len(raters) // 8), strict=False)
    ):
        at = f'{x(volume) if volume else place(0) + wide / 2 + number:.1f}'
        parts.append(
            f'<line class="of-rater" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_TOP + _TALL}" style="stroke:{colour}">'
            f'<title>rater {number + 1}: {f"{si(volume)} {unit}" if volume else "nothing"}</title></line>'
        )
    bottom = _TOP + _TALL + 18
    parts.append(f'<text x="{place(0) + wide / 2:.1f}" y="{bottom}" text-anchor="middle">none</text>')
    parts += [
        f'<text x="{x(value):.1f}" y="{bottom}" text-anchor="middle">{si(value)}</text>' for value in (most / 2, most)
    ]
    parts.append(_below(f'volume, {unit}'))
    label = f'Volume of {len(samples)} samples' + (', raters as lines' if len(raters) else '')
    plot = svg(_LEFT + _WIDE + _RIGHT, _TOP + _TALL + 40, label, parts)
    return f'<figure>{plot}<figcaption>{label}.</figcaption></figure>'


def _axis(most: float) -> list[str]:
    """Lines and numbers from 0 to the largest value."""
    parts = []
    for share in (0, 0.5, 1):
        at = _TOP + _TALL * (1 - share)
        parts.append(f'<path class="gridline" d="M{_LEFT} {at:.1f}h{_WIDE}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 5:.1f}" text-anchor="end">{si(most * share)}</text>')
    return parts


def _below(text: str) -> str:
    return f'<text class="axis" x="{_LEFT + _WIDE / 2}" y="{_TOP + _TALL + 36}" text-anchor="middle">{text}</text>'
