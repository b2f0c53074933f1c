"""One case of a page: the image, the distinct answers, what raters and samples marked, and how often nothing.

Pictures are cropped to what anybody marked, with a margin: small lesions fill few pixels of an image. The whole
image stands beside them, the crop marked. Image and masks are held once and shown in many places (<use>).
"""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import modes
from ambdiff.pages import figures
from ambdiff.pages import viewer as report_viewer
from ambdiff.pages.viewer import Frame, area_text

# Of the page's metrics, those worth a look for a single image.
SCORES = (('ged', 'GED'), ('hm_iou', 'HM-IoU'), ('d_max', 'D max'), ('s_c', 'Sensitivity'))
UNKNOWN = (math.nan, math.nan)  # spacing


def how_to_read(num_raters: int, num_samples: int, smallest_part: int = 1) -> str:
    """What the pictures of a case show; smallest_part: pixels of the smallest that answers are told by."""
    counted = 'Every connected part counts, down to a single pixel.'
    if smallest_part > 1:
        counted = f'Connected parts of fewer than {smallest_part} pixels are shown, and do not count for answers.'
    raters = wish = ''
    if num_raters:
        raters = 'carries each rater’s outline in a colour; equal outlines are shown side by side. It '
        wish = f' Good samples vary as the {num_raters} raters do, and leave the image empty about as often.'
    return f"""<p class="read">Answers are groups of samples that overlap by half or more on average, each shown by its
most typical sample; “nothing” is an answer of its own. The large picture, cropped to what anybody marked, {raters}has a
dashed outline around the pixels that at least so many of the {num_samples} samples include: the slider sets how many.
Probability is the share of samples that include a pixel; disagreement is the entropy of that share in bits, 0 where
all samples agree and 1 where they split in halves.{wish} {counted}
Choose any picture to enlarge it; click into the large one for the place of a pixel, measure in it with the
ruler.</p>"""


def card(
    name: str,
    image: np.ndarray,
    raters: np.ndarray,
    samples: np.ndarray,
    case: str,
    scores: Mapping[str, float],
) -> str:
    """The HTML of one case of an evaluation.

    name is its id in the page; image [H, W, C] float in [0, 1], raters [M, H, W] and samples [N, H, W] bool;
    case is the name shown, scores its metrics.
    """
    return f"""<article class="case" id="{name}"><h3>{html.escape(str(case))}</h3>
{view(name, image, raters, samples, scores=scores)}</article>"""


def view(
    name: str,
    image: np.ndarray,
    raters: np.ndarray,
    samples: np.ndarray,
    spacing: tuple[float, float] = UNKNOWN,
    window: tuple[float, float, str] = (0.0, 1.0, ''),
    found: Sequence[modes.Mode] | None = None,
    focus: tuple[int, int, int, int] | None = None,
    scores: Mapping[str, float] | None = None,
    at: str = 'column X, row Y',
    words: Sequence[str] | None = None,
) -> str:
    """The HTML of one image: answers, viewer, maps and strips.

    name starts the ids of its elements; image [H, W, C] float in [0, 1]; raters [M, H, W], M may be 0, and samples
    [N, H, W] bool; spacing (row, column) in mm; window: what 0 and 1 of the image stand for, and the unit; found:
    the distinct answers where they are not those of this image alone, as for a slice of a volume; focus: (top, left,
    bottom, right) of what to show where nothing is marked; scores: metrics of the image, None to compute GED and HM-IoU
    where there are raters; at: what a click into the picture says, X and Y standing for the pixel's column and row;
    words: what each answer is, None where they are to be told by this image alone.
    """
    height, width = image.shape[:2]
    union = np.concatenate([raters, samples]).any(0)
    if focus and not union.any():
        top, left, bottom, right = focus
        frame = Frame(top, left, bottom - top, right - left, spacing)
    else:
        frame = Frame(*crop(union), spacing)
    pictures = figures.pictures(image)
    colours = report_viewer.rater_colours(len(raters))
    size = lambda mask: area_text(mask, spacing)
    rater_tiles = ''.join(tile(name, frame, f'r{i}', size(mask), f'rater {i + 1}') for i, mask in enumerate(raters))
    by_area = np.argsort(samples.sum((1, 2)), kind='stable')
    sample_tiles = ''.join(tile(name, frame, f's{i}', size(samples[i]), f'sample {i + 1}') for i in by_area.tolist())
    shown = [(f'r{i}', mask, colour) for i, (mask, colour) in enumerate(zip(raters, colours, strict=True))]
    shown += [(f's{i}', mask, figures.SAMPLE_COLOUR) for i, mask in enumerate(samples)]
    masks = ''.join(f'<g id="{name}-{which}">{figures.mask_svg(mask, colour)}</g>' for which, mask, colour in shown)
    found = modes.find(samples) if found is None else found
    texts = modes.words(samples, found, spacing) if words is None else words
    scores = agreement(raters, samples) if scores is None else scores
    held = report_viewer.image_svg(pictures[0], frame)
    overlays = report_viewer.layers(raters, samples, frame)
    level = size(samples.sum(0) >= report_viewer.middle(len(samples)))
    sizes = [size(mask) for mask in raters]
    areas = [modes.areas(masks, spacing) for masks in (raters, samples)]
    unit = 'mm²' if modes.known(spacing) else 'px'
    viewer = report_viewer.figure(name, (height, width), frame, overlays, sizes, len(samples), level, window, at)
    maps = _panels(name, pictures, frame, samples)
    strip = f'<h4>Raters</h4><div class="tiles">{rater_tiles}</div>' if len(raters) else ''
    return f"""{chips(scores, len(samples))}<svg class="store" aria-hidden="true"><defs><g id="{name}-image">{held}</g>
{masks}</defs></svg>{answers(name, frame, len(samples), found, texts, [size(samples[m.medoid]) for m in found])}
{side_by_side(name, frame, len(raters), found, texts)}<div class="top">{viewer}
<div><div class="panels">{maps}</div>{shares(*areas, 'area', unit)}</div></div>
{strip}<h4>Samples, by area</h4><div class="tiles">{sample_tiles}</div>"""


