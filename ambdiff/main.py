"""python -m ambdiff.main --config=configs/lidc.py [--workdir=DIR] [--mode=train_and_evaluate|train|evaluate]."""

from ambdiff import signals

if __name__ == '__main__':
    signals.at_start()

import logging
import os
import pathlib
import sys
import traceback

from absl import app, flags

from ambdiff import command
from ambdiff.errors import UserError

command.define_config()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run writes; default runs/<config name>.')
_MULTIHOST = flags.DEFINE_bool(
    'multihost', False, 'This is one of several processes; Cloud TPU, SLURM and Kubernetes say which.'
)
_ADDRESS = flags.DEFINE_string('coordinator_address', None, 'Elsewhere: host:port of process 0; implies --multihost.')
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
_PROCESS = flags.DEFINE_integer('process_id', None, 'Which one this is, from 0.')
_MODE = flags.DEFINE_enum('mode', 'train_and_evaluate', ['train_and_evaluate', 'train', 'evaluate'], 'What to do.')


def _unraisable(what) -> None:
    """Leaves out what a checkpoint's writers say one by one on a full disk: the error that follows says it once."""
    if str(what.exc_value) != 'Event loop is closed':
        signals.unraisable(what)


def run(argv: list[str]) -> int:
    """Trains and evaluates as the flags say."""
    del argv
    command.log(logging.INFO)
    sys.unraisablehook = _unraisable
    # Heavy imports come after the flags are known to be good, so that a typing mistake is told at once.
    with signals.importing():
        import jax

        from ambdiff import evaluate, train  # noqa: F401  what `_work` imports again
        from ambdiff.runtime import hosts

        if flags.FLAGS.config.data.builder:
            import tensorflow_datasets  # noqa: F401  takes seconds as well

    several = _MULTIHOST.value or any(flag.value is not None for flag in (_ADDRESS, _PROCESSES, _PROCESS))
    if several:
        try:
            hosts.join(_ADDRESS.value, _PROCESSES.value, _PROCESS.value)
        except UserError as error:
            return command.fail(error)
        if not hosts.is_main():
            # What concerns them all, the main process says.
            command.log(logging.WARNING, f'process {jax.process_index()}: %(message)s')
    command.keep_compiled()
    config = flags.FLAGS.config
    workdir = pathlib.Path(_WORKDIR.value or command.default_workdir())
    try:
        status = _work(config, workdir)
    except (Exception, KeyboardInterrupt) as error:
        if not several:
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
    if several and status:
        # An ordinary exit would wait for the others, who wait for this one.
        sys.stderr.flush()
        os._exit(status)
    return status


def _work(config, workdir: pathlib.Path) -> int:
    from ambdiff import evaluate, train
    from ambdiff.data import sources

    try:
        if _MODE.value == 'train_and_evaluate':
            # A split that is missing is told now, not after hours of training.
            sources.open_source(config.data, config.evaluate.split)
        if _MODE.value != 'evaluate':
            sources.write_splits(config.data, workdir)
        if _MODE.value != 'evaluate' and not train.train(config, workdir):
            return 0
        if _MODE.value != 'train':
            evaluate.evaluate(config, workdir, trained_here=_MODE.value != 'evaluate')
    except UserError as error:
        return command.fail(error)
    except OSError as error:
        return command.fail(f'cannot read or write below {workdir}: {error}')
    return 0


def main() -> None:
    """Entry point."""
    work = lambda: app.run(run, flags_parser=command.parse_flags)
    sys.exit(signals.run(work, 'the same command goes on from the last checkpoint'))


if __name__ == '__main__':
    main()
