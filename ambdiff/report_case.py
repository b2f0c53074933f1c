"""One case of the report: the image, what raters and samples drew on it, and how often they drew nothing.

Pictures are cropped to what anybody drew, with a margin: small lesions fill few pixels of an image. The whole
image stands beside them, the crop marked. Masks are vectors over a picture that the page holds once.
"""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import figures

# Of the page's metrics, those worth a look for a single image.
SCORES = (('ged', 'GED'), ('hm_iou', 'HM-IoU'), ('d_max', 'D max'), ('s_c', 'Sensitivity'))


def how_to_read(num_raters: int, num_samples: int) -> str:
    """What the pictures of a case show."""
    return f"""<p class="read">The large picture, cropped to what anybody drew, carries each rater’s outline in a
colour; equal outlines are shown side by side. The dashed outline holds the pixels that at least so many of
the {num_samples} samples include: the slider sets how many. Probability is the share of samples that include
a pixel; disagreement is the entropy of that share in bits, 0 where all samples agree and 1 where they split
in halves. Good samples vary as the {num_raters} raters do, and leave the image empty about as often. Choose
any picture to enlarge it.</p>"""


def card(
    name: str,
    image: np.ndarray,
    raters: np.ndarray,
    samples: np.ndarray,
    case: str,
    scores: Mapping[str, float],
) -> str:
    """The HTML of one case.

    name is its id in the page; image [H, W, C] float in [0, 1], raters [M, H, W] and samples [N, H, W] bool;
    case is the name shown, scores its metrics.
    """
    height, width = image.shape[:2]
    top, left, tall, wide = crop(np.concatenate([raters, samples]).any(0))
    frame = f'viewBox="{left} {top} {wide} {tall}" style="aspect-ratio:{wide}/{tall}"'
    inside = (slice(top, top + tall), slice(left, left + wide))
    pictures = [figures.data_uri(figures.png(picture)) for picture in figures.pictures(image)]
    colours = [figures.RATER_COLOURS[i % len(figures.RATER_COLOURS)] for i in range(len(raters))]
    panels = [
        _panel(
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Whole {title}">'
            f'<image href="{picture}" width="{width}" height="{height}"/>'
            f'<rect x="{left}" y="{top}" width="{wide}" height="{tall}"/></svg>',
            f'{title} <small>{width} × {height} px</small>',
        )
        for picture, title in zip(pictures, _titles(len(pictures)), strict=True)
    ]
    probability = samples.mean(0)
    for title, values, unit in (
        ('probability', probability, ''),
        ('disagreement', figures.entropy(probability), ' bit'),
    ):
        highest = f'up to {values.max():.2f}{unit}'
        picture = figures.data_uri(figures.png(figures.heat(values[inside])))
        panels.append(
            _panel(
                f'<img src="{picture}" alt="{title.capitalize()} by pixel, {highest}">',
                f'{title} <small>{highest}</small><span class="scale"><i>0</i><span></span><i>1</i></span>',
            )
        )
    rater_tiles = ''.join(
        _tile(name, frame, mask, f'rater {i + 1}', colour)
        for i, (mask, colour) in enumerate(zip(raters, colours, strict=True))
    )
    by_area = np.argsort(samples.sum((1, 2)), kind='stable')
    sample_tiles = ''.join(_tile(name, frame, samples[i], f'sample {i + 1}', figures.SAMPLE_COLOUR) for i in by_area)
    chips = ''.join(f'<span>{title} <b>{number(scores[key])}</b></span>' for key, title in SCORES)
    return f"""<article class="case" id="{name}"><h3>{html.escape(str(case))}</h3><p class="chips">{chips}</p>
<svg class="store" aria-hidden="true"><defs><image id="{name}-image" href="{pictures[0]}" width="{width}"
height="{height}"/></defs></svg>
<div class="top"><figure class="main">{_main_picture(name, frame, wide, raters, samples, colours)}</figure>
<div><div class="panels">{''.join(panels)}</div>{_shares(raters, samples)}</div></div>
<h4>Raters</h4><div class="tiles">{rater_tiles}</div>
<h4>Samples, by area</h4><div class="tiles">{sample_tiles}</div></article>"""


