"""The denoiser: the guided-diffusion U-Net (Dhariwal & Nichol 2021, arXiv 2105.05233) that CIMD uses.

Input concat(b, x_t) along channels and the step t; output as many channels as asked for (CIMD: eps-hat and v).
Block names follow the released checkpoint's (`input_blocks_3_0` is `input_blocks.3.0`), so that weights map
one to one. Beyond it: `patch_size` p puts the widest level at 1/p of the resolution (space to depth on the way
in, depth to space on the way out), and `num_groups` lets narrow networks keep several channels in a norm group.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from ambdiff.errors import UserError
from ambdiff.models import layers

Array = jax.Array


class UNet(nn.Module):
    """U-Net over [B, H, W, C] and t [B] -> [B, H, W, out_channels] float32.

    H and W must be multiples of `stride`. `attention_resolutions` are down-sampling factors of the
    widest level (after `patch_size`) at which self-attention is applied; the middle block always has it.
    `num_head_channels` > 0 sets the heads by width and overrides `num_heads`, and `num_heads_upsample` > 0
    is the number of heads on the way up. `place` says on which devices the activations of a level (0: the widest)
    live: (h [B, H, W, C], level) -> h.
    """

    model_channels: int = 128
    out_channels: int = 2
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (8,)
    channel_mult: tuple[float, ...] = (1, 1, 2, 3, 4)
    num_heads: int = 1
    num_head_channels: int = -1
    num_heads_upsample: int = -1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    conv_resample: bool = True
    use_new_attention_order: bool = False
    dropout: float = 0.0
    num_groups: int = 32
    patch_size: int = 1
    remat: bool = False
    dtype: Any = jnp.float32
    place: Callable[[Array, int], Array] | None = None

    @property
    def stride(self) -> int:
        """The number that H and W must be multiples of."""
        return self.patch_size * 2 ** (len(self.channel_mult) - 1)

    def with_features(self, params: Mapping, x: Array, t: Array, **kwargs) -> tuple[Array, list[Array]]:
        """The output, and features [B, H, W, C] of the coarsest and of the widest level that it is made from.

        Args:
          params: as `init` gives them.
          x: as of `__call__`, and so `t` and, by name, whatever `apply` takes.
        """
        output, kept = self.apply(
            {'params': params}, x, t, mutable=['intermediates'], **self._keep_features(), **kwargs
        )
        return output, self._features(kept)

    def init_with_features(self, key: Array, x: Array, t: Array) -> tuple[dict, Array, list[Array]]:
        """The parameters that `init` gives, and with them what `with_features` does; arguments as there."""
        mutable = ['params', 'intermediates']
        output, made = self.init_with_output(key, x, t, mutable=mutable, **self._keep_features())
        return made['params'], output, self._features(made)

    @property
    def _feature_names(self) -> tuple[str, str]:
        last = (self.num_res_blocks + 1) * len(self.channel_mult) - 1
        return 'middle_block_2', f'output_blocks_{last}_0'

    def _keep_features(self) -> dict:
        names = self._feature_names
        return {'capture_intermediates': lambda module, method: module.name in names and method == '__call__'}

    def _features(self, variables: Mapping) -> list[Array]:
        return [variables['intermediates'][name]['__call__'][0] for name in self._feature_names]

    def activation_bytes(self, height: int, width: int) -> int:
        """Memory of one example's forward pass: every skip connection, and the widest block at work."""
        size = jnp.dtype(self.dtype).itemsize
        skips, widest = 0, 0
        for level, mult in enumerate(self.channel_mult):
            pixels = height * width // (self.patch_size * 2**level) ** 2
            features = pixels * mult * self.model_channels
            skips += features * (self.num_res_blocks + 1) * size
            # Concatenation of twice the width or more, its norm in float32, and a convolution's result.
            widest = max(widest, features * (3 * size + 2 * 4 * 3))
            if 2**level in self.attention_resolutions or level == len(self.channel_mult) - 1:
                heads = max(self.num_heads, self.num_heads_upsample)
                if self.num_head_channels > 0:
                    heads = int(mult * self.model_channels) // self.num_head_channels
                widest = max(widest, heads * pixels**2 * (size + 8))
        return skips + widest

    def _resblock(self, features: int, name: str, resample: str = '') -> nn.Module:
        block = nn.remat(layers.ResBlock, static_argnums=(3,)) if self.remat else layers.ResBlock
        return block(
            features,
            self.num_groups,
            self.use_scale_shift_norm,
            resample,
            self.dropout,
            self.dtype,
            name=name,
        )

    def _attention(self, channels: int, name: str, up: bool = False) -> nn.Module:
        heads = self.num_heads
        if up and self.num_heads_upsample > 0:
            heads = self.num_heads_upsample
        if self.num_head_channels > 0:
            heads = channels // self.num_head_channels
        return layers.SelfAttention(heads, self.num_groups, self.use_new_attention_order, self.dtype, name=name)

    def _resample(self, h: Array, embedding: Array, train: bool, up: bool, name: str) -> Array:
        """Changes the resolution between levels by whichever of the three ways is chosen."""
        if self.resblock_updown:
            block = self._resblock(h.shape[-1], name, 'up' if up else 'down')
            return block(h, embedding, train)
        if self.conv_resample:
            return layers.Resample(up, self.dtype, name=name)(h)
        return layers.upsample(h) if up else layers.downsample(h)

    def _at(self, h: Array, level: int) -> Array:
        return h if self.place is None else self.place(h, level)

    @nn.compact
    def __call__(self, x: Array, t: Array, train: bool = False) -> Array:
        """Denoises.

        Args:
          x: [B, H, W, C] image and noisy mask, concatenated.
          t: [B] step, as the schedule counts it.
          train: applies dropout (needs the rng 'dropout').

        Returns:
          [B, H, W, out_channels] float32.

        Raises:
          ValueError: H or W is not a multiple of `stride`.
        """
        if x.shape[1] % self.stride or x.shape[2] % self.stride:
            raise ValueError(
                f"image {x.shape[1]}x{x.shape[2]} is not a multiple of {self.stride}, the U-Net's down-sampling"
            )
        width = self.model_channels
        features = [int(mult * width) for mult in self.channel_mult]
        embedding = layers.timestep_embedding(t, width)
        embedding = layers.Dense(4 * width, self.dtype, name='time_embed_0')(embedding)
        embedding = layers.Dense(4 * width, self.dtype, name='time_embed_2')(nn.silu(embedding))

        if self.patch_size > 1:
            x = layers.space_to_depth(x, self.patch_size)
        h = layers.Conv(features[0], dtype=self.dtype, name='input_blocks_0_0')(x)
        h = self._at(h, 0)
        skips = [h]
        last = len(self.channel_mult) - 1
        index, factor = 1, 1
        for level in range(last + 1):
            for _ in range(self.num_res_blocks):
                h = self._resblock(features[level], f'input_blocks_{index}_0')(h, embedding, train)
                if factor in self.attention_resolutions:
                    h = self._attention(h.shape[-1], f'input_blocks_{index}_1')(h)
                h = self._at(h, level)
                skips.append(h)
                index += 1
            if level != last:
                h = self._at(self._resample(h, embedding, train, False, f'input_blocks_{index}_0'), level + 1)
                skips.append(h)
                index += 1
                factor *= 2

        h = self._resblock(h.shape[-1], 'middle_block_0')(h, embedding, train)
        h = self._attention(h.shape[-1], 'middle_block_1')(h)
        h = self._resblock(h.shape[-1], 'middle_block_2')(h, embedding, train)

        index = 0
        for level in range(last, -1, -1):
            for block in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._resblock(features[level], f'output_blocks_{index}_0')(h, embedding, train)
                part = 1
                if factor in self.attention_resolutions:
                    name = f'output_blocks_{index}_{part}'
                    h = self._attention(h.shape[-1], name, up=True)(h)
                    part += 1
                h = self._at(h, level)
                if level and block == self.num_res_blocks:
                    h = self._resample(h, embedding, train, True, f'output_blocks_{index}_{part}')
                    factor //= 2
                index += 1

        h = nn.silu(layers.GroupNorm(self.num_groups, name='out_0')(h))
        channels = self.out_channels * self.patch_size**2
        h = layers.Conv(channels, zero=True, dtype=self.dtype, name='out_2')(h)
        if self.patch_size > 1:
            h = layers.depth_to_space(h, self.patch_size)
        return h.astype(jnp.float32)


