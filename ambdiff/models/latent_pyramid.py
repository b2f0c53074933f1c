"""Latents at several resolutions, and masks from them, as in PHiSeg (Baumgartner et al. 2019, arXiv 1906.04045).

Latent i = 0 .. L - 1, 0 the finest, is a map z_i [B, H_i, W_i, D] with, given the next coarser one,

    z_i ~ N(mu_i, sigma_i^2),   (mu_i, sigma_i) of (features_i, z_{i+1});   the coarsest of its features alone      (1)

features_i come from a `ConvEncoder` at its level i + R - L of R: the L coarsest of its resolutions have latents. The
decoder sees the latents alone. It brings each up by R - L doublings, so that latent i ends at 1 / 2^i of the image's
resolution, joins them from coarse to fine, and gives logits at every level; those of a mask are

    l_i = sum over j >= i of logits_j, enlarged,   l_0 the mask's                                                  (2)

so that a finer level adds what the coarser ones leave. Channels are as in the public code, in which some follow a
latent's number i and some its resolution's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambdiff.models import layers
from ambdiff.models.conv_unet import HE, SMALL, ConvLayer, enlarge

Array = jax.Array
_TINY = 1e-10  # added in logarithms and divisors, as the public code does


class Law(NamedTuple):
    """An axis-aligned Gaussian at every place of a map: mean and sigma [B, H, W, D]."""

    mean: Array
    sigma: Array


def kl_divergence(q: Law, p: Law) -> Array:
    """KL(q || p) [B], summed over the map, in nats."""
    variance_q, variance_p = jnp.square(q.sigma), jnp.square(p.sigma)
    ratio = (variance_q + jnp.square(p.mean - q.mean)) / (variance_p + _TINY)
    logarithms = jnp.log(variance_p + _TINY) - jnp.log(variance_q + _TINY)
    return 0.5 * (ratio + logarithms - 1).sum((1, 2, 3))


class LatentPyramid(nn.Module):
    """Equation (1), of the prior and of the posterior."""

    filters: tuple[int, ...]  # of the encoder's levels, R
    latent_dim: int  # D
    num_groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: list[Array], draw: Callable[[int, Law], Array]) -> list[Law]:
        """The laws of all latents, the finest first.

        Args:
          features: of the L coarsest levels, the finest first.
          draw: (i, the law of latent i) -> z_i [B, H_i, W_i, D] from which the next finer one follows.
        """
        convolve = lambda count, h, size=3: ConvLayer(count, size, self.num_groups, self.dtype)(h)
        affine = lambda h, size, name: nn.Conv(
            self.latent_dim, (size, size), kernel_init=HE, bias_init=SMALL, dtype=self.dtype, name=name
        )(h).astype(jnp.float32)
        laws: list[Law] = []
        z = None
        for i in reversed(range(len(features))):
            h = features[i]
            if z is not None:
                coarser = enlarge(z)
                for _ in range(2):
                    coarser = convolve(self.latent_dim * self.filters[0], coarser)
                h = jnp.concatenate([h, coarser.astype(h.dtype)], axis=-1)
                for _ in range(2):
                    h = convolve(self.filters[i], h)
            mean = affine(h, 3 if z is None else 1, f'mean_{i}')
            law = Law(mean, nn.softplus(affine(h, 1, f'sigma_{i}')))
            laws.insert(0, law)
            z = draw(i, law)
        return laws


class PyramidDecoder(nn.Module):
    """Equation (2): latents -> logits."""

    filters: tuple[int, ...]  # of the encoder's levels, R
    out_channels: int
    num_groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: list[Array]) -> list[Array]:
        """Latents, the finest first -> [l_0, .. l_{L-1}], each [B, H, W, out_channels] float32."""
        convolve = lambda count, h: ConvLayer(count, 3, self.num_groups, self.dtype)(h)
        doublings = len(self.filters) - len(latents)
        sums: list[Array] = []
        h, total = None, 0.0
        for i in reversed(range(len(latents))):
            own = latents[i]
            for _ in range(2):
                own = convolve(self.filters[i], own)
            for _ in range(doublings):
                own = convolve(self.filters[i], enlarge(own))
            if h is None:
                h = own
            else:
                h = jnp.concatenate([own, convolve(self.filters[i], enlarge(h))], axis=-1)
                for _ in range(2):
                    h = convolve(self.filters[i + doublings], h)
            logits = nn.Conv(self.out_channels, (1, 1), kernel_init=HE, bias_init=SMALL, name=f'logits_{i}')(
                h.astype(jnp.float32)
            )
            for _ in range(i):
                logits = layers.upsample(logits)
            total = total + logits
            sums.insert(0, total)
        return sums


def activation_bytes(filters: tuple[int, ...], num_latents: int, out_channels: int, image_size: int) -> int:
    """Memory of one mask's forward pass, from above."""
    # The widest at once: what is joined at the finest level, and a convolution's input, result and norm.
    widest = image_size**2 * (3 * filters[len(filters) - num_latents] + 3 * filters[0])
    coarser = image_size**2 * sum(3 * filters[i] // 4**i for i in range(1, num_latents))
    return 4 * (widest + coarser + image_size**2 * out_channels * (num_latents + 1))
