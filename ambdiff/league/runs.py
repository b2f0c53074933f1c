"""The runs of a league: each a run as any other, in a folder of its own, trained and evaluated where it is not yet.

A run counts as finished when its evaluation is of its last step and of this very setting. One of another setting in the
same folder is never mixed in: it is refused, by the fields that differ.
"""

import dataclasses
import json
import logging
import pathlib

import ml_collections
from flax import traverse_util

from ambdiff import config_saved, evaluate, methods, plan, train
from ambdiff.data import fingerprint, sources
from ambdiff.errors import UserError
from ambdiff.runtime import integrity
from ambdiff.runtime.checkpoint import load_config

logger = logging.getLogger(__name__)

_TRAINED = ('data', 'model', 'diffusion', 'method', 'optim', 'train', 'seed', 'checkpoint')
_EVALUATED = (*_TRAINED, 'sample', 'evaluate')
# What no number of the table depends on.
_FREE = {'data.path', 'data.build_dir', 'data.accept_changes', 'model.remat', 'sample.memory_mib'}
_FREE |= {f'train.{name}' for name in ('log_every', 'checkpoint_every', 'keep_checkpoints', 'max_rollbacks')}
_FREE |= {f'train.{name}' for name in ('sample_every', 'sample_images', 'spike_factor')}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of an entry.

    Attributes:
      name: of the run and of its folder, 'ssn-0'.
      entry: whose it is, 'ssn'.
      config: with its own seed.
      folder: its workdir.
    """

    name: str
    entry: str
    config: ml_collections.ConfigDict
    folder: pathlib.Path


def run(entry: str, config: ml_collections.ConfigDict, name: str, workdir: pathlib.Path) -> Run:
    """The run of an entry by this config in a folder below the workdir; a name's slashes become '_' there."""
    return Run(name, entry, config, workdir / name.replace('/', '_'))


def check(run: Run) -> None:
    """What keeps a run from being trained and evaluated as far as that shows without a look at the data.

    Raises:
      UserError: a field does not suit, or samples would depend on each other; one line that names the entry.
    """
    try:
        plan.check(run.config)
        evaluate.check(run.config, run.folder, trained_here=True)
    except UserError as error:
        raise UserError(f'{run.entry}: {error}') from error
    if run.config.sample.num_samples > 1 and methods.create(run.config).draws != 'independent':
        raise UserError(
            f'{run.entry}: its samples of an image depend on each other, and a league compares independent ones: add '
            '--config.sample.noise=independent'
        )


def check_alike(runs: list[Run]) -> None:
    """That all runs learn from the same data and answer for the same images.

    Raises:
      UserError: they do not; it names two entries and a field.
    """
    first, *others = runs
    for other in others:
        names = _differences(first.config, other.config, ('data', 'evaluate'), set())
        if first.config.sample.num_samples != other.config.sample.num_samples:
            names.append('sample.num_samples')
        if names:
            raise UserError(
                f'{first.entry} and {other.entry} differ in {names[0]}: a league compares on the same data, images and '
                'number of samples; give such a field for all'
            )


def check_folder(run: Run, trained_on: fingerprint.Fingerprint) -> None:
    """That what is in a run's folder, if anything, is this run on this data.

    Args:
      run: whose folder.
      trained_on: what the training data holds.

    Raises:
      UserError: it is of another setting or other data.
    """
    step, _ = integrity.newest_good(run.folder / 'checkpoints', ('config', 'record'))
    if step is None:
        return
    saved = load_config(str(run.folder))
    if changed := _differences(saved, run.config, _TRAINED):
        raise UserError(
            f'{run.folder} holds a run of another setting ({"; ".join(changed[:5])}): give another --workdir, or move '
            'that one away'
        )
    record = run.folder / 'checkpoints' / str(step) / 'record' / 'metadata'
    before = json.loads(record.read_bytes()).get('data') if record.is_file() else None
    if before:
        try:
            fingerprint.check(before, trained_on, run.config.data.accept_changes)
        except UserError as error:
            raise UserError(f'{run.folder}: {error}') from error


def finished(run: Run) -> dict | None:
    """What metrics.json of a finished run holds; None for one that is not finished."""
    path = run.folder / 'evaluation' / 'metrics.json'
    try:
        told = json.loads(path.read_text('utf-8'))
        saved = config_saved.restored(told['config'], path)
        whole = told['checkpoint_step'] >= run.config.train.num_steps and (path.parent / 'masks.npz').is_file()
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: evaluated again
        return None
    return told if whole and not _differences(saved, run.config, _EVALUATED) else None


def finish(run: Run) -> bool:
    """Trains a run to its end, from wherever it stands, and evaluates it; False where a SIGTERM stopped it.

    Raises:
      UserError: as `train` and `evaluate`.
    """
    sources.write_splits(run.config.data, run.folder)
    if not train.train(run.config, run.folder):
        return False
    evaluate.evaluate(run.config, run.folder, trained_here=True)
    return True


def _differences(one: ml_collections.ConfigDict, other: ml_collections.ConfigDict, groups, free=_FREE) -> list[str]:
    """Fields of these groups in which two configs differ, as 'group.field: one -> other'."""
    flat = lambda config: traverse_util.flatten_dict(
        {group: value for group, value in json.loads(config.to_json()).items() if group in groups}, sep='.'
    )
    one, other = flat(one), flat(other)
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return [f'{name}: {one.get(name)} -> {other.get(name)}' for name in names if name not in free]
