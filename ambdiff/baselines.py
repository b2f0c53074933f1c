"""Answers that need no model, to read the metrics against.

- `empty`: nothing, N times. What a model that never dares to mark anything gets.
- `other_patients`: N masks drawn uniformly over (training case, rater), whatever the image. It
  knows how lesions look, not where this one is: a model no better than it ignores its input.
- `majority`: what at least half of the image's own raters mark, N times: the best single answer, from the very masks it
  is measured on. A model that answers as surely as this has no spread, and pays for it.
- `rater_vs_rest`: each rater as the single sample against the others: what one human answer scores.
- `raters_resampled`: N draws with replacement from the image's own raters: an oracle that has seen the very masks it is
  measured on. No model can know these; what one can hope for is the ideal level of `ambdiff.metrics`.

Masks [B, M, H, W] come with present [B, M] bool: a slot without a rater is never chosen nor compared.
"""

import numpy as np

from ambdiff import metrics


def empty(raters: np.ndarray, num_samples: int) -> np.ndarray:
    """Raters [B, M, H, W] -> empty masks [B, N, H, W] of the same type."""
    return np.zeros((len(raters), num_samples, *raters.shape[2:]), raters.dtype)


def other_patients(
    train_masks: np.ndarray, train_present: np.ndarray, num_images: int, num_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Masks of the training split [K, M, H, W] -> random ones of them [num_images, N, H, W].

    Drawn with replacement, uniformly over (case, rater). The caller sees to it that no training
    case is of a patient under test.
    """
    cases, raters = np.nonzero(train_present)
    if not len(cases):
        raise ValueError(f'no training masks to draw from: shape {train_masks.shape}')
    chosen = rng.integers(len(cases), size=(num_images, num_samples))
    return train_masks[cases[chosen], raters[chosen]]


def raters_resampled(raters: np.ndarray, present: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Raters [B, M, H, W] -> N draws with replacement from each image's own, [B, N, H, W]."""
    first = np.argsort(~present, axis=1, kind='stable')
    chosen = rng.integers(present.sum(1)[:, None], size=(len(raters), num_samples))
    return raters[np.arange(len(raters))[:, None], np.take_along_axis(first, chosen, axis=1)]


def majority(raters: np.ndarray, present: np.ndarray, num_samples: int) -> np.ndarray:
    """Raters [B, M, H, W] -> what at least half of those there mark with one label, N times: [B, N, H, W].

    Of several labels that are marked so often, the smallest; of the same type as the raters'.
    """
    best = np.zeros((len(raters), *raters.shape[2:]), raters.dtype)
    for label in range(int(raters.max()), 0, -1):
        votes = ((raters == label) & present[..., None, None]).sum(1)
        best[2 * votes >= present.sum(1)[:, None, None]] = label
    return np.repeat(best[:, None], num_samples, axis=1)


def random_answers(
    raters: np.ndarray,
    present: np.ndarray,
    others: tuple[np.ndarray, np.ndarray] | None,
    num_samples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """`other_patients` and `raters_resampled` by name, each from a stream of its own, so that it is the same anywhere.

    others: masks [K, M, H, W] of training and who is present [K, M]; None leaves other_patients out.
    """
    answers = {}
    if others is not None:
        answers['other_patients'] = other_patients(*others, len(raters), num_samples, np.random.default_rng(seed))
    answers['raters_resampled'] = raters_resampled(raters, present, num_samples, np.random.default_rng((seed, 1)))
    return answers


def rater_vs_rest(raters: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
    """`metrics.measure` of each rater (N = 1) against the others, averaged over the raters.

    raters [B, M, H, W] bool -> {key: [B] float64}. What needs two samples is NaN; for an image of one rater there is no
    rest and everything is NaN.
    """

    def values_of(_, there):
        if there.shape[1] == 1:
            return {key: np.full(len(there), np.nan) for key in metrics.ALL_KEYS}
        each = [
            metrics.measure(np.delete(there, rater, axis=1), there[:, rater : rater + 1], 'independent')
            for rater in range(there.shape[1])
        ]
        return metrics.mean_of(each)

    return metrics.by_raters(values_of, raters, present)


if __name__ == '__main__':
    from ambdiff import command

    command.elsewhere('baselines', 'scores are set beside the baselines by ambdiff evaluate CONFIG and ambdiff score')
