"""Paired differences to the first run, over the same images and the same number of samples."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ambdiff import metrics
from ambdiff.errors import UserError
from ambdiff.evaluation.comparison.runs import Run
from ambdiff.evaluation.scores import Means

# 'calibration' is of all pixels together, no mean over images, so that it has no paired difference.
KEYS = tuple(key for key in metrics.ALL_KEYS if key != 'calibration')


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is told of runs; the first one is what the others are compared with.

    Attributes:
      names: of the runs.
      cases: the images that all have.
      patients: of each, '' where unknown.
      num_samples: N, the same of all.
      draws: of each run.
      per_image: {run: {key: [n]}}, NaN where undefined.
      means: {run: (means, standard errors)}.
      differences: {run but the first: (mean of run less first, standard error)}, over images where both are defined.
      notes: what was left out, a sentence each.
      images: [n, H, W, C] float32 in [0, 1]; black where masks alone are there.
      raters: [M, H, W] bool of each case.
      samples: {run: [n, N, H, W] bool}.
    """

    names: list[str]
    cases: list[str]
    patients: list[str]
    num_samples: int
    draws: list[str]
    per_image: dict[str, dict[str, np.ndarray]]
    means: dict[str, tuple[Means, Means]]
    differences: dict[str, tuple[Means, Means]]
    notes: list[str]
    images: np.ndarray
    raters: list[np.ndarray]
    samples: dict[str, np.ndarray]


def of(runs: Sequence[Run]) -> Comparison:
    """The comparison of opened runs.

    Raises:
      UserError: no image in common, raters' masks that differ, or numbers of samples that cannot be made equal.
    """
    first, notes = runs[0], []
    cases = [name for name in first.samples.masks if all(name in run.samples.masks for run in runs)]
    if not cases:
        raise UserError(f'{" and ".join(run.name for run in runs)} have no case in common; evaluate them on one split')
    if most := max(len(run.samples.masks) - len(cases) for run in runs):
        notes.append(f'{len(cases)} images are in every run; up to {most} more of a run are left out.')
    if len({run.num_classes for run in runs}) > 1:
        raise UserError('the runs have different numbers of classes; compare runs on one kind of masks')
    number = _equal_number(runs, notes)
    raters = [_same_raters(runs, name) for name in cases]
    most = max(map(len, raters))
    present = np.stack([np.arange(most) < len(masks) for masks in raters])
    padded = np.stack([np.pad(masks, ((0, most - len(masks)), (0, 0), (0, 0))) for masks in raters])
    known = first.raters.patients
    patients = [known.get(name, '') for name in cases]
    clusters = patients if any(patients) else None
    samples, per_image = {}, {}
    for run in runs:
        masks = np.stack([run.samples.masks[name]()[:number, 0] for name in cases])
        if masks.shape[2:] != padded.shape[2:]:
            raise UserError(
                f'{run.name}: its images are of another size than those of {first.name}; compare equal ones'
            )
        values, _ = metrics.per_class(padded, masks, first.num_classes, run.draws, present)
        per_image[run.name] = {key: values[key] for key in KEYS}
        samples[run.name] = masks > 0
    reference = per_image[first.name]
    differences = {
        name: metrics.summarize({key: values[key] - reference[key] for key in KEYS}, clusters)
        for name, values in per_image.items()
        if name != first.name
    }
    images = next((run.samples.images for run in runs if run.samples.images), {})
    black = np.zeros((*padded.shape[2:], 1), np.float32)
    return Comparison(
        [run.name for run in runs],
        cases,
        patients,
        number,
        [run.draws for run in runs],
        per_image,
        {name: metrics.summarize(values, clusters) for name, values in per_image.items()},
        differences,
        notes,
        np.stack([images.get(name, black) for name in cases]),
        [masks > 0 for masks in raters],
        samples,
    )


def _equal_number(runs: Sequence[Run], notes: list[str]) -> int:
    """The least N; of a run with more, its first N are taken, which only independent ones stand for."""
    few = min(runs, key=lambda run: run.num_samples)
    for run in runs:
        if run.num_samples == few.num_samples:
            continue
        if run.draws == 'dependent':
            raise UserError(
                f'{run.name} has {run.num_samples} samples a case and {few.name} {few.num_samples}; the first ones of '
                f'dependent samples are no smaller set of their kind: evaluate {run.name} again with '
                f'--sample.num_samples={few.num_samples}'
            )
        notes.append(f'Of {run.name} the first {few.num_samples} of {run.num_samples} samples a case are taken.')
    return few.num_samples


def _same_raters(runs: Sequence[Run], case: str) -> np.ndarray:
    """The raters' masks of a case, [M, H, W], the same in all runs but for the order."""
    first = runs[0].raters.masks[case]()[:, 0]
    key = lambda masks: (masks.shape, sorted(mask.tobytes() for mask in masks))
    for run in runs[1:]:
        if key(run.raters.masks[case]()[:, 0]) != key(first):
            raise UserError(
                f'the case {case}: raters’ masks of {run.name} and {runs[0].name} differ; compare runs of one '
                'data set, read at one size'
            )
    return first
