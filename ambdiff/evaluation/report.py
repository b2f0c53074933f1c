"""The report of an evaluation: scores beside baselines, the two questions over all images, and cases to look at.

One self-contained page (`ambdiff.pages.frame`); all text from outside is escaped.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ambdiff.evaluation import volumes, volumes_section
from ambdiff.evaluation.scores import COUNT_KEYS, Means, Scores, reliability
from ambdiff.pages import figures, plots
from ambdiff.pages.case import card, how_to_read, median_area, number
from ambdiff.pages.frame import document, header

# (key, heading, whether higher is better or None where it is no score, what it says).
METRICS = (
    ('ged', 'GED', False, 'distance between the samples and the raters’ masks as distributions, squared'),
    ('ged_ideal', 'Ideal GED', None, 'what a model that marks exactly as the raters do would get, by chance alone'),
    ('ged_excess', 'Excess', False, 'GED less the ideal: what the model itself is to blame for; can be below 0'),
    ('hm_iou', 'HM-IoU', True, 'overlap after pairing samples and raters one to one'),
    ('emptiness_error', 'Emptiness error', False, 'what a wrong share of “nothing there” costs; can be below 0'),
    ('ged_shape', 'Shape error', False, 'GED of the masks that are not empty, freed of chance; can be below 0'),
    ('diversity_samples', 'Diversity of samples', None, 'mean distance of two samples of an image'),
    ('diversity_raters', 'Diversity of raters', None, 'mean distance of two raters’ masks of an image'),
    ('calibration', 'Calibration', False, 'how far the probability of a pixel is from the share of the raters'),
)
OLDER = (
    ('ged_unbiased', 'GED unbiased', False, 'GED, freed of what few samples add; can be below 0'),
    ('d_max', 'D max', True, 'each rater’s best match among the samples'),
    ('s_c', 'Sensitivity', True, 'share of all raters’ pixels that some sample covers'),
    ('d_a', 'Diversity agreement', True, 'agreement of the samples’ spread with the raters’ spread'),
    ('ci', 'CI', True, 'the three to the left in one, as first printed'),
    ('ci_harmonic', 'CI harmonic', True, 'the same three, by the harmonic mean'),
)
ROWS = {
    'model': ('This model', ''),
    'raters_resampled': ('Raters, resampled', 'an oracle: takes from the very masks it is measured on'),
    'fresh_raters': ('Raters, asked anew', 'fresh answers of the simulated raters'),
    'rater_vs_rest': ('One rater', 'each rater against the others, N = 1'),
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
    'volumes': 'Volumes',
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
    present: np.ndarray,
    scores: Scores,
    facts: Mapping[str, str],
    notice: str = '',
    by_number: Mapping[str, Mapping[str, Means]] | None = None,
    of_volumes: volumes.Scores | None = None,
) -> Iterable[str]:
    """The page, in pieces of text.

    images [n, H, W, C] float in [0, 1]; raters [n, M, H, W] and samples [n, N, H, W] bool; cases n names; present
    [n, M] bool: the raters who are there; facts are shown at the top; notice is a line that must not be missed;
    by_number: the scores at several N, as `scores.by_number` gives them; of_volumes: of whole volumes.
    Raises ValueError if the sizes disagree.
    """
    count = len(images)
    if not count:
        raise ValueError('no images to report on')
    sizes = {'raters': len(raters), 'samples': len(samples), 'cases': len(cases)}
    sizes |= {f'per_image {key}': len(value) for key, value in scores.per_image.items()}
    for name, size in sizes.items():
        if size != count:
            raise ValueError(f'{count} images but {size} {name}')
    if not images.shape[1:3] == raters.shape[2:] == samples.shape[2:]:
        raise ValueError(
            f'images {images.shape}, raters {raters.shape} and samples {samples.shape} must agree in height and width'
        )
    body = [
        header('Do the samples answer as the raters do?', facts, [notice]),
        _scores(scores, by_number or {}),
        volumes_section.section(of_volumes) if of_volumes else '',
        _overview(raters, present, samples, scores),
    ]
    for rank, chosen in pick_cases(scores.per_image['ged']).items():
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
                {key: float(value[index]) for key, value in scores.per_image.items()},
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
    for image, rated, sampled in zip(images, raters, samples, strict=True):
        tiles = [p if p.ndim == 3 else np.repeat(p[..., None], 3, -1) for p in figures.pictures(image)]
        for index, mask in enumerate(rated):
            colour = figures.RATER_COLOURS[index % len(figures.RATER_COLOURS)]
            tiles.append(mask[..., None] * np.array(figures.rgb(colour), np.uint8))
        tiles += [np.repeat(mask[..., None] * np.uint8(255), 3, -1) for mask in sampled]
        tiles = [tile.repeat(scale, 0).repeat(scale, 1) for tile in tiles]
        tiles = [np.pad(t, ((0, gap), (0, gap), (0, 0)), constant_values=90) for t in tiles]
        rows.append(np.concatenate(tiles, 1))
    return figures.png(np.concatenate(rows, 0))


def _scores(scores: Scores, by_number: Mapping) -> str:
    """The tables, and GED of all rows on one axis."""
    first, *rest = scores.table
    places = list(ROWS)
    rest.sort(key=lambda row: places.index(row) if row in ROWS else len(places))
    table = {row: scores.table[row] for row in (first, *rest)}
    dots = [(_name(row), means['ged'], errors['ged']) for row, (means, errors) in table.items()]
    ideal = table[first][0]['ged_ideal']
    plot = plots.ruler_svg(dots, 'GED of the model and of the baselines, and the ideal level', ('ideal', ideal))
    if scores.num_patients is None:
        error = 'images count as independent, since their patients are not known'
    else:
        error = f'slices of one patient are taken together ({scores.num_patients} patients)'
    why = ''.join(
        f'<li>{title}: {html.escape(scores.undefined[key])}.</li>'
        for key, title, *_ in (*METRICS, *OLDER)
        if key in scores.undefined
    )
    glossary = ''.join(f'<dt>{name}</dt><dd>{note}</dd>' for _, name, _, note in (*METRICS, *OLDER))
    return f"""<section><h2 id="scores">Scores</h2>
