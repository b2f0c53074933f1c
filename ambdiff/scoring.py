"""`ambdiff.score`: the metrics of `ambdiff.metrics` for masks that anyone has, as arrays of any size."""

from collections.abc import Sequence
from typing import Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from ambdiff import arrays, metrics
from ambdiff.errors import UserError

Draws = Literal['independent', 'dependent']

_MOST_CLASSES = 254
_MOST_PIXELS = 1 << 24  # that `metrics` counts exactly


@overload
def score(
    raters: ArrayLike,
    samples: ArrayLike,
    present: ArrayLike | None = None,
    num_classes: int = 1,
    batched: Literal[False] = False,
    volume: bool = False,
    draws: Draws = 'independent',
) -> dict[str, float]: ...


@overload
def score(
    raters: ArrayLike | Sequence[ArrayLike],
    samples: ArrayLike | Sequence[ArrayLike],
    present: ArrayLike | Sequence[ArrayLike] | None = None,
    num_classes: int = 1,
    *,
    batched: Literal[True],
    volume: bool = False,
    draws: Draws = 'independent',
) -> dict[str, np.ndarray]: ...


def score(raters, samples, present=None, num_classes=1, batched=False, volume=False, draws='independent'):
    """How well the samples of an image agree with its raters' masks, by every metric of metrics.json.

    Masks are bool, 0 and 1, 0 and 255, or with `num_classes` K > 1 labels 0 (background) .. K. What they could mean
    otherwise (probabilities, grey values, labels where one class is meant) is refused. `ambdiff.metrics` has every
    formula.

    Args:
      raters: [M, H, W], one mask a rater. An empty mask is an answer.
      samples: [N, H, W], one mask a sample, of the same H and W.
      present: [M] bool, False where nobody filled the slot: its mask counts for nothing. None: all there.
      num_classes: K; metrics are the mean over the classes 1 .. K.
      batched: several cases: arrays [B, M, H, W], [B, N, H, W] and present [B, M], or a list of cases, each of any
        H, W, M and N.
      volume: masks are [M, D, H, W] and [N, D, H, W], each scored as one mask of D H W voxels.
      draws: 'dependent' where the samples of an image depend on each other (stratified ones, say): metrics that rest
        on independence are then NaN.

    Returns:
      {name: float}, or with batched=True {name: float64 [B]}; NaN where a metric is undefined (one rater has no
      diversity).

    Raises:
      UserError: a ValueError of one sentence.

    >>> import numpy as np, ambdiff
    >>> nodule = np.zeros((8, 8), bool)
    >>> nodule[2:6, 2:6] = True
    >>> nothing = np.zeros((8, 8), bool)
    >>> found = ambdiff.score(raters=[nodule, nothing], samples=[nodule, nothing, nothing])
    >>> round(found['ged'], 4), round(found['hm_iou'], 4), round(found['emptiness_error'], 4)
    (0.0556, 0.8333, -0.6667)
    """
    if isinstance(num_classes, bool) or num_classes not in range(1, _MOST_CLASSES + 1):
        raise UserError(f'num_classes={num_classes!r}: give a whole number, 1 to {_MOST_CLASSES}')
    if draws not in metrics.DRAWS:
        raise UserError(f'draws={draws!r}: give one of {", ".join(metrics.DRAWS)}')
    axes = ('D', 'H', 'W') if volume else ('H', 'W')
    if not batched:
        cases = [_case(raters, samples, present, num_classes, axes, '')]
        return {name: float(values[0]) for name, values in _measure(cases, num_classes, draws).items()}
    parts = [_cases(raters, 'raters'), _cases(samples, 'samples')]
    parts.append([None] * len(parts[0]) if present is None else _cases(present, 'present'))
    if len({len(part) for part in parts}) > 1:
        names = ('raters', 'samples') if present is None else ('raters', 'samples', 'present')
        held = ', '.join(f'{name} {len(part)}' for name, part in zip(names, parts, strict=False))
        raise UserError(f'batched=True needs as many cases of each: {held}')
    cases = [_case(*given, num_classes, axes, f'[{row}]') for row, given in enumerate(zip(*parts, strict=True))]
    return _measure(cases, num_classes, draws)


