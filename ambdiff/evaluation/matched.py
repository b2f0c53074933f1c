"""Raters' masks and samples brought together: by the name of the case, at one size."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from ambdiff.data.files import tables
from ambdiff.errors import UserError
from ambdiff.evaluation.cases import Cases
from ambdiff.evaluation.given_masks.masks import GivenMasks, size

_MAX_PIXELS = 1 << 24  # that `ambdiff.metrics` counts exactly


@dataclasses.dataclass(frozen=True)
class Matched:
    """What is scored.

    Attributes:
      cases: names, patients and raters' masks; images are black where masks alone are given.
      samples: [n, N, H, W] uint8.
      shape: (Z, H, W) of every case; None where they differ, or where volumes are laid out as one plane each.
    """

    cases: Cases
    samples: np.ndarray
    shape: tuple[int, int, int] | None


def match(
    raters: GivenMasks, samples: GivenMasks, patients: dict[str, str], only_common: bool, number: int | None
) -> Matched:
    """The cases of both sides, in the raters' order.

    The voxels of a volume count together, as of one wide image. Where cases differ in size, or are volumes, each is cut
    to what anybody marked and filled up with nothing: no metric counts pixels that nobody marks.

    Args:
      raters: one side.
      samples: the other.
      patients: {case: patient}, '' where unknown.
      only_common: leave out cases of one side alone, instead of refusing them.
      number: the first so many samples of each case; None: all, of which each case must have the same number.

    Raises:
      UserError: a case has no counterpart, another size than its counterpart, or another number of samples.
    """
    names = _common(raters, samples, only_common)
    drawn, sampled = [], []
    for name in names:
        there, here = raters.masks[name](), samples.masks[name]()
        if there.shape[1:] != here.shape[1:]:
            here = _same_width(there, here)
        if there.shape[1:] != here.shape[1:]:
            raise UserError(
                f'the case {name}: samples are {size(here)} pixels ({samples.place}), raters’ masks {size(there)} '
                f'({raters.place}); draw them at one size'
            )
        if number and len(here) < number:
            raise UserError(f'the case {name} has {len(here)} samples, fewer than --num-samples={number}')
        if not len(there):
            raise UserError(f'the case {name} has no rater ({raters.place}); leave it out')
        drawn.append(there)
        sampled.append(here[:number])
    _check_number(names, sampled)
    shapes = {masks.shape[1:] for masks in drawn}
    alike = len(shapes) == 1 and next(iter(shapes))[0] == 1
    if not alike:
        pairs = [_cut(*pair) for pair in zip(drawn, sampled, strict=True)]
        height, width = (max(pair[0].shape[axis] for pair in pairs) for axis in (2, 3))
        fill = lambda masks: np.pad(masks, ((0, 0), (0, 0), (0, height - masks.shape[2]), (0, width - masks.shape[3])))
        drawn, sampled = zip(*((fill(a), fill(b)) for a, b in pairs), strict=True)
        if math.prod(drawn[0].shape[2:]) > _MAX_PIXELS:
            raise UserError(f'{raters.place}: what is drawn in a volume spans more than {_MAX_PIXELS} voxels; crop it')
    most = max(map(len, drawn))
    padded = np.stack([np.pad(masks[:, 0], ((0, most - len(masks)), (0, 0), (0, 0))) for masks in drawn])
    present = np.stack([np.arange(most) < len(masks) for masks in drawn])
    stacked = np.stack([masks[:, 0] for masks in sampled])
    images = np.zeros((len(names), *padded.shape[2:], 1), np.float32)
    given = raters.images or samples.images
    if alike and all(name in given for name in names):
        images = np.stack([given[name][:, : padded.shape[3]] for name in names])
    cases = Cases(images, padded, present, names, [patients.get(name, '') for name in names])
    return Matched(cases, stacked, next(iter(shapes)) if alike else None)


def patients_of(table: pathlib.Path, names: Iterable[str]) -> dict[str, str]:
    """{case: patient} of a CSV with the columns case and patient, one line a case.

    Raises:
      UserError: a case is there twice, or one of `names` is not there.
    """
    found = {}
    for row in tables.read(table, ('case', 'patient')):
        case = row.text('case')
        if case in found:
            raise UserError(f'{row.where}: the case {case} is there twice; keep one line a case')
        found[case] = row.text('patient')
    if lost := [name for name in names if name not in found]:
        raise UserError(f'{table}: has no line for {_some(lost)}; add one for each case')
    return found


def training_masks(train: GivenMasks, matched: Matched, raters: GivenMasks) -> tuple[np.ndarray, np.ndarray]:
    """Masks [K, M, H, W] of other patients and present [K, M].

    Raises:
      UserError: of another size than the cases, or a case that is scored.
    """
    if matched.shape is None:
        raise UserError(
            f'--train={train.place}: masks of others need cases of one size, and these differ; leave it out'
        )
    patients = {name for name in matched.cases.patients if name}
    if both := [name for name in train.masks if name in raters.masks or train.patients.get(name, '') in patients]:
        raise UserError(f'--train={train.place}: {_some(both)} is scored too, or of a patient who is; leave it out')
    masks = [read() for read in train.masks.values()]
    for name, here in zip(train.masks, masks, strict=True):
        if here.shape[1:] != matched.shape:
            like = np.zeros((1, *matched.shape), np.uint8)
            raise UserError(
                f'--train={train.place}: {name} is {size(here)}, the cases scored {size(like)}; make them alike'
            )
    most = max(map(len, masks))
    padded = np.stack([np.pad(here[:, 0], ((0, most - len(here)), (0, 0), (0, 0))) for here in masks])
    return padded, np.stack([np.arange(most) < len(here) for here in masks])


def _common(raters: GivenMasks, samples: GivenMasks, only_common: bool) -> list[str]:
    """The cases that are scored."""
    names = [name for name in raters.masks if name in samples.masks]
    if not names:
        raise UserError(
            f'no case is on both sides: raters have {_some(list(raters.masks))} ({raters.place}), samples '
            f'{_some(list(samples.masks))} ({samples.place}); name them alike'
        )
    sides = (('samples', 'raters’ masks', raters, samples), ('raters’ masks', 'samples', samples, raters))
    for missing, there, has, lacks in sides:
        if not only_common and (lost := [name for name in has.masks if name not in lacks.masks]):
            raise UserError(
                f'{_some(lost)} of {has.place} has {there} and no {missing} in {lacks.place}; add them, or score the '
                f'{len(names)} cases of both sides by --only-common'
            )
    return names


def _check_number(names, sampled):
    counts = [len(masks) for masks in sampled]
    if len(set(counts)) > 1:
        few, many = int(np.argmin(counts)), int(np.argmax(counts))
        raise UserError(
            f'the case {names[few]} has {counts[few]} samples, {names[many]} has {counts[many]}; GED is comparable at '
            f'equal numbers only: draw as many of each, or take the first ones by --num-samples={counts[few]}'
        )


def _same_width(there, here):
    """Samples cut to the raters' width where they are wider by the unused bits of a byte."""
    width = there.shape[-1]
    more = here.shape[-1] - width
    return here[..., :width] if 0 < more < 8 and not here[..., width:].any() else here


def _cut(drawn, sampled):
    """Both as one plane [K, 1, Z H, W], cut to the box around what anybody marked."""
    union = np.concatenate([drawn, sampled]).any(0)
    if not union.any():
        return tuple(np.zeros((len(masks), 1, 1, 1), np.uint8) for masks in (drawn, sampled))
    box = []
    for axis in range(3):
        marked = np.flatnonzero(union.any(tuple(other for other in range(3) if other != axis)))
        box.append(slice(marked[0], marked[-1] + 1))
    cut = lambda masks: masks[(slice(None), *box)]
    return tuple(cut(masks).reshape(len(masks), 1, -1, cut(masks).shape[-1]) for masks in (drawn, sampled))


def _some(names: Sequence[str]) -> str:
    """'the case a', or '24 cases (a, b, c ..)'."""
    if len(names) == 1:
        return f'the case {names[0]}'
    return f'{len(names)} cases ({", ".join(names[:3])}{" .." if len(names) > 3 else ""})'
