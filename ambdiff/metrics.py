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
`per_image` gives these eight. `measure` adds what they owe to the chance of M raters and N samples:

    (9)  Diversity of the raters, of the samples: E d over distinct pairs of them. D is that of the raters.
    (10) GED ideal = D (1 / M + 1 / N): the GED_N that a model is expected to get whose samples are independent draws
         from the distribution that the raters are independent draws from. Samples that depend on each other, as
         stratified ones do, can take away the share of N, never that of M: then D / M.
    (11) GED excess = GED - GED ideal: what the model itself is to blame for. Can be negative by chance.
    (12) Emptiness error = 2 [(q - p)^2 - p (1 - p) / (M - 1) - q (1 - q) / (N - 1)], p and q the empty shares of raters
         and samples: in expectation twice the squared error of the share of "nothing there". Can be negative.
    (13) GED shape = 2 E d(S, Y) - E d(S, S') - E d(Y, Y') of non-empty masks alone, over distinct pairs: in expectation
         0 for a model whose masks, where not empty, are spread as the raters'. Needs two such masks of each side.
    (14) Calibration: over the pixels that some sample marks, the mean distance between the share of the samples that
         mark a pixel and the share of the raters, pixels of about equal share (tenths) taken together (expected
         calibration error, Naeini et al. 2015). Pixels that no sample marks would hide it by their number. With few
         samples shares are coarse, and a perfect model is above 0: compare at equal N.

(2), (12) and (13) rest on distinct samples being independent: of dependent ones they say nothing and are NaN.
Beware: (4), (5), (7) and (8) grow with N and can be gamed. Masks of other patients, taken blindly,
beat trained models on CI; one whole-image mask makes S_c = 1. Read them beside GED, HM-IoU and the
baselines of `ambdiff.baselines`, and compare GED_N at equal N only.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ambdiff import matching

KEYS = ('ged', 'ged_unbiased', 'hm_iou', 'd_max', 's_c', 'd_a', 'ci', 'ci_harmonic')
CHANCE_KEYS = (
    'ged_ideal',
    'ged_excess',
    'emptiness_error',
    'ged_shape',
    'diversity_samples',
    'diversity_raters',
    'calibration',
)
ALL_KEYS = KEYS + CHANCE_KEYS
DRAWS = ('independent', 'dependent')  # how the samples of an image relate to each other
CALIBRATION_BINS = 10  # tenths of the share of samples, beside one bin for pixels that no sample marks

# Sums of zeros and ones in float32 are exact up to here, whatever their order, on every device: the
# factors 0 and 1 survive bfloat16 and TF32, and accelerators accumulate in float32.
_MAX_PIXELS = 2**24
# Float32 elements of the stacked masks in one device call; fixes the chunk, so B never recompiles.
_CHUNK_ELEMENTS = 2**23
_MAX_CHUNK = 64


