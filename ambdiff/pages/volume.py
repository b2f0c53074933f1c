"""A volume on a page: one picture whose slices a slider, wheel, keys or buttons turn, masks, maps and answers with it.

Every slice is held once; `volume.js` says which of them the page's pictures show. Without the script they show the
slice on which the samples mark most. What does not fit into a page lies in the files beside it (`MOST_SLICES`).
"""

import dataclasses
import html
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ambdiff import modes
from ambdiff.pages import case, figures, viewer
from ambdiff.pages.viewer import Frame
from ambdiff.pages.volume_plots import area_by_slice, histogram

MOST_SLICES = 48  # of a volume on a page: of 512 x 512 pixels and 16 samples they take some 10 MB


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One slice as it is shown.

    Attributes:
      image: [H, W, C] float in [0, 1].
      raters: [M, H, W] bool, M may be 0.
      samples: [N, H, W] bool.
      title: what it is called, '12 of 0 to 80'.
      at: what a click into it says, as of `case.view`.
    """

    image: np.ndarray
    raters: np.ndarray
    samples: np.ndarray
    title: str
    at: str


@dataclasses.dataclass(frozen=True, eq=False)
class Sizes:
    """How large masks are, slice by slice; empty ones are 0.

    Attributes:
      raters: [M, Z] area on each slice shown.
      samples: [N, Z].
      rater_volumes: [M], of all slices.
      sample_volumes: [N].
      units: of an area and of a volume: ('mm²', 'mm³') or ('px', 'voxels').
    """

    raters: np.ndarray
    samples: np.ndarray
    rater_volumes: np.ndarray
    sample_volumes: np.ndarray
    units: tuple[str, str]


def shown(marked: Sequence[int]) -> list[int]:
    """Which slices a page holds: from the first to the last on which samples mark something, and one more each way; of
    more than `MOST_SLICES` those in a row around the one that is marked most.

    marked [Z]: how many pixels the samples mark on each slice.
    """
    marked = np.asarray(marked)
    there = np.flatnonzero(marked)
    if not len(there):
        middle = len(marked) // 2
        return list(range(max(middle - 1, 0), min(middle + 2, len(marked))))
    first, last = max(there[0] - 1, 0), min(there[-1] + 1, len(marked) - 1)
    if last - first >= MOST_SLICES:
        first = min(max(int(marked.argmax()) - MOST_SLICES // 2, first), last - MOST_SLICES + 1)
        last = first + MOST_SLICES - 1
    return list(range(first, last + 1))


def view(
    name: str,
    load: Callable[[int], Slice],
    sizes: Sizes,
    frame: Frame,
    window: tuple[float, float, str],
    found: Sequence[modes.Mode],
    texts: Sequence[str],
    scores: Mapping[str, float],
) -> str:
    """The HTML of a volume.

    name starts the ids of its elements; load gives slice i of those of `sizes`, which is asked for one after the other;
    frame: what the pictures show of a slice; window: what 0 and 1 of an image stand for, and the unit; found, texts:
    the distinct answers of whole masks, and their words; scores: metrics of the volume where there are raters, else {}.
    """
    depth = sizes.samples.shape[1]
    start = int(sizes.samples.sum(0).argmax()) if sizes.samples.any() else depth // 2
    store, overlays, entries, highest = '', '', [], [0.0, 0.0]
    for index in range(depth):
        one = load(index)
        store += _held(f'{name}-{index}', one, frame, highest)
        level = viewer.area_text(one.samples.sum(0) >= viewer.middle(len(one.samples)), frame.spacing)
        hidden = '' if index == start else ' hidden'
        overlays += f'<g data-slice="{index}"{hidden}>{viewer.layers(one.raters, one.samples, frame)}</g>'
        entries.append({'title': one.title, 'at': one.at})
        if index == start:
            first, area, size = one, level, one.image.shape[:2]
    parts = ['image', 'probability', 'disagreement', *_masks(first)]
    pointers = ''.join(f'<g id="{name}-{part}"><use href="#{name}-{start}-{part}"/></g>' for part in parts)
    in_words = lambda value: f'{value:.0f} {sizes.units[1]}' if value else 'empty'
    volumes = [in_words(value) for value in sizes.sample_volumes]
    of_raters = [in_words(value) for value in sizes.rater_volumes]
    picture = viewer.figure(name, size, frame, overlays, of_raters, len(volumes), area, window, first.at)
    tile = lambda kind, who, number, text: case.tile(name, frame, f'{kind}{number}', text, f'{who} {number + 1}')
    strip = ''.join(tile('r', 'rater', number, text) for number, text in enumerate(of_raters))
    strip = f'<h4>Raters</h4><div class="tiles">{strip}</div>' if strip else ''
    order = np.argsort(sizes.sample_volumes, kind='stable').tolist()
    tiles = ''.join(tile('s', 'sample', number, volumes[number]) for number in order)
    typical = [volumes[mode.medoid] for mode in found]
    return f"""<div class="volume" data-volume="{name}" data-slices="{html.escape(json.dumps(entries), quote=True)}">
{case.chips(scores, len(volumes))}<svg class="store" aria-hidden="true"><defs>{store}{pointers}</defs></svg>
{case.answers(name, frame, len(volumes), found, texts, typical)}
{case.side_by_side(name, frame, len(of_raters), found, texts)}
{_slider(start, entries)}<div class="top">{picture}<div><div class="panels">{_maps(name, size, frame, highest)}</div>
{case.shares(sizes.rater_volumes, sizes.sample_volumes, 'volume', sizes.units[1])}
<div class="plots">{area_by_slice(sizes.raters, sizes.samples, start, sizes.units[0])}
{histogram(sizes.rater_volumes, sizes.sample_volumes, sizes.units[1])}</div></div></div>
{strip}<h4>Samples, by volume</h4><div class="tiles">{tiles}</div></div>"""


def _masks(one: Slice) -> dict[str, tuple[np.ndarray, str]]:
    """{the name of a mask in the store: (mask [H, W], its colour)}."""
    colours = viewer.rater_colours(len(one.raters))
    masks = {f'r{i}': pair for i, pair in enumerate(zip(one.raters, colours, strict=True))}
    return masks | {f's{i}': (mask, figures.SAMPLE_COLOUR) for i, mask in enumerate(one.samples)}


def _held(name: str, one: Slice, frame: Frame, highest: list[float]) -> str:
    """A slice's picture, maps and masks in the store; highest: of both maps so far."""
    text = f'<g id="{name}-image">{viewer.image_svg(figures.pictures(one.image)[0], frame)}</g>'
    inside = one.samples[:, frame.top : frame.top + frame.tall, frame.left : frame.left + frame.wide]
    for number, (title, measure) in enumerate(
        (('probability', modes.probability), ('disagreement', modes.disagreement))
    ):
        values = measure(inside)
        highest[number] = max(highest[number], float(values.max(initial=0)))
        picture = figures.data_uri(figures.png(figures.heat(values)))
        text += (
            f'<g id="{name}-{title}"><image href="{picture}" x="{frame.left}" y="{frame.top}" width="{frame.wide}" '
            f'height="{frame.tall}" preserveAspectRatio="none"/></g>'
        )
    for which, (mask, colour) in _masks(one).items():
        text += f'<g id="{name}-{which}">{figures.mask_svg(mask, colour)}</g>'
    return text


