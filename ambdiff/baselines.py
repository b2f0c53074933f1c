"""Answers that need no model, to read the metrics against.

- `empty`: nothing, N times. What a model that never dares to draw gets.
- `other_patients`: N masks drawn uniformly over (training case, rater), whatever the image. It
  knows how lesions look, not where this one is: a model no better than it ignores its input.
- `rater_vs_rest`: each rater as the single sample against the others: what one human answer scores.
- `raters_resampled`: N draws with replacement from the image's own raters: the floor, the GED_N
  that a model would have in expectation if it knew the raters' answers exactly.
"""

import numpy as np

from ambdiff import metrics


def empty(raters: np.ndarray, num_samples: int) -> np.ndarray:
    """Raters [B, M, H, W] -> empty masks [B, N, H, W] bool."""
    return np.zeros((len(raters), num_samples, *raters.shape[2:]), bool)


def other_patients(train_masks: np.ndarray, num_images: int, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Masks of the training split [K, M, H, W] -> random ones of them [num_images, N, H, W] bool.

    Drawn with replacement, uniformly over (case, rater). The caller sees to it that no training
    case is of a patient under test.
    """
    count, num_raters = train_masks.shape[:2]
    if not count:
        raise ValueError(f'no training masks to draw from: shape {train_masks.shape}')
    shape = (num_images, num_samples)
    picked = train_masks[rng.integers(count, size=shape), rng.integers(num_raters, size=shape)]
    return picked.astype(bool)


def raters_resampled(raters: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Raters [B, M, H, W] -> N draws with replacement from each image's own, [B, N, H, W] bool."""
    batch, num_raters = raters.shape[:2]
    picked = rng.integers(num_raters, size=(batch, num_samples))
    return raters[np.arange(batch)[:, None], picked].astype(bool)


def rater_vs_rest(raters: np.ndarray) -> dict[str, np.ndarray]:
    """`metrics.per_image` of each rater (N = 1) against the others, averaged over the raters.

    raters [B, M, H, W] bool -> {key: [B] float64}. With N = 1 `ged_unbiased` is NaN; with M = 1
    there is no rest and everything is NaN.
    """
    batch, num_raters = raters.shape[:2]
    if num_raters == 1:
        return {key: np.full(batch, np.nan) for key in metrics.KEYS}
    each = [
        metrics.per_image(np.delete(raters, rater, axis=1), raters[:, rater : rater + 1]) for rater in range(num_raters)
    ]
    return {key: np.mean([values[key] for values in each], axis=0) for key in metrics.KEYS}
