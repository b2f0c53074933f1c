"""Scores of whole volumes: the slices of a case put together, each mask of D H W voxels as one.

Beside every metric of `ambdiff.metrics`, in mm and mm^3 where the files tell them, means over the classes:

    volume_crps_mm3   of the volume v(S_n) of a model's N masks against v(Y_m) of M raters, the continuous ranked
                      probability score (Gneiting & Raftery 2007, equation 20, of the samples' own distribution):
                      mean over m, n of |v(S_n) - v(Y_m)| - mean over n, n' of |v(S_n) - v(S_n')| / 2         (1)
    hd95_mm, assd_mm  mean over all pairs of a rater and a sample in which neither is empty (`ambdiff.surfaces`)
    hd95_raters_mm, assd_raters_mm    the same over pairs of raters: what two people differ by

Lower is better. A case's slices are those that the data has: where no rater marked anything nothing was sampled, so
what a model would mark there is not counted. Sample n of a volume is sample n of each of its slices; these are one
answer only where they follow from the same randomness, as `ambdiff.evaluate` sees to.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from ambdiff import metrics, scoring, surfaces
from ambdiff.data.source import Place, Source
from ambdiff.errors import UserError
from ambdiff.evaluation.cases import Cases, evenly_spaced
from ambdiff.evaluation.scores import Means

IN_MM = ('volume_crps_mm3', 'hd95_mm', 'assd_mm', 'hd95_raters_mm', 'assd_raters_mm')
KEYS = (*metrics.ALL_KEYS, *IN_MM)


@dataclasses.dataclass(frozen=True)
class Volume:
    """The slices of a case.

    Attributes:
      name: of the case.
      patient: '' where unknown.
      raters: [M, D, H, W] labels of those who are there.
      samples: [N, D, H, W] labels.
      spacing: (slice, row, column) mm apart, NaN where unknown.
    """

    name: str
    patient: str
    raters: np.ndarray
    samples: np.ndarray
    spacing: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Scores:
    """The figures of all volumes.

    Attributes:
      names: of the volumes.
      patients: of each, '' where unknown.
      per_volume: {key of `KEYS`: [V]}, means over the classes; NaN where undefined.
      per_class: the means over volumes {key: value} of each class.
      means: {key: mean over volumes}.
      errors: {key: its standard error}.
      undefined: {key: why it is NaN for every volume}.
    """

    names: list[str]
    patients: list[str]
    per_volume: dict[str, np.ndarray]
    per_class: list[Means]
    means: Means
    errors: Means
    undefined: dict[str, str]

    def as_json(self) -> dict:
        """The part `volumes` of metrics.json; NaN where a figure is undefined."""
        counts = {key: int((~np.isnan(values)).sum()) for key, values in self.per_volume.items()}
        result = {
            'num_volumes': len(self.names),
            'metrics': self.means,
            'stderr': self.errors,
            'stderr_clustered_by': 'patient' if any(self.patients) else 'volume',
            'undefined': self.undefined,
            'volumes_defined': {key: n for key, n in counts.items() if 0 < n < len(self.names)},
        }
        if len(self.per_class) > 1:
            result['per_class'] = {str(label): row for label, row in enumerate(self.per_class, 1)}
        return result

    def table(self) -> str:
        """The text of per_volume.csv: a line a volume, blank where undefined."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(['volume', 'patient', *self.per_volume])
        for row, (name, patient) in enumerate(zip(self.names, self.patients, strict=True)):
            cells = (float(values[row]) for values in self.per_volume.values())
            writer.writerow([name, patient, *(f'{value:.6f}' if math.isfinite(value) else '' for value in cells)])
        return text.getvalue()


def chosen(source: Source, count: int) -> tuple[np.ndarray, list[Place]]:
    """(rows [n] of all slices of `count` volumes, evenly spaced over those of a source, where each of them lies).

    count 0 = all volumes.

    Raises:
      UserError: the source has no volumes, or its build does not know them.
    """
    found = [source.place(row) for row in range(len(source))]
    if None in found:
        raise UserError(
            'config.evaluate.volumes: this data has no volumes that are known; those of a folder of cases or of '
            'config.data.pattern are, and of builder=folder where it was built since they are kept (else delete the '
            'build); set --config.evaluate.volumes=False'
        )
    names = list(dict.fromkeys(place.volume for place in found))
    kept = {names[number] for number in evenly_spaced(len(names), count)}
    rows = [row for row, place in enumerate(found) if place.volume in kept]
    return np.array(rows), [found[row] for row in rows]


