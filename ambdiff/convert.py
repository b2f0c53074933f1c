"""Weights to and from the released PyTorch code.

A name of the released state_dict is a path of our parameters: `input_blocks.3.0.in_layers.2.weight` is
`input_blocks_3_0 / in_conv / kernel`. Kernels turn from OIHW to HWIO, [out, in] to [in, out], and the attention's
1-D convolutions [out, in, 1] become 1x1 ones; nothing is rescaled, so the way there and back is exact.

The released code feeds a grey image four times over, beside x_t. A convolution is linear in its input, so summing the
four kernels gives the same function of the image once: `fold_repeated_image`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from ambdiff.errors import UserError
from ambdiff.models.gaussian_encoder import GaussianEncoder
from ambdiff.models.unet import UNet

_LAYERS = {
    'in_norm': 'in_layers.0',
    'in_conv': 'in_layers.2',
    'emb_layers': 'emb_layers.1',
    'out_norm': 'out_layers.0',
    'out_conv': 'out_layers.3',
}
_ATTENTION = ('qkv', 'proj_out')
_FIRST = 'input_blocks.0.0.weight'


def _unet_name(path: tuple[str, ...]) -> str:
    """('input_blocks_3_0', 'in_conv', 'kernel') -> 'input_blocks.3.0.in_layers.2.weight'."""
    block, *layer, leaf = path
    parts = [re.sub(r'_(\d+)', r'.\1', block), *(_LAYERS.get(name, name) for name in layer)]
    return '.'.join([*parts, 'bias' if leaf == 'bias' else 'weight'])


def _encoder_name(path: tuple[str, ...]) -> str:
    """('conv_1_2', 'kernel') -> 'encoder.layers.11.weight': a level is pool, then (conv, ReLU) thrice.

    The first level has no pool, so its convolutions are 0, 2, 4; those of level l are 7 l, 7 l + 2, 7 l + 4.
    """
    block, leaf = path
    match = re.fullmatch(r'conv_(\d+)_(\d+)', block)
    name = f'encoder.layers.{7 * int(match[1]) + 2 * int(match[2])}' if match else block
    return f'{name}.{"bias" if leaf == "bias" else "weight"}'


def _to_torch_layout(name: str, array: Any) -> Any:
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


def _fit(name_of, shapes: Mapping, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Parameters of the tree `shapes` from a state_dict, or a UserError that says what does not fit."""
    paths = flax.traverse_util.flatten_dict(shapes)
    wanted = {name_of(path): path for path in paths}
    missing = sorted(set(wanted) - set(state_dict))
    unexpected = sorted(set(state_dict) - set(wanted))
    tree, misshaped = {}, []
    for name in sorted(set(wanted) & set(state_dict)):
        path = wanted[name]
        array = np.asarray(state_dict[name])
        shape = jax.eval_shape(lambda a, name=name: _to_torch_layout(name, a), paths[path]).shape
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
    return {'params': flax.traverse_util.unflatten_dict(tree)}


def fold_image_kernel(weight: np.ndarray) -> np.ndarray:
    """First kernel [O, R + 1, h, w] of R copies of the image and x_t -> [O, 2, h, w] of the image once."""
    image = weight[:, :-1].sum(axis=1, keepdims=True, dtype=np.float64).astype(weight.dtype)
    return np.concatenate([image, weight[:, -1:]], axis=1)


def unfold_image_kernel(weight: np.ndarray, copies: int) -> np.ndarray:
    """First kernel [O, 2, h, w] -> [O, copies + 1, h, w]: each copy of the image gets an equal share."""
    image = np.repeat(weight[:, :1] / copies, copies, axis=1)
    return np.concatenate([image, weight[:, 1:]], axis=1)


