"""Weights to and from the released PyTorch code.

  python -m ambdiff.convert --from_torch=savedmodel.pt --config=configs/lidc.py --output=DIR
  python -m ambdiff.convert --to_torch=DIR --config=configs/lidc.py --output=savedmodel.pt
  python -m ambdiff.convert --to_safetensors=DIR --config=configs/lidc.py --output=weights.safetensors

DIR is a workdir, or a file NAME.safetensors; a PyTorch file may be a .safetensors too, and then
needs no torch. `ambdiff/released/layout.py` has the names.

The released code feeds a grey image four times over, beside x_t. A convolution is linear in its
input, so summing the four kernels gives the same function of the image once: `fold_repeated_image`.
"""

import json
import logging
import pathlib
import sys
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import safetensors
from absl import app, flags

from ambdiff import command, methods, optim, signals
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Weights
from ambdiff.models.gaussian_encoder import GaussianEncoder
from ambdiff.models.unet import UNet
from ambdiff.released import files, layout
from ambdiff.runtime import checkpoint, checkpointer, weights_file

_FIRST = 'input_blocks.0.0.weight'
_RELEASED_COPIES = 4


def fold_image_kernel(weight: np.ndarray) -> np.ndarray:
    """First kernel [O, R + 1, h, w] of R copies of the image and x_t -> [O, 2, h, w]."""
    image = weight[:, :-1].sum(axis=1, keepdims=True, dtype=np.float64).astype(weight.dtype)
    return np.concatenate([image, weight[:, -1:]], axis=1)


def unfold_image_kernel(weight: np.ndarray, copies: int) -> np.ndarray:
    """First kernel [O, 2, h, w] -> [O, copies + 1, h, w]: the copies share the weight."""
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
      in_channels: input channels; with `fold_repeated_image` those of the state_dict, all copies
        counted.
      model_channels, ..., use_new_attention_order: the arguments of the released constructor, its
        names and defaults. `image_size` decides nothing (any size that fits the down-sampling
        works), `use_checkpoint` becomes rematerialisation, and `use_fp16` is a storage choice:
        parameters and compute are float32 here.
      fold_repeated_image: make a network of 2 input channels (image, x_t), the same function.

    Returns:
      (module, variables); module.apply(variables, x [B, H, W, C], t [B]) -> [B, H, W, out_channels]

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
        if _input_channels(state_dict) == in_channels:
            state_dict = {**state_dict, _FIRST: fold_image_kernel(np.asarray(state_dict[_FIRST]))}
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
    return module, _fit_unet(module, in_channels, state_dict)


def _input_channels(state_dict: Mapping[str, np.ndarray]) -> int:
    """Input channels of the released U-Net whose state_dict this is; 0 if it is none."""
    shape = np.shape(state_dict.get(_FIRST, ()))
    return shape[1] if len(shape) == 4 else 0


def _fit_unet(module: UNet, in_channels: int, state_dict: Mapping[str, np.ndarray]) -> dict:
    x = jax.ShapeDtypeStruct((1, module.stride, module.stride, in_channels), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    try:
        shapes = jax.eval_shape(module.init, jax.random.key(0), x, t)['params']
    except ValueError as error:
        raise UserError(f'no such network: {error}') from error
    return layout.fit(layout.unet_name, shapes, state_dict)


def unet_to_torch(variables: Mapping, copies_of_image: int = 0) -> dict[str, np.ndarray]:
    """The inverse of `unet_from_torch`: a state_dict, float32, by PyTorch name.

    Args:
      variables: {'params': ...} of a `UNet` of patch_size 1.
      copies_of_image: 4 for the released code's input from a network of 2 input channels; 0 leaves
        the input as it is.
    """
    state_dict = layout.state_dict(layout.unet_name, variables)
    if copies_of_image:
        state_dict[_FIRST] = unfold_image_kernel(state_dict[_FIRST], copies_of_image)
    return state_dict


def encoder_from_torch(state_dict: Mapping[str, np.ndarray], latent_dim: int) -> tuple[GaussianEncoder, dict]:
    """The released axis-aligned Gaussian encoder (AMN or ACN) as ours.

    Returns:
      (module, variables); module.apply(variables, image [B, H, W, 1], mask [B, H, W, 1]) ->
      (mu, log_sigma), both [B, latent_dim]

    Raises:
      UserError: a state_dict of other names or shapes.
    """
    module = GaussianEncoder(latent_dim)
    first = np.asarray(state_dict.get('encoder.layers.0.weight', np.zeros(0)))
    channels = max(first.shape[1] - 1, 1) if first.ndim == 4 else 1
    x = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, mask)['params']
    return module, layout.fit(layout.encoder_name, shapes, state_dict)


