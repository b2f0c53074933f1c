"""python -m ambdiff.main --config=configs/lidc.py [--workdir=DIR] [--mode=train_and_evaluate|train|evaluate]."""

import difflib
import logging
import os
import pathlib
import re
import sys
import traceback

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from ambdiff.errors import UserError

_CONFIG = config_flags.DEFINE_config_file('config', None, 'A file of configs/, or FILE.py:VARIANT.', lock_config=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run writes; default runs/<config name>.')
_MULTIHOST = flags.DEFINE_bool(
    'multihost', False, 'This is one of several processes; Cloud TPU, SLURM and Kubernetes say which.'
)
_ADDRESS = flags.DEFINE_string('coordinator_address', None, 'Elsewhere: host:port of process 0; implies --multihost.')
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
_PROCESS = flags.DEFINE_integer('process_id', None, 'Which one this is, from 0.')
_MODE = flags.DEFINE_enum('mode', 'train_and_evaluate', ['train_and_evaluate', 'train', 'evaluate'], 'What to do.')


def fail(message: object) -> int:
    """Says in one line on stderr what the user can mend; returns exit status 2."""
    print(f'ambdiff: {" ".join(str(message).split())}', file=sys.stderr)
    return 2


def _field_hint(argv: list[str], error: Exception) -> str:
    """What is wrong with the config on the command line, with the nearest field that exists."""
    from ambdiff.config import default

    groups = default()
    known = [g for g in groups if not hasattr(groups[g], 'keys')]
    known += [f'{g}.{f}' for g in groups if hasattr(groups[g], 'keys') for f in groups[g]]
    for argument in argv:
        match = re.match(r'--?config\.([\w.]+)', argument)
        if match and match[1] not in known:
            near = difflib.get_close_matches(match[1], known, 1, 0.5)
            hint = f'; did you mean config.{near[0]}?' if near else '; ambdiff/config.py lists them'
            return f'there is no config field {match[1]}{hint}'
    message = str(error)
    if 'Failed loading config file' in message:
        given = re.search(r'--?config[= ](\S+)', ' '.join(argv))
        file = given[1].partition(':')[0] if given else ''
        return f'config file {file} does not exist; the ones that come along are in configs/'
    # An error raised inside a config file arrives with its traceback as text: the last line says it.
    last = message.strip().splitlines()[-1]
    return re.sub(r'^\w*Error: ', '', last) if 'Traceback' in message else message


def parse_flags(argv: list[str]) -> list[str]:
    """app.run's flags parser: a mistake in a flag ends with one line and exit status 2."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is None:
            raise UserError('give a config, for instance --config=configs/demo.py')
        _ = _CONFIG.value.seed  # a file that does not load is told only on use
    except Exception as error:  # a config file is a program: it can fail in any way
        sys.exit(fail(_field_hint(argv, error)))
    if len(rest) > 1:
        sys.exit(fail(f'unexpected argument {rest[1]!r}; flags are written --name=value'))
    return rest


def default_workdir(config_file: str) -> pathlib.Path:
    """runs/<name>, with the variant: configs/lidc.py:small -> runs/lidc_small."""
    file, _, variant = config_file.partition(':')
    return pathlib.Path('runs') / '_'.join(filter(None, [pathlib.Path(file).stem, variant]))


def _unraisable(what) -> None:
    """Leaves out what a checkpoint's writers say one by one on a full disk: the error that follows says it once."""
    if str(what.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(what)


def run(argv: list[str]) -> int:
    """Trains and evaluates as the flags say."""
    del argv
    # Our own progress only: the libraries tell of every file they write, and of errors that they raise as well.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.basicConfig(format='%(message)s', level=logging.CRITICAL, force=True)
    logging.getLogger('ambdiff').setLevel(logging.INFO)
    sys.unraisablehook = _unraisable
    # Heavy imports come after the flags are known to be good, so that a typing mistake is told at once.
    import jax

    from ambdiff.runtime import hosts

    several = _MULTIHOST.value or any(flag.value is not None for flag in (_ADDRESS, _PROCESSES, _PROCESS))
    if several:
        try:
            hosts.join(_ADDRESS.value, _PROCESSES.value, _PROCESS.value)
        except UserError as error:
            return fail(error)
        if not hosts.is_main():
            # What concerns them all, the main process says.
            logging.basicConfig(
                format=f'process {jax.process_index()}: %(message)s', level=logging.CRITICAL, force=True
            )
            logging.getLogger('ambdiff').setLevel(logging.WARNING)
    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        # A run that starts again, or is evaluated, need not compile again.
        cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(cache / 'ambdiff' / 'jax'))
    config = _CONFIG.value
    given = _WORKDIR.value
    workdir = pathlib.Path(given or default_workdir(config_flags.get_config_filename(flags.FLAGS['config'])))
    try:
        status = _work(config, workdir)
    except Exception as error:
        if not several:
            raise
        # The usual end of a process whose peers are gone: its part of a collective fails.
        if not isinstance(error, jax.errors.JaxRuntimeError):
            traceback.print_exc()
        status = 1
        fail(
            f'process {jax.process_index()} of {jax.process_count()} stops ({" ".join(str(error).split())[:200]}): if '
            'another one was lost, start all of them again; the run goes on from its newest checkpoint'
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
        return fail(error)
    except OSError as error:
        return fail(f'cannot read or write below {workdir}: {error}')
    except KeyboardInterrupt:
        print('ambdiff: interrupted: the same command goes on from the last checkpoint', file=sys.stderr)
        return 130
    return 0


def main() -> None:
    """Entry point."""
    app.run(run, flags_parser=parse_flags)


if __name__ == '__main__':
    main()