def per_image(raters: np.ndarray, samples: np.ndarray, present: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Metrics (1) to (8) of the module docstring for a batch of images, all draws taken as independent.

    raters [B, M, H, W] bool, samples [B, N, H, W] bool, present [B, M] bool (False: the slot has no rater and counts
    for nothing; None: all there) -> {key: [B] float64} for key in `KEYS`.
    Raises ValueError for other types, unequal B, H or W, no raters or samples, or H W > 2^24.
    """
    values = measure(raters, samples, 'independent', present)
    return {key: values[key] for key in KEYS}


def measure(
    raters: np.ndarray, samples: np.ndarray, draws: str, present: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """All metrics of the module docstring for a batch of images.

    draws: 'independent' or 'dependent'; the other arguments and the errors as of `per_image` -> {key: [B] float64} for
    key in `ALL_KEYS`, NaN where a metric is undefined (`undefined` says why).
    """
    raters, samples = np.asarray(raters), np.asarray(samples)
    if draws not in DRAWS:
        raise ValueError(f'draws={draws!r} is not known; use one of {", ".join(DRAWS)}')
    _check(raters, samples)
    if present is not None and not present.all():
        return by_raters(lambda rows, there: measure(there, samples[rows], draws), raters, present)
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
    sum_y, sum_s = (distance[:, k, k].sum((1, 2)) for k in (y, s))
    diversity_y, diversity_s = _distinct_mean(sum_y, num_raters), _distinct_mean(sum_s, num_samples)
    within_y = sum_y / num_raters**2
    ged = 2 * cross - sum_s / num_samples**2 - within_y
    independent = draws == 'independent'
    unknown = np.full(len(raters), np.nan)
    ideal = diversity_y * (1 / num_raters + independent / num_samples)
    d_max = dice[:, y, s].max(2).mean(1)
    # The last two rows of the stack are the unions.
    s_c = np.where(area[:, -2] > 0, _ratio(gram[:, -2, -1], area[:, -2]), np.where(area[:, -1] > 0, 0.0, 1.0))
    max_y, min_y = _diversity_range(dice[:, y, y])
    max_s, min_s = _diversity_range(dice[:, s, s])
    d_a = 1 - (np.abs(max_y - max_s) + np.abs(min_y - min_s)) / 2
    product, parts = s_c * d_max * d_a, s_c + d_max + d_a
    pairwise = s_c * d_max + s_c * d_a + d_max * d_a
    return {
        'ged': ged,
        'ged_unbiased': 2 * cross - diversity_s - within_y if independent else unknown,
        'hm_iou': np.array([matching.best_mean(image) for image in iou[:, y, s]]),
        'd_max': d_max,
        's_c': s_c,
        'd_a': d_a,
        'ci': 3 * _ratio(product, parts, empty=0.0),
        'ci_harmonic': 3 * _ratio(product, pairwise, empty=0.0),
        'ged_ideal': ideal,
        'ged_excess': ged - ideal,
        'emptiness_error': _emptiness_error(area[:, y] == 0, area[:, s] == 0) if independent else unknown,
        'ged_shape': _shape(distance, area > 0, y, s) if independent else unknown,
        'diversity_samples': diversity_s,
        'diversity_raters': diversity_y,
        'calibration': calibration_error(calibration_counts(raters, samples)),
    }


def undefined(num_raters: int, num_samples: int, draws: str) -> dict[str, str]:
    """{key: why `measure` gives NaN for every image} of at most M raters and of N samples."""
    needs = {}
    if num_raters < 2:
        keys = ('ged_ideal', 'ged_excess', 'emptiness_error', 'ged_shape', 'diversity_raters')
        needs['two raters of an image at least'] = keys
    if num_samples < 2:
        needs['two samples an image at least'] = ('ged_unbiased', 'emptiness_error', 'ged_shape', 'diversity_samples')
    if draws == 'dependent':
        needs['independent samples; these depend on each other'] = ('ged_unbiased', 'emptiness_error', 'ged_shape')
    reasons: dict[str, list[str]] = {}
    for what, keys in needs.items():
        for key in keys:
            reasons.setdefault(key, []).append(what)
    return {key: f'needs {", and ".join(whats)}' for key, whats in reasons.items()}


def calibration_counts(raters: np.ndarray, samples: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Pixels by the share q of samples that mark them: [B, 1 + CALIBRATION_BINS, 3] float64.

    Of bin k, (k - 1) / 10 < q <= k / 10, bin 0 holding q = 0: the number of pixels, the sum of q, and the sum of the
    share of the raters who mark them. Sums over images are those of the images together. Arguments as of `per_image`.
    """
    counts = np.empty((len(samples), 1 + CALIBRATION_BINS, 3))
    number = samples.shape[1]
    for index, (rated, sampled) in enumerate(zip(raters, samples, strict=True)):
        there = rated if present is None else rated[present[index]]
        votes = sampled.sum(0).ravel()
        place = -(-votes * CALIBRATION_BINS // number)  # rounded up, in whole numbers
        for column, weight in enumerate((None, votes / number, there.mean(0).ravel())):
            counts[index, :, column] = np.bincount(place, weight, 1 + CALIBRATION_BINS)
    return counts


def calibration_error(counts: np.ndarray) -> np.ndarray:
    """Metric (14) of `calibration_counts` [..., bins, 3]: [...], NaN where no sample marks a pixel."""
    pixels, predicted, observed = np.moveaxis(counts[..., 1:, :], -1, 0)
    return _ratio(np.abs(predicted - observed).sum(-1), pixels.sum(-1), empty=np.nan)


def per_class(
    raters: np.ndarray, samples: np.ndarray, num_classes: int, draws: str, present: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """`measure` of each foreground class 1 .. K alone: (its mean over the classes, one dict a class).

    raters [B, M, H, W] and samples [B, N, H, W] hold labels 0 .. K, or 0 and 1 (also as bool) for K = 1.
    """
    each = [measure(raters == label, samples == label, draws, present) for label in range(1, num_classes + 1)]
    return mean_of(each), each


def mean_of(each: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of several {key: [B]}, of an image over those where the metric is defined."""
    return {key: defined_mean(np.stack([values[key] for values in each])) for key in each[0]}


def defined_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(0), known.sum(0).astype(float), empty=np.nan)


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
    for count in np.unique(counts) if len(counts) else [raters.shape[1]]:
        rows = np.flatnonzero(counts == count)
        for key, value in values_of(rows, raters[rows[:, None], first[rows, :count]]).items():
            result.setdefault(key, np.empty(len(raters)))[rows] = value
    return result


def summarize(
    values: Mapping[str, np.ndarray], patients: Sequence[str] | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean over images of each metric, and the standard error of that mean.

    {key: [B]}, NaN where undefined -> ({key: mean}, {key: standard error}) over the images where the metric is defined;
    NaN where it is for none. Slices of one patient are not independent: with patients, B names ('' unknown: alone), the
    error is sqrt(sum over patients of (sum of their deviations from the mean)^2) / B. Without, images count as
    independent: the sample standard deviation (over B - 1) by sqrt(B). One image, or one patient, has no error: NaN.
    Raises ValueError for B = 0.
    """
    means, errors = {}, {}
    for key, value in values.items():
        value = np.asarray(value, np.float64)
        if value.ndim != 1 or not value.size:
            raise ValueError(f'{key} must have shape [B] with B > 0, got {value.shape}')
        known = ~np.isnan(value)
        groups = clusters(patients)[known] if patients is not None else np.arange(known.sum())
        value = value[known]
        means[key] = float(value.mean()) if value.size else math.nan
        sums = np.bincount(groups, value - means[key]) if value.size else np.zeros(0)
        count = len(np.unique(groups))
        correction = math.sqrt(count / (count - 1)) if patients is None and count > 1 else 1.0
        errors[key] = correction * float(np.linalg.norm(sums)) / value.size if count > 1 else math.nan
    return means, errors


def clusters(patients: Sequence[str]) -> np.ndarray:
    """The number of each image's patient [B]; an image of an unknown patient ('') has one of its own."""
    names = [patient or f'\0{index}' for index, patient in enumerate(patients)]
    return np.unique(names, return_inverse=True)[1]


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
    batch, num_raters, *sides = raters.shape
    raters = raters.reshape(batch, num_raters, math.prod(sides))
    samples = samples.reshape(batch, samples.shape[1], math.prod(sides))
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


def _emptiness_error(raters: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Metric (12) from which masks are empty, [B, M] and [B, N] bool: [B], NaN for M or N = 1."""
    if min(raters.shape[1], samples.shape[1]) < 2:
        return np.full(len(raters), np.nan)
    chance = lambda share, count: share * (1 - share) / (count - 1)
    p, q = raters.mean(1), samples.mean(1)
    return 2 * ((q - p) ** 2 - chance(p, raters.shape[1]) - chance(q, samples.shape[1]))


def _shape(distance: np.ndarray, marked: np.ndarray, y: slice, s: slice) -> np.ndarray:
    """Metric (13) from distances [B, K, K] and which masks hold something [B, K]: [B]."""
    pairs = distance * marked[:, :, None] * marked[:, None, :]
    count_y, count_s = marked[:, y].sum(1), marked[:, s].sum(1)
    mean = lambda a, b, count: _ratio(pairs[:, a, b].sum((1, 2)), count.astype(float), empty=np.nan)
    within = mean(s, s, count_s * (count_s - 1)) + mean(y, y, count_y * (count_y - 1))
    return 2 * mean(y, s, count_y * count_s) - within


if __name__ == '__main__':
    from ambdiff import command

    command.elsewhere('metrics', 'score masks with ambdiff score --raters=DIR_OR_NPZ --samples=DIR_OR_NPZ')
