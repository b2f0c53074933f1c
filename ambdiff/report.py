"""The report of an evaluation: scores beside baselines, the two questions over all images, and cases to look at.

One self-contained page (`ambdiff.pages.frame`); all text from outside is escaped.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ambdiff.pages import figures, plots
from ambdiff.pages.case import card, how_to_read, median_area, number
from ambdiff.pages.frame import document, header

# (key, heading, whether higher is better, what it says).
METRICS = (
    ('ged', 'GED', False, 'distance between the model’s and the raters’ answers as distributions'),
    ('ged_unbiased', 'GED unbiased', False, 'the same, freed of what few samples add; may be < 0'),
    ('hm_iou', 'HM-IoU', True, 'overlap after pairing samples and raters one to one'),
    ('d_max', 'D max', True, 'each rater’s best match among the samples'),
    ('s_c', 'Sensitivity', True, 'share of all raters’ pixels that some sample covers'),
    ('d_a', 'Diversity', True, 'agreement of the model’s spread with the raters’ spread'),
    ('ci', 'CI', True, 'the three to the left in one, as first printed'),
    ('ci_harmonic', 'CI harmonic', True, 'the same three, by the harmonic mean'),
)
ROWS = {
    'model': ('This model', ''),
    'raters_resampled': ('Raters, redrawn', 'the floor: draws from the raters’ own answers'),
    'fresh_raters': ('Raters, asked anew', 'what a perfect model gets: fresh answers of the simulated raters'),
    'rater_vs_rest': ('One rater', 'a single rater against the others'),
    'other_patients': ('Other patients', 'random masks of other patients'),
    'empty': ('Nothing', 'always the empty mask'),
}
RANKS = {
    'worst': 'Worst cases: the largest GED',
    'median': 'Typical cases: around the median GED',
    'best': 'Best cases: the smallest GED',
}
SECTIONS = {
    'scores': 'Scores',
    'overview': 'All images',
    'worst': 'Worst',
    'median': 'Typical',
    'best': 'Best',
}
CASES_PER_RANK = 4


def page(
    images: np.ndarray,
    raters: np.ndarray,
    samples: np.ndarray,
    cases: Sequence[str],
    per_image: Mapping[str, np.ndarray],
    table: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]],
    facts: Mapping[str, str],
    notice: str = '',
    present: np.ndarray | None = None,
) -> Iterable[str]:
    """The page, in pieces of text.

    images [n, H, W, C] float in [0, 1]; raters [n, M, H, W] and samples [n, N, H, W] bool; cases n names;
    per_image {metric: [n]}; table {row: (means, standard errors)}, the model first; facts are shown at the
    top; notice is a line that must not be missed; present [n, M] bool marks the raters who are there, None all.
    Raises ValueError if the sizes disagree.
    """
    count = len(images)
    if not count:
        raise ValueError('no images to report on')
    sizes = {'raters': len(raters), 'samples': len(samples), 'cases': len(cases)}
    sizes |= {f'per_image {key}': len(value) for key, value in per_image.items()}
    for name, size in sizes.items():
        if size != count:
            raise ValueError(f'{count} images but {size} {name}')
    if not images.shape[1:3] == raters.shape[2:] == samples.shape[2:]:
        raise ValueError(
            f'images {images.shape}, raters {raters.shape} and samples {samples.shape} must agree in height and width'
        )
    if present is None:
        present = np.ones(raters.shape[:2], bool)
    body = [
        header('Do the samples answer as the raters do?', facts, [notice]),
        _scores(table),
        _overview(raters, present, samples),
    ]
    for rank, chosen in pick_cases(per_image['ged']).items():
        if not chosen:
            continue
        body.append(f'<section><h2 id="{rank}">{RANKS[rank]}</h2>')
        if rank == 'worst':
            body.append(how_to_read(raters.shape[1], samples.shape[1]))
        body += [
            card(
                f'case-{index}',
                images[index],
                raters[index][present[index]],
                samples[index],
                cases[index],
                {key: float(value[index]) for key, value in per_image.items()},
            )
            for index in chosen
        ]
        body.append('</section>')
    text = ''.join(body)
    links = {name: title for name, title in SECTIONS.items() if f'<h2 id="{name}">' in text}
    return document('ambdiff report', [text], links)


def pick_cases(ged: np.ndarray, each: int = CASES_PER_RANK) -> dict[str, list[int]]:
    """GED [n] -> indices of the worst (worst first), the middle and the best; no case twice."""
    order = np.argsort(ged, kind='stable').tolist()
    share, rest = divmod(min(len(order), 3 * each), 3)
    worst, best = share + (rest > 0), share + (rest > 1)
    middle = (len(order) - share) // 2
    return {
        'worst': order[len(order) - worst :][::-1],
        'median': order[middle : middle + share],
        'best': order[:best],
    }


def sample_grid(images: np.ndarray, raters: np.ndarray, samples: np.ndarray) -> bytes:
    """One PNG with a row an image: its channels, then the raters' masks, then the samples.

    images [n, H, W, C] float in [0, 1]; raters [n, M, H, W] and samples [n, N, H, W] bool. Raters carry
    their colours of the report, samples are white.
    """
    gap = 2
    scale = max(1, round(96 / images.shape[1]))
    rows = []
    for image, drawn, sampled in zip(images, raters, samples, strict=True):
        tiles = [p if p.ndim == 3 else np.repeat(p[..., None], 3, -1) for p in figures.pictures(image)]
        for index, mask in enumerate(drawn):
            colour = figures.RATER_COLOURS[index % len(figures.RATER_COLOURS)]
            tiles.append(mask[..., None] * np.array(figures.rgb(colour), np.uint8))
        tiles += [np.repeat(mask[..., None] * np.uint8(255), 3, -1) for mask in sampled]
        tiles = [tile.repeat(scale, 0).repeat(scale, 1) for tile in tiles]
        tiles = [np.pad(t, ((0, gap), (0, gap), (0, 0)), constant_values=90) for t in tiles]
        rows.append(np.concatenate(tiles, 1))
    return figures.png(np.concatenate(rows, 0))


def _scores(table: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]]) -> str:
    """The table, and GED of all rows on one axis."""
    first, *rest = table
    places = list(ROWS)
    rest.sort(key=lambda row: places.index(row) if row in ROWS else len(places))
    table = {row: table[row] for row in (first, *rest)}
    names = [ROWS.get(row, (row, ''))[0] for row in table]
    dots = [(name, means['ged'], errors['ged']) for name, (means, errors) in zip(names, table.values(), strict=True)]
    head = ''.join(f'<th scope="col" title="{note}">{name} {"↑" if up else "↓"}</th>' for _, name, up, note in METRICS)
    body = ''
    for row, name, (means, errors) in zip(table, names, table.values(), strict=True):
        note = html.escape(ROWS.get(row, ('', ''))[1])
        cells = ''.join(f'<td>{_pm(means[key], errors[key])}</td>' for key, *_ in METRICS)
        body += f'<tr><th scope="row">{html.escape(name)}<small>{note}</small></th>{cells}</tr>'
    glossary = ''.join(f'<dt>{name}</dt><dd>{note}</dd>' for _, name, _, note in METRICS)
    return f"""<section><h2 id="scores">Scores</h2>
