"""Evaluation: N masks an image from the averaged weights, the metrics beside baselines, the files.

<workdir>/evaluation/ receives metrics.json, per_image.csv, masks.npz and report.html: all of them or none.
"""

import csv
import dataclasses
import io
import json
import logging
import math
import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from ambdiff import baselines, files, methods, metrics, report, sampling
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.runtime import faults, hosts, sharding
from ambdiff.runtime.checkpoint import load_weights

logger = logging.getLogger(__name__)


def evenly_spaced(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` items, spread over all of them; count 0 = all."""
    if not 0 < count < total:
        return list(range(total))
    return [i * total // count for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Cases:
    """Examples stacked: images [n, H, W, C] float32, raters [n, M, H, W] uint8, present [n, M] bool, n names."""

    images: np.ndarray
    raters: np.ndarray
    present: np.ndarray
    names: list[str]

    def empty_share(self) -> float:
        """The share of empty masks among those that raters gave."""
        return float((~self.raters.any((2, 3)))[self.present].mean())


def load(source: Sequence[dict], indices: Sequence[int]) -> Cases:
    """These examples of a source."""
    examples = [source[int(i)] for i in indices]
    stack = lambda name: np.stack([e[name] for e in examples])
    return Cases(stack('image'), stack('masks'), stack('present'), [str(e['case']) for e in examples])


def gather(cases: Cases, samples: np.ndarray, total: int) -> tuple[Cases, np.ndarray]:
    """The cases and samples of all processes, `total` of them, from each one's share (`hosts.share`)."""
    arrays = hosts.gather((cases.images, cases.raters, cases.present, samples), total)
    return Cases(*arrays[:3], hosts.gather_texts(cases.names, total)), arrays[3]


def _finite(value):
    """The same tree with NaN as None: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare(cases: Cases, samples: np.ndarray, train_masks, train_present, num_classes: int, seed: int, fresh=None):
    """The model's metrics beside the baselines', all at the same N.

    Args:
      cases: the n images and their raters.
      samples: [n, N, H, W], the model's.
      train_masks: [K, M, H, W], masks of the training split.
      train_present: [K, M] bool, which of them a rater gave.
      num_classes: metrics are means over so many foreground classes.
      seed: of the baselines' draws.
      fresh: [n, N, H, W], fresh draws from the raters' own distribution, where it is known.

    Returns:
      (per image values of the model, the same for each class, {row: (means, standard errors)} with the rows model,
      empty, other_patients, rater_vs_rest, raters_resampled, and fresh_raters where `fresh` is given).
    """
    rng = np.random.default_rng(seed)
    raters, present = cases.raters, cases.present
    count, number = samples.shape[:2]
    score = lambda masks: metrics.per_class(raters, masks, num_classes, present)
    model, classes = score(samples)
    others = baselines.other_patients(train_masks, train_present, count, number, rng)
    rest = [baselines.rater_vs_rest(raters == label, present) for label in range(1, num_classes + 1)]
    rows = {
        'model': model,
        'empty': score(baselines.empty(raters, number))[0],
        'other_patients': score(others)[0],
        'rater_vs_rest': metrics.class_mean(rest),
        'raters_resampled': score(baselines.raters_resampled(raters, present, number, rng))[0],
    }
    if fresh is not None:
        rows['fresh_raters'] = score(fresh)[0]
    return model, classes, {name: metrics.summarize(values) for name, values in rows.items()}


def _masks_of_others(config: ml_collections.ConfigDict, source) -> tuple[np.ndarray, np.ndarray]:
    """Masks [K, M, H, W] and present [K, M] of the training split, or of this one if the data has no other."""
    try:
        source = sources.open_source(config.data, 'train')
    except UserError as error:
        logger.info('other_patients draws from the split evaluated: %s', error)
    examples = [source[i] for i in range(len(source))]
    return np.stack([e['masks'] for e in examples]), np.stack([e['present'] for e in examples])


def _fresh_answers(config: ml_collections.ConfigDict, source, chosen: Sequence[int]) -> np.ndarray | None:
    """N fresh answers [n, N, H, W] to each chosen image where the raters are simulated; None where they are people."""
    draw = source.fresh_answers
    if draw is None:
        return None
    draws = [draw(row, config.sample.num_samples, np.random.default_rng((config.seed, 0x5EED, row))) for row in chosen]
    return np.stack(draws).astype(bool)


def evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path, trained_here: bool = False) -> dict:
    """Evaluates config.checkpoint, or the workdir's newest checkpoint; returns what metrics.json holds.

    Each process draws the masks of its share of the images; what they drew is gathered once, and the main process
    measures and writes. The others return {}.

    After training, config.checkpoint is where that started: `trained_here` evaluates what it came to.

    Raises:
      UserError: no checkpoint, one of another architecture, or faulty data.
    """
    sharding.create_mesh(config.mesh)  # only to be told now if it does not suit
    mesh = sharding.local_mesh()
    method = methods.create(config)
    split = config.evaluate.split
    source = sources.open_source(config.data, split)
    logger.info('evaluating on %s: %s', split, sources.describe(source))

    if trained_here or not config.checkpoint:
        if not (workdir / 'checkpoints').is_dir():
            raise UserError(f'{workdir} holds no checkpoint: train first, or give --config.checkpoint=')
        path = str(workdir)
    else:
        path = config.checkpoint
    params, step = load_weights(path, config, sharding.replicated(mesh))
    # Held before the sampling, so that a place that cannot be written is told at once.
    with faults.only_run(workdir / 'evaluation', '../.evaluation.lock'):
        return _evaluate(config, workdir / 'evaluation', mesh, method, source, params, step)


def _evaluate(config, folder, mesh, method, source, params, step) -> dict:
    chosen = np.array(evenly_spaced(len(source), config.evaluate.max_images))
    rows = hosts.share(len(chosen))
    cases = load(source, chosen[rows])
    sampler = sampling.Sampler(config, method, mesh)
    key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
    samples = sampler(params, cases.images, sampling.image_keys(key, rows), progress=hosts.is_main())
    cases, samples = gather(cases, samples, len(chosen))
    if not hosts.is_main():
        hosts.meet('evaluation is written')
        return {}
    others = _masks_of_others(config, source)
    fresh = _fresh_answers(config, source, chosen)
    model, classes, table = compare(cases, samples, *others, config.data.num_classes, config.seed, fresh)

    means, errors = table['model']
    result = {
        'config': json.loads(config.to_json()),
        'checkpoint_step': step,
        'split': config.evaluate.split,
        'num_images': len(cases.names),
        'samples_per_image': config.sample.num_samples,
        'network_evaluations_per_mask': config.sample.num_steps,
        'seconds_per_mask': sampler.seconds / samples[:, :, 0, 0].size,
        'metrics': means,
        'stderr': errors,
        'baselines': {name: row[0] for name, row in table.items() if name != 'model'},
        'baselines_stderr': {name: row[1] for name, row in table.items() if name != 'model'},
        'empty_share': {
            'samples': float((~samples.any((2, 3))).mean()),
            'raters': cases.empty_share(),
        },
        'data': sources.describe(source),
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }
    if config.data.num_classes > 1:
        result['per_class'] = {str(k): metrics.summarize(values)[0] for k, values in enumerate(classes, 1)}
    _write_files(folder, config, result, model, table, cases, samples)
    hosts.meet('evaluation is written')
    return result


def _write_files(folder, config, result, model, table, cases, samples) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(['case', *model])
    for row, case in enumerate(cases.names):
        writer.writerow([case, *(f'{values[row]:.6f}' for values in model.values())])
    # Bits where a mask is yes or no; labels of several classes as they are.
    pack = lambda masks: np.packbits(masks, axis=-1) if config.data.num_classes == 1 else masks
    arrays = {'samples': pack(samples), 'raters': pack(cases.raters), 'present': cases.present}
    facts = {
        'method': config.method.name,
        'data': result['data'],
        'split': f'{result["split"]}, {result["num_images"]} images',
        'checkpoint': f'step {result["checkpoint_step"]}',
        'masks an image (N)': str(result['samples_per_image']),
        'network evaluations a mask': str(result['network_evaluations_per_mask']),
        'seconds a mask': f'{result["seconds_per_mask"]:.4f} on {result["device"]}',
        'seed': str(config.seed),
    }
    notice = sources.notice(config.data)
    if config.data.num_classes > 1:
        notice = f'{notice} Pictures show all {config.data.num_classes} classes as one; scores are means over classes.'
    page = report.page(
        images=cases.images,
        raters=cases.raters > 0,
        samples=samples > 0,
        cases=cases.names,
        present=cases.present,
        per_image=model,
        table=table,
        facts=facts,
        notice=notice.strip(),
    )
    names = ('per_image.csv', 'masks.npz', 'report.html', 'metrics.json')
    with files.whole_files(*(folder / name for name in names)) as (per_image, masks, html, summary):
        per_image.write(text.getvalue().encode())
        np.savez_compressed(masks, **arrays, case=np.array(cases.names))
        html.writelines(piece.encode() for piece in page)
        summary.write(json.dumps(_finite(result), indent=2).encode())
    print(format_table(table))
    for label, means in result.get('per_class', {}).items():
        print(f'class {label}: ' + ', '.join(f'{name} {value:.3f}' for name, value in means.items()))
    if notice:
        print(notice.strip())
    print(f'{folder / "report.html"}')


def format_table(table: dict) -> str:
    """The rows as text: mean +- standard error of every metric."""
    names = list(next(iter(table.values()))[0])
    lines = [' '.join([f'{"":18}', *(f'{name:>14}' for name in names)])]
    for row, (means, errors) in table.items():
        cells = (f'{means[n]:6.3f} +- {errors[n]:.3f}' for n in names)
        lines.append(' '.join([f'{row:18}', *(f'{cell:>14}' for cell in cells)]))
    return '\n'.join(lines)
