"""Scores of weights of level_sets with the chance of the draws taken out: what N independent masks score on average.

  python benchmarks/expected_scores.py --config=configs/lidc.py:small --config.data.path=data_lidc.hdf5 \
      --weights=weights/lidc_small.safetensors,runs/mine [--splits=validation,test]

A mask of that method is a function of one number u (`ambdiff/methods/level_sets.py`, equation 1), so that means over
its draws are integrals over u, taken here with LEVELS levels an image: with S, S' independent masks and Y a rater's,

    GED_N = 2 E d(S, Y) - (1 - 1/N) E d(S, S') - E d(Y, Y')

over all M^2 pairs of raters, N = config.sample.num_samples. The chance of 16 draws is half of what a GED16 of some 260
images is uncertain by; between two weights on the same images nearly all of it. Rows after the first have their
difference to the first, image by image. +- is the standard error, clustered by patient.

`emptiness` is 2 [(q - p)^2 - p (1 - p) / (M - 1)], p the raters' share of empty masks and q the model's, and `r` the
correlation of q with p. `--sharpen=1.2` multiplies the logit of q, as a trial.
"""

import jax
import jax.numpy as jnp
import numpy as np
import sampler_quality  # beside this file
from absl import app, flags

from ambdiff import command, methods, metrics
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.runtime import sharding
from ambdiff.runtime.checkpoint import load_weights

LEVELS = 128
AT_ONCE = 20  # images


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - IoU of every mask of a [K, P] with every one of b [L, P], float32 of 0 and 1: [K, L], two empty ones 0."""
    common = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1)[None] - common
    return np.where(union > 0, 1 - common / np.maximum(union, 1), 0.0)


def expected(p: np.ndarray, q: float, raters: np.ndarray, number: int) -> dict[str, float]:
    """The means of an image's scores over its draws.

    Args:
      p: [H, W] the map.
      q: the share of empty masks.
      raters: [M, H, W] bool.
      number: N.
    """
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    sets = p.reshape(-1)[None] > levels[:, None] * p.max()
    masks = np.concatenate([np.zeros_like(sets[:1]), sets]).astype(np.float32)
    weights = np.concatenate([[q], np.full(LEVELS, (1 - q) / LEVELS)])
    y = raters.reshape(len(raters), -1).astype(np.float32)
    crossed, within, count = (weights @ distances(masks, y)).mean(), weights @ distances(masks, masks) @ weights, len(y)
    among = distances(y, y).mean()
    diversity = among * count / (count - 1) if count > 1 else np.nan
    ged = 2 * crossed - (1 - 1 / number) * within - among
    empty = 1 - raters.any((1, 2)).mean()
    chance = empty * (1 - empty) / (count - 1) if count > 1 else np.nan
    return {
        'ged': ged,
        'ged_excess': ged - diversity * (1 / count + 1 / number),
        'emptiness': 2 * ((q - empty) ** 2 - chance),
        'q': q,
        'p': empty,
    }


def of_weights(config, path: str, cases: cases_lib.Cases, sharpen: float) -> dict[str, np.ndarray]:
    """{score: [n]} of weights."""
    method = methods.create(config)
    weights, _ = load_weights(path, config, sharding.replicated(sharding.create_mesh(config.mesh)))
    shares = jax.jit(method.shares)
    rows = []
    for first in range(0, len(cases.images), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        p, q = map(np.asarray, shares(weights.params, jnp.asarray(cases.images[part])))
        q = 1 / (1 + ((1 - q) / q) ** sharpen)
        for image in zip(p, q, cases.raters[part] > 0, cases.present[part], strict=True):
            map_, share, raters, present = image
            rows.append(expected(map_, float(share), raters[present], config.sample.num_samples))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def together(config, splits) -> cases_lib.Cases:
    """The cases of all splits, one after the other."""
    found = sampler_quality.load(config, splits)
    arrays = (np.concatenate([getattr(c, name) for c in found]) for name in ('images', 'raters', 'present'))
    texts = ([text for c in found for text in getattr(c, name)] for name in ('names', 'patients'))
    return cases_lib.Cases(*arrays, *texts)


def compare(config, paths, splits, sharpen: float) -> None:
    """Prints a line for each of the weights."""
    if config.method.name != 'level_sets':
        raise UserError(
            f'config.method.name={config.method.name!r}: a mask is a function of one number in level_sets only'
        )
    cases, first = together(config, splits), None
    patients = cases.patients if any(cases.patients) else None
    print(f'{"+".join(splits)}: {len(cases.images)} images, N = {config.sample.num_samples}')
    for path in paths:
        values = of_weights(config, path, cases, sharpen)
        first = first or values
        shown = {name: values[name] for name in ('ged', 'ged_excess', 'emptiness')}
        if values is not first:
            shown |= {f'{name} less the first': values[name] - first[name] for name in ('ged', 'emptiness')}
        means, errors = metrics.summarize(shown, patients)
        words = ', '.join(f'{name} {means[name]:.4f} +- {errors[name]:.4f}' for name in shown)
        empty = f'empty {values["q"].mean():.1%} (raters {values["p"].mean():.1%})'
        print(f'{path}: {words}, {empty}, r {np.corrcoef(values["q"], values["p"])[0, 1]:.3f}', flush=True)


def main():
    command.define_config()
    paths = flags.DEFINE_list(
        'weights', None, 'Weights; the first are those that others are compared with.', required=True
    )
    splits = flags.DEFINE_list('splits', ['validation', 'test'], 'The splits whose images are taken, together.')
    sharpen = flags.DEFINE_float('sharpen', 1.0, 'Factor of the logit of q.')

    def run(argv):
        del argv
        try:
            compare(flags.FLAGS.config, paths.value, splits.value, sharpen.value)
        except UserError as error:
            return command.fail(error)
        return 0

    app.run(run, flags_parser=command.parse_flags)


if __name__ == '__main__':
    main()
