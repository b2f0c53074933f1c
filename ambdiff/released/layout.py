"""Names and layouts of the released state_dicts, and of our parameters.

A name there is a path here: `input_blocks.3.0.in_layers.2.weight` is `input_blocks_3_0 / in_conv /
kernel`. Kernels turn from OIHW to HWIO, [out, in] to [in, out], and the attention's 1-D
convolutions [out, in, 1] become 1x1 ones; nothing is rescaled, so the way there and back is exact.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flax import traverse_util

from ambdiff.errors import UserError

_LAYERS = {
    'in_norm': 'in_layers.0',
    'in_conv': 'in_layers.2',
    'emb_layers': 'emb_layers.1',
    'out_norm': 'out_layers.0',
    'out_conv': 'out_layers.3',
}
_ATTENTION = ('qkv', 'proj_out')


def unet_name(path: tuple[str, ...]) -> str:
    """('input_blocks_3_0', 'in_conv', 'kernel') -> 'input_blocks.3.0.in_layers.2.weight'."""
    block, *layer, leaf = path
    parts = [re.sub(r'_(\d+)', r'.\1', block), *(_LAYERS.get(name, name) for name in layer)]
    return '.'.join([*parts, 'bias' if leaf == 'bias' else 'weight'])


def encoder_name(path: tuple[str, ...]) -> str:
    """('conv_1_2', 'kernel') -> 'encoder.layers.11.weight'.

    A level is pool, then (conv, ReLU) thrice, and the first has no pool: convolution k of level l
    is layer 7 l + 2 k.
    """
    block, leaf = path
    match = re.fullmatch(r'conv_(\d+)_(\d+)', block)
    name = f'encoder.layers.{7 * int(match[1]) + 2 * int(match[2])}' if match else block
    return f'{name}.{"bias" if leaf == "bias" else "weight"}'


def _to_torch_layout(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array.T
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
        if name.split('.')[-2] in _ATTENTION:
            return array[..., 0]
    return array


def _from_torch_layout(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array.T
    if array.ndim == 3:
        array = array[..., None]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _listed(title: str, lines: Sequence[str]) -> str:
    more = f' and {len(lines) - 10} more' if len(lines) > 10 else ''
    return f'{len(lines)} {title}: {", ".join(lines[:10])}{more}'


def fit(name_of: Callable, shapes: Mapping, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Variables {'params': ...} of the tree `shapes` from a state_dict.

    Args:
      name_of: `unet_name` or `encoder_name`.
      shapes: abstract parameters, anything with a shape at the leaves.
      state_dict: arrays by PyTorch name, in PyTorch's layout.

    Raises:
      UserError: names the missing, unexpected and mis-shaped keys, at most ten of each.
    """
    paths = traverse_util.flatten_dict(shapes)
    wanted = {name_of(path): path for path in paths}
    missing = sorted(set(wanted) - set(state_dict))
    unexpected = sorted(set(state_dict) - set(wanted))
    tree, misshaped = {}, []
    for name in sorted(set(wanted) & set(state_dict)):
        path = wanted[name]
        array = np.asarray(state_dict[name])
        shape = _to_torch_layout(name, np.broadcast_to(np.float32(0), paths[path].shape)).shape
        if array.shape == shape:
            tree[path] = np.ascontiguousarray(_from_torch_layout(array), dtype=np.float32)
        else:
            misshaped.append(f'{name} {list(array.shape)} instead of {list(shape)}')
    groups = (('missing', missing), ('unexpected', unexpected), ('mis-shaped', misshaped))
    faults = [_listed(title, lines) for title, lines in groups if lines]
    if faults:
        raise UserError(
            f'the state dict does not fit this network; {"; ".join(faults)}. '
            'Give the arguments that the network was trained with'
        )
    return {'params': traverse_util.unflatten_dict(tree)}


def state_dict(name_of: Callable, variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `fit`: float32 arrays by PyTorch name, sorted."""
    flat = traverse_util.flatten_dict(variables['params'])
    arrays = {name_of(path): np.asarray(array, np.float32) for path, array in flat.items()}
    return {name: np.ascontiguousarray(_to_torch_layout(name, arrays[name])) for name in sorted(arrays)}
