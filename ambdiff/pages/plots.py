"""Plots over a whole split as inline SVG, and the statistics they show.

Colours come from CSS classes of the page, so that plots follow its light and dark theme. Marks carry
a <title>, which browsers show on hovering.
"""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % score interval of a share seen in `count` trials: never of zero width (Wilson 1927)."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def calibration_bins(predicted: np.ndarray, observed: np.ndarray, count: int) -> list[dict]:
    """Images grouped by predicted share [n] into `count` equal bins; empty bins are left out.

    Each: images, predicted and observed (means over its images), low and high (95 % interval of
    observed, counting an image once although it has several raters).
    """
    index = np.minimum((predicted * count).astype(int), count - 1)
    rows = []
    for value in np.unique(index):
        chosen = index == value
        share = float(observed[chosen].mean())
        low, high = wilson(share, int(chosen.sum()))
        rows.append(
            {
                'images': int(chosen.sum()),
                'predicted': float(predicted[chosen].mean()),
                'observed': share,
                'low': low,
                'high': high,
            }
        )
    return rows


def calibration_svg(rows: Sequence[Mapping[str, float]], unit: str, axes: tuple[str, str], label: str) -> str:
    """Predicted (across) against observed share (up); the diagonal is perfect.

    rows: predicted, observed, the count of what is grouped under the name `unit`, and low and high of a 95 % bar where
    there is one; axes: what is across and up; label: the plot's name.
    """
    left, top, side = 66, 12, 288

    def x(share):
        return left + side * share

    def y(share):
        return top + side * (1 - share)

    parts = [f'<path class="diagonal" d="M{x(0)} {y(0)}L{x(1)} {y(1)}"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<path class="gridline" d="M{x(0)} {y(tick):.1f}h{side}M{x(tick):.1f} {y(0)}v{-side}"/>'
            f'<text x="{left - 8}" y="{y(tick) + 5:.1f}" text-anchor="end">{tick:.0%}</text>'
            f'<text x="{x(tick):.1f}" y="{top + side + 20}" text-anchor="middle">{tick:.0%}</text>'
        )
    largest = max(row[unit] for row in rows)
    for row in rows:
        across, up = x(row['predicted']), y(row['observed'])
        radius = 3.5 + 5.5 * math.sqrt(row[unit] / largest)
        if 'low' in row:
            parts.append(f'<path class="bar" d="M{across:.1f} {y(row["low"]):.1f}V{y(row["high"]):.1f}"/>')
        parts.append(
            f'<circle class="model" cx="{across:.1f}" cy="{up:.1f}" r="{radius:.1f}">'
            f'<title>{row[unit]} {unit}: model {row["predicted"]:.0%}, '
            f'raters {row["observed"]:.0%}</title></circle>'
        )
    parts.append(
        f'<text class="axis" x="{x(0.5)}" y="{top + side + 42}" text-anchor="middle">'
        f'{axes[0]}</text>'
        f'<text class="axis" x="0" y="0" text-anchor="middle" '
        f'transform="translate(13 {y(0.5)}) rotate(-90)">{axes[1]}</text>'
    )
    return svg(left + side + 28, top + side + 50, label, parts)


def area_edges(largest: int) -> np.ndarray:
    """Bin edges 0, 1, 2, 4, 8 .. past `largest` pixels: the first bin holds the empty masks."""
    return np.array([0] + [2**power for power in range(max(largest, 1).bit_length() + 1)])


