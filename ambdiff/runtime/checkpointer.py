"""The checkpoints of a run (Orbax).

  <workdir>/checkpoints/<step>/state   step, parameters and optimiser state: what resuming needs
  <workdir>/checkpoints/<step>/ema     the averaged weights and the method's state: what sampling needs
  <workdir>/checkpoints/<step>/config  the config of the run, as JSON
  <workdir>/checkpoints/<step>/record  what the run has skipped (faults.py), as JSON
  <workdir>/checkpoints/<step>/manifest.json  size and CRC-32 of every file
  <workdir>/damaged/<step>             what was there but could not be read, put aside
Saving is asynchronous; a step's folder appears whole or not at all. Before a checkpoint is used its files are compared
with the manifest, so that one that lost a file, or part of one, is told and the one before it taken.
"""

import json
import logging
import os
import pathlib
import shutil
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp

from ambdiff import config_saved
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Weights
from ambdiff.runtime import hosts, integrity

logger = logging.getLogger(__name__)

_ITEMS = ('state', 'ema', 'config', 'record')
# Groups that a run must share with the one it goes on from.
_RESUMED = ('data', 'model', 'diffusion', 'method', 'optim', 'seed', 'train')
# What may change between one part of a run and the next: nothing that a step depends on, but its number.
_FREE = {'data.build_dir', 'data.accept_changes'} | {
    f'train.{name}'
    for name in ('num_steps', 'log_every', 'checkpoint_every', 'keep_checkpoints', 'sample_every', 'sample_images')
}
_FREE |= {'train.max_rollbacks', 'train.spike_factor', 'model.remat'}
# And where data lies, for a run that knows its data by what it holds (data/fingerprint.py).
_KNOWN = {'data.path'}


def _restore(manager: ocp.CheckpointManager, folder: pathlib.Path, step: int, **items):
    """The items of a step.

    Raises:
      UserError: the step's folder is damaged.
    """
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in items}
    except Exception as error:  # Orbax names no type: whatever a damaged file leads to
        raise UserError(
            f'{folder / str(step)} is damaged ({integrity.first_line(error)}): '
            'delete this folder to go on from the step before it'
        ) from error


class Checkpointer:
    """Saves and restores the checkpoints of one workdir; use as a context manager."""

    def __init__(self, workdir: pathlib.Path, keep: int = 2):
        self.folder = workdir.absolute() / 'checkpoints'
        self._saving = -1
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            # Runs on the main process alone, after the last file is written and before the folder gets its name.
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=_ITEMS)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None and jax.process_count() > 1:
            return  # the others may be gone: waiting for them would never end
        try:
            self._manager.wait_until_finished()
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise self._unwritten(error) from None

    @property
    def latest_step(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """The steps saved, once those on the way are."""
        self.wait()
        return sorted(self._manager.all_steps())

    def _write_manifest(self) -> None:
        (partial,) = self.folder.glob(f'{self._saving}.*tmp*')
        integrity.write_manifest(partial)

    def _unwritten(self, error: Exception) -> Exception:
        if isinstance(error, jax.errors.JaxRuntimeError):  # another process was lost: main.py says so
            return error
        return UserError(
            f'checkpoint {self._saving} could not be written to {self.folder} ({integrity.first_line(error)}): '
            'make room there and start again; the run goes on from the newest whole one'
        )

    def wait(self) -> None:
        """Until what is being saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # a full disk arrives as one of many types
            raise self._unwritten(error) from None

    def save(self, step: int, state: Any, ema: Any, config: ml_collections.ConfigDict, record: dict | None = None):
        """Starts saving; returns once the arrays are copied.

        Raises:
          UserError: this or the one before could not be written.
        """
        self.wait()
        if not self.folder.is_dir():
            raise UserError(
                f'{self.folder} has gone while the run was going: put it back and start again, or in another --workdir'
            )
        self._saving = step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    ema=ocp.args.StandardSave(ema),
                    config=ocp.args.JsonSave(json.loads(config.to_json())),
                    record=ocp.args.JsonSave(record or {}),
                ),
            )
        except Exception as error:
            raise self._unwritten(error) from None

    def tidy(self) -> int | None:
        """Puts what cannot be read aside; returns the newest step that can, None if there is none at all.

        All processes of a run call it together, and nobody else while it runs.

        Raises:
          UserError: there are checkpoints, but none can be read.
        """
        if hosts.is_main():
            for partial in self.folder.glob('*.orbax-checkpoint-tmp*'):  # of a save that was cut short
                shutil.rmtree(partial, ignore_errors=True)
        good, bad = integrity.newest_good(self.folder, _ITEMS)
        for step, reason in bad.items():
            aside = self.folder.parent / 'damaged'
            aside.mkdir(exist_ok=True)
            number = len(list(aside.glob(f'{step}*')))
            place = aside / (f'{step}.{number}' if number else str(step))
            os.replace(self.folder / str(step), place)
            logger.warning('checkpoint %d is skipped and put aside as %s: %s', step, place, reason)
        hosts.barrier('checkpoints are tidy')
        self._manager.reload()
        return good

    def restore(self, step: int, state: Any, ema: Any, config: ml_collections.ConfigDict):
        """(state, ema) of a step, shaped, typed and sharded as the abstract trees given.

        Raises:
          UserError: the run was started with another config.
        """
        saved = _restore(self._manager, self.folder, step, config=ocp.args.JsonRestore())
        free = _FREE | _KNOWN if self.record(step).get('data') else _FREE
        changed = config_saved.differences(saved['config'], config, _RESUMED, free)
        if changed:
            raise UserError(
                f'{self.folder.parent} holds a run with another config ({"; ".join(changed)}): '
                'give another --workdir, or the config it was started with'
            )
        trees = {'state': ocp.args.StandardRestore(state), 'ema': ocp.args.StandardRestore(ema)}
        restored = _restore(self._manager, self.folder, step, **trees)
        return restored['state'], restored['ema']

    def record(self, step: int) -> dict:
        """What was saved beside a step's state; {} for a checkpoint of an earlier version."""
        if not (self.folder / str(step) / 'record').is_dir():
            return {}
        return _restore(self._manager, self.folder, step, record=ocp.args.JsonRestore())['record']

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps."""
        for later in [s for s in self.steps if s > step]:
            self._manager.delete(later)


def sampling_item(weights: Weights) -> dict:
    """The item `ema` of a checkpoint."""
    # A method without a state leaves it out: as did every checkpoint of before there was one.
    return {'ema': weights.params} | ({'state': weights.state} if jax.tree.leaves(weights.state) else {})


def saved_config(folder: pathlib.Path, step: int) -> dict:
    """The config of a step, as its JSON says.

    Raises:
      UserError: the step's folder is damaged.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(folder, options=options, item_names=_ITEMS) as manager:
        return _restore(manager, folder, step, config=ocp.args.JsonRestore())['config']


def saved_weights(folder: pathlib.Path, step: int, shapes: Weights) -> Weights:
    """The weights of a step, shaped, typed and sharded as the abstract ones given.

    Raises:
      UserError: the step's folder is damaged.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(folder, options=options, item_names=_ITEMS) as manager:
        restored = _restore(manager, folder, step, ema=ocp.args.StandardRestore(sampling_item(shapes)))['ema']
    return Weights(restored['ema'], restored.get('state', shapes.state))
