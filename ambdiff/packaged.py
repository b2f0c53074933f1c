"""What comes along with the program, by name: weights ('lidc_small') and configs ('lidc:small').

Both lie inside the package where it was installed, and beside it in a checkout. Light to import: only the standard
library.
"""

import difflib
import os
import pathlib
from collections.abc import Sequence

from ambdiff.errors import UserError
from ambdiff.text import printable

DEFAULT_WEIGHTS = 'lidc_small'

_HERE = pathlib.Path(__file__).parent


def weights_names() -> tuple[str, ...]:
    """Names of the weights that come along, sorted."""
    return _names('weights', '.safetensors')


def config_names() -> tuple[str, ...]:
    """Names of the configs that come along, sorted; each file's first lines tell its variants."""
    return _names('configs', '.py')


def weights(name_or_path: str | os.PathLike) -> pathlib.Path:
    """The file or folder of weights.

    A name of weights that come along goes before a file or folder of that name: that one is './lidc_small'.

    Args:
      name_or_path: 'lidc_small', or a .safetensors file, a workdir or the folder of a step.

    Raises:
      UserError: neither such a name nor something that is there.

    >>> weights('lidc_small').name
    'lidc_small.safetensors'
    >>> weights('lidc_smal')
    Traceback (most recent call last):
    ambdiff.errors.UserError: there are no weights 'lidc_smal' here: did you mean lidc_small?
    """
    given = _text(name_or_path, 'weights')
    if given in weights_names():
        return _folder('weights') / f'{given}.safetensors'
    if _exists(given):
        return pathlib.Path(given)
    name = pathlib.PurePath(given).name.removesuffix('.safetensors')
    otherwise = 'give a .safetensors file, a workdir, the folder of a step, or'
    raise UserError(f'there are no weights {printable(given)!r} here: {_meant(name, weights_names(), otherwise)}')


def config(name_or_path: str | os.PathLike) -> str:
    """The file of a config, with its variant: what --config= takes.

    Args:
      name_or_path: 'lidc' or 'lidc:small', or a file with or without variant ('mine/lungs.py:big').

    Returns:
      'FILE.py' or 'FILE.py:VARIANT'. Whether there is such a variant the file itself says.

    Raises:
      UserError: neither such a name nor a file that is there.

    >>> config('lidc:small').endswith('lidc.py:small')
    True
    >>> config('lidcs:small')
    Traceback (most recent call last):
    ambdiff.errors.UserError: there is no config 'lidcs:small' here: did you mean lidc:small?
    """
    given = _text(name_or_path, 'a config')
    file, colon, variant = split(given)
    if file in config_names():
        return f'{_folder("configs") / file}.py{colon}{variant}'
    if _exists(file):
        if not os.path.isfile(file) or not file.endswith('.py'):
            raise UserError(f'{printable(file)} is no config: a config is a Python file with get_config, as lidc is')
        return given
    name = pathlib.PurePath(file).name.removesuffix('.py')
    meant = _meant(name, config_names(), 'give a .py file with get_config, or', f'{colon}{variant}')
    raise UserError(f'there is no config {printable(given)!r} here: {meant}')


def split(given: str) -> tuple[str, str, str]:
    """'FILE.py:VARIANT' -> (file, ':' or '', variant); the colon after a drive (C:\\..) is none."""
    drive, rest = os.path.splitdrive(given)
    file, colon, variant = rest.partition(':')
    return drive + file, colon, variant


def _text(name_or_path: str | os.PathLike, what: str) -> str:
    if not isinstance(name_or_path, str | os.PathLike):
        raise UserError(f'{what}: give a name or a path as text, not {type(name_or_path).__name__}')
    given = os.fsdecode(name_or_path)
    if not given.strip():
        raise UserError(f'{what}: give a name or a path, not an empty text')
    return given


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a zero byte
        return False


def _meant(name: str, known: Sequence[str], otherwise: str, more: str = '') -> str:
    if near := difflib.get_close_matches(name, known, 1, 0.5):
        return f'did you mean {near[0]}{printable(more)}?'
    return f'{otherwise} a name that comes along ({", ".join(known)})'


def _names(kind: str, suffix: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _folder(kind).glob(f'*{suffix}') if not path.stem.startswith('_')))


def _folder(kind: str) -> pathlib.Path:
    inside = _HERE / kind
    return inside if inside.is_dir() else _HERE.parent / kind