def encoder_to_torch(variables: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `encoder_from_torch`: a state_dict, float32, by PyTorch name."""
    return layout.state_dict(layout.encoder_name, variables)


def _cimd(config: ml_collections.ConfigDict):
    """The config's method, which the released weights are of.

    Raises:
      UserError: it is another one.
    """
    if config.method.name != 'cimd':
        raise UserError(f'config.method.name={config.method.name!r}: the released code runs cimd only')
    return methods.create(config)


def import_checkpoint(source: str, config: ml_collections.ConfigDict, output: str) -> None:
    """Makes a workdir (or a file, if `output` ends in .safetensors) from a released checkpoint.

    The grey image's copies are folded if the config feeds the image once. A workdir holds the
    weights as both parameters and EMA, with a fresh optimiser and step 0, and newly initialised AMN and
    ACN if the config trains them (the released checkpoints leave them out).

    Raises:
      UserError: the file is not to be trusted or does not fit the config, or `output` is taken.
    """
    method = _cimd(config)
    state_dict = files.read_state_dict(source)
    channels = config.data.channels * config.method.image_repeats + 1
    if channels == 2 and _input_channels(state_dict) == _RELEASED_COPIES + 1:
        state_dict[_FIRST] = fold_image_kernel(state_dict[_FIRST])
    try:
        params = {'unet': _fit_unet(method.unet, channels, state_dict)['params']}
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    place = pathlib.Path(output)
    if place.suffix == '.safetensors':
        weights_file.save_safetensors(place, params, config, step=0, dtype='float32')
        return
    if place.is_file() or (place / 'checkpoints').exists():
        raise UserError(f'--output={output} is taken: name a new folder, or a .safetensors file')
    size = config.data.image_size
    batch = {'image': jnp.zeros((1, size, size, config.data.channels))}

    @jax.jit
    def other_params(key):
        fresh, _ = method.init(key, batch)
        return {name: tree for name, tree in fresh.items() if name not in params}

    params |= other_params(jax.random.key(config.seed))
    params = jax.tree.map(jnp.asarray, params)
    opt_state = optim.create(config.optim, config.train.num_steps).init(params)
    state = {'step': jnp.zeros((), jnp.int32), 'params': params, 'opt_state': opt_state}
    with checkpointer.Checkpointer(place) as saved:
        saved.save(0, state, checkpointer.sampling_item(Weights(params, {})), config)


def _load(source: str, config: ml_collections.ConfigDict):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return checkpoint.load_weights(source, config, sharding)


def pack_checkpoint(source: str, config: ml_collections.ConfigDict, output: str) -> None:
    """Writes the EMA weights that sampling needs as one float16 .safetensors file with their config.

    Raises:
      UserError: no such checkpoint, or another ending than .safetensors.
    """
    if pathlib.Path(output).suffix != '.safetensors':
        raise UserError(f'--output={output} must end in .safetensors')
    weights, step = _load(source, config)
    params = methods.create(config).for_sampling(weights.params)
    weights_file.save_safetensors(output, weights_file.packed(Weights(params, weights.state)), config, step)


def export_checkpoint(source: str, config: ml_collections.ConfigDict, output: str) -> dict:
    """Writes the EMA weights of a checkpoint as a released state_dict.

    A network that is fed a grey image once gets the four copies that the released code feeds.

    Returns:
      The arguments of the released U-Net's constructor that the file needs.

    Raises:
      UserError: no such checkpoint, or a network that the released code cannot run.
    """
    method, model = _cimd(config), config.model
    for field, value, wanted in (
        ('model.patch_size', model.patch_size, 1),
        ('model.num_groups', model.num_groups, 32),
        ('diffusion.prediction', config.diffusion.prediction, 'eps'),
    ):
        if value != wanted:
            raise UserError(f'config.{field}={value!r}: the released code runs networks of {wanted!r} only')
    weights, _ = _load(source, config)
    channels = config.data.channels * config.method.image_repeats + 1
    copies = _RELEASED_COPIES if channels == 2 else 0
    files.write_state_dict(output, unet_to_torch({'params': weights.params['unet']}, copies))
    return {
        'image_size': config.data.image_size,
        'in_channels': copies + 1 if copies else channels,
        'model_channels': model.channels,
        'out_channels': method.unet.out_channels,
        'num_res_blocks': model.num_res_blocks,
        'attention_resolutions': list(model.attention_resolutions),
        'dropout': model.dropout,
        'channel_mult': list(model.channel_mult),
        'conv_resample': model.conv_resample,
        'num_heads': model.num_heads,
        'num_head_channels': model.num_head_channels,
        'num_heads_upsample': model.num_heads_upsample,
        'use_new_attention_order': model.use_new_attention_order,
        'use_scale_shift_norm': model.use_scale_shift_norm,
        'resblock_updown': model.resblock_updown,
    }


def convert(config: ml_collections.ConfigDict, sources: Mapping[str, str | None], output: str | None) -> int:
    """Converts what is given; returns the exit status, having said what went wrong.

    Args:
      config: of the weights.
      sources: 'from_torch', 'to_torch' and 'to_safetensors': what to read; all but one None.
      output: what to write.
    """
    command.log(logging.ERROR)
    try:
        given = {name: source for name, source in sources.items() if source is not None}
        if len(given) != 1 or not output:
            raise UserError('give one of --from_torch=, --to_torch= and --to_safetensors=, and --output=')
        ((name, source),) = given.items()
        if name == 'to_torch':
            print(f'{output}: for a U-Net of {json.dumps(export_checkpoint(source, config, output))}')
            return 0
        (import_checkpoint if name == 'from_torch' else pack_checkpoint)(source, config, output)
        print(f'{output}: ready for --config.checkpoint={output}')
    except UserError as error:
        return command.fail(error)
    except (OSError, safetensors.SafetensorError) as error:
        return command.fail(f'cannot write {output}: {error}')
    return 0


def main() -> None:
    """Entry point."""
    command.define_config()  # here, since importing this module for its functions must not
    texts = {
        'from_torch': 'A released checkpoint (.pt or .safetensors) to read.',
        'to_torch': 'A workdir, step or .safetensors file to write as one.',
        'to_safetensors': 'A workdir or step to pack into one file.',
    }
    sources = {name: flags.DEFINE_string(name, None, text) for name, text in texts.items()}
    output = flags.DEFINE_string('output', None, 'What to write: a workdir or file of weights.')

    def run(argv: list[str]) -> int:
        del argv
        return convert(flags.FLAGS.config, {name: flag.value for name, flag in sources.items()}, output.value)

    sys.exit(signals.run(lambda: app.run(run, flags_parser=command.parse_flags), 'nothing is written'))


if __name__ == '__main__':
    main()
