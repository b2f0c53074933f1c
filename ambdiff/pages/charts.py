"""Several runs on two axes as inline SVG: points with error bars, and curves, each named where it stands.

Colours tell runs apart on a light and a dark ground alike, and every mark has a <title>.
"""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence

from ambdiff.pages.plots import svg

COLOURS = ('#d6294b', '#2b8fd6', '#009e73', '#d98200', '#8a5cd6', '#12a5a5', '#a0522d', '#7f8c2f', '#c255a0', '#6b7280')
_LEFT, _TOP, _WIDTH, _HEIGHT, _RIGHT = 62, 16, 330, 250, 138
_STYLE = (  # of a file, which has no page around it
    'text{font:14px sans-serif;fill:#222}path{fill:none}.axis{fill:#666}.gridline{stroke:#ddd}'
    '.bar{stroke:#222;stroke-width:1.5;opacity:.75}'
)
_LINE, _LETTER = 17, 8.5  # between two names, and of a name's letter


def points_svg(
    points: Sequence[tuple[str, float, float, float]],
    axes: tuple[str, str],
    label: str,
    colours: Mapping[str, str],
) -> str:
    """(name, x above 0, y, standard error of y) as dots; x on a logarithmic axis.

    axes: what is across and up; label: the plot's name; colours: {name: colour}. Points without a place are left out.
    """
    points = [(n, x, y, 0.0 if math.isnan(e) else e) for n, x, y, e in points if x > 0 and math.isfinite(y)]
    if not points:
        return ''
    across = _logarithmic([x for _, x, _, _ in points])
    up = _linear([v for _, _, y, e in points for v in (y - e, y + e, 0.0)])
    marks = []
    for name, x, y, error in points:
        at, high = _across(across, x), _up(up, y)
        colour, shown = colours[name], html.escape(name)
        marks.append(
            f'<path class="bar" d="M{at:.1f} {_up(up, y - error):.1f}V{_up(up, y + error):.1f}"/>'
            f'<circle cx="{at:.1f}" cy="{high:.1f}" r="6" fill="{colour}"><title>{shown}: {axes[1]} {y:.3f} ± '
            f'{error:.3f}, {axes[0]} {si(x)}</title></circle>'
        )
    places = [(name, _across(across, x) + 11, _up(up, y) + 5) for name, x, y, _ in points]
    dots = [(x - 19, x - 3, y) for _, x, y in places]
    return _plot([*_grid(across, up, axes), *marks, *_names(places, colours, dots)], label)


def curves_svg(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    axes: tuple[str, str],
    label: str,
    colours: Mapping[str, str],
    logarithmic: bool = False,
) -> str:
    """(name, x of its points, y of them) as lines; curves of one name share its colour, and the name stands once.

    The arguments are those of `points_svg`; logarithmic: the axis across.
    """
    curves = [curve for curve in curves if len(curve[1])]
    if not curves:
        return ''
    across = (_logarithmic if logarithmic else _linear)([x for _, xs, _ in curves for x in xs])
    up = _linear([y for _, _, ys in curves for y in ys])
    marks, ends = [], {}
    for name, xs, ys in curves:
        places = [(_across(across, x), _up(up, y)) for x, y in zip(xs, ys, strict=True)]
        line = 'L'.join(f'{x:.1f} {y:.1f}' for x, y in places)
        shown, colour = html.escape(name), colours[name]
        marks.append(f'<path d="M{line}" style="stroke:{colour}" stroke-width="2.2" stroke-linejoin="round"/>')
        marks += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{shown}: {axes[1]} {value:.3f} at '
            f'{si(at)}</title></circle>'
            for (x, y), at, value in zip(places, xs, ys, strict=True)
        ]
        ends[name] = (name, places[-1][0] + 9, places[-1][1] + 5)
    return _plot([*_grid(across, up, axes), *marks, *_names(list(ends.values()), colours)], label)