def area_shares(
    masks: np.ndarray, edges: np.ndarray, present: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """[n, K, H, W] bool -> share of masks in each bin of area in pixels, and its standard error.

    present [n, K] bool: the masks that count; None = all.
    The error treats an image, not a mask, as the independent unit; NaN for n = 1.
    """
    index = np.searchsorted(edges, masks.sum((2, 3)), 'right') - 1
    each = np.stack(
        [(index == value).mean(1, where=True if present is None else present) for value in range(len(edges) - 1)], 1
    )
    if len(each) == 1:
        return each[0], np.full(each.shape[1], np.nan)
    return each.mean(0), each.std(0, ddof=1) / math.sqrt(len(each))


def areas_svg(
    edges: np.ndarray,
    raters: tuple[np.ndarray, np.ndarray],
    samples: tuple[np.ndarray, np.ndarray],
) -> str:
    """Shares (and errors) of masks by area, raters' and model's bars side by side."""
    left, top, height, step = 50, 12, 270, 46
    bins = len(edges) - 1
    highest = max(raters[0].max(), samples[0].max())
    spacing = next(s for s in (0.05, 0.1, 0.2, 0.25) if s * 5 >= highest or s == 0.25)
    ceiling = spacing * math.ceil(highest / spacing * 1.02)
    width = left + step * bins + 10
    parts = []
    for tick in np.arange(0, ceiling + spacing / 2, spacing):
        y = top + height * (1 - tick / ceiling)
        parts.append(
            f'<path class="gridline" d="M{left} {y:.1f}H{width - 10}"/>'
            f'<text x="{left - 8}" y="{y + 5:.1f}" text-anchor="end">{tick:.0%}</text>'
        )
    for index in range(bins):
        for offset, name, (share, error) in ((4, 'raters', raters), (23, 'model', samples)):
            x, size = left + step * index + offset, height * share[index] / ceiling
            y = top + height - size
            parts.append(
                f'<rect class="{name}" x="{x}" y="{y:.1f}" width="18" height="{size:.1f}">'
                f'<title>{bin_name(edges, index)}: {name} {share[index]:.1%}</title></rect>'
            )
            if error[index] > 0:
                half = height * error[index] / ceiling
                parts.append(f'<path class="bar" d="M{x + 9} {y - half:.1f}v{2 * half:.1f}"/>')
        low = 'empty' if index == 0 else str(edges[index])
        middle = left + step * (index + 0.5)
        parts.append(f'<text x="{middle}" y="{top + height + 20}" text-anchor="middle">{low}</text>')
    parts.append(
        f'<text class="axis" x="{left + step * bins / 2}" y="{top + height + 42}" '
        'text-anchor="middle">area in pixels: from this label up to the next</text>'
    )
    label = 'Areas of the masks: shares of the raters and of the model by size'
    return svg(width, top + height + 50, label, parts)


def bin_name(edges: np.ndarray, index: int) -> str:
    """'empty', '1 px' or '8 to 15 px'."""
    low, high = int(edges[index]), int(edges[index + 1]) - 1
    return 'empty' if high == 0 else f'{low} px' if low == high else f'{low} to {high} px'


def ruler_svg(rows: Sequence[tuple[str, float, float]], label: str, level: tuple[str, float]) -> str:
    """(name, value, standard error) as dots on one axis from 0; the first row is emphasised.

    level: name and value of a line across all rows; none where the value is NaN.
    """
    longest = max(len(name) for name, *_ in rows)
    # As wide as names on a phone, where letters are largest; 22 of them at most.
    left, top, width, step = max(168, 16 + 12 * min(longest, 22)), 26, 360, 34
    highest = max((v + (0 if math.isnan(e) else e) for _, v, e in rows if math.isfinite(v)), default=1)
    spacing = next((s for s in (0.05, 0.1, 0.2) if s * 6 >= highest), 0.5)
    ceiling = max(spacing * math.ceil(highest / spacing * 1.02), spacing)
    bottom = top + step * len(rows)
    parts = []
    for tick in np.arange(0, ceiling + spacing / 2, spacing):
        x = left + width * tick / ceiling
        parts.append(
            f'<path class="gridline" d="M{x:.1f} {top}V{bottom}"/>'
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.2g}</text>'
        )
    if math.isfinite(level[1]):
        x = left + width * min(max(level[1], 0), ceiling) / ceiling
        parts.append(
            f'<path class="diagonal" d="M{x:.1f} {top - 4}V{bottom}"/><text class="axis" x="{x:.1f}" y="{top - 10}" '
            f'text-anchor="middle">{html.escape(level[0])} {level[1]:.3f}</text>'
        )
    for index, (name, value, error) in enumerate(rows):
        y = top + step * (index + 0.5)
        kind = 'baseline' if index else 'model'
        strong = '' if index else ' class="strong"'
        parts.append(f'<text{strong} x="{left - 12}" y="{y + 5}" text-anchor="end">{html.escape(_short(name))}</text>')
        if not math.isfinite(value):
            continue
        x = left + width * max(value, 0) / ceiling
        half = 0 if math.isnan(error) else width * error / ceiling
        parts.append(
            f'<path class="stem {kind}" d="M{left} {y}H{x:.1f}"/>'
            f'<path class="bar" d="M{x - half:.1f} {y}h{2 * half:.1f}"/>'
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="6"/>'
            f'<text{strong} x="{x + half + 12:.1f}" y="{y + 5}">{value:.3f}</text>'
        )
    return svg(left + width + 56, bottom + 26, label, parts)


def _short(name: str, most: int = 22) -> str:
    """A name of at most so many letters, its middle left out: runs differ in how their names begin or end."""
    return name if len(name) <= most else f'{name[: most // 2 - 1]}…{name[len(name) - most // 2 :]}'


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """An inline SVG plot with a name for those who cannot see it."""
    name = html.escape(label, quote=True)
    # Shrunk most on a phone, so the page gives these larger letters there.
    kind = 'plot broad' if width > 450 else 'plot'
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{name}" '
        f'style="max-width:{width}px">{"".join(parts)}</svg>'
    )
