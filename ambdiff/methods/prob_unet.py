"""The Probabilistic U-Net (Kohl et al. 2018, arXiv 1806.05034) and its generalisation (Bhat, Pluim & Kuijf 2022).

One number vector z an image and rater, whose law depends on the image b, says which mask of the image is meant:

    z ~ p(z | b),   logits = f(features(b), z),   mask = the likeliest under them                         (1)
    L = - log p(y | logits(z)) + w KL( q(z | b, y) || p(z | b) ),   z ~ q(z | b, y)                       (2)

log p is the sum over pixels, y one rater's mask drawn for each image and step. The prior p and the posterior q are of
one family (`models/latent.py`): the axis-aligned Gaussian of the original, or one of low rank, of full covariance, or a
mixture. KL is in closed form, of mixtures a Monte Carlo mean over `kl_draws` draws of q.

f is `head_layers` convolutions 1x1 with ReLU between: z enters behind the last features, so that the U-Net, the prior
and the features' share of f's first layer are computed once an image, and N masks take N times the rest of f.

The weight w of (2). The original (github.com/SimonKohl/probabilistic_unet) sums cross-entropy over pixels and averages
both terms over the batch: its beta is w, 1 for Cityscapes and 10 for LIDC. The public LIDC code
(github.com/stefanknegt/Probabilistic-Unet-Pytorch) sums cross-entropy over the batch too but averages KL: its beta of
10, with batches of 5, weighs an image's KL by w = 10 / 5 = 2, the default here. The rest follows that code as well: one
logit, the mask unscaled beside the image, no norm, f orthogonal at its start. Its penalty of 1e-5 times the weights'
norms, beside a cross-entropy of hundreds, is left out; config.optim.weight_decay decays weights. The generalisation's
code has batch norms: their place is taken by `num_groups` group norms, for which neither the batch's size nor an
image's neighbours matter.

log sigma is kept within [-8, 8]: in the public codes it runs away at times, and KL is then not a number.
"""

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from ambdiff.finite import watched
from ambdiff.methods.kit import fields, masks, pixels
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import conv_unet, latent

Array = jax.Array
_ORTHOGONAL = nn.initializers.orthogonal()


@dataclasses.dataclass(frozen=True)
class Fields:
    """The method's own fields of config.method."""

    latent: Literal['axis', 'low_rank', 'full', 'mixture'] = 'axis'  # family of prior and posterior
    latent_dim: Annotated[int, Between(1, 4096)] = 6  # of z
    rank: Annotated[int, Between(1, 4096)] = 2  # 'low_rank': of the factor beside the diagonal
    components: Annotated[int, Between(2, 1024)] = 4  # 'mixture'
    temperature: Annotated[float, Between(1e-3, 100)] = 0.3  # 'mixture': of the relaxed choice of a component
    kl_draws: Annotated[int, Between(1, 10**6)] = 1000  # 'mixture': draws for its KL
    kl_weight: Annotated[float, Between(0)] = 2.0  # w
    filters: Annotated[tuple[int, ...], Between(1, 8192)] = (
        32,
        64,
        128,
        192,
    )  # channels of each level
    num_layers: Annotated[int, Between(1, 64)] = 3  # convolutions a level
    num_groups: Annotated[int, Between(0, 8192)] = 0  # of group norms; 0 = no norms
    head_layers: Annotated[int, Between(2, 64)] = 4  # convolutions 1x1 of f
    image_range: tuple[float, float] = (0.0, 1.0)  # the image's [0, 1] is mapped to this for the networks


class Head(nn.Module):
    """f of equation (1): 1x1 convolutions of concat(features, z), the features' share of the first by itself."""

    features: int
    num_layers: int
    out_channels: int
    latent_dim: int

    def setup(self):
        """Kernels start orthogonal, over features and z together where both come in."""
        dense = lambda size: nn.Dense(size, kernel_init=_ORTHOGONAL, bias_init=conv_unet.SMALL)
        self.kernel = self.param('kernel', _ORTHOGONAL, (self.features + self.latent_dim, self.features))
        self.bias = self.param('bias', conv_unet.SMALL, (self.features,))
        self.layers = [dense(self.features) for _ in range(self.num_layers - 2)]
        self.last = dense(self.out_channels)

    def of_image(self, features: Array) -> Array:
        """The features' share of the first layer: [B, H, W, F] -> [B, H, W, F]."""
        return features @ self.kernel[: self.features] + self.bias[None, None, None]

    def __call__(self, h: Array, z: Array) -> Array:
        """h [B, H, W, F] of `of_image` and z [B, D] -> logits [B, H, W, out_channels]."""
        h = nn.relu(h + (z @ self.kernel[self.features :])[:, None, None])
        for layer in self.layers:
            h = nn.relu(layer(h))
        return self.last(h)