def as_file(inline: str) -> str:
    """A plot as an SVG file of its own, black on white; '' stays ''."""
    if not inline:
        return ''
    size = ' '.join(inline.partition('viewBox="')[2].partition('"')[0].split()[2:])
    wide, tall = size.split()
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall}" '
    ground = f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    start, _, rest = inline.removeprefix('<svg ').partition('>')
    return f'{head}{start}>{ground}{rest}'


def si(value: float) -> str:
    """'750', '12 k', '4.3 M', '1.2 G': three digits at most, and a prefix that no line break parts from them."""
    if not math.isfinite(value):
        return '–'
    for size, prefix in ((1e18, 'E'), (1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= 0.9995 * size:
            return f'{_digits(value / size)}\xa0{prefix}'
    return _digits(value)


def _digits(value: float) -> str:
    return f'{value:.0f}' if abs(value) >= 99.95 else f'{value:.3g}'


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Values of an axis from its low to its high end, as shares of its length."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value stands, 0 at the low end and 1 at the high one."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _linear(values: Sequence[float]) -> _Axis:
    """An axis that holds the values, with a few round ticks."""
    low, high = min(values), max(values)
    rough = ((high - low) or abs(high) or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [step * number for number in range(first, last + 1)]
    return _Axis(ticks[0], ticks[-1], [(v, si(v) if ticks[-1] >= 1000 else f'{round(v, 9) + 0.0:g}') for v in ticks])


def _logarithmic(values: Sequence[float]) -> _Axis:
    """An axis from a power of ten to another, each or every other one a tick."""
    first, last = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    last = max(last, first + 1)
    every = -(-(last - first) // 6)
    ticks = [(10.0**power, si(10.0**power)) for power in range(first, last + 1, every)]
    return _Axis(10.0**first, 10.0**last, ticks, True)


def _across(axis: _Axis, value: float) -> float:
    return _LEFT + _WIDTH * axis.share(value)


def _up(axis: _Axis, value: float) -> float:
    return _TOP + _HEIGHT * (1 - axis.share(value))


def _grid(across: _Axis, up: _Axis, axes: tuple[str, str]) -> list[str]:
    """Lines and numbers of both axes, and what they are of."""
    bottom, parts = _TOP + _HEIGHT, []
    for value, text in up.ticks:
        y = _up(up, value)
        kind = 'diagonal' if value == 0 < up.high and up.low < 0 else 'gridline'
        parts.append(f'<path class="{kind}" d="M{_LEFT} {y:.1f}h{_WIDTH}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{text}</text>')
    for value, text in across.ticks:
        x = _across(across, value)
        parts.append(f'<path class="gridline" d="M{x:.1f} {_TOP}v{_HEIGHT}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>')
    middle = (_LEFT + _WIDTH / 2, _TOP + _HEIGHT / 2)
    for text, place in zip(
        axes,
        (f'x="{middle[0]}" y="{bottom + 42}"', f'x="0" y="0" transform="translate(14 {middle[1]}) rotate(-90)"'),
        strict=True,
    ):
        parts.append(f'<text class="axis" {place} text-anchor="middle">{html.escape(text)}</text>')
    return parts


def _names(
    places: Sequence[tuple[str, float, float]],
    colours: Mapping[str, str],
    taken: Sequence[tuple[float, float, float]] = (),
) -> list[str]:
    """(name, x, y) as texts, moved down where they would cover each other or a taken place (left, right, y)."""
    parts, taken = [], list(taken)
    for name, x, y in sorted(places, key=lambda place: place[2]):
        end = x + _LETTER * len(name)
        for left, right, there in sorted(taken, key=lambda place: place[2]):
            if x < right and left < end and abs(y - there) < _LINE:
                y = there + _LINE
        taken.append((x, end, y))
        parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" style="fill:{colours[name]}" font-weight="600">{html.escape(name)}</text>'
        )
    return parts


def _plot(parts: Sequence[str], label: str) -> str:
    return svg(_LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + 50, label, parts)