class Options(TypedDict, total=False):
    """What the shorthands take of `score`'s arguments."""

    present: ArrayLike | Sequence[ArrayLike] | None
    num_classes: int
    volume: bool
    draws: Draws


@overload
def ged(
    raters: ArrayLike, samples: ArrayLike, *, batched: Literal[False] = False, **options: Unpack[Options]
) -> float: ...


@overload
def ged(
    raters: ArrayLike | Sequence[ArrayLike],
    samples: ArrayLike | Sequence[ArrayLike],
    *,
    batched: Literal[True],
    **options: Unpack[Options],
) -> np.ndarray: ...


def ged(raters, samples, *, batched=False, **options):
    """Squared generalised energy distance in [0, 2], lower is better: `score(...)['ged']`; options as of `score`.

    >>> import numpy as np, ambdiff
    >>> ambdiff.ged(np.ones((4, 8, 8), bool), np.ones((16, 8, 8), bool))
    0.0
    """
    return score(raters, samples, batched=batched, **options)['ged']


@overload
def hm_iou(
    raters: ArrayLike, samples: ArrayLike, *, batched: Literal[False] = False, **options: Unpack[Options]
) -> float: ...


@overload
def hm_iou(
    raters: ArrayLike | Sequence[ArrayLike],
    samples: ArrayLike | Sequence[ArrayLike],
    *,
    batched: Literal[True],
    **options: Unpack[Options],
) -> np.ndarray: ...


def hm_iou(raters, samples, *, batched=False, **options):
    """Mean IoU of the best matching in [0, 1], higher is better: `score(...)['hm_iou']`; options as of `score`.

    >>> import numpy as np, ambdiff
    >>> ambdiff.hm_iou(np.ones((4, 8, 8), bool), np.zeros((16, 8, 8), bool))
    0.0
    """
    return score(raters, samples, batched=batched, **options)['hm_iou']


def _cases(given: ArrayLike | Sequence[ArrayLike], name: str) -> list:
    """The cases of an array [B, ..] or of a list of them."""
    if isinstance(given, list | tuple):
        cases = list(given)
    else:
        array = arrays.numeric(given, name)
        if array.ndim == 0:
            raise UserError(f'{name} with batched=True: give an array with one more axis, or a list of cases')
        cases = list(array)
    if not cases:
        raise UserError(f'{name} with batched=True hold no case: give one at least')
    return cases


def _case(raters, samples, present, num_classes: int, axes: Sequence[str], row: str) -> tuple[np.ndarray, np.ndarray]:
    """What was given for one case -> labels [m, P] of the raters who are there and [N, P] of the samples, uint8."""
    names = f'raters{row}', f'samples{row}'
    rated, sampled = (
        _labels(_shaped(given, name, (count, *axes), bool(row)), name, num_classes)
        for given, name, count in zip((raters, samples), names, 'MN', strict=True)
    )
    if rated.shape[1:] != sampled.shape[1:]:
        sizes = ['x'.join(map(str, masks.shape[1:])) for masks in (rated, sampled)]
        raise UserError(f'{names[0]} are masks of {sizes[0]}, {names[1]} of {sizes[1]}: give masks of the same image')
    if present is not None:
        rated = rated[_present(present, f'present{row}', len(rated))]
    rated, sampled = rated.reshape(len(rated), -1), sampled.reshape(len(sampled), -1)
    # Pixels that nobody marks are in no metric.
    marked = rated.any(0) | sampled.any(0)
    if (pixels := int(marked.sum())) > _MOST_PIXELS:
        raise UserError(
            f'{names[0]} and {names[1]} mark {pixels} voxels together: at most {_MOST_PIXELS} are counted exactly, so '
            'score slices or parts'
        )
    return rated[:, marked], sampled[:, marked]


