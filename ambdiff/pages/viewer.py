"""The picture to explore: an image with zoom and window/level, raters' outlines, and what at least k of N samples mark.

Everything is inline SVG in pixel coordinates of the image; viewer.js moves the viewBox.
Without the script the picture shows the crop with the middle level set.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

import numpy as np

from ambdiff import modes
from ambdiff.pages import figures

LARGEST_LOSSLESS = 256 * 256  # pixels; a larger picture is a JPEG, with the crop lossless on top of it
LONGEST_SIDE = 512  # pixels of the JPEG


@dataclasses.dataclass(frozen=True)
class Frame:
    """A window of an image as an SVG viewBox: pixels may be oblong, as spacing (row, column) says."""

    top: int
    left: int
    tall: int
    wide: int
    spacing: tuple[float, float]

    def attributes(self) -> str:
        """The attributes of an <svg> that shows the window at its true proportions."""
        row, column = self.spacing if modes.known(self.spacing) else (1.0, 1.0)
        ratio = f'{self.wide * column / row:.4g}/{self.tall}'
        return (
            f'viewBox="{self.left} {self.top} {self.wide} {self.tall}" preserveAspectRatio="none" '
            f'style="aspect-ratio:{ratio}"'
        )


def image_svg(pixels: np.ndarray, frame: Frame) -> str:
    """Uint8 [H, W] or [H, W, 3] as SVG elements in its own pixel coordinates.

    Lossless if small; else shrunk to `LONGEST_SIDE` and compressed, the frame lossless over it where that is small.
    """
    height, width = pixels.shape[:2]
    whole = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    if height * width <= LARGEST_LOSSLESS:
        return f'<image href="{figures.data_uri(figures.png(pixels))}" {whole}/>'
    text = f'<image href="{figures.jpeg_uri(pixels, LONGEST_SIDE)}" {whole}/>'
    if frame.tall * frame.wide <= LARGEST_LOSSLESS:
        inside = pixels[frame.top : frame.top + frame.tall, frame.left : frame.left + frame.wide]
        text += (
            f'<image href="{figures.data_uri(figures.png(inside))}" x="{frame.left}" y="{frame.top}" '
            f'width="{frame.wide}" height="{frame.tall}" preserveAspectRatio="none"/>'
        )
    return text


def rater_colours(count: int) -> list[str]:
    """Of each of so many raters."""
    return [figures.RATER_COLOURS[i % len(figures.RATER_COLOURS)] for i in range(count)]


def middle(num_samples: int) -> int:
    """Of at least how many samples the outline is shown at first."""
    return (num_samples + 1) // 2


def layers(raters: np.ndarray, samples: np.ndarray, frame: Frame) -> str:
    """What lies over a picture: the outlines of raters [M, H, W], and of what k of N samples [N, H, W] mark."""
    text = ''
    for i, (mask, colour) in enumerate(zip(raters, rater_colours(len(raters)), strict=True)):
        # Apart by a line's width at the size shown, so that equal outlines do not hide each other.
        shift = (i - (len(raters) - 1) / 2) * frame.wide / 180
        outline = figures.mask_svg(mask, colour)
        text += f'<g data-layer="{i}" transform="translate({shift:.2f} {shift:.2f})">{outline}</g>'
    return f'{text}<g class="levels" data-layer="samples">{_levels(samples, frame, middle(len(samples)))}</g>'


def figure(
    name: str,
    size: tuple[int, int],
    frame: Frame,
    overlays: str,
    raters: Sequence[str],
    count: int,
    area: str,
    window: tuple[float, float, str],
    at: str,
) -> str:
    """The HTML of the viewer.

    name: the image's elements have the id '<name>-image'; size: (height, width) of the image; overlays: `layers` over
    it; raters: the size of each rater's mask in words; count: N; area: of what the level shown at first marks; window:
    what 0 and 1 of the image stand for, and the unit; at: what a click says, with X and Y for the pixel's column and
    row, -X and -Y where they are counted from the other side.
    """
    switches = [
        f'<label><input type="checkbox" checked data-shows="{i}"><span class="key" '
        f'style="background:{colour}"></span>rater {i + 1}, {text}</label>'
        for i, (text, colour) in enumerate(zip(raters, rater_colours(len(raters)), strict=True))
    ]
    start = middle(count)
    whose = f'the outlines of {len(raters)} raters and of the samples' if len(raters) else 'the outline of the samples'
    return f"""<figure class="main"><div class="stage" tabindex="0" role="group"
