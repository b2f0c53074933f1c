"""What samples score against the raters' masks, beside baselines: arrays in, figures out, whoever made the masks."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ambdiff import baselines, metrics

Means = dict[str, float]
COUNT_KEYS = ('ged', 'ged_ideal', 'ged_excess', 'hm_iou')  # of `by_number`


@dataclasses.dataclass(frozen=True)
class Scores:
    """The figures of one set of samples.

    Attributes:
      per_image: {key of `metrics.ALL_KEYS`: [n]}, means over the classes; NaN where undefined.
      per_class: the means over images {key: value} of each class.
      table: {row: (means, standard errors)}: `model`, then the baselines.
      calibration: of the model, [classes, bins, 3] as `metrics.calibration_counts`, over all images.
      undefined: {key: why the model's is NaN for every image}.
      draws: 'independent' or 'dependent'.
      num_patients: how many patients the images are of; None: unknown, standard errors take images as independent.
    """

    per_image: dict[str, np.ndarray]
    per_class: list[Means]
    table: dict[str, tuple[Means, Means]]
    calibration: np.ndarray
    undefined: dict[str, str]
    draws: str
    num_patients: int | None

    def as_json(self) -> dict:
        """The part of metrics.json that scores fill; NaN where a figure is undefined."""
        means, errors = self.table['model']
        rows = {name: row for name, row in self.table.items() if name != 'model'}
        counts = {key: int((~np.isnan(values)).sum()) for key, values in self.per_image.items()}
        images = len(self.per_image['ged'])
        result = {
            'draws': self.draws,
            'metrics': means,
            'stderr': errors,
            'stderr_clustered_by': 'image' if self.num_patients is None else 'patient',
            'num_patients': self.num_patients,
            'undefined': self.undefined,
            # 'calibration' is of all pixels together, whatever images they are of.
            'images_defined': {k: n for k, n in counts.items() if 0 < n < images and k != 'calibration'},
            'baselines': {name: row[0] for name, row in rows.items()},
            'baselines_stderr': {name: row[1] for name, row in rows.items()},
            'reliability': [reliability(counts) for counts in self.calibration],
        }
        if len(self.per_class) > 1:
            result['per_class'] = {str(label): row for label, row in enumerate(self.per_class, 1)}
        return result


def compute(
    raters: np.ndarray,
    present: np.ndarray,
    samples: np.ndarray,
    *,
    patients: Sequence[str],
    draws: str,
    num_classes: int,
    seed: int,
    others: tuple[np.ndarray, np.ndarray] | None = None,
    fresh: np.ndarray | None = None,
) -> Scores:
    """The scores of samples beside the baselines', all at the same N.

    Args:
      raters: [n, M, H, W], labels 0 .. num_classes or bool.
      present: [n, M] bool, the slots that a rater filled.
      samples: [n, N, H, W], as raters.
      patients: n names, '' where unknown; slices of one patient are not independent.
      draws: 'independent' or 'dependent', how the samples of an image relate to each other.
      num_classes: metrics are means over so many foreground classes.
      seed: of the baselines.
      others: masks [K, M, H, W] of other patients and present [K, M], the training split's; None: no such baseline.
      fresh: [n, N, H, W], fresh answers from the raters' own distribution, where it is known.

    Raises:
      ValueError: no images, or arrays that do not fit together.
    """
    number = samples.shape[1]
    patients = list(patients) if any(patients) else None

    def row(masks, draws='independent'):
        values, classes = metrics.per_class(raters, masks, num_classes, draws, present)
        return values, classes, _calibration(raters, masks, num_classes, present)

    def summary(values, counts=None):
        means, errors = metrics.summarize(values, patients)
        if counts is None:  # of single answers, which have no probability
            means['calibration'] = errors['calibration'] = math.nan
        else:
            means['calibration'], errors['calibration'] = _pooled(counts, patients)
        return means, errors

    model, classes, counts = row(samples, draws)
    table = {'model': summary(model, counts)}
    masks = {'empty': baselines.empty(raters, number)}
    masks |= baselines.random_answers(raters, present, others, number, seed)
    if fresh is not None:
        masks['fresh_raters'] = fresh
    for name, others in masks.items():
        values, _, found = row(others)
        table[name] = summary(values, found)
    rest = [baselines.rater_vs_rest(raters == label, present) for label in range(1, num_classes + 1)]
    table['rater_vs_rest'] = summary(metrics.mean_of(rest))
    each = []
    for values, found in zip(classes, np.moveaxis(counts, 1, 0), strict=True):
        each.append(metrics.summarize(values)[0])
        each[-1]['calibration'] = float(metrics.calibration_error(found.sum(0)))
    means = table['model'][0]
    reasons = {
        'calibration': 'no sample marks a pixel',
        'ged_shape': 'needs an image with two masks of raters and two samples that are not empty',
        **metrics.undefined(int(present.sum(1).max()), number, draws),
    }
    return Scores(
        per_image=model,
        per_class=each,
        table=table,
        calibration=counts.sum(0),
        undefined={key: reasons[key] for key in means if math.isnan(means[key])},
        draws=draws,
        num_patients=len(set(metrics.clusters(patients))) if patients else None,
    )


def by_number(
    raters: np.ndarray,
    present: np.ndarray,
    samples: np.ndarray,
    *,
    counts: Sequence[int],
    patients: Sequence[str],
    num_classes: int,
) -> dict[str, dict[str, Means]]:
    """GED, its ideal level and excess, and HM-IoU at several N from one set of independent samples.

    The first n of an image's samples are n independent samples, so each figure is what that N gives; figures at
    different N share samples, and their errors with them. Arguments as of `compute`; counts: each at most N.

    Returns:
      {n as text: {'metrics': {key of `COUNT_KEYS`: mean}, 'stderr': {key: standard error}}}.
    """
    patients = list(patients) if any(patients) else None
    result = {}
    for count in counts:
        values = metrics.per_class(raters, samples[:, :count], num_classes, 'independent', present)[0]
        means, errors = metrics.summarize({key: values[key] for key in COUNT_KEYS}, patients)
        result[str(count)] = {'metrics': means, 'stderr': errors}
    return result


def _calibration(raters, samples, num_classes, present) -> np.ndarray:
    """`metrics.calibration_counts` of each class: [n, classes, bins, 3]."""
    labels = range(1, num_classes + 1)
    return np.stack([metrics.calibration_counts(raters == k, samples == k, present) for k in labels], axis=1)


def _pooled(counts: np.ndarray, patients: Sequence[str] | None) -> tuple[float, float]:
    """Calibration error of all pixels, mean over classes, of [n, classes, bins, 3]; its error leaves out patients."""
    groups = metrics.clusters(patients) if patients else np.arange(len(counts))
    shares = np.zeros((groups.max() + 1, *counts.shape[1:]))
    np.add.at(shares, groups, counts)
    error = lambda sums: metrics.defined_mean(np.moveaxis(metrics.calibration_error(sums), -1, 0))
    return float(error(shares.sum(0))), _jackknife(error, shares)


def _jackknife(statistic: Callable[[np.ndarray], np.ndarray], shares: np.ndarray) -> float:
    """Standard error of statistic(sum over the first axis) by leaving out one share at a time (Tukey 1958)."""
    count = len(shares)
    if count < 2:
        return math.nan
    without = statistic(shares.sum(0) - shares)
    return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def reliability(counts: np.ndarray) -> list[Mapping[str, float]]:
    """Rows of what was said and what was seen, from [bins, 3]: the first is of pixels that no sample marks."""
    return [
        {'pixels': int(pixels), 'predicted': float(predicted / pixels), 'observed': float(observed / pixels)}
        for pixels, predicted, observed in counts
        if pixels
    ]