def numbers(found: Sequence[Place]) -> np.ndarray:
    """The number of each example's volume [n], from which its slices take their randomness."""
    names = {name: number for number, name in enumerate(dict.fromkeys(place.volume for place in found))}
    return np.array([names[place.volume] for place in found])


def assembled(cases: Cases, samples: np.ndarray, found: Sequence[Place]) -> Iterator[Volume]:
    """The volumes that slices are of, one after the other: samples [n, N, H, W], found: where each slice lies."""
    rows_of: dict[str, list[int]] = {}
    for row, place in enumerate(found):
        rows_of.setdefault(place.volume, []).append(row)
    for name, rows in rows_of.items():
        depth = [found[row].slice for row in rows]
        first, count = min(depth), max(depth) - min(depth) + 1
        raters = np.zeros((cases.raters.shape[1], count, *cases.raters.shape[2:]), cases.raters.dtype)
        sampled = np.zeros((samples.shape[1], count, *samples.shape[2:]), samples.dtype)
        there = np.zeros(len(raters), bool)
        for row, z in zip(rows, depth, strict=True):
            order = list(found[row].raters)
            raters[order, z - first] = cases.raters[row]
            there[order] |= cases.present[row]
            sampled[:, z - first] = samples[row]
        steps = (found[rows[0]].thickness, *cases.spacing[rows[0]].tolist())
        yield Volume(name, cases.patients[rows[0]], raters[there], sampled, steps)


def score(volumes: Sequence[Volume] | Iterator[Volume], total: int, num_classes: int, draws: str) -> Scores:
    """The figures of `total` volumes, of which one at a time is held; draws: 'independent' or 'dependent'."""
    names, patients, most, known = [], [], 0, False
    each: list[list[dict[str, float]]] = [[] for _ in range(num_classes)]
    for volume in tqdm.tqdm(volumes, 'volumes', total, unit=' volumes', delay=2, leave=False):
        names.append(volume.name)
        patients.append(volume.patient)
        most, known = max(most, len(volume.raters)), known or bool(np.isfinite(volume.spacing).all())
        for label in range(1, num_classes + 1):
            raters, samples = volume.raters == label, volume.samples == label
            figures = scoring.score(raters, samples, volume=True, draws=draws)
            each[label - 1].append(figures | _in_mm(raters, samples, volume.spacing))
        count = len(volume.samples)
    columns = [{key: np.array([row[key] for row in rows]) for key in KEYS} for rows in each]
    per_volume = metrics.mean_of(columns)
    clusters = patients if any(patients) else None
    means, errors = metrics.summarize(per_volume, clusters)
    reasons = {'calibration': 'no sample marks a voxel', **metrics.undefined(most, count, draws)}
    unknown = 'needs the distance of slices and of pixels in mm, which no file tells'
    reasons |= dict.fromkeys(IN_MM, 'needs a mask of a rater and a sample that are not empty' if known else unknown)
    for key in ('hd95_raters_mm', 'assd_raters_mm') if known else ():
        reasons[key] = 'needs two masks of raters that are not empty'
    reasons['ged_shape'] = reasons.get('ged_shape', 'needs two masks of raters and two samples that are not empty')
    return Scores(
        names,
        patients,
        per_volume,
        [metrics.summarize(column)[0] for column in columns],
        means,
        errors,
        {key: reasons[key] for key, value in means.items() if math.isnan(value)},
    )


def crps(truths: np.ndarray, samples: np.ndarray) -> float:
    """Equation (1) of numbers [M] and [N]."""
    between = np.abs(np.subtract.outer(samples, truths)).mean()
    return float(between - np.abs(np.subtract.outer(samples, samples)).mean() / 2)


def _in_mm(raters, samples, spacing):
    """{key of IN_MM: value} of one class of one volume."""
    if not np.isfinite(spacing).all():
        return dict.fromkeys(IN_MM, math.nan)
    voxel = math.prod(spacing)
    volume_of = lambda masks: masks.sum((1, 2, 3)) * voxel
    hd95, assd = surfaces.pairwise(raters, samples, spacing)
    own = np.triu_indices(len(raters), 1)
    of_raters = [pairs[own] for pairs in surfaces.pairwise(raters, raters, spacing)]
    parts = (hd95, assd, *of_raters)
    known = (float(metrics.defined_mean(pairs.ravel()[:, None])[0]) if pairs.size else math.nan for pairs in parts)
    return dict(zip(IN_MM, (crps(volume_of(raters), volume_of(samples)), *known), strict=True))
