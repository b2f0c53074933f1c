"""The share of raters who mark nothing, from what a network has made of the image."""

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def _middle(x: Array) -> Array:
    """The middle quarter of each side of [B, H, W, C], where a crop has what it is about."""
    half = [(side // 2, max(side // 8, 1)) for side in x.shape[1:3]]
    (top, bottom), (left, right) = ((max(centre - reach, 0), centre + reach) for centre, reach in half)
    return x[:, top:bottom, left:right]


def _pooled(x: Array) -> Array:
    """Mean and maximum over all of x [B, H, W, C] and over its middle: [B, 4 C]."""
    parts = [reduce(part, axis=(1, 2)) for part in (x, _middle(x)) for reduce in (jnp.mean, jnp.max)]
    return jnp.concatenate(parts, axis=-1)


class EmptinessHead(nn.Module):
    """Features [B, H, W, C], several of them, and the logits of the share map [B, H, W, 1] -> logit of q [B].

    A linear map plus one hidden layer, of pooled features and of three numbers of the map: its largest value, its mean
    in the middle, and the logarithm of its area. It starts at q = 1/2.
    """

    width: int = 128
    dropout: float = 0.3

    @nn.compact
    def __call__(self, features: list[Array], z: Array, train: bool = False) -> Array:
        """Estimates; `train` applies dropout (needs the rng 'dropout')."""
        area = jnp.log1p(16 * jax.nn.sigmoid(z).sum((1, 2)))
        of_map = jnp.concatenate([z.max((1, 2)), _middle(z).mean((1, 2)), area], axis=-1) / 4
        x = jnp.concatenate([nn.LayerNorm()(_pooled(f.astype(jnp.float32))) for f in features], axis=-1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = jnp.concatenate([x, of_map], axis=-1)
        hidden = nn.silu(nn.Dense(self.width)(x))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        zero = nn.initializers.zeros_init()
        return (nn.Dense(1, kernel_init=zero)(x) + nn.Dense(1, kernel_init=zero)(hidden))[:, 0]
