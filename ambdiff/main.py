"""python -m ambdiff.main --config=configs/lidc.py [--workdir=DIR] [--mode=train_and_evaluate|train|evaluate]."""

from ambdiff import signals

if __name__ == '__main__':
    signals.at_start()

import dataclasses
import logging
import os
import pathlib
import sys
import traceback

import ml_collections
from absl import app, flags

from ambdiff import command
from ambdiff.errors import UserError

HOW_TO_GO_ON = 'the same command goes on from the last checkpoint'
MODES = ('train_and_evaluate', 'train', 'evaluate')


@dataclasses.dataclass(frozen=True)
class Processes:
    """How this process finds its peers, where a run is several.

    Attributes:
      several: whether it is; Cloud TPU, SLURM and Kubernetes say the rest.
      address: elsewhere, host:port of process 0; it and each of those below imply `several`.
      count: how many processes there are.
      number: which one this is, from 0.
    """

    several: bool = False
    address: str | None = None
    count: int | None = None
    number: int | None = None

    def __bool__(self) -> bool:
        """Whether there are several."""
        return self.several or any(value is not None for value in (self.address, self.count, self.number))


def start(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, mode: str, processes: Processes = Processes()
) -> int:
    """Trains and evaluates as `mode` says (one of `MODES`); returns the exit status, having said what went wrong."""
    command.log(logging.INFO)
    sys.unraisablehook = _unraisable
    # Heavy imports come after the flags are known to be good, so that a typing mistake is told at once.
    with signals.importing():
        import jax

        from ambdiff import evaluate, train  # noqa: F401  what `_work` imports again
        from ambdiff.runtime import hosts

        if config.data.builder:
            import tensorflow_datasets  # noqa: F401  takes seconds as well

    if processes:
        try:
            hosts.join(processes.address, processes.count, processes.number)
        except UserError as error:
            return command.fail(error)
        if not hosts.is_main():
            # What concerns them all, the main process says.
            command.log(logging.WARNING, f'process {jax.process_index()}: %(message)s')
    command.keep_compiled()
    try:
        status = _work(config, workdir, mode)
    except (Exception, KeyboardInterrupt) as error:
        if not processes:
            raise
        # The usual end of a process whose peers are gone: its part of a collective fails.
        if not isinstance(error, jax.errors.JaxRuntimeError | KeyboardInterrupt):
            traceback.print_exc()
        status = signals.status(error) if isinstance(error, KeyboardInterrupt) else 1
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        command.fail(
            f'process {jax.process_index()} of {jax.process_count()} stops ({reason}): if another one was lost, start '
            'all of them again; the run goes on from its newest checkpoint'
        )
    if processes and status:
        # An ordinary exit would wait for the others, who wait for this one.
        sys.stderr.flush()
        os._exit(status)
    return status


def _unraisable(what) -> None:
    """Leaves out what a checkpoint's writers say one by one on a full disk: the error that follows says it once."""
    if str(what.exc_value) != 'Event loop is closed':
        signals.unraisable(what)


def _work(config, workdir: pathlib.Path, mode: str) -> int:
    from ambdiff import evaluate, files, plan, train
    from ambdiff.data import sources

    try:
        # What needs no data is told before any is read or built.
        files.check_place(workdir, '--workdir')
        if mode != 'evaluate':
            plan.check(config)
        if mode != 'train':
            evaluate.check(config, workdir, trained_here=mode != 'evaluate')
        if mode == 'train_and_evaluate':
            # A split that is missing is told now, not after hours of training.
            sources.open_source(config.data, config.evaluate.split)
        if mode != 'evaluate':
            sources.write_splits(config.data, workdir)
        if mode != 'evaluate' and not train.train(config, workdir):
            return 0
        if mode != 'train':
            evaluate.evaluate(config, workdir, trained_here=mode != 'evaluate')
    except UserError as error:
        cured = command.corrected(str(error))
        return command.fail(f'{error}; that is: {cured}' if cured else error)
    except OSError as error:
        return command.fail(f'cannot read or write below {workdir}: {error}')
    return 0


def main() -> None:
    """Entry point."""
    command.define_config()
    # Defined here, so that who imports this for its functions gets no flags.
    workdir = flags.DEFINE_string('workdir', None, 'Where the run writes; default runs/<config name>.')
    several = flags.DEFINE_bool(
        'multihost', False, 'This is one of several processes; Cloud TPU, SLURM and Kubernetes say which.'
    )
    address = flags.DEFINE_string(
        'coordinator_address', None, 'Elsewhere: host:port of process 0; implies --multihost.'
    )
    count = flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
    number = flags.DEFINE_integer('process_id', None, 'Which one this is, from 0.')
    mode = flags.DEFINE_enum('mode', MODES[0], MODES, 'What to do.')

    def run(argv: list[str]) -> int:
        del argv
        place = pathlib.Path(workdir.value or command.default_workdir(command.given_config()))
        processes = Processes(several.value, address.value, count.value, number.value)
        return start(flags.FLAGS.config, place, mode.value, processes)

    sys.exit(signals.run(lambda: app.run(run, flags_parser=command.parse_flags), HOW_TO_GO_ON))


if __name__ == '__main__':
    main()
