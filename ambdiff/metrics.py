"""Agreement between the raters' masks Y_1..Y_M of an image and a model's samples S_1..S_N.

For two masks, IoU = |A & B| / |A | B| and Dice = 2 |A & B| / (|A| + |B|) of the foreground, both 1
for two empty masks (an empty mask is an answer), and d = 1 - IoU. E is a plain mean over pairs.

    (1) GED_N = 2 E d(S, Y) - E d(S, S') - E d(Y, Y'), over all N x N and M x M pairs: the
        V-statistic of the squared generalised energy distance that the literature prints
        (Kohl et al. 2018, arXiv 1806.05034).
    (2) GED unbiased: E d(S, S') over the N (N - 1) distinct pairs only. In expectation
        GED_N = GED unbiased + E d(S, S') / N. May be negative; undefined (NaN) for N = 1.
    (3) HM-IoU: raters and samples each repeated to lcm(M, N), mean IoU of the best one-to-one
        matching.
    (4) D_max: mean over raters of the best Dice among the samples.
    (5) S_c = |union S & union Y| / |union Y|; with union Y empty, 1 if union S is empty, else 0.
    (6) D_a = 1 - (|max V_Y - max V_S| + |min V_Y - min V_S|) / 2, V = 1 - Dice over distinct
        pairs; a single mask has V = 0.
    (7) CI = 3 S_c D_max D_a / (S_c + D_max + D_a), as printed (Rahman et al. 2023,
        arXiv 2304.04745). Its text says harmonic mean, which it is not: equal parts v give v^2.
    (8) CI harmonic = 3 / (1 / S_c + 1 / D_max + 1 / D_a), 0 if a part is 0.

GED lies in [0, 2] and lower is better; the others lie in [0, 1] and higher is better.
Beware: (4), (5), (7) and (8) grow with N and can be gamed. Masks of other patients, drawn blindly,
beat trained models on CI; one whole-image mask makes S_c = 1. Read them beside GED, HM-IoU and the
baselines of `ambdiff.baselines`, and compare GED_N at equal N only.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

KEYS = ('ged', 'ged_unbiased', 'hm_iou', 'd_max', 's_c', 'd_a', 'ci', 'ci_harmonic')

# Sums of zeros and ones in float32 are exact up to here, whatever their order, on every device: the
# factors 0 and 1 survive bfloat16 and TF32, and accelerators accumulate in float32.
_MAX_PIXELS = 2**24
# Float32 elements of the stacked masks in one device call; fixes the chunk, so B never recompiles.
_CHUNK_ELEMENTS = 2**23
_MAX_CHUNK = 64


def per_image(raters: np.ndarray, samples: np.ndarray, present: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Every metric of the module docstring for a batch of images.

    raters [B, M, H, W] bool, samples [B, N, H, W] bool, present [B, M] bool (False: the slot has no rater and counts
    for nothing; None: all there) -> {key: [B] float64} for key in `KEYS`.
    Raises ValueError for other types, unequal B, H or W, no raters or samples, or H W > 2^24.
    """
    raters, samples = np.asarray(raters), np.asarray(samples)
    _check(raters, samples)
    if present is not None and not present.all():
        return by_raters(lambda rows, there: per_image(there, samples[rows]), raters, present)
    num_raters, num_samples = raters.shape[1], samples.shape[1]
    gram = _intersections(raters, samples)
    area = np.diagonal(gram, axis1=1, axis2=2)
    total = area[:, :, None] + area[:, None, :]
    iou = _ratio(gram, total - gram)
    dice = _ratio(2 * gram, total)

    y = slice(0, num_raters)
    s = slice(num_raters, num_raters + num_samples)
    distance = 1 - iou
    cross = distance[:, y, s].mean((1, 2))
    within_y = distance[:, y, y].mean((1, 2))
    sum_s = distance[:, s, s].sum((1, 2))
    d_max = dice[:, y, s].max(2).mean(1)
    # The last two rows of the stack are the unions.
    s_c = np.where(area[:, -2] > 0, _ratio(gram[:, -2, -1], area[:, -2]), np.where(area[:, -1] > 0, 0.0, 1.0))
    max_y, min_y = _diversity_range(dice[:, y, y])
    max_s, min_s = _diversity_range(dice[:, s, s])
    d_a = 1 - (np.abs(max_y - max_s) + np.abs(min_y - min_s)) / 2
    product, parts = s_c * d_max * d_a, s_c + d_max + d_a
    pairwise = s_c * d_max + s_c * d_a + d_max * d_a
    return {
        'ged': 2 * cross - sum_s / num_samples**2 - within_y,
        'ged_unbiased': 2 * cross - _distinct_mean(sum_s, num_samples) - within_y,
        'hm_iou': np.array([_matched_mean(image) for image in iou[:, y, s]]),
        'd_max': d_max,
        's_c': s_c,
        'd_a': d_a,
        'ci': 3 * _ratio(product, parts, empty=0.0),
        'ci_harmonic': 3 * _ratio(product, pairwise, empty=0.0),
    }


