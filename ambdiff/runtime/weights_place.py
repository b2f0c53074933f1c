"""Where weights lie on disk: a workdir, the folder of one of its steps, or a file. Light: imports no JAX."""

import json
import os
import pathlib

import safetensors

from ambdiff import packaged
from ambdiff.errors import UserError


def existing(path: str | os.PathLike) -> pathlib.Path:
    """The absolute path of what is there, or of weights that come along under this name.

    Raises:
      UserError: nothing is.
    """
    return packaged.weights(path).absolute()


def is_step(name: str) -> bool:
    """Whether a folder's name is a step's: str.isdigit() alone takes superscripts and other scripts' digits."""
    return name.isascii() and name.isdigit()


def checkpoints(place: pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """(the folder of checkpoints, None) of a workdir, (that folder, the step) of the folder of a step.

    Raises:
      UserError: the folder is neither.
    """
    step = int(place.name) if is_step(place.name) and (place / 'ema').is_dir() else None
    folder = place.parent if step is not None else place / 'checkpoints'
    if not folder.is_dir():
        raise UserError(
            f'config.checkpoint={place} is neither a workdir with checkpoints, nor the folder of a '
            'step, nor a .safetensors file'
        )
    return folder, step


def said(path: str | os.PathLike, *fields: str) -> list[int] | None:
    """Whole numbers that the config beside weights says, unchecked; None where it does not, which loading explains.

    fields: 'group.field' each.

    Raises:
      UserError: there are no weights.
    """
    place = existing(path)
    folder, step = (None, None) if place.is_file() else checkpoints(place)
    try:
        if folder is None:
            with safetensors.safe_open(place, 'numpy') as file:
                text = file.metadata()['config']
        else:
            newest = max(int(below.name) for below in folder.iterdir() if is_step(below.name))
            text = (folder / str(newest if step is None else step) / 'config' / 'metadata').read_text('utf-8')
        config = json.loads(text)
        numbers = [config[group][field] for group, field in (name.split('.') for name in fields)]
    except Exception:  # a stranger's file can break a reader in any way
        return None
    return numbers if all(type(number) is int and number > 0 for number in numbers) else None