aria-label="Picture: plus and minus zoom, arrows move, 0 shows the crop, 1 the whole image"><svg class="outlines"
{frame.attributes()} data-size="{size[0]} {size[1]}" data-at="{html.escape(at, quote=True)}" {_spacing(frame)}
role="img" aria-label="Image with {whose}"><use class="picture" href="#{name}-image"/><g class="overlays">
{overlays}</g></svg>{_scale(frame)}
</div><div class="tools" role="toolbar" aria-label="Picture"><button type="button" data-zoom="in"
aria-label="Zoom in">+</button><button type="button" data-zoom="out" aria-label="Zoom out">−</button><button
type="button" data-zoom="crop">Crop</button><button type="button" data-zoom="whole">Whole</button><button
type="button" data-ruler aria-pressed="false">Ruler</button></div><p class="point" role="status"></p>
<figcaption class="legend">{''.join(switches)}<label><input type="checkbox" checked data-shows="samples">
<span class="key dashed"></span><span>marked by at least <output aria-live="off">{start}</output> of {count}
<small class="area">{area}</small></span></label>
<input class="slider" type="range" min="1" max="{count}" value="{start}" data-samples="{count}"
aria-label="Outline what at least this many samples include"><label class="opacity"><span>Outlines
<b>100%</b></span><input type="range" min="0" max="100" value="100" data-opacity></label>{_window(window)}
</figcaption></figure>"""


def area_text(mask: np.ndarray, spacing: tuple[float, float]) -> str:
    """'52 mm²', '106 px' or 'empty'."""
    if not mask.any():
        return 'empty'
    area = float(modes.areas(mask[None], spacing)[0])
    return f'{area:.{0 if area >= 10 else 1}f} mm²' if modes.known(spacing) else f'{area:.0f} px'


def _spacing(frame: Frame) -> str:
    """Millimetres a row and a column for the script, nothing where they are not known."""
    return f'data-spacing="{frame.spacing[0]:g} {frame.spacing[1]:g}"' if modes.known(frame.spacing) else ''


def _scale(frame: Frame) -> str:
    """A bar of a round length, a third of the picture at most; the script keeps it right while the picture zooms."""
    known = modes.known(frame.spacing)
    wide = frame.wide * (frame.spacing[1] if known else 1.0)
    power = 10.0 ** math.floor(math.log10(wide / 3))
    length = next(step * power for step in (5, 2, 1) if step * power <= wide / 3)
    return (
        f'<span class="bar-scale" style="width:{length / wide:.2%}" aria-hidden="true">'
        f'{length:g} {"mm" if known else "px"}</span>'
    )


def _levels(samples: np.ndarray, frame: Frame, start: int) -> str:
    """What at least k samples include, k = 1 .. N; equal sets are held once."""
    votes = samples.sum(0)
    values = np.unique(votes)
    text, low = '', 1
    for high in [int(v) for v in values if v] + ([len(samples)] if values[-1] < len(samples) else []):
        mask = votes >= low
        hidden = '' if low <= start <= high else ' hidden'
        text += (
            f'<g data-from="{low}" data-to="{high}" data-area="{area_text(mask, frame.spacing)}"{hidden}>'
            f'{figures.mask_svg(mask, figures.SAMPLE_COLOUR)}</g>'
        )
        low = high + 1
    return text


def _window(window: tuple[float, float, str]) -> str:
    """Sliders of level and width in the image's unit."""
    low, high, unit = window
    scale = f'data-low="{low:g}" data-high="{high:g}" data-unit="{html.escape(unit, quote=True)}"'
    sliders = ''.join(
        f'<label><span>{title} <b>{text}</b></span><input type="range" min="{least}" max="1" step="0.01" '
        f'value="{value}" data-tone="{kind}"></label>'
        for kind, title, least, value, text in (
            ('level', 'Level', 0, 0.5, tone_text((low + high) / 2, unit)),
            ('width', 'Width', 0.02, 1, tone_text(high - low, unit)),
        )
    )
    return f'<details class="window" {scale}><summary>Brightness (window, level)</summary>{sliders}</details>'


def tone_text(value: float, unit: str) -> str:
    """'-300 HU', or two decimals without a unit, as the script prints them."""
    return f'{value:.0f} {unit}' if unit else f'{value:.2f}'