<figure>{plot}<figcaption>{_verdict(table, scores.draws)} Bars are one standard error.</figcaption></figure>
{_table(table, METRICS, 'Scores')}
<p class="read">↓ lower is better, ↑ higher is better; ± is one standard error: {error}.</p>
{f'<ul class="read">{why}</ul>' if why else ''}{_numbers(by_number)}
<h3>Older scores</h3><p class="read">D max, sensitivity, diversity agreement and CI grow with the number of samples, and
masks of other patients can score high on them without a look at the image: trust GED and HM-IoU first.</p>
{_table(table, OLDER, 'Older scores')}
<details><summary>What each column says</summary><dl class="glossary">{glossary}</dl></details>
</section>"""


def _name(row: str) -> str:
    return ROWS.get(row, (row, ''))[0]


def _table(table: Mapping[str, tuple[Means, Means]], columns: Sequence[tuple], label: str) -> str:
    """Rows by columns, to be scrolled sideways where the screen is narrow."""
    arrow = {True: '&nbsp;↑', False: '&nbsp;↓', None: ''}
    head = ''.join(f'<th scope="col" title="{note}">{name}{arrow[up]}</th>' for _, name, up, note in columns)
    body = ''
    for row, (means, errors) in table.items():
        note = html.escape(ROWS.get(row, ('', ''))[1])
        cells = ''.join(f'<td>{_pm(means[key], errors[key])}</td>' for key, *_ in columns)
        body += f'<tr><th scope="row">{html.escape(_name(row))}<small>{note}</small></th>{cells}</tr>'
    return f"""<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>
<thead><tr><th scope="col">Mean over images</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"""


def _numbers(by_number: Mapping[str, Mapping[str, Means]]) -> str:
    """The scores at several N."""
    if not by_number:
        return ''
    columns = [(key, name) for key, name, *_ in METRICS if key in COUNT_KEYS]
    head = ''.join(f'<th scope="col">{name}</th>' for _, name in columns)
    body = ''
    for count, row in by_number.items():
        cells = ''.join(f'<td>{_pm(row["metrics"][key], row["stderr"][key])}</td>' for key, _ in columns)
        body += f'<tr><th scope="row">N = {count}</th>{cells}</tr>'
    return f"""<h3>The model at several numbers of samples</h3><div class="wide" tabindex="0" role="region"