def strips(name: str, image: np.ndarray, rows: Sequence[tuple[str, np.ndarray]], num_raters: int) -> str:
    """The HTML of one image with rows of masks below each other, all in one window.

    name starts the ids of its elements; image [H, W, C] float in [0, 1]; rows (title, masks [K, H, W] bool), the first
    `num_raters` of them raters', who have colours of their own; the others are shown by area.
    """
    frame = Frame(*crop(np.concatenate([masks for _, masks in rows]).any(0)), UNKNOWN)
    held = report_viewer.image_svg(figures.pictures(image)[0], frame)
    store = strips = ''
    for row, (title, masks) in enumerate(rows):
        shown, tiles = html.escape(title, quote=True), ''
        of_raters = row < num_raters
        order = range(len(masks)) if of_raters else np.argsort(masks.sum((1, 2)), kind='stable').tolist()
        for i in order:
            colours = figures.RATER_COLOURS
            colour = colours[i % len(colours)] if of_raters else figures.SAMPLE_COLOUR
            store += f'<g id="{name}-{row}-{i}">{figures.mask_svg(masks[i], colour)}</g>'
            tiles += tile(name, frame, f'{row}-{i}', area_text(masks[i], UNKNOWN), f'{shown} {i + 1}')
        strips += f'<h4>{shown}</h4><div class="tiles">{tiles}</div>'
    return (
        f"""<svg class="store" aria-hidden="true"><defs><g id="{name}-image">{held}</g>{store}</defs></svg>{strips}"""
    )


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


def median_area(masks: np.ndarray, spacing: tuple[float, float] = UNKNOWN) -> str:
    """Median over the non-empty masks of [n, K, H, W]."""
    areas = modes.areas(masks.reshape(-1, *masks.shape[2:]), spacing)
    if not areas.any():
        return 'none'
    return f'{np.median(areas[areas > 0]):.0f} {"mm²" if modes.known(spacing) else "px"}'


