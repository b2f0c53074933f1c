"""Files of PyTorch weights, read without trusting them and written whole.

A .pt file is a pickle in a zip archive: it is read by torch's weights_only loader, which builds
tensors and nothing else. A .safetensors file needs no torch.
"""

import os
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from ambdiff.errors import UserError
from ambdiff.files import whole_file
from ambdiff.runtime.weights_file import damage, mistaken

# What DistributedDataParallel and torch.compile put before every name.
_WRAPPERS = ('module.', '_orig_mod.')


def _import_torch():
    try:
        import torch
    except ImportError as error:
        raise UserError(
            'a PyTorch file needs torch: pip install torch (the CPU build will do); .safetensors files need nothing'
        ) from error
    return torch


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Arrays by PyTorch name from a state_dict saved by torch.save, or from a .safetensors file.

    Raises:
      UserError: no such file, cut short, neither format, or holding anything but tensors of floats.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f'{path} is not a file')
    try:
        what = mistaken(path)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror or error})') from error
    if what:
        raise UserError(f'{path} is {what}')
    state_dict = _read_safetensors(path) if path.suffix == '.safetensors' else _read_pt(path)
    while prefix := next((p for p in _WRAPPERS if state_dict and all(name.startswith(p) for name in state_dict)), None):
        state_dict = {name.removeprefix(prefix): array for name, array in state_dict.items()}
    for name, array in state_dict.items():
        if reason := damage(name, array):
            raise UserError(f'{path}: {reason}; take a checkpoint from before it diverged, or copy it again')
    return state_dict


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, 'np') as file:
            if (file.metadata() or {}).get('format') == 'ambdiff':
                raise UserError(f'{path} is an ambdiff file already: give it as config.checkpoint')
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise UserError(f'{path} is not a whole .safetensors file of floats: {error}') from error


def _read_pt(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open('rb') as file:
        magic = file.read(4)
    if magic[:2] == b'PK':
        try:
            with zipfile.ZipFile(path) as archive:
                packed = any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist())
        except zipfile.BadZipFile as error:
            raise UserError(f'{path} is cut short or damaged: copy it again') from error
        if packed:
            # torch.save never compresses, and unpacking has no bound.
            raise UserError(f'{path} is a compressed archive, not what torch.save writes')
    elif magic[:1] != b'\x80':
        raise UserError(f'{path} is not a PyTorch file: give a state_dict saved by torch.save')
    torch = _import_torch()
    try:
        with warnings.catch_warnings(action='ignore'):
            loaded = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f'{path} holds pickled objects that are not tensors (or is damaged); nothing in it was '
            'run: save the state_dict alone, torch.save(model.state_dict(), path)'
        ) from error
    except Exception as error:  # A stranger's bytes: torch raises whatever its parsers meet.
        raise UserError(f'{path} is cut short or damaged: {str(error).splitlines()[0]}') from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise UserError(f'{path} holds no state_dict but {type(loaded).__name__}')
    loaded = _unwrapped(torch, path, loaded)
    return {_text(path, name): _array(torch, path, name, value) for name, value in loaded.items()}


def _unwrapped(torch, path: pathlib.Path, loaded: Mapping) -> Mapping:
    """The state_dict inside what training programs save around it: {'state_dict': .., 'epoch': ..} and the like."""
    if any(isinstance(value, torch.Tensor) for value in loaded.values()):
        return loaded
    weights = lambda value: (
        isinstance(value, Mapping) and value and all(isinstance(v, torch.Tensor) for v in value.values())
    )
    inside = [name for name, value in loaded.items() if weights(value)]
    if len(inside) > 1:
        raise UserError(
            f'{path} holds several state_dicts ({", ".join(map(repr, inside[:10]))}): save the one to be used alone'
        )
    return loaded[inside[0]] if inside else loaded


def _text(path: pathlib.Path, name: object) -> str:
    if not isinstance(name, str):
        raise UserError(f'{path} holds no state_dict: its key {name!r:.40} is not a name')
    return name


def _array(torch, path: pathlib.Path, name: str, value: object) -> np.ndarray:
    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided
    if not plain or not value.is_floating_point():
        raise UserError(
            f'{path}: {name} is not a tensor of floats but {type(value).__name__}: save the '
            'state_dict of the network alone'
        )
    if value.nbytes > value.untyped_storage().nbytes():
        raise UserError(f'{path}: {name} is larger than what the file stores for it')
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def write_state_dict(path: str | os.PathLike, state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes .safetensors, or by torch.save any other suffix; whole or not at all.

    Raises:
      UserError: torch is needed and absent.
      OSError: the place cannot be written.
    """
    path = pathlib.Path(path)
    torch = None if path.suffix == '.safetensors' else _import_torch()
    with whole_file(path) as stream:
        if torch is None:
            stream.write(safetensors.numpy.save(dict(state_dict)))
        else:
            torch.save({name: torch.tensor(array) for name, array in state_dict.items()}, stream)