@dataclasses.dataclass(frozen=True, eq=False)
class ProbUNet(Method):
    """The method; build it with `create`."""

    unet: conv_unet.ConvUNet
    encoder: latent.LatentEncoder  # of the prior and of the posterior
    head: Head
    fields: Fields
    num_classes: int
    num_samples: int  # config.sample.num_samples, for `evaluations`

    @property
    def evaluations(self) -> float:
        """The N masks of an image share one of the U-Net and the prior."""
        return 1 / self.num_samples

    def _of_image(self, params: Params, x: Array) -> tuple[Array, latent.Latent]:
        """The image's share of the head's first layer, and the prior."""
        features, _ = self.unet.apply({'params': params['unet']}, x)
        features = features.astype(jnp.float32)
        h = self.head.apply({'params': params['head']}, features, method='of_image')
        return h, self.encoder.apply({'params': params['prior']}, x)

    def _scaled(self, images: Array) -> Array:
        low, high = self.fields.image_range
        return low + (high - low) * images

    def _with_mask(self, x: Array, y: Array) -> Array:
        """What the posterior sees: the image and a mask, one channel (labels: one each) of 0 and 1."""
        y = y[..., None].astype(x.dtype) if self.num_classes == 1 else pixels.one_hot(y, self.num_classes)
        return jnp.concatenate([x, y], axis=-1)

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below unet, prior, posterior and head; no state."""
        keys = jax.random.split(key, 4)
        x = jnp.zeros_like(batch['image'][:1])
        y = jnp.zeros(x.shape[:3], jnp.uint8)
        h, z = jnp.zeros((*x.shape[:3], self.head.features)), jnp.zeros((1, self.head.latent_dim))
        return {
            'unet': self.unet.init(keys[0], x)['params'],
            'prior': self.encoder.init(keys[1], x)['params'],
            'posterior': self.encoder.init(keys[2], self._with_mask(x, y))['params'],
            'head': self.head.init(keys[3], h, z)['params'],
        }, {}

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B] and its terms."""
        rater_key, draw_key, kl_key = jax.random.split(key, 3)
        x = self._scaled(batch['image'])
        y = masks.of_rater(batch['masks'], masks.draw_rater(rater_key, batch['present']))
        h, prior = self._of_image(params, x)
        posterior = self.encoder.apply({'params': params['posterior']}, self._with_mask(x, y))
        z = posterior.draw_relaxed(draw_key, 1, self.fields.temperature)[:, 0]
        logits = self.head.apply({'params': params['head']}, h, z)
        if self.fields.latent == 'mixture':
            kl = latent.kl_monte_carlo(posterior, prior, kl_key, self.fields.kl_draws, self.fields.temperature)
        else:
            kl = latent.kl_divergence(posterior, prior)
        parts = {'cross_entropy': -pixels.log_probability(logits, y), 'kl': self.fields.kl_weight * kl}
        return sum(parts.values()), parts, state

    def bytes_per_mask(self, image_size: int) -> int:
        """The U-Net's activations, which a single mask of an image takes too, and the head's."""
        unet = conv_unet.activation_bytes(self.unet.filters, image_size, image_size)
        return unet + 4 * 3 * image_size**2 * self.head.features

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Draws N masks for each image, by equation (1)."""
        del state

        def draw(shared, rows):
            h, prior = shared
            one = lambda law, key: jax.tree.map(lambda x: x[None], law).draw(key, 1)[0, 0]
            z = jax.vmap(one)(prior, rows)
            logits = watched(self.head.apply({'params': params['head']}, h, z))
            return pixels.to_mask(logits, self.num_classes)

        shared = self._of_image(params, self._scaled(images))
        return masks.by_parts(draw, parts, shared, masks.mask_keys(keys, num_samples))

    def for_sampling(self, params: Params) -> Params:
        """All but the posterior."""
        return {name: params[name] for name in ('unet', 'prior', 'head')}


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The public LIDC code's training: Adam at 1e-4, batches of 5, no clipping.

    The original lowers the learning rate to 1e-6 in the end; the average of weights stands in the place of that.
    """
    optim = config.optim
    optim.learning_rate, optim.schedule, optim.warmup_steps = 1e-4, 'constant', 0
    optim.b2, optim.weight_decay, optim.clip_norm, optim.ema_decay = 0.999, 0.0, 0.0, 0.999
    config.train.batch_size = 5
    return config


def create(config: ml_collections.ConfigDict, place: Any = None) -> ProbUNet:
    """From the config's groups data, model.dtype, method and sample; `place` is of no use to it.

    Raises:
      UserError: a field is unknown, or the image does not divide by the levels.
    """
    del place
    own = fields.read(Fields, config.method)
    conv_unet.check(own.filters, own.num_groups, config.data.image_size)
    dtype = jnp.dtype(config.model.dtype)
    count = 1 if config.data.num_classes == 1 else pixels.channels(config.data.num_classes)
    network = (own.filters, own.num_layers, own.num_groups, dtype)
    return ProbUNet(
        conv_unet.ConvUNet(*network),
        latent.LatentEncoder(own.latent, own.latent_dim, own.rank, own.components, *network),
        Head(own.filters[0], own.head_layers, count, own.latent_dim),
        own,
        config.data.num_classes,
        config.sample.num_samples,
    )