def agreement(raters: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    """GED and HM-IoU of one image, nothing without raters."""
    if not len(raters):
        return {}
    from ambdiff import metrics  # which starts JAX: pages without raters do not need it

    values = metrics.per_image(raters[None], samples[None])
    return {key: float(values[key][0]) for key in ('ged', 'hm_iou')}


def chips(scores: Mapping[str, float], num_samples: int) -> str:
    """The scores of a case, those of `SCORES` that it has."""
    items = ''.join(f'<span>{title} <b>{number(scores[key])}</b></span>' for key, title in SCORES if key in scores)
    return f'<p class="chips">{items}<span>N <b>{num_samples}</b></span></p>' if items else ''


def answers(
    name: str, frame: Frame, count: int, found: Sequence[modes.Mode], texts: Sequence[str], sizes: Sequence[str]
) -> str:
    """The distinct answers among so many samples: share, words, the most typical sample and its size."""
    items = ''
    for mode, text, size in zip(found, texts, sizes, strict=True):
        items += (
            f'<li>{_button(frame, name, f"s{mode.medoid}", f"answer of {mode.share:.0%}: {text}")}'
            f'<p><b>{mode.share:.0%}</b> {text}<span class="track"><span class="model" style="width:{mode.share:.1%}">'
            f'</span></span><small>{len(mode.members)} of {count} samples'
            f'{"" if mode.empty else f", {size}"}</small></p></li>'
        )
    return f'<h4>Distinct answers</h4><ol class="modes">{items}</ol>'


def side_by_side(name: str, frame: Frame, num_raters: int, found: Sequence[modes.Mode], texts: Sequence[str]) -> str:
    """Two pictures, each of an answer or a rater to be chosen; nothing where there is one to choose."""
    choices = {f's{mode.medoid}': f'{mode.share:.0%}: {text}' for mode, text in zip(found, texts, strict=True)}
    choices |= {f'r{i}': f'rater {i + 1}' for i in range(num_raters)}
    if len(choices) < 2:
        return ''
    pictures = ''
    for side, shown in zip(('Left', 'Right'), choices, strict=False):
        options = ''.join(
            f'<option value="{which}"{" selected" if which == shown else ""}>{html.escape(text)}</option>'
            for which, text in choices.items()
        )
        pictures += (
            f'<figure><select aria-label="{side} picture" data-beside="{name}">{options}</select><svg '
            f'{frame.attributes()} role="img" aria-label="{side}: {html.escape(choices[shown], quote=True)}">'
            f'<use href="#{name}-image"/><use href="#{name}-{shown}"/></svg></figure>'
        )
    return f"""<details class="beside"><summary>Two of them side by side</summary><div class="two">{pictures}</div>
</details>"""


def _panels(name: str, pictures: Sequence[np.ndarray], frame: Frame, samples: np.ndarray) -> str:
    """The whole image by channel with the crop marked, probability and disagreement."""
    height, width = pictures[0].shape[:2]
    whole = Frame(0, 0, height, width, frame.spacing)
    text = ''
    for index, (pixels, title) in enumerate(zip(pictures, _titles(len(pictures)), strict=True)):
        picture = report_viewer.image_svg(pixels, frame) if index else f'<use href="#{name}-image"/>'
        text += panel(
            f'<svg {whole.attributes()} role="img" aria-label="Whole {title}">{picture}<rect x="{frame.left}" '
            f'y="{frame.top}" width="{frame.wide}" height="{frame.tall}"/></svg>',
            f'{title} <small>{width} × {height} px</small>',
        )
    inside = (slice(frame.top, frame.top + frame.tall), slice(frame.left, frame.left + frame.wide))
    local = samples[(slice(None), *inside)]
    here = Frame(0, 0, *local.shape[1:], frame.spacing)
    for title, values, unit in (
        ('probability', modes.probability(local), ''),
        ('disagreement', modes.disagreement(local), ' bit'),
    ):
        highest = f'up to {values.max():.2f}{unit}'
        picture = report_viewer.image_svg(figures.heat(values), here)
        label = f'{title.capitalize()} by pixel, {highest}'
        text += panel(
            f'<svg {here.attributes()} role="img" aria-label="{label}">{picture}</svg>',
            f'{title} <small>{highest}</small><span class="scale"><i>0</i><span></span><i>1</i></span>',
        )
    return text


def _titles(count: int) -> list[str]:
    return ['image'] if count == 1 else [f'channel {i + 1}' for i in range(count)]


def panel(picture: str, caption: str) -> str:
    """A picture of the row of maps, which a click enlarges."""
    return f'<figure><button type="button" class="zoom">{picture}</button><figcaption>{caption}</figcaption></figure>'


def _button(frame: Frame, name: str, which: str, label: str) -> str:
    """The image with the mask of the store that `which` names."""
    return (
        f'<button type="button" class="zoom"><svg {frame.attributes()} role="img" aria-label="{label}">'
        f'<use href="#{name}-image"/><use href="#{name}-{which}"/></svg></button>'
    )


def tile(name: str, frame: Frame, which: str, size: str, title: str) -> str:
    """The image with one mask of this size, of an 'empty' one the image alone: all in one window."""
    kind = 'tile none' if size == 'empty' else 'tile'
    button = _button(frame, name, which, f'{title}: {size}')
    return f'<figure class="{kind}">{button}<figcaption>{size}</figcaption></figure>'


def shares(raters: np.ndarray, samples: np.ndarray, of: str, unit: str) -> str:
    """Observed and predicted frequency of the empty answer, and the sizes otherwise; sizes [M] and [N] in a unit."""
    rows = [('raters', 'raters', raters)] if len(raters) else []
    lines, sizes = '', []
    for kind, who, each in (*rows, ('model', 'samples', samples)):
        empty, count = int((each == 0).sum()), len(each)
        lines += (
            f'<div class="share"><span>{who}</span><span class="track"><span class="{kind}" '
            f'style="width:{empty / count:.1%}"></span></span><b>{empty} of {count} ({empty / count:.0%})</b></div>'
        )
        sizes.append(f'{who} {f"{np.median(each[each > 0]):.0f} {unit}" if each.any() else "none"}')
    return f'<div class="shares"><h4>Left empty by</h4>{lines}<p>Median {of} otherwise: {", ".join(sizes)}.</p></div>'