def crop(union: np.ndarray, smallest: int = 24) -> tuple[int, int, int, int]:
    """Mask [H, W] bool -> (top, left, height, width) of a window around it, square where the image allows.

    Its sides are the mask's extent and half as much again, at least `smallest`; the whole image for no mask.
    """
    if not union.any():
        return (0, 0, *union.shape)
    ends = [np.flatnonzero(union.any(axis))[[0, -1]] for axis in (1, 0)]
    extent = max(int(last - first) + 1 for first, last in ends)
    side = max(math.ceil(1.5 * extent), smallest)
    window = []
    for (first, last), size in zip(ends, union.shape, strict=True):
        length = min(side, size)
        start = (int(first) + int(last) + 1 - length) // 2
        window.append((min(max(start, 0), size - length), length))
    (top, tall), (left, wide) = window
    return top, left, tall, wide


def number(value: float) -> str:
    """Three decimals; a dash where undefined; no negative zero."""
    return f'{round(value, 3) + 0.0:.3f}' if math.isfinite(value) else '–'


def median_area(masks: np.ndarray) -> str:
    """Median over the non-empty masks of [n, K, H, W]."""
    areas = masks.sum((2, 3))
    return f'{np.median(areas[areas > 0]):.0f} px' if areas.any() else 'none'


def _main_picture(
    name: str, frame: str, width: int, raters: np.ndarray, samples: np.ndarray, colours: Sequence[str]
) -> str:
    """All raters' outlines and the samples' level sets over the image, with their switches."""
    num_samples = len(samples)
    votes = samples.sum(0)
    layers, switches = [], []
    for i, (mask, colour) in enumerate(zip(raters, colours, strict=True)):
        # Apart by a line's width at the size shown, so that equal outlines do not hide each other.
        shift = (i - (len(raters) - 1) / 2) * width / 180
        layers.append(
            f'<g data-layer="{i}" transform="translate({shift:.2f} {shift:.2f})">{figures.mask_svg(mask, colour)}</g>'
        )
        switches.append(
            f'<label><input type="checkbox" checked data-shows="{i}"><span class="key" '
            f'style="background:{colour}"></span>rater {i + 1}, {_area(mask)}</label>'
        )
    start = (num_samples + 1) // 2
    levels = ''.join(
        f'<g data-level="{k}"{"" if k == start else " hidden"}>'
        f'{figures.mask_svg(votes >= k, figures.SAMPLE_COLOUR)}</g>'
        for k in range(1, num_samples + 1)
    )
    return f"""<svg class="outlines" {frame} role="img" aria-label="Image with the outlines of {len(raters)}
raters and of the samples"><use href="#{name}-image"/>{''.join(layers)}
<g class="levels" data-layer="samples">{levels}</g></svg>
<figcaption class="legend">{''.join(switches)}<label><input type="checkbox" checked data-shows="samples">
<span class="key dashed"></span><span>at least <output>{start}</output> of {num_samples} samples</span></label>
<input class="slider" type="range" min="1" max="{num_samples}" value="{start}"
aria-label="Outline what at least this many samples include"></figcaption>"""


def _titles(count: int) -> list[str]:
    return ['image'] if count == 1 else [f'channel {i + 1}' for i in range(count)]


def _panel(picture: str, caption: str) -> str:
    return f'<figure><button type="button" class="zoom">{picture}</button><figcaption>{caption}</figcaption></figure>'


def _tile(name: str, frame: str, mask: np.ndarray, title: str, colour: str) -> str:
    """The image with one mask."""
    area = _area(mask)
    kind = 'tile' if mask.any() else 'tile none'
    return (
        f'<figure class="{kind}"><button type="button" class="zoom">'
        f'<svg {frame} role="img" aria-label="{title}: {area}"><use href="#{name}-image"/>'
        f'{figures.mask_svg(mask, colour)}</svg></button><figcaption>{area}</figcaption></figure>'
    )


def _shares(raters: np.ndarray, samples: np.ndarray) -> str:
    """Observed and predicted frequency of the empty answer, and the sizes otherwise."""
    lines = ''
    for kind, who, masks in (('raters', 'raters', raters), ('model', 'samples', samples)):
        empty, count = int((~masks.any((1, 2))).sum()), len(masks)
        lines += (
            f'<div class="share"><span>{who}</span><span class="track"><span class="{kind}" '
            f'style="width:{empty / count:.1%}"></span></span><b>{empty} of {count} ({empty / count:.0%})</b></div>'
        )
    sizes = [median_area(masks[None]) for masks in (raters, samples)]
    return (
        f'<div class="shares"><h4>Left empty by</h4>{lines}'
        f'<p>Median area otherwise: raters {sizes[0]}, samples {sizes[1]}.</p></div>'
    )


def _area(mask: np.ndarray) -> str:
    return f'{int(mask.sum())} px' if mask.any() else 'empty'
