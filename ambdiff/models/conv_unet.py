"""A U-Net of plain convolutions, the image network of the Probabilistic U-Net (Kohl et al. 2018, arXiv 1806.05034) and
of what followed it (PHiSeg, SSN, MoSE).

A level is `num_layers` times (3x3 convolution, norm if any, ReLU); 2x2 mean pooling on the way down, bilinear
enlargement and concatenation with the skip on the way up. Kernels start He normal and biases truncated normal with
standard deviation 1e-3, as in the first public code: without a norm, smaller ones let the signal fade with depth.

Where the public codes use batch norm, `num_groups` gives a group norm: it depends on neither the batch's size nor its
other images, so that a step is the same on any number of devices and a sample depends on its own image alone.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambdiff.errors import UserError
from ambdiff.models import layers

Array = jax.Array

HE = nn.initializers.he_normal()
SMALL = nn.initializers.truncated_normal(1e-3)


def enlarge(x: Array) -> Array:
    """Bilinear enlargement by 2: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), 'bilinear')


class ConvLayer(nn.Module):
    """(3x3 or 1x1 convolution, group norm if `num_groups`, ReLU): [B, H, W, C] -> [B, H, W, features]."""

    features: int
    size: int = 3
    num_groups: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] -> [B, H, W, features]."""
        x = nn.Conv(self.features, (self.size, self.size), kernel_init=HE, bias_init=SMALL, dtype=self.dtype)(x)
        if self.num_groups:
            x = layers.GroupNorm(self.num_groups)(x)
        return nn.relu(x)


class ConvEncoder(nn.Module):
    """The way down: [B, H, W, C] -> features of every level, [B, H / 2^i, W / 2^i, filters[i]], the finest first."""

    filters: tuple[int, ...] = (32, 64, 128, 192)
    num_layers: int = 3
    num_groups: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        """H and W must be multiples of 2^(levels - 1)."""
        levels = []
        for level, features in enumerate(self.filters):
            if level:
                x = layers.downsample(x)
            for _ in range(self.num_layers):
                x = ConvLayer(features, num_groups=self.num_groups, dtype=self.dtype)(x)
            levels.append(x)
        return levels


class ConvUNet(nn.Module):
    """[B, H, W, C] -> (features [B, H, W, filters[0]], the coarsest ones [B, H', W', filters[-1]])."""

    filters: tuple[int, ...] = (32, 64, 128, 192)
    num_layers: int = 3
    num_groups: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Array) -> tuple[Array, Array]:
        """H and W must be multiples of 2^(levels - 1)."""
        encoder = ConvEncoder(self.filters, self.num_layers, self.num_groups, self.dtype, name='down')
        *skips, coarsest = encoder(image)
        x = coarsest
        for features, skip in zip(self.filters[-2::-1], skips[::-1], strict=True):
            x = jnp.concatenate([enlarge(x), skip], axis=-1)
            for _ in range(self.num_layers):
                x = ConvLayer(features, num_groups=self.num_groups, dtype=self.dtype)(x)
        return x, coarsest


def check(filters: tuple[int, ...], num_groups: int, image_size: int) -> None:
    """Raises UserError where config.method's filters or num_groups do not suit images of this size."""
    if not filters:
        raise UserError('config.method.filters needs one number of channels a level, and at least one level')
    if num_groups and any(features % num_groups for features in filters):
        raise UserError(f'config.method.filters={tuple(filters)} must be multiples of num_groups={num_groups}')
    if image_size % 2 ** (len(filters) - 1):
        raise UserError(
            f'config.data.image_size={image_size} is not a multiple of {2 ** (len(filters) - 1)}, the down-sampling of '
            f'the {len(filters)} levels of config.method.filters'
        )


def activation_bytes(filters: tuple[int, ...], height: int, width: int, itemsize: int = 4) -> int:
    """Memory of one image's forward pass through `ConvUNet`, from above."""
    skips = sum(height * width // 4**level * features for level, features in enumerate(filters))
    # Concatenation, its convolution's result and the norm's, of the finest level.
    widest = height * width * (3 * filters[0] + filters[min(1, len(filters) - 1)])
    return (skips + widest) * itemsize
