"""Pictures of images and masks: PNGs by Pillow, masks as inline SVG.

Outlines run along pixel edges, so what lies inside is exactly the mask, at any zoom.
"""

import base64
import io

import numpy as np
from PIL import Image

# Bright enough for an outline on a grey picture, apart for the colour-blind in this order.
RATER_COLOURS = (
    '#4cc9f0',
    '#ffb703',
    '#80ed99',
    '#c77dff',
    '#ff8c61',
    '#e9ff70',
    '#9ab6ff',
    '#f5f5f5',
)
SAMPLE_COLOUR = '#ff4d6d'
LONGEST_OUTLINE = 4000  # pixel edges; a mask with more is noise, shown as a picture
# Black to pale through violet and orange: lightness rises evenly, so grey prints read the same.
HEAT = ('#0b0914', '#3b1c6e', '#8c2981', '#d8456c', '#f98e52', '#fde9a9')


def png(pixels: np.ndarray) -> bytes:
    """Uint8 [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGBA -> PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG', optimize=True)
    return buffer.getvalue()


def data_uri(file: bytes, kind: str = 'png') -> str:
    """A PNG or JPEG file as the address of an <img>."""
    return f'data:image/{kind};base64,' + base64.b64encode(file).decode()


def jpeg_uri(pixels: np.ndarray, longest: int) -> str:
    """Uint8 [H, W] or [H, W, 3] -> the address of a JPEG of at most `longest` pixels a side."""
    picture = Image.fromarray(pixels)
    scale = min(longest / max(picture.size), 1)
    size = tuple(max(round(side * scale), 1) for side in picture.size)
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, 'JPEG', quality=85)
    return data_uri(buffer.getvalue(), 'jpeg')


def pictures(image: np.ndarray) -> list[np.ndarray]:
    """Float [H, W, C] in [0, 1] -> uint8 pictures: one RGB for C = 3, else one grey a channel."""
    pixels = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    return [pixels] if image.shape[-1] == 3 else list(np.moveaxis(pixels, -1, 0))


def heat(values: np.ndarray) -> np.ndarray:
    """[H, W] in [0, 1] -> uint8 RGB by the `HEAT` ramp."""
    stops = np.array([rgb(colour) for colour in HEAT])
    knots = np.linspace(0, 1, len(stops))
    channels = [np.interp(values, knots, stops[:, channel]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def rgb(colour: str) -> tuple[int, int, int]:
    """'#rrggbb' -> three numbers 0..255."""
    return tuple(bytes.fromhex(colour[1:]))


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy in bits of a yes-or-no answer with this probability: 0 at 0 and 1, 1 at 0.5."""
    p = np.asarray(probability, np.float64)
    return sum(-q * np.log2(q, out=np.zeros_like(q), where=q > 0) for q in (p, 1 - p))


def mask_svg(mask: np.ndarray, colour: str, attributes: str = '') -> str:
    """Mask [H, W] bool -> an SVG element in pixel coordinates, '' for an empty mask.

    Its outline as one path; where that would be long (noise), the filled mask as a picture instead,
    so that a page stays small whatever a model samples.
    """
    if not mask.any():
        return ''
    path = outline(mask, limit=min(8 * sum(mask.shape), LONGEST_OUTLINE))
    if path:
        # Attributes, not CSS: rules with ancestors do not reach what <use> shows.
        return (
            f'<path d="{path}" stroke="{colour}" stroke-width="1.6" vector-effect="non-scaling-stroke" '
            f'fill="{colour}" fill-opacity=".22" fill-rule="evenodd" {attributes}/>'
        )
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0))
    inside = mask[top : bottom + 1, left : right + 1]
    picture = Image.frombytes('P', inside.shape[::-1], inside.astype(np.uint8).tobytes())
    picture.putpalette([0, 0, 0, *rgb(colour)])
    buffer = io.BytesIO()
    picture.save(buffer, 'PNG', optimize=True, bits=1, transparency=bytes([0, 160]))
    return (
        f'<image href="{data_uri(buffer.getvalue())}" x="{left}" y="{top}" width="{inside.shape[1]}" '
        f'height="{inside.shape[0]}" preserveAspectRatio="none" {attributes}/>'
    )


def outline(mask: np.ndarray, limit: int | None = None) -> str:
    """Closed SVG path along the pixel edges of a mask [H, W] bool; '' above `limit` unit edges.

    Pixel (row r, column c) is the square from (c, r) to (c + 1, r + 1). Fill it with the even-odd rule.
    """
    inside = np.pad(mask, 1)
    core = inside[1:-1, 1:-1]
    # Neighbour outside -> the pixel's side towards it, walked clockwise: start and end as (x, y).
    sides = (
        (inside[:-2, 1:-1], (0, 0), (1, 0)),
        (inside[1:-1, 2:], (1, 0), (1, 1)),
        (inside[2:, 1:-1], (1, 1), (0, 1)),
        (inside[1:-1, :-2], (0, 1), (0, 0)),
    )
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    count = 0
    for neighbour, start, end in sides:
        ys, xs = np.nonzero(core & ~neighbour)
        count += len(ys)
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            following.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    if limit is not None and count > limit:
        return ''
    loops = []
    while following:
        first = point = next(iter(following))
        steps: list[list[int]] = []
        while point in following:
            ends = following[point]
            after = ends.pop()
            if not ends:
                del following[point]
            step = [after[0] - point[0], after[1] - point[1]]
            if steps and (steps[-1][0] == 0) == (step[0] == 0):
                step = [steps[-1][0] + step[0], steps[-1][1] + step[1]]
                steps.pop()
            steps.append(step)
            point = after
        moves = ''.join(f'h{dx}' if dx else f'v{dy}' for dx, dy in steps)
        loops.append(f'M{first[0]} {first[1]}{moves}z')
    return ''.join(loops)
