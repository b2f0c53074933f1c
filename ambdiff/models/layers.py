"""Layers of the guided-diffusion U-Net (Dhariwal & Nichol 2021), in NHWC.

Parameters are float32; `dtype` is the compute type of convolutions and dense layers. Norm statistics, softmax
and the time embedding are float32 whatever `dtype` is. Initial weights follow the released code's framework,
U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernels and biases, so that a run from scratch starts where it does.
"""

import math
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def timestep_embedding(t: Array, dim: int, max_period: float = 10_000.0) -> Array:
    """Sinusoidal embedding of the step, cosines first.

    Args:
      t: [B] step, int or float.
      dim: number of features.
      max_period: longest period, in steps over 2 pi.

    Returns:
      [B, dim] float32.
    """
    half = dim // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


def _uniform_fan_in(fan_in: int):
    bound = 1.0 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)


@jax.custom_vjp
def pointwise(x: Array, kernel: Array) -> Array:
    """A 1x1 convolution: [B, H, W, C], [C, D] -> [B, H, W, D].

    Its gradient with respect to the kernel is x' g, g the output's. JAX's own is the transpose of g' x, the same sums,
    for which XLA:CPU transposes x while it computes it anew: a fifth of a training step of configs/lidc.py:small
    (benchmarks/cpu_layers.py).
    """
    return jnp.einsum('bhwc,cd->bhwd', x, kernel)