def from_config(
    model: ml_collections.ConfigDict,
    image_size: int,
    out_channels: int,
    place: Callable[[Array, int], Array] | None = None,
) -> UNet:
    """The U-Net of the config's group model.

    Args:
      model: config.model.
      image_size: H and W of its inputs, config.data.image_size.
      out_channels: channels of its output.
      place: where the activations of a level live, see `UNet`.

    Raises:
      UserError: the image does not divide by the down-sampling, or a level's channels by its norm groups or heads.
    """
    unet = UNet(
        model_channels=model.channels,
        out_channels=out_channels,
        num_res_blocks=model.num_res_blocks,
        attention_resolutions=tuple(model.attention_resolutions),
        channel_mult=tuple(model.channel_mult),
        num_heads=model.num_heads,
        num_head_channels=model.num_head_channels,
        num_heads_upsample=model.num_heads_upsample,
        use_scale_shift_norm=model.use_scale_shift_norm,
        resblock_updown=model.resblock_updown,
        conv_resample=model.conv_resample,
        use_new_attention_order=model.use_new_attention_order,
        dropout=model.dropout,
        num_groups=model.num_groups,
        patch_size=model.patch_size,
        remat=model.remat,
        dtype=jnp.dtype(model.dtype),
        place=place,
    )
    if image_size % unet.stride:
        raise UserError(
            f'config.data.image_size={image_size} is not a multiple of {unet.stride}, '
            "the U-Net's down-sampling (model.patch_size and model.channel_mult)"
        )
    heads = (model.num_heads, model.num_heads_upsample)
    if model.num_head_channels > 0:
        heads = (model.num_head_channels,)
    for mult in model.channel_mult:
        if model.channels * mult % model.num_groups:
            raise UserError(
                f'config.model.num_groups={model.num_groups} does not divide the '
                f'{model.channels * mult} channels of a level (model.channels x channel_mult)'
            )
        if any(h > 0 and int(model.channels * mult) % h for h in heads):
            raise UserError(
                f'the {int(model.channels * mult)} channels of a level (model.channels x channel_mult) do not '
                'divide into the attention heads of config.model.num_heads, num_heads_upsample or num_head_channels'
            )
    return unet
