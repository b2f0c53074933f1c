"""The model as one more reader: does it agree with a rater as the raters agree with each other?

    with a model    A_s = E IoU(S, Y)       S a sample, Y a rater, over all pairs of an image             (1)
    with each other A_y = E IoU(Y, Y')      Y, Y' two different raters of an image                        (2)

IoU of two empty masks is 1, as everywhere. A model whose samples are distributed as the raters' masks has A_s = A_y in
expectation: one more radiologist would agree no better. A_s above A_y is no merit beyond that: a model that always
gives the raters' consensus, and never their spread, agrees more than any of them. Several classes count as one.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import metrics


def agreement(raters: Sequence[np.ndarray], samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1) by rater and (2) by rater.

    Args:
      raters: [M, H, W] bool of each image.
      samples: [n, N, H, W] bool.

    Returns:
      with the model [n, M]: mean IoU of the samples with each rater; with each other [n, M]: mean IoU of the other
      raters with each. M is the largest there is; NaN where there is no such rater, or no other one.
    """
    most = max(map(len, raters))
    model, others = np.full((len(raters), most), np.nan), np.full((len(raters), most), np.nan)
    for row, (rated, sampled) in enumerate(zip(raters, samples, strict=True)):
        count = len(rated)
        model[row, :count] = _iou(rated, sampled).mean(1)
        if count > 1:
            others[row, :count] = (_iou(rated, rated).sum(1) - 1) / (count - 1)
    return model, others


def summary(raters: Sequence[np.ndarray], samples: np.ndarray, patients: Sequence[str] | None) -> Mapping[str, object]:
    """Means over images of (1), of (2) and of their difference, with standard errors clustered by patient, as JSON.

    `each` has a line a rater, in the data's order: where raters are the same people throughout, their own.
    """
    model, others = agreement(raters, samples)
    mean = lambda values: metrics.defined_mean(values.T)
    images = {'model': mean(model), 'raters': mean(others)}
    images['difference'] = images['model'] - images['raters']
    means, errors = metrics.summarize(images, patients)
    each = [
        {'model': float(metrics.defined_mean(one)), 'raters': float(metrics.defined_mean(other))}
        for one, other in zip(model.T, others.T, strict=True)
    ]
    return {'mean': means, 'stderr': errors, 'each': each}


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[M, H, W] and [K, H, W] bool -> IoU [M, K], 1 for two empty masks."""
    one, other = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (one, other))
    both = one @ other.T
    either = one.sum(1)[:, None] + other.sum(1)[None] - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0).astype(np.float64)
