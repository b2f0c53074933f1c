"""The parts of MoSE beside its image network: a gate over experts, and the head that turns one number into a mask.

MoSE (Gao et al. 2023, arXiv 2212.07328), section 3.2 and the public code's defaults.
"""

import flax.linen as nn
import jax

from ambdiff.models.conv_unet import HE, SMALL

Array = jax.Array

_XAVIER = nn.initializers.xavier_uniform()


class Gate(nn.Module):
    """The experts' logits [B, K] from features [B, H, W, C]: their mean over space, then two hidden layers of C."""

    num_experts: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """[B, H, W, C] -> [B, K]."""
        h = features.mean((1, 2))
        for _ in range(2):
            h = nn.relu(nn.Dense(h.shape[-1])(h))
        return nn.Dense(self.num_experts, use_bias=False)(h)


class NoiseHead(nn.Module):
    """Logits [B, H, W, channels] from an image's features h and one number z a mask: 1x1 layers on (h + A z) (B z).

    A z and B z are affine in z, a number a feature; 1e-5 is added to B z, as the public code does.
    """

    channels: int
    num_layers: int = 3

    @nn.compact
    def __call__(self, h: Array, z: Array) -> Array:
        """h [B, H, W, C] and z [B, 1] -> [B, H, W, channels]."""
        affine = lambda name: nn.Dense(h.shape[-1], kernel_init=_XAVIER, name=name)(z)[:, None, None]
        h = (h + affine('shift')) * (affine('scale') + 1e-5)
        for _ in range(self.num_layers):
            h = nn.relu(nn.Dense(h.shape[-1], kernel_init=HE, bias_init=SMALL)(h))
        return nn.Dense(self.channels, name='logits')(h)