def per_class(
    raters: np.ndarray, samples: np.ndarray, num_classes: int, present: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """`per_image` of each foreground class 1 .. K alone: (its mean over the classes, one dict a class).

    raters [B, M, H, W] and samples [B, N, H, W] hold labels 0 .. K, or 0 and 1 (also as bool) for K = 1.
    """
    each = [per_image(raters == label, samples == label, present) for label in range(1, num_classes + 1)]
    return class_mean(each), each


def class_mean(each: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean over classes of {key: [B]}."""
    return {key: np.mean([values[key] for values in each], axis=0) for key in each[0]}


def by_raters(
    values_of: Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]], raters: np.ndarray, present: np.ndarray
) -> dict[str, np.ndarray]:
    """values_of(rows, the raters who are there [rows, m, H, W]) for the images of each number m of raters, joined.

    raters [B, M, H, W], present [B, M] bool; values_of gives {key: [rows]} -> {key: [B]}.
    Raises ValueError for an image without a rater.
    """
    counts = present.sum(1)
    if not counts.all():
        raise ValueError(f'image {int(np.argmin(counts))} has no rater')
    first = np.argsort(~present, axis=1, kind='stable')
    result: dict[str, np.ndarray] = {}
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        for key, value in values_of(rows, raters[rows[:, None], first[rows, :count]]).items():
            result.setdefault(key, np.empty(len(raters)))[rows] = value
    return result


def summarize(
    values: Mapping[str, np.ndarray],
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean over images of each metric, and the standard error of that mean.

    {key: [B]} -> ({key: mean}, {key: standard error}). The standard error is the sample standard
    deviation (over B - 1) by sqrt(B), NaN for B = 1; a NaN in the input stays NaN. Images count as
    independent: several slices of one patient are not, and then it is too small.
    """
    means, errors = {}, {}
    for key, value in values.items():
        value = np.asarray(value, np.float64)
        if value.ndim != 1 or not value.size:
            raise ValueError(f'{key} must have shape [B] with B > 0, got {value.shape}')
        means[key] = float(value.mean())
        errors[key] = float(value.std(ddof=1) / math.sqrt(value.size)) if value.size > 1 else math.nan
    return means, errors


def _check(raters: np.ndarray, samples: np.ndarray) -> None:
    for name, masks in (('raters', raters), ('samples', samples)):
        if masks.dtype != np.bool_:
            raise ValueError(f'{name} must be bool, got {masks.dtype}: threshold the masks first')
        if masks.ndim != 4 or 0 in masks.shape[1:]:
            raise ValueError(f'{name} must have shape [B, masks, H, W], none of the last three 0, got {masks.shape}')
    if raters.shape[0] != samples.shape[0] or raters.shape[2:] != samples.shape[2:]:
        raise ValueError(f'raters {raters.shape} and samples {samples.shape} must agree in B, H and W')
    if math.prod(raters.shape[2:]) > _MAX_PIXELS:
        raise ValueError(
            f'masks of {raters.shape[2]} x {raters.shape[3]} pixels: counts above {_MAX_PIXELS} '
            'are not exact in float32'
        )


@jax.jit
def _gram(raters: jax.Array, samples: jax.Array) -> jax.Array:
    """[B, M, P] and [B, N, P] bool -> counts [B, M+N+2, M+N+2] float32; see `_intersections`."""
    stack = (raters, samples, raters.any(1, keepdims=True), samples.any(1, keepdims=True))
    stack = jnp.concatenate(stack, axis=1).astype(jnp.float32)
    return jnp.einsum('bip,bjp->bij', stack, stack, preferred_element_type=jnp.float32)


def _intersections(raters: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Pixels shared by any two of raters, samples, union Y, union S: [B, M+N+2, M+N+2]."""
    batch, num_raters = raters.shape[:2]
    raters = raters.reshape(batch, num_raters, -1)
    samples = samples.reshape(batch, samples.shape[1], -1)
    size = num_raters + samples.shape[1] + 2
    chunk = min(max(_CHUNK_ELEMENTS // (size * raters.shape[2]), 1), _MAX_CHUNK)
    gram = np.empty((batch, size, size))
    for start in range(0, batch, chunk):
        part = slice(start, min(start + chunk, batch))
        # Always a whole chunk, filled up with empty masks: one compiled program for any B.
        fill = ((0, chunk - (part.stop - start)), (0, 0), (0, 0))
        counts = _gram(np.pad(raters[part], fill), np.pad(samples[part], fill))
        gram[part] = np.asarray(counts)[: part.stop - start]
    return gram


def _ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = 1.0) -> np.ndarray:
    """numerator / denominator, and `empty` where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, empty), where=denominator > 0)


def _distinct_mean(total: np.ndarray, count: int) -> np.ndarray:
    """Mean over ordered distinct pairs of `count` masks, from the sum: the diagonal is 0."""
    return total / (count * (count - 1)) if count > 1 else np.full(total.shape, np.nan)


def _diversity_range(dice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest 1 - Dice over distinct pairs, [B, K, K] -> [B], [B]; 0, 0 for K = 1."""
    count = dice.shape[1]
    if count == 1:
        return np.zeros(len(dice)), np.zeros(len(dice))
    variety = 1 - dice[:, *np.triu_indices(count, 1)]
    return variety.max(1), variety.min(1)


def _matched_mean(iou: np.ndarray) -> float:
    """HM-IoU of one image from its IoU [M, N]."""
    num_raters, num_samples = iou.shape
    length = math.lcm(num_raters, num_samples)
    cost = -iou.repeat(length // num_raters, 0).repeat(length // num_samples, 1)
    return float(-cost[linear_sum_assignment(cost)].mean())
