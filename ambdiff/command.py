"""What the commands share: how they read --config, say what is wrong, tell of progress and keep what they compiled.

Light to import: a command imports JAX only once its flags are known to be good, so that a typing mistake is told at
once.
"""

import difflib
import logging
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

import ml_collections
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_dict, config_flags

from ambdiff.errors import UserError
from ambdiff.text import printable


def fail(message: object) -> int:
    """Says in one line on stderr what the user can mend; returns exit status 2."""
    print(f'ambdiff: {printable(" ".join(str(message).split()))}', file=sys.stderr)
    return 2


def corrected(message: str) -> str:
    """The whole command line with the one flag that a message names as the cure; '' where it names none, or several."""
    found = set(re.findall(r'--config\.([\w.]+)=(\([^)]*\)|[\w./-]+)', message))
    if len(found) != 1 or (value := next(iter(found)))[1].isupper():  # FILE stands for what is not known
        return ''
    flag = f'--config.{value[0]}={value[1]}'
    same = re.compile(rf'--(config\.)?{re.escape(value[0])}(=.*)?', re.DOTALL)
    spec = getattr(sys.modules.get('__main__'), '__spec__', None)
    module = spec.name.removesuffix('.__main__') if spec else 'ambdiff'
    program = ['ambdiff'] if module in ('ambdiff', 'ambdiff.cli.entry') else ['python', '-m', module]
    return shlex.join([*program, *(word for word in sys.argv[1:] if not same.fullmatch(word)), flag])


def elsewhere(module: str, instead: str) -> NoReturn:
    """Ends `python -m ambdiff.<module>`, which is no command, with what to type instead and exit status 2."""
    sys.exit(fail(f'python -m ambdiff.{module} is no command: {instead}'))


def define_config() -> None:
    """Defines the flag --config of a command that takes a file of configs/ and fields of it."""
    config_flags.DEFINE_config_file('config', None, 'A file of configs/, or FILE.py:VARIANT.', lock_config=True)


class _ConfigParser(flags.ArgumentParser):
    """Loads a config file, with the fields of the method that --config.method.name on the command line names.

    The fields given are looked up in what comes out, so that each method's own can be given as well.
    """

    def __init__(self, argv: list[str], load: flags.ArgumentParser):
        self._load = load
        words = ' '.join(argv)
        self._method = (re.findall(r'--?config\.method\.name[= ](\S+)', words) or [None])[-1]
        self.config = None  # what was loaded

    def flag_type(self) -> str:
        return self._load.flag_type()

    def parse(self, path: str):
        from ambdiff.config import use_method

        config = self._load.parse(path)
        if not isinstance(config, config_dict.ConfigDict):
            return config  # it says on use why the file did not load
        if self._method and config.method.name != self._method:
            use_method(config, self._method)
        self.config = config if isinstance(config, ml_collections.ConfigDict) else None  # else: did not load
        return config


def parse_flags(argv: list[str]) -> list[str]:
    """app.run's flags parser for a command with --config: a mistake in a flag is one line and exit status 2."""
    try:
        rest = _parse(argv, flags.FLAGS)
        if len(rest) > 1:
            raise UserError(f'unexpected argument {rest[1]!r}; flags are written --name=value')
    except UserError as error:
        sys.exit(fail(error))
    return rest


def parse_config(file: str, fields: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The config of a file, with some fields changed, as a command line of --config and --config.group.field gives it.

    Args:
      file: FILE.py or FILE.py:VARIANT.
      fields: 'group.field=value' each.

    Raises:
      UserError: the file does not load, there is no such field, or the value does not suit it.
    """
    argv = ['', f'--config={file}', *(f'--config.{field}' for field in fields)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', None, '', flag_values=values, lock_config=True, sys_argv=argv)
    _parse(argv, values)
    return values.config


def _parse(argv: list[str], values: flags.FlagValues) -> list[str]:
    """Parses a command line with --config; returns what is no flag.

    Raises:
      UserError: a mistake in a flag.
    """
    flag = values['config']
    load, flag.parser = flag.parser, (parser := _ConfigParser(argv, flag.parser))
    try:
        rest = values(argv)
        if values.config is None:
            raise UserError('give a config, for instance --config=configs/demo.py')
        _ = values.config.seed  # a file that does not load is told only on use
        return rest
    except Exception as error:  # a config file is a program: it can fail in any way
        raise UserError(_field_hint(argv, error, parser.config)) from error
    finally:
        flag.parser = load


def _field_hint(argv: list[str], error: Exception, groups) -> str:
    """What is wrong with the config on the command line; groups: the config, if it loaded, for the nearest field."""
    groups = {} if groups is None else groups
    known = [g for g in groups if not hasattr(groups[g], 'keys')]
    known += [f'{g}.{f}' for g in groups if hasattr(groups[g], 'keys') for f in groups[g]]
    for argument in argv if known else []:
        match = re.match(r'--?config\.([\w.]+)', argument)
        if match and match[1] not in known:
            near = difflib.get_close_matches(match[1], known, 1, 0.5)
            lists = f'ambdiff/config.py and ambdiff/methods/{groups.method.name}.py list them'
            hint = f'; did you mean config.{near[0]}?' if near else f'; {lists}'
            return f'there is no config field {match[1]}{hint}'
    message = str(error)
    if 'Failed loading config file' in message:
        given = re.search(r'--?config[= ](\S+)', ' '.join(argv))
        file = given[1].partition(':')[0] if given else ''
        return f'config file {file} does not exist; the ones that come along are in configs/'
    # A ValueError or TypeError raised inside a config file arrives with its traceback as text: the last line says it.
    if 'Traceback' in message:
        return re.sub(r'^\w*Error: ', '', message.strip().splitlines()[-1])
    if isinstance(error, UserError | flags.Error):
        # What a config file itself says needs no flag before it; Python's words for numbers are no cure.
        message = re.sub(r'^flag --config=\S+: ', '', message)
        if wrong := re.fullmatch(r'flag --(\S+?)=.*: (invalid literal for int|could not convert).*: (.*)', message):
            kind = 'a whole number' if wrong[2].endswith('int') else 'a number'
            return f'--{wrong[1]}: give {kind}, not {wrong[3]}'
        return message
    if known:
        return message
    given = re.search(r'--?config[= ](\S+)', ' '.join(argv))
    return f'{given[1] if given else "the config"} does not load: {type(error).__name__}: {message}'


def given_config() -> str:
    """What --config names, FILE.py or FILE.py:VARIANT."""
    return config_flags.get_config_filename(flags.FLAGS['config'])


def default_workdir(config: str) -> pathlib.Path:
    """runs/<name of the config>, with the variant: configs/lidc.py:small -> runs/lidc_small."""
    file, _, variant = pathlib.Path(config).name.partition(':')
    return pathlib.Path('runs') / '_'.join(filter(None, [pathlib.Path(file).stem, variant]))


def log(level: int, form: str = '%(message)s') -> None:
    """Sends what this project says from `level` on to stderr, and nothing of the libraries.

    Those tell of every file they write, and of errors that they raise as well.
    """
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.basicConfig(format=form, level=logging.CRITICAL, force=True)
    logging.getLogger('ambdiff').setLevel(level)


def keep_compiled() -> None:
    """Keeps what is compiled below the user's cache: a command that runs again need not compile again."""
    import jax

    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(cache / 'ambdiff' / 'jax'))
    if not os.environ.get('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
        # JAX keeps only what took a second: a fast machine would compile a sampler of less at every start.
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