def unet_from_torch(
    state_dict: Mapping[str, np.ndarray],
    *,
    in_channels: int,
    model_channels: int,
    out_channels: int,
    num_res_blocks: int,
    attention_resolutions: Sequence[int],
    channel_mult: Sequence[float] = (1, 2, 4, 8),
    image_size: int | None = None,
    dropout: float = 0.0,
    conv_resample: bool = True,
    dims: int = 2,
    num_classes: int | None = None,
    use_checkpoint: bool = False,
    use_fp16: bool = False,
    num_heads: int = 1,
    num_head_channels: int = -1,
    num_heads_upsample: int = -1,
    use_scale_shift_norm: bool = False,
    resblock_updown: bool = False,
    use_new_attention_order: bool = False,
    fold_repeated_image: bool = False,
) -> tuple[UNet, dict]:
    """The released U-Net as ours.

    Args:
      state_dict: arrays by PyTorch name, in PyTorch's layout.
      in_channels: input channels; with `fold_repeated_image` those of the state_dict, copies of the image included.
      model_channels, ..., use_new_attention_order: the arguments of the released constructor, its names and
        defaults. `image_size` decides nothing (any size that fits the U-Net's down-sampling works), `use_checkpoint` becomes
        rematerialisation, and `use_fp16` is a storage choice: parameters and compute are float32 here.
      fold_repeated_image: make a network of 2 input channels (image, x_t), the same function.

    Returns:
      (module, variables); module.apply(variables, x [B, H, W, C], t [B]) -> [B, H, W, out_channels].

    Raises:
      UserError: an option that this U-Net has not, or a state_dict of other names or shapes.
    """
    del image_size, use_fp16
    if dims != 2:
        raise UserError(f'dims={dims}: only 2-D networks can be read')
    if num_classes is not None:
        raise UserError(f'num_classes={num_classes}: class-conditional networks cannot be read')
    if fold_repeated_image:
        if in_channels < 2:
            raise UserError(f'in_channels={in_channels}: no image channel to fold')
        weight = np.asarray(state_dict.get(_FIRST, np.zeros(0)))
        if weight.ndim == 4 and weight.shape[1] == in_channels:
            state_dict = {**state_dict, _FIRST: fold_image_kernel(weight)}
        in_channels = 2
    module = UNet(
        model_channels=model_channels,
        out_channels=out_channels,
        num_res_blocks=num_res_blocks,
        attention_resolutions=tuple(attention_resolutions),
        channel_mult=tuple(channel_mult),
        num_heads=num_heads,
        num_head_channels=num_head_channels,
        num_heads_upsample=num_heads_upsample,
        use_scale_shift_norm=use_scale_shift_norm,
        resblock_updown=resblock_updown,
        conv_resample=conv_resample,
        use_new_attention_order=use_new_attention_order,
        dropout=dropout,
        remat=use_checkpoint,
    )
    return module, _fit(_unet_name, unet_shapes(module, in_channels), state_dict)


def unet_shapes(module: UNet, in_channels: int) -> dict:
    """Shapes of the module's parameters, without computing any."""
    x = jax.ShapeDtypeStruct((1, module.stride, module.stride, in_channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.eval_shape(module.init, jax.random.key(0), x, t)['params']


def unet_to_torch(variables: Mapping, copies_of_image: int = 0) -> dict[str, np.ndarray]:
    """The inverse of `unet_from_torch`: a state_dict, float32, by PyTorch name.

    Args:
      variables: {'params': ...} of a `UNet` of patch_size 1.
      copies_of_image: 4 for the released code's input from a network of 2 input channels; 0 leaves the input as it is.
    """
    state_dict = _state_dict(_unet_name, variables)
    if copies_of_image:
        state_dict[_FIRST] = unfold_image_kernel(state_dict[_FIRST], copies_of_image)
    return state_dict


def encoder_from_torch(
    state_dict: Mapping[str, np.ndarray], latent_dim: int
) -> tuple[GaussianEncoder, dict]:
    """The released axis-aligned Gaussian encoder (AMN or ACN) as ours.

    Returns:
      (module, variables); module.apply(variables, image [B, H, W, 1], mask [B, H, W, 1]) -> (mu, log_sigma), [B, latent_dim].

    Raises:
      UserError: a state_dict of other names or shapes.
    """
    module = GaussianEncoder(latent_dim)
    first = np.asarray(state_dict.get('encoder.layers.0.weight', np.zeros(0)))
    channels = max(first.shape[1] - 1, 1) if first.ndim == 4 else 1
    x = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, mask)['params']
    return module, _fit(_encoder_name, shapes, state_dict)


def encoder_to_torch(variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `encoder_from_torch`: a state_dict, float32, by PyTorch name."""
    return _state_dict(_encoder_name, variables)


def _state_dict(name_of, variables: Mapping) -> dict[str, np.ndarray]:
    flat = flax.traverse_util.flatten_dict(variables['params'])
    arrays = {name_of(path): np.asarray(array, np.float32) for path, array in flat.items()}
    return {
        name: np.ascontiguousarray(_to_torch_layout(name, arrays[name])) for name in sorted(arrays)
    }