def _shaped(given: ArrayLike, name: str, axes: Sequence[str], batched: bool) -> np.ndarray:
    masks = arrays.numeric(given, name)
    meant = f'[{", ".join(axes)}]'
    shape = 'x'.join(map(str, masks.shape)) or 'no axis'
    if masks.ndim == len(axes):
        if not masks.size:
            raise UserError(f'{name} is empty ({shape}): give {meant}, one mask of one pixel at least')
        return masks
    if masks.ndim == len(axes) - 1:
        cure = 'of one case leave out batched=True' if batched else f'of one mask give {name}[None]'
    elif masks.ndim == len(axes) + 1 and masks.shape[-1] == 1:
        cure = f'take the last axis off, {name}[..., 0]'
    elif masks.ndim == 4 and not batched:
        cure = 'of several cases give batched=True, of volumes volume=True'
    else:
        cure = 'one mask after the other'
    raise UserError(f'{name} has shape {shape}, and {meant} is meant: {cure}')


def _labels(masks: np.ndarray, name: str, num_classes: int) -> np.ndarray:
    """Masks of any type -> uint8 labels 0 .. K, of one class 0 and 1."""
    if masks.dtype == bool:
        if num_classes > 1:
            raise UserError(f'{name} are bool, which tells one class: give labels 0 to {num_classes}')
        return masks.view(np.uint8)
    arrays.finite(masks, name, 'give masks without')
    low, high = masks.min(), masks.max()
    if low < 0:
        raise UserError(f'{name} have negative values ({low:g}): give 0 where nothing is marked, 1 where something is')
    if masks.dtype.kind == 'f' and (broken := masks != np.rint(masks)).any():
        value = arrays.example(masks, broken)
        raise UserError(f'{name} have values between whole numbers ({value}): give masks, for instance {name} > 0.5')
    if high <= num_classes:
        return masks.astype(np.uint8)
    if num_classes > 1:
        cure = f'give num_classes={high:g}, or set' if high < _MOST_CLASSES else 'set'
        raise UserError(f'{name} have the label {high:g} with num_classes={num_classes}: {cure} what is no class to 0')
    grey = (masks != 0) & (masks != 255)
    if high == 255 and not grey.any():
        return (masks > 0).astype(np.uint8)
    if len(values := np.unique(masks)) > 32:
        value = arrays.example(masks, grey)
        raise UserError(f'{name} have grey values (as {value}): give masks, for instance {name} > 127')
    shown = ', '.join(f'{value:g}' for value in values[:6])
    raise UserError(
        f'{name} have the values {shown}{" .." if len(values) > 6 else ""}: give one class as a mask, for instance '
        f'{name} == {values[-1]:g}, or labels with num_classes='
    )


def _present(given: ArrayLike, name: str, count: int) -> np.ndarray:
    present = arrays.numeric(given, name)
    if present.shape != (count,) or ((present != 0) & (present != 1)).any():
        raise UserError(f'{name} is meant to be [M] bool, one for each of {count} raters')
    if not present.any():
        raise UserError(f'{name} has no rater who is there: leave the case out')
    return present.astype(bool)


def _measure(cases: Sequence[tuple[np.ndarray, np.ndarray]], num_classes: int, draws: str) -> dict[str, np.ndarray]:
    """All metrics of cases ([M, P], [N, P]), those of one shape together: {name: [B]}."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for row, (rated, sampled) in enumerate(cases):
        # Few sizes, so that few programs are compiled: filled up with pixels that nobody marks.
        size = 1 << max(rated.shape[1] - 1, 0).bit_length()
        groups.setdefault((len(rated), len(sampled), size), []).append(row)
    result = {name: np.empty(len(cases)) for name in metrics.ALL_KEYS}
    for (*_, size), rows in groups.items():
        fill = lambda masks, size=size: np.pad(masks, ((0, 0), (0, size - masks.shape[1])))[:, None]
        rated, sampled = (np.stack([fill(cases[row][side]) for row in rows]) for side in (0, 1))
        for name, values in metrics.per_class(rated, sampled, num_classes, draws)[0].items():
            result[name][rows] = values
    return result
