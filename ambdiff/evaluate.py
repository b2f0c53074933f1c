"""Evaluation: N masks an image from the averaged weights, the metrics beside baselines, the files.

<workdir>/evaluation/ receives what `ambdiff.evaluation.files` lists: all of it or nothing.
"""

import json
import logging
import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from ambdiff import methods, sampling, streams
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.evaluation import files, scores, volumes
from ambdiff.runtime import faults, hosts, sharding
from ambdiff.runtime.checkpoint import check_architecture, load_config, load_weights, unlike_data

logger = logging.getLogger(__name__)


def masks_of_others(config: ml_collections.ConfigDict, source) -> tuple[np.ndarray, np.ndarray]:
    """Masks [K, M, H, W] and present [K, M] of the training split, or of this one if the data has no other."""
    try:
        source = sources.open_source(config.data, 'train')
    except UserError as error:
        logger.info('other_patients takes masks of the split evaluated: %s', error)
    examples = [source[i] for i in range(len(source))]
    return np.stack([e['masks'] for e in examples]), np.stack([e['present'] for e in examples])


def _fresh_answers(config: ml_collections.ConfigDict, source, chosen: Sequence[int]) -> np.ndarray | None:
    """N fresh answers [n, N, H, W] to each chosen image where the raters are simulated; None where they are people."""
    fresh = source.fresh_answers
    if fresh is None:
        return None
    given = [fresh(row, config.sample.num_samples, np.random.default_rng((config.seed, 0x5EED, row))) for row in chosen]
    return np.stack(given).astype(bool)


def check(config: ml_collections.ConfigDict, workdir: pathlib.Path, trained_here: bool = False) -> None:
    """Tells what keeps a config from evaluation as far as that shows without a look at the data's files.

    Raises:
      UserError: as `evaluate`; of `trained_here`, which is to train first, not that there is no checkpoint.
    """
    largest, method, path = _plan(config, workdir, trained_here)
    sampling.Sampler(largest, method, sharding.local_mesh())  # only to be told now if one mask does not fit the memory
    sources.check(config.data, config.evaluate.split)
    if not trained_here:
        check_architecture(load_config(path), config, method, path)


def _plan(config, workdir, trained_here):
    """(config with the most masks that any N asks for, method, place of the weights), checked against each other."""
    sharding.create_mesh(config.mesh)  # only to be told now if it does not suit
    counts = tuple(config.evaluate.sample_counts)
    largest = config.copy_and_resolve_references()
    largest.sample.num_samples = max((config.sample.num_samples, *counts))
    method = methods.create(largest)
    if counts and method.draws == 'dependent':
        raise UserError(
            'config.evaluate.sample_counts takes the first masks of a larger set, which needs independent ones: add '
            '--config.sample.noise=independent'
        )
    if config.checkpoint and not trained_here:
        return largest, method, config.checkpoint
    if not trained_here and not (workdir / 'checkpoints').is_dir():
        raise UserError(f'{workdir} holds no checkpoint: train first, or give --config.checkpoint=')
    return largest, method, str(workdir)


def evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path, trained_here: bool = False) -> dict:
    """Evaluates config.checkpoint, or the workdir's newest checkpoint; returns what metrics.json holds.

    Each process samples its shard of the images; the samples are gathered once, and the main process
    measures and writes. The others return {}.

    After training, config.checkpoint is where that started: `trained_here` evaluates what it came to.

    Raises:
      UserError: no checkpoint, one of another architecture, fields that contradict each other, or faulty data.
    """
    mesh = sharding.local_mesh()
    largest, method, path = _plan(config, workdir, trained_here)
    split = config.evaluate.split
    source = sources.open_source(config.data, split)
    logger.info('evaluating on %s: %s', split, sources.describe(source))
    warnings = [] if trained_here else unlike_data(path, config)
    for line in warnings:
        logger.warning('%s', line)
    weights, step = load_weights(path, config, sharding.replicated(mesh))

    # Held before the sampling, so that a place that cannot be written is told at once.
    with faults.only_run(workdir / 'evaluation', '../.evaluation.lock'):
        return _evaluate(config, largest, workdir / 'evaluation', mesh, method, source, weights, step, warnings)


def _evaluate(config, largest, folder, mesh, method, source, weights, step, warnings) -> dict:
    """`evaluate` in its folder; largest: the config with the most masks that any N asks for."""
    number = config.sample.num_samples
    if config.evaluate.volumes:
        chosen, places = volumes.chosen(source, config.evaluate.max_images)
        # The slices of a volume share their randomness, so that sample n of each is of one answer.
        keyed_by = volumes.numbers(places)
    else:
        chosen = np.array(cases_lib.evenly_spaced(len(source), config.evaluate.max_images))
        places, keyed_by = None, np.arange(len(chosen))
    rows = hosts.shard(len(chosen))
    cases = cases_lib.load(source, chosen[rows])
    sampler = sampling.Sampler(largest, method, mesh)
    key = jax.random.fold_in(jax.random.key(config.seed), streams.EVALUATION)
    keys = sampling.image_keys(key, keyed_by[rows])
    made = sampler(weights, cases.images, keys, progress=hosts.is_main(), names=cases.names)
    cases, made = cases_lib.gather(cases_lib.shown(cases, config.data.neighbours), made, len(chosen))
    if not hosts.is_main():
        hosts.barrier('evaluation is written')
        return {}
    samples = made[:, :number]
    found = scores.compute(
        cases.raters,
        cases.present,
        samples,
        patients=cases.patients,
        draws=sampler.draws,
        num_classes=config.data.num_classes,
        seed=config.seed,
        others=masks_of_others(config, source),
        fresh=_fresh_answers(config, source, chosen),
    )
    result = {
        'config': json.loads(config.to_json()),
        'checkpoint_step': step,
        'split': config.evaluate.split,
        'num_images': len(cases.names),
        'samples_per_image': number,
        'network_evaluations_per_mask': method.evaluations,
        'seconds_per_mask': sampler.seconds / made[:, :, 0, 0].size,
        **found.as_json(),
        'empty_share': {
            'samples': float((~samples.any((2, 3))).mean()),
            'raters': cases.empty_share(),
        },
        'data': sources.describe(source),
        'warnings': warnings,
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }
    if config.evaluate.sample_counts:
        result['by_num_samples'] = scores.by_number(
            cases.raters,
            cases.present,
            made,
            counts=config.evaluate.sample_counts,
            patients=cases.patients,
            num_classes=config.data.num_classes,
        )
    of_volumes = None
    if places:
        whole = volumes.assembled(cases, samples, places)
        of_volumes = volumes.score(whole, len({*keyed_by}), config.data.num_classes, sampler.draws)
        result['volumes'] = of_volumes.as_json()
    facts = {
        'method': config.method.name,
        'data': result['data'],
        'split': f'{config.evaluate.split}, {len(cases.names)} images',
        'checkpoint': f'step {step}',
        'masks an image (N)': f'{number}, {found.draws}',
        'network evaluations a mask': f'{method.evaluations:g}',
        'seconds a mask': f'{result["seconds_per_mask"]:.4f} on {result["device"]}',
        'seed': str(config.seed),
    }
    notice = ' '.join([*warnings, sources.notice(config.data)])
    files.write(folder, result, found, cases, samples, config.data.num_classes, facts, notice, of_volumes)
    files.tell(result, found, notice, folder)
    hosts.barrier('evaluation is written')
    return result


if __name__ == '__main__':
    from ambdiff import command

    command.elsewhere(
        'evaluate', 'type ambdiff evaluate CONFIG, or python -m ambdiff.main --config=FILE --mode=evaluate'
    )
