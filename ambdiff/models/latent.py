"""Low-dimensional distributions of an image, the latent of the Probabilistic U-Net and of its generalisations.

    p(z) = sum_k w_k N(z; mu_k, L_k L_k^T),   z in R^D,  L_k lower triangular

Families (Kohl et al. 2018, arXiv 1806.05034; Bhat, Pluim & Kuijf 2022, the generalised Probabilistic U-Net), K = 1 but
for the last:

    axis      L L^T = diag(sigma^2)
    low_rank  L L^T = F F^T + diag(d),  F [D, rank]
    full      L = any lower triangular matrix with a positive diagonal
    mixture   K axis-aligned components

One Gaussian's KL to another is in closed form; a mixture's is a Monte Carlo mean of log q - log p over draws of q.
log sigma is kept within [-8, 8]: in the public codes it can run away, and then the KL is not a number.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ambdiff.models.conv_unet import HE, SMALL, ConvEncoder

Array = jax.Array

FAMILIES = ('axis', 'low_rank', 'full', 'mixture')
_LOG_SIGMA = 8.0
_FLOOR = 1e-4  # added to variances and diagonals, as the public code does


class Latent(flax.struct.PyTreeNode):
    """log_weight [B, K], mean [B, K, D], scale [B, K, D, D] lower triangular."""

    log_weight: Array
    mean: Array
    scale: Array

    def draw(self, key: Array, num: int) -> Array:
        """Independent draws [B, num, D]."""
        pick_key, noise_key = jax.random.split(key)
        batch, components, dim = self.mean.shape
        if components == 1:
            index = jnp.zeros((batch, num), int)
        else:
            index = jax.random.categorical(pick_key, self.log_weight[:, None], axis=-1, shape=(batch, num))
        noise = jax.random.normal(noise_key, (batch, num, dim))
        rows = jnp.arange(batch)[:, None]
        return self.mean[rows, index] + jnp.einsum('bnij,bnj->bni', self.scale[rows, index], noise)

    def draw_relaxed(self, key: Array, num: int, temperature: float) -> Array:
        """Draws [B, num, D] with gradients, of the weights too: straight-through Gumbel-softmax (Jang et al. 2017)."""
        pick_key, noise_key = jax.random.split(key)
        batch, components, dim = self.mean.shape
        noise = jax.random.normal(noise_key, (batch, num, components, dim))
        each = self.mean[:, None] + jnp.einsum('bkij,bnkj->bnki', self.scale, noise)
        if components == 1:
            return each[:, :, 0]
        gumbel = jax.random.gumbel(pick_key, (batch, num, components))
        soft = jax.nn.softmax((self.log_weight[:, None] + gumbel) / temperature, axis=-1)
        hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), components)
        weight = soft + jax.lax.stop_gradient(hard - soft)
        return jnp.einsum('bnk,bnki->bni', weight, each)

    def log_density(self, z: Array) -> Array:
        """log p(z), z [B, num, D] -> [B, num]."""
        dim = z.shape[-1]
        away = z[:, :, None] - self.mean[:, None]
        scale = jnp.broadcast_to(self.scale[:, None], (*away.shape, dim))
        white = jax.lax.linalg.triangular_solve(scale, away[..., None], left_side=True, lower=True)[..., 0]
        log_det = jnp.log(jnp.diagonal(self.scale, axis1=-2, axis2=-1)).sum(-1)
        log_normal = -0.5 * (jnp.square(white).sum(-1) + dim * jnp.log(2 * jnp.pi)) - log_det[:, None]
        return jax.scipy.special.logsumexp(self.log_weight[:, None] + log_normal, axis=-1)


def kl_divergence(q: Latent, p: Latent) -> Array:
    """KL(q || p) [B] of single Gaussians (K = 1), in nats:

    1/2 ( |L_p^-1 L_q|^2 + |L_p^-1 (mu_q - mu_p)|^2 - D ) + log det L_p - log det L_q.
    """
    dim = q.mean.shape[-1]
    scale_q, scale_p = q.scale[:, 0], p.scale[:, 0]
    away = (q.mean - p.mean)[:, 0, :, None]
    white = jax.lax.linalg.triangular_solve(
        scale_p, jnp.concatenate([scale_q, away], axis=-1), left_side=True, lower=True
    )
    log_det = lambda scale: jnp.log(jnp.diagonal(scale, axis1=-2, axis2=-1)).sum(-1)
    return 0.5 * (jnp.square(white).sum((-2, -1)) - dim) + log_det(scale_p) - log_det(scale_q)


def kl_monte_carlo(q: Latent, p: Latent, key: Array, num: int, temperature: float) -> Array:
    """KL(q || p) [B] as the mean of log q(z) - log p(z) over `num` draws of q (relaxed, so that weights learn)."""
    z = q.draw_relaxed(key, num, temperature)
    return (q.log_density(z) - p.log_density(z)).mean(-1)


class LatentEncoder(nn.Module):
    """[B, H, W, C] -> `Latent`: a `ConvEncoder`, its coarsest features' mean over space, one affine map."""

    family: str = 'axis'
    latent_dim: int = 6
    rank: int = 2
    components: int = 4
    filters: tuple[int, ...] = (32, 64, 128, 192)
    num_layers: int = 3
    num_groups: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Latent:
        """x: the image, for a posterior with a rater's mask behind it, [B, H, W, C]."""
        dim = self.latent_dim
        down = ConvEncoder(self.filters, self.num_layers, self.num_groups, self.dtype, name='down')
        h = down(x)[-1].astype(jnp.float32).mean((1, 2))
        affine = lambda name, size: nn.Dense(size, kernel_init=HE, bias_init=SMALL, name=name)(h)
        count = self.components if self.family == 'mixture' else 1
        mean = affine('mean', count * dim).reshape(-1, count, dim)
        log_sigma = jnp.clip(affine('log_sigma', count * dim).reshape(-1, count, dim), -_LOG_SIGMA, _LOG_SIGMA)
        log_weight = jnp.zeros((len(x), 1))
        eye = jnp.eye(dim)[None, None]
        if self.family == 'low_rank':
            factor = affine('factor', dim * self.rank).reshape(-1, 1, dim, self.rank)
            variance = (jnp.exp(log_sigma) + _FLOOR)[..., None] * eye
            scale = jnp.linalg.cholesky(jnp.einsum('bkir,bkjr->bkij', factor, factor) + variance)
        elif self.family == 'full':
            below = jnp.tril(affine('below', dim * dim).reshape(-1, 1, dim, dim), -1)
            scale = below + (jnp.exp(log_sigma) + _FLOOR)[..., None] * eye
        else:
            scale = jnp.exp(log_sigma)[..., None] * eye
        if self.family == 'mixture':
            log_weight = jax.nn.log_softmax(affine('weight', count))
        return Latent(log_weight, mean, scale)