aria-label="Scores at several N"><table><thead><tr><th scope="col">Samples an image</th>{head}</tr></thead>
<tbody>{body}</tbody></table></div>"""


def _verdict(table: Mapping[str, tuple[Means, Means]], draws: str) -> str:
    """One sentence or two that place the model between the ideal level and the baselines."""
    name, (means, errors) = next(iter(table.items()))
    text = f'GED is {_plain(means, errors, "ged")}; lower is better.'
    ideal = means['ged_ideal']
    if math.isfinite(ideal):
        chance = 'raters and samples' if draws == 'independent' else 'raters (these samples depend on each other)'
        text += (
            f' A model that marks exactly as the raters do would get {number(ideal)} on average, from the chance of '
            f'few {chance}: the ideal level. The excess over it is {_plain(means, errors, "ged_excess")}.'
        )
    if 'other_patients' not in set(table) - {name}:
        return text
    poor = table['other_patients'][0]['ged']
    text += f' Random masks of other patients get {number(poor)}.'
    if means['ged'] >= poor:
        return text + ' The model is no better than masks of other patients.'
    if poor > ideal:
        text += f' The model comes {(poor - means["ged"]) / (poor - ideal):.0%} of the way from there to the ideal.'
    return text


def _overview(raters: np.ndarray, present: np.ndarray, samples: np.ndarray, scores: Scores) -> str:
    """Three questions over all images: is empty said as often, are lesions as large, are probabilities right?"""
    rater_empty, sample_empty = (~masks.any((2, 3)) for masks in (raters, samples))
    predicted, observed = sample_empty.mean(1), rater_empty.mean(1, where=present)
    bins = plots.calibration_bins(predicted, observed, min(samples.shape[1] + 1, 6))
    empties = plots.calibration_svg(
        bins,
        'images',
        ('share of samples that are empty', 'share of raters who marked nothing'),
        'Calibration of the empty answer: observed against predicted share, by bins',
    )
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
{empties}
<figcaption>Images are grouped by the share of samples that are empty. Where the model says 25%, about a
quarter of the raters should have marked nothing: dots on the diagonal are right, dots below it say
“nothing” too often. Larger dots hold more images; bars are 95% intervals.</figcaption>
<details><summary>The numbers</summary><div class="wide"><table><thead><tr><th>images</th>
<th>model</th><th>raters</th><th>95% interval</th></tr></thead><tbody>{calibration}</tbody></table></div></details>
</figure>
<figure><h3>How large the marked areas are</h3>
<p>Median area where something was marked: <b>raters {middle[0]}</b>,
<b class="model-text">model {middle[1]}</b>.</p>
{plots.areas_svg(edges, *shares)}
<figcaption><span class="key raters"></span>raters <span class="key model"></span>model. Each pair of bars
is the share of all masks in that range of sizes: pairs should be equally high. A tall last bar of the model
alone means masks that flood the image. Thin bars are one standard error.</figcaption>
<details><summary>The numbers</summary><div class="wide"><table><thead><tr><th>area</th><th>raters</th>
<th>model</th></tr></thead><tbody>{areas}</tbody></table></div></details>
</figure>{_reliability(scores)}</div></section>"""


def _reliability(scores: Scores) -> str:
    """The probability of a pixel against the share of the raters who mark it."""
    rows = reliability(scores.calibration.sum(0))
    table = ''.join(
        f'<tr><td>{row["pixels"]}</td><td>{row["predicted"]:.1%}</td><td>{row["observed"]:.1%}</td></tr>'
        for row in rows
    )
    error = number(scores.table['model'][0]['calibration'])
    shown = [row for row in rows if row['predicted'] > 0]
    if not shown:
        return ''
    plot = plots.calibration_svg(
        shown,
        'pixels',
        ('share of samples that mark a pixel', 'share of raters who mark it'),
        'Calibration of pixels: share of raters against share of samples, by tenths',
    )
    return f"""<figure><h3>How probable a pixel is</h3>
<p>Mean distance from the diagonal, over pixels that some sample marks: <b class="model-text">{error}</b>.</p>{plot}
<figcaption>Pixels are grouped by the share of samples that mark them: of those that half of the samples mark, half of
the raters should too. Dots below the diagonal say the model marks too much. With few samples the dots of a perfect
model lie a little flatter than the diagonal.</figcaption>
<details><summary>The numbers</summary><div class="wide"><table><thead><tr><th>pixels</th><th>model</th><th>raters</th>
</tr></thead><tbody>{table}</tbody></table></div></details></figure>"""


def _plain(means: Means, errors: Means, key: str) -> str:
    return f'{number(means[key])} ± {number(errors[key])}'


def _pm(mean: float, error: float) -> str:
    if not math.isfinite(mean):
        return '–'
    return f'{number(mean)}<small>± {number(error)}</small>'