<figure>{plots.ruler_svg(dots, 'GED of the model and of the baselines')}
<figcaption>{_verdict(table)} Bars are one standard error.</figcaption></figure>
<div class="wide" tabindex="0" role="region" aria-label="Table of scores"><table>
<thead><tr><th scope="col">Mean over images</th>{head}</tr></thead><tbody>{body}</tbody></table></div>
<p class="read">↓ lower is better, ↑ higher is better; ± is one standard error over images.
Trust GED and HM-IoU first: D max, sensitivity, diversity and CI grow with the number of samples, and
masks of other patients can score high on them without a look at the image.</p>
<details><summary>What each column says</summary><dl class="glossary">{glossary}</dl></details>
</section>"""


def _verdict(table: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]]) -> str:
    """One sentence that places the model between the baselines."""
    name, (means, errors) = next(iter(table.items()))
    text = f'GED is {number(means["ged"])} ± {number(errors["ged"])}; lower is better.'
    if not {'other_patients', 'raters_resampled'} <= set(table) - {name}:
        return text
    poor, floor = (table[row][0]['ged'] for row in ('other_patients', 'raters_resampled'))
    text += (
        f' Random masks of other patients get {number(poor)}, and the raters’ own answers, redrawn, '
        f'{number(floor)}, the lowest to hope for.'
    )
    if means['ged'] >= poor:
        return text + ' The model is no better than masks of other patients.'
    if poor > floor:
        text += f' The model comes {(poor - means["ged"]) / (poor - floor):.0%} of that way.'
    return text


def _overview(raters: np.ndarray, present: np.ndarray, samples: np.ndarray) -> str:
    """The two questions over all images: is empty said as often, and are lesions as large?"""
    rater_empty, sample_empty = (~masks.any((2, 3)) for masks in (raters, samples))
    predicted, observed = sample_empty.mean(1), rater_empty.mean(1, where=present)
    bins = plots.calibration_bins(predicted, observed, min(samples.shape[1] + 1, 6))
    calibration = ''.join(
        f'<tr><td>{row["images"]}</td><td>{row["predicted"]:.1%}</td><td>{row["observed"]:.1%}</td>'
        f'<td>{row["low"]:.1%} to {row["high"]:.1%}</td></tr>'
        for row in bins
    )
    edges = plots.area_edges(max(int(m.sum((2, 3)).max()) for m in (raters, samples)))
    shares = [plots.area_shares(raters, edges, present), plots.area_shares(samples, edges)]
    areas = ''.join(
        f'<tr><td>{plots.bin_name(edges, i)}</td><td>{shares[0][0][i]:.1%}</td><td>{shares[1][0][i]:.1%}</td></tr>'
        for i in range(len(edges) - 1)
    )
    middle = [median_area(masks) for masks in (raters, samples)]
    return f"""<section><h2 id="overview">Over all {len(raters)} image{'s' if len(raters) > 1 else ''}</h2>
