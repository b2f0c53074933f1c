"""AMN and ACN: axis-aligned Gaussians of (image, mask) (CIMD, section 3.2 and figure 2).

Both networks have this one architecture: convolutions with filters (32, 64, 128, 192), three 3x3 ReLU layers a level,
2x2 mean pooling between levels (ceil mode: an odd last row or column is averaged over what is there), global
mean, 1x1 convolution to mu and log sigma. Their distance is

    KL( N(mu_a, sigma_a) || N(mu_c, sigma_c) )
        = sum_l [ log sigma_c - log sigma_a + (sigma_a^2 + (mu_a - mu_c)^2) / (2 sigma_c^2) - 1/2 ].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambdiff.models import layers

Array = jax.Array


def mean_pool_ceil(x: Array) -> Array:
    """2x2 mean pooling, ceil mode: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
    pad = ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))
    total = 4 * layers.downsample(jnp.pad(x, pad))
    count = 4 * layers.downsample(jnp.pad(jnp.ones((1, *x.shape[1:3], 1), x.dtype), pad))
    return total / jnp.broadcast_to(count, total.shape)


class GaussianEncoder(nn.Module):
    """(image [B, H, W, C], mask [B, H, W, 1]) -> (mu [B, L], log_sigma [B, L])."""

    latent_dim: int = 6
    filters: tuple[int, ...] = (32, 64, 128, 192)

    @nn.compact
    def __call__(self, image: Array, mask: Array) -> tuple[Array, Array]:
        """Encodes an image and a mask (or the network's prediction of one)."""
        h = jnp.concatenate([image, mask], axis=-1)
        for level, features in enumerate(self.filters):
            if level:
                h = mean_pool_ceil(h)
            for layer in range(3):
                h = nn.relu(layers.Conv(features, name=f'conv_{level}_{layer}')(h))
        h = h.mean(axis=(1, 2), keepdims=True)
        out = layers.Conv(2 * self.latent_dim, size=1, name='conv_layer')(h)[:, 0, 0]
        mu, log_sigma = jnp.split(out, 2, axis=-1)
        return mu, log_sigma


def axis_aligned_kl(mu_a: Array, log_sigma_a: Array, mu_c: Array, log_sigma_c: Array) -> Array:
    """KL between two axis-aligned Gaussians, all [B, L] -> [B], in nats."""
    ratio = jnp.exp(2 * (log_sigma_a - log_sigma_c))
    distance = jnp.square(mu_a - mu_c) * jnp.exp(-2 * log_sigma_c)
    return jnp.sum(log_sigma_c - log_sigma_a + 0.5 * (ratio + distance - 1), axis=-1)
