"""What a run does when something goes wrong: a signal, a second run, a loss that is not finite or leaps.

A bad step takes the run back to its last good checkpoint, and the batch of that step is skipped from then on. If the
run goes bad again at once, the batches before are suspected as well: 2, 4, 8 .. of them are skipped. The skip list, the
losses that a leap is told by and what the data held are saved with the state, so that an interrupted run still ends
like a whole one.
"""

import contextlib
import math
import pathlib
import signal
from collections import deque

import jax
import ml_collections

from ambdiff import files
from ambdiff.data import fingerprint
from ambdiff.data.source import Source
from ambdiff.errors import UserError
from ambdiff.runtime import hosts

# A leap is told by the largest of so many losses, once there are so many.
_REMEMBERED, _NEEDED = 100, 20


class Termination:
    """Notes SIGTERM from `begin` on while it is entered, so that the loop can save before it stops.

    Before that there is nothing to save, and the signal does what it did before. Of several processes each notes it
    from the start: one that ended by itself would leave the others waiting.
    """

    def __init__(self):
        self.asked = False
        self._previous = None

    def __enter__(self):
        if jax.process_count() > 1:
            self.begin()
        return self

    def begin(self) -> None:
        """From now on a SIGTERM is noted."""
        if self._previous is None:
            with contextlib.suppress(ValueError):  # not in the main thread (a notebook, a test)
                self._previous = signal.signal(signal.SIGTERM, self._note)

    def __exit__(self, *_):
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, *_):
        self.asked = True


@contextlib.contextmanager
def only_run(folder: pathlib.Path, lock: str = '.lock'):
    """Holds a workdir, or another folder of a run: a second run in it would mix its files with the first one's.

    Raises:
      UserError: another run has it.
    """
    busy = f'another run is writing to {folder}: wait for it, or give another --workdir'
    with contextlib.ExitStack() as stack:
        free = True
        if hosts.is_main():
            try:
                stack.enter_context(files.held(folder, busy, lock))
            except UserError:
                free = False
        if not hosts.from_main(free):
            raise UserError(busy)
        yield


class BadStep(Exception):
    """A step whose loss says that the state is spoilt; `step` counts from 1, `reason` is a clause."""

    def __init__(self, step: int, reason: str):
        super().__init__(f'{reason} at step {step}')
        self.step, self.reason = step, reason


class Rollbacks:
    """Which steps are bad, which batches are skipped for it, and how often a run may go back.

    Every process decides the same: what it goes by are the losses over all of them.
    """

    def __init__(self, train: ml_collections.ConfigDict):
        self._most, self._factor, self._repeat = train.max_rollbacks, train.spike_factor, train.updates_per_batch
        self.count = 0
        self.skipped: set[int] = set()  # numbers of batches
        self._width, self._last = 0, -1
        self._losses = deque(maxlen=_REMEMBERED)
        self._data: fingerprint.Fingerprint = {}
        self._accepts = False

    def know_data(self, source: Source, data: ml_collections.ConfigDict) -> None:
        """Takes the data that the config names for the run's: `record` keeps what it holds, `restore` compares."""
        self._accepts = data.accept_changes
        if hosts.is_main():
            self._data = fingerprint.of(source, data)

    def record(self) -> dict:
        """What a checkpoint keeps of it, as JSON."""
        return {
            'count': self.count,
            'skipped': sorted(self.skipped),
            'width': self._width,
            'last': self._last,
            'losses': list(self._losses),
            'data': self._data,
        }

    def restore(self, record: dict) -> None:
        """Goes on from a checkpoint; what this process has skipped since stays skipped. {}: from step 0.

        Raises:
          UserError: the data is not what the run began with.
        """
        failed = None
        if self._data and record.get('data'):
            try:
                fingerprint.check(record['data'], self._data, self._accepts)
            except UserError as error:
                failed = error
        if hosts.from_main(failed is not None):
            raise failed or UserError('the training data is not what the run began with: process 0 says what changed')
        self._losses = deque(record.get('losses', ()), maxlen=_REMEMBERED)
        self.skipped |= set(record.get('skipped', ()))
        if record.get('count', 0) > self.count:
            self.count, self._width, self._last = record['count'], record['width'], record['last']

    def skips(self, step: int) -> bool:
        """Whether the step after `step` steps is left out."""
        return step // self._repeat in self.skipped

    def check(self, step: int, values: dict[str, float]) -> None:
        """Takes the loss and grad_norm of step `step`, which counts from 1.

        Raises:
          BadStep: they are not finite, or the loss leaps.
        """
        loss = values['loss']
        if not math.isfinite(loss) or not math.isfinite(values['grad_norm']):
            raise BadStep(step, f'loss or gradient is not finite (loss {loss})')
        if self._factor and len(self._losses) >= _NEEDED and loss > self._factor * max(self._losses):
            raise BadStep(step, f'the loss leaps from at most {max(self._losses):.4g} to {loss:.4g}')
        self._losses.append(loss)

    def go_back(self, bad: BadStep, checkpoints: list[int]) -> int | None:
        """Puts the batches that are to blame on the skip list.

        Args:
          bad: what happened.
          checkpoints: the steps of the checkpoints there are.

        Returns:
          The checkpoint to go back to, None for the beginning.

        Raises:
          UserError: the run has gone back as often as it may.
        """
        if self.count >= self._most:
            kept = f'step {max(checkpoints)} is kept' if checkpoints else 'no checkpoint was saved yet'
            raise UserError(
                f'{bad}, after {self.count} rollbacks (config.train.max_rollbacks); {kept}: lower '
                'config.optim.learning_rate, or set config.optim.clip_norm, and start in another --workdir with '
                '--config.checkpoint= naming this one'
            )
        batch = (bad.step - 1) // self._repeat
        self._width = 2 * self._width if self._width and batch <= self._last + 2 * self._width else 1
        self._last = batch
        self.count += 1
        first = max(batch - self._width + 1, 0)
        before = [step for step in checkpoints if step <= first * self._repeat]
        # What is older than the oldest checkpoint is done and stays.
        target = max(before) if before else min(checkpoints, default=None)
        if target is not None:
            first = min(max(first, -(-target // self._repeat)), batch)
        self.skipped |= set(range(first, batch + 1))
        return target