def _maps(name: str, size: tuple[int, int], frame: Frame, highest: Sequence[float]) -> str:
    """The whole slice with what is shown of it marked, probability and disagreement."""
    whole = Frame(0, 0, *size, frame.spacing)
    text = case.panel(
        f'<svg {whole.attributes()} role="img" aria-label="Whole slice"><use href="#{name}-image"/><rect '
        f'x="{frame.left}" y="{frame.top}" width="{frame.wide}" height="{frame.tall}"/></svg>',
        f'slice <small>{size[1]} × {size[0]} px</small>',
    )
    for title, most, unit in zip(('probability', 'disagreement'), highest, ('', ' bit'), strict=True):
        label = f'{title.capitalize()} by pixel, up to {most:.2f}{unit} in the volume'
        text += case.panel(
            f'<svg {frame.attributes()} role="img" aria-label="{label}"><use href="#{name}-{title}"/></svg>',
            f'{title} <small>up to {most:.2f}{unit}</small><span class="scale"><i>0</i><span></span><i>1</i></span>',
        )
    return text


def _slider(start: int, entries: Sequence[Mapping[str, str]]) -> str:
    title = html.escape(entries[start]['title'])
    return f"""<div class="turn"><button type="button" data-turn="-1" aria-label="Slice before">‹</button><label>
<span>Slice <output aria-live="off">{title}</output></span><input type="range" min="0" max="{len(entries) - 1}"
value="{start}" data-turns aria-valuetext="{title}"></label><button type="button" data-turn="1"
aria-label="Slice after">›</button></div>"""
