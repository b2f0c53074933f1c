"""A normal distribution of all logits of an image at once, whose covariance has low rank beside its diagonal.

    eta ~ N(mu, F F^T + D),   eta = mu + F z + sqrt(D) eps,   z ~ N(0, I_R),   eps ~ N(0, I)             (1)

with R numbers z that all pixels and classes share, as in Monteiro et al. 2020 (arXiv 2006.06015), section 3. The
covariance of H W K logits is never built: draws are (1), and the density takes matrices of R x R alone (Woodbury's
identity and the determinant lemma), with a = eta - mu and C = I + F^T D^-1 F,

    log N(eta) = -1/2 ( a^T D^-1 a - b^T C^-1 b + log det C + sum log D + H W K log 2 pi ),  b = F^T D^-1 a      (2)

`limit` bounds sqrt(D) and each number of F smoothly: where the mean is sure, as in the background, more variance costs
nothing, and without a bound it grows until nothing is finite. For the same reason F starts at 0: what a start at random
puts into the background is hardly taken back, since a draw that marks all of an image costs its share alone.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ambdiff.models import layers
from ambdiff.models.conv_unet import ConvLayer

Array = jax.Array

_FLOOR = 1e-5  # added to D, as the public code does


class LowRankNormal(flax.struct.PyTreeNode):
    """The law of B images' logits: mean and variance (mu and D) [B, H, W, K], factor (F) [B, H, W, K, R]."""

    mean: Array
    variance: Array
    factor: Array

    def at(self, z: Array, eps: Array) -> Array:
        """Equation (1) for M draws an image, z [B, M, R] and eps [B, M, H, W, K]: [B, M, H, W, K]."""
        shared = jnp.einsum('bhwkr,bmr->bmhwk', self.factor, z)
        return self.mean[:, None] + shared + jnp.sqrt(self.variance)[:, None] * eps

    def log_density(self, eta: Array) -> Array:
        """Equation (2): eta [B, H, W, K] -> [B], in nats."""
        flat = lambda x: x.reshape(len(x), -1)
        a, variance = flat(eta - self.mean), flat(self.variance)
        factor = self.factor.reshape(*a.shape, -1)
        scaled = factor / variance[..., None]
        within = jnp.eye(factor.shape[-1])[None] + jnp.einsum('bpr,bps->brs', factor, scaled)
        root = jnp.linalg.cholesky(within)
        b = jnp.einsum('bpr,bp->br', scaled, a)[..., None]
        white = jax.lax.linalg.triangular_solve(root, b, left_side=True, lower=True)
        square = (jnp.square(a) / variance).sum(1) - jnp.square(white).sum((1, 2))
        log_det = 2 * jnp.log(jnp.diagonal(root, axis1=1, axis2=2)).sum(1) + jnp.log(variance).sum(1)
        return -0.5 * (square + log_det + a.shape[1] * jnp.log(2 * jnp.pi))


class LowRankHead(nn.Module):
    """Features [B, H, W, C] -> `LowRankNormal`: three 1x1 layers of C with ReLU, then affine maps."""

    channels: int
    rank: int = 10
    limit: float = 10.0
    num_layers: int = 3

    @nn.compact
    def __call__(self, h: Array) -> LowRankNormal:
        """Logits' law for features [B, H, W, C]; K = channels."""
        for _ in range(self.num_layers):
            h = ConvLayer(h.shape[-1], size=1)(h)
        affine = lambda name, size, **kwargs: layers.Conv(size, size=1, name=name, **kwargs)(h)
        factor = affine('factor', self.channels * self.rank, zero=True).reshape(*h.shape[:3], self.channels, self.rank)
        # exp of the network's output where that is small.
        variance = self.limit**2 * jax.nn.sigmoid(affine('log_variance', self.channels) - 2 * jnp.log(self.limit))
        return LowRankNormal(
            affine('mean', self.channels), variance + _FLOOR, self.limit * jnp.tanh(factor / self.limit)
        )