def _pointwise_gradients(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = operands
    return jnp.einsum('bhwd,cd->bhwc', gradient, kernel), jnp.einsum('bhwc,bhwd->cd', x, gradient)


pointwise.defvjp(lambda x, kernel: (pointwise(x, kernel), (x, kernel)), _pointwise_gradients)


class _Layer(nn.Module):
    """A layer with parameters of its own."""

    def weight(self, name: str, init: Callable, shape: tuple[int, ...]) -> Array:
        """`param`, which to compare shapes traces `init` at every use: a third of the time that tracing a U-Net takes.

        Raises:
          ScopeParamShapeError: the parameters given were made for another width.
        """
        if not self.has_variable('params', name):
            return self.param(name, init, shape)
        value = self.get_variable('params', name)
        if value.shape != shape:
            raise flax.errors.ScopeParamShapeError(name, '/'.join(self.path), value.shape, shape)
        return value


class Conv(_Layer):
    """Square convolution with zero padding size // 2 on every side: [B, H, W, Cin] -> [B, H', W', features].

    `zero` initialises it to the zero map (the last layer of a residual branch).
    """

    features: int
    size: int = 3
    stride: int = 1
    zero: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolves."""
        fan_in = x.shape[-1] * self.size**2
        init = nn.initializers.zeros_init() if self.zero else _uniform_fan_in(fan_in)
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.weight('kernel', init, shape).astype(self.dtype)
        bias = self.weight('bias', init, (self.features,)).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.size == 1 and self.stride == 1:
            y = pointwise(x, kernel[0, 0])
        else:
            pad = (self.size // 2, self.size // 2)
            y = jax.lax.conv_general_dilated(
                x, kernel, (self.stride,) * 2, (pad, pad), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
            )
        return y + bias[None, None, None]


class Dense(_Layer):
    """Affine map of the last axis of a [B, C] array."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, C] -> [B, features]."""
        init = _uniform_fan_in(x.shape[-1])
        kernel = self.weight('kernel', init, (x.shape[-1], self.features)).astype(self.dtype)
        bias = self.weight('bias', init, (self.features,)).astype(self.dtype)
        return x.astype(self.dtype) @ kernel + bias[None]


class GroupNorm(_Layer):
    """Group normalisation over (H, W, channels of a group), eps 1e-5, statistics in float32."""

    num_groups: int = 32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises [B, H, W, C]; C must be a multiple of num_groups."""
        batch, *_, channels = x.shape
        if channels % self.num_groups:
            raise ValueError(f'{channels} channels do not divide into {self.num_groups} norm groups')
        scale = self.weight('scale', nn.initializers.ones_init(), (channels,))
        bias = self.weight('bias', nn.initializers.zeros_init(), (channels,))
        x32 = x.astype(jnp.float32)
        # Moments of channels first, then of groups, and one multiply-add: on two CPU cores 1.3 to 1.5
        # times as fast as flax.linen's (benchmarks/cpu_layers.py).
        groups = lambda m: m.reshape(batch, self.num_groups, -1).mean(axis=-1)
        mean, square = groups(x32.mean(axis=(1, 2))), groups(jnp.square(x32).mean(axis=(1, 2)))
        inverse = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + 1e-5)
        spread = lambda m: jnp.repeat(m, channels // self.num_groups, axis=1)
        factor = spread(inverse) * scale[None]
        offset = bias[None] - spread(mean) * factor
        return (x32 * factor[:, None, None] + offset[:, None, None]).astype(x.dtype)


def upsample(x: Array) -> Array:
    """Nearest-neighbour enlargement by 2: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def downsample(x: Array) -> Array:
    """2x2 mean pooling: [B, H, W, C] -> [B, H/2, W/2, C]; H and W even."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def space_to_depth(x: Array, size: int) -> Array:
    """[B, H, W, C] -> [B, H/size, W/size, size * size * C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // size, width // size, -1)


def depth_to_space(x: Array, size: int) -> Array:
    """[B, H, W, size * size * C] -> [B, H * size, W * size, C]; inverse of `space_to_depth`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, size, size, channels // size**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * size, width * size, -1)


class Resample(nn.Module):
    """Between levels, learned: a stride-2 convolution (`up=False`), or enlargement and a convolution."""

    up: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H/2, W/2, C] or [B, 2H, 2W, C]."""
        channels = x.shape[-1]
        if self.up:
            return Conv(channels, dtype=self.dtype, name='conv')(upsample(x))
        return Conv(channels, stride=2, dtype=self.dtype, name='op')(x)


class ResBlock(nn.Module):
    """Residual block with the time embedding added between its convolutions, or as scale and shift (FiLM).

    `resample` is '' or 'up' / 'down': the block then changes the resolution of both branches itself.
    """

    features: int
    num_groups: int = 32
    scale_shift: bool = False
    resample: str = ''
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool) -> Array:
        """x [B, H, W, C], embedding [B, E] -> [B, H', W', features]."""
        change = {'': lambda a: a, 'up': upsample, 'down': downsample}[self.resample]
        h = nn.silu(GroupNorm(self.num_groups, name='in_norm')(x))
        h = Conv(self.features, dtype=self.dtype, name='in_conv')(change(h))
        x = change(x)
        emb = Dense(self.features * (2 if self.scale_shift else 1), dtype=self.dtype, name='emb_layers')(
            nn.silu(embedding)
        )[:, None, None]
        norm = GroupNorm(self.num_groups, name='out_norm')
        if self.scale_shift:
            scale, shift = jnp.split(emb, 2, axis=-1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + emb)
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
        h = Conv(self.features, zero=True, dtype=self.dtype, name='out_conv')(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, dtype=self.dtype, name='skip_connection')(x)
        return x + h


class SelfAttention(nn.Module):
    """Self-attention over all positions with a residual connection.

    The channels of `qkv` are ordered (head, q/k/v, channel), or (q/k/v, head, channel) with `new_order`.
    """

    num_heads: int = 1
    num_groups: int = 32
    new_order: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        batch, height, width, channels = x.shape
        if channels % self.num_heads:
            raise ValueError(f'{channels} channels do not divide into {self.num_heads} heads')
        h = GroupNorm(self.num_groups, name='norm')(x)
        qkv = Conv(3 * channels, size=1, dtype=self.dtype, name='qkv')(h)
        qkv = qkv.reshape(batch, height * width, 3 * channels)
        heads = (3, self.num_heads) if self.new_order else (self.num_heads, 3)
        qkv = qkv.reshape(batch, height * width, *heads, channels // self.num_heads)
        q, k, v = jnp.moveaxis(qkv, 2 if self.new_order else 3, 0)
        scale = (channels // self.num_heads) ** -0.25
        logits = jnp.einsum('bqhc,bkhc->bhqk', q * scale, k * scale)
        weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(self.dtype)
        h = jnp.einsum('bhqk,bkhc->bqhc', weights, v).reshape(batch, height, width, channels)
        return x + Conv(channels, size=1, zero=True, dtype=self.dtype, name='proj_out')(h)