<div class="pair"><figure><h3>How often the answer is “nothing there”</h3>
<p><b>Raters {observed.mean():.1%}</b>, <b class="model-text">model {predicted.mean():.1%}</b> of
all masks are empty.</p>
{plots.calibration_svg(bins)}
<figcaption>Images are grouped by the share of samples that are empty. Where the model says 25%, about a
quarter of the raters should have drawn nothing: dots on the diagonal are right, dots below it say
“nothing” too often. Larger dots hold more images; bars are 95% intervals.</figcaption>
<details><summary>The numbers</summary><div class="wide"><table><thead><tr><th>images</th>
<th>model</th><th>raters</th><th>95% interval</th></tr></thead><tbody>{calibration}</tbody></table></div></details>
</figure>
<figure><h3>How large the drawn areas are</h3>
<p>Median area where something was drawn: <b>raters {middle[0]}</b>,
<b class="model-text">model {middle[1]}</b>.</p>
{plots.areas_svg(edges, *shares)}
<figcaption><span class="key raters"></span>raters <span class="key model"></span>model. Each pair of bars
is the share of all masks in that range of sizes: pairs should be equally high. A tall last bar of the model
alone means masks that flood the image. Thin bars are one standard error.</figcaption>
<details><summary>The numbers</summary><div class="wide"><table><thead><tr><th>area</th><th>raters</th>
<th>model</th></tr></thead><tbody>{areas}</tbody></table></div></details>
</figure></div></section>"""


def _pm(mean: float, error: float) -> str:
    if not math.isfinite(mean):
        return '–'
    return f'{number(mean)}<small>± {number(error)}</small>'
