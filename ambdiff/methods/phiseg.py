"""PHiSeg: masks from latents at several resolutions (Baumgartner et al. 2019, arXiv 1906.04045).

A mask is decoded from maps z_0 .. z_{L-1}, 0 the finest, alone, which follow from coarse to fine (`models/
latent_pyramid.py`):

    p(z | b) = p(z_{L-1} | b) prod_i p(z_i | z_{i+1}, b),   the posterior q(z | b, y) alike                 (1)
    L = sum_i - log p(y | l_i) + w sum_i 4^i KL( q(z_i | z_{i+1}, b, y) || p(z_i | z_{i+1}, b) )            (2)

l_i are the logits of the levels i and coarser, so each level learns what the coarser ones leave; log p is the sum over
pixels, y one rater's mask drawn for each image and step, KL the sum over the map. z is drawn from the posterior, and
the prior's laws of (2) are taken at these draws; in sampling at its own. 4^i weighs a level by the pixels that one of
its latents stands for.

Prior and posterior are a network each: an encoder, of the image or of concat(image, one-hot mask - 1/2), and the
latents' laws. In sampling the prior's encoder and its coarsest law are the image's alone and computed once; each mask
takes the rest of the prior and the decoder.

By the public code (github.com/baumgach/PHiSeg-code, phiseg_7_5): 7 resolutions with 5 latents of 2 channels, 32 to 192
filters, sigma by softplus, all cross-entropies with weight 1, w = 1, two logits. Its batch norms are group norms here:
they depend on neither the batch's size nor an image's neighbours, so a step is the same on any number of devices and in
any parts, and a mask depends on its own image alone. The code computes latents enlarged past the next finer level, and
uses none of them: (1), the paper's, is what it does.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff.diffusion import starts
from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods.kit import fields, masks, pixels
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import conv_unet, latent_pyramid

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Fields:
    """The method's own fields of config.method."""

    filters: Annotated[tuple[int, ...], Between(1, 8192)] = (32, 64, 128, 192, 192, 192, 192)  # of R resolutions
    latent_levels: Annotated[int, Between(1, 16)] = 5  # L: the coarsest ones that have a latent
    latent_dim: Annotated[int, Between(1, 4096)] = 2  # channels of a latent
    num_layers: Annotated[int, Between(1, 64)] = 3  # convolutions a level of the encoders
    num_groups: Annotated[int, Between(0, 8192)] = 8  # of group norms; 0 = no norms
    kl_weight: Annotated[float, Between(0)] = 1.0  # w
    level_factor: Annotated[float, Between(0)] = 4.0  # the KL of latent i is weighed by its i-th power
    image_range: tuple[float, float] = (-0.5, 0.5)  # the image's [0, 1] is mapped to this for the networks


@dataclasses.dataclass(frozen=True, eq=False)
class PHiSeg(Method):
    """The method; build it with `create`."""

    encoder: conv_unet.ConvEncoder  # of the prior and of the posterior
    pyramid: latent_pyramid.LatentPyramid  # likewise
    decoder: latent_pyramid.PyramidDecoder
    fields: Fields
    num_classes: int

    def _features(self, params: Params, x: Array) -> list[Array]:
        """Of the levels that have a latent; params of the prior or of the posterior."""
        return self.encoder.apply({'params': params['encoder']}, x)[-self.fields.latent_levels :]

    def _laws(self, params: Params, features: list[Array], draw) -> list[latent_pyramid.Law]:
        return self.pyramid.apply({'params': params['latents']}, features, draw)

    def _scaled(self, images: Array) -> Array:
        low, high = self.fields.image_range
        return low + (high - low) * images

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below prior, posterior and decoder; no state."""
        *keys, decoder_key = jax.random.split(key, 3)
        x = jnp.zeros_like(batch['image'][:1])
        y = jnp.zeros((*x.shape[:3], pixels.channels(self.num_classes)))
        mean = lambda i, law: law.mean
        params = {}
        for name, seen, own_key in zip(('prior', 'posterior'), (x, jnp.concatenate([x, y], -1)), keys, strict=True):
            encoder_key, latents_key = jax.random.split(own_key)
            encoder = self.encoder.init(encoder_key, seen)['params']
            features = self._features({'encoder': encoder}, seen)
            params[name] = {'encoder': encoder, 'latents': self.pyramid.init(latents_key, features, mean)['params']}
        latents = [law.mean for law in self._laws(params['prior'], features, mean)]
        return {**params, 'decoder': self.decoder.init(decoder_key, latents)['params']}, {}

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B] and its terms, a level's each."""
        rater_key, noise_key = jax.random.split(key)
        x = self._scaled(batch['image'])
        y = masks.of_rater(batch['masks'], masks.draw_rater(rater_key, batch['present']))
        seen = jnp.concatenate([x, pixels.one_hot(y, self.num_classes) - 0.5], axis=-1)
        latents: dict[int, Array] = {}

        def draw(i, law):
            noise = jax.random.normal(jax.random.fold_in(noise_key, i), law.mean.shape)
            latents[i] = law.mean + law.sigma * noise
            return latents[i]

        posterior = self._laws(params['posterior'], self._features(params['posterior'], seen), draw)
        prior = self._laws(params['prior'], self._features(params['prior'], x), lambda i, _: latents[i])
        logits = self.decoder.apply({'params': params['decoder']}, [latents[i] for i in range(len(latents))])
        parts = {f'cross_entropy_{i}': -pixels.log_probability(sums, y) for i, sums in enumerate(logits)}
        for i, laws in enumerate(zip(posterior, prior, strict=True)):
            weight = self.fields.kl_weight * self.fields.level_factor**i
            parts[f'kl_{i}'] = weight * latent_pyramid.kl_divergence(*laws)
        return sum(parts.values()), parts, state

    def bytes_per_mask(self, image_size: int) -> int:
        """The encoder's activations, which a single mask of an image takes too, and the rest's."""
        own, count = self.fields, pixels.channels(self.num_classes)
        encoder = conv_unet.activation_bytes(own.filters, image_size, image_size)
        return encoder + latent_pyramid.activation_bytes(own.filters, own.latent_levels, count, image_size)

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Draws N masks for each image, by equation (1)."""
        del state

        def one(features, rows):
            latents: dict[int, Array] = {}

            def draw(i, law):
                latents[i] = law.mean + law.sigma * starts.row_noise(rows, i, law.mean.shape[1:])
                return latents[i]

            self._laws(params['prior'], features, draw)
            logits = self.decoder.apply({'params': params['decoder']}, [latents[i] for i in range(len(latents))])
            return pixels.to_mask(watched(logits[0]), self.num_classes)

        features = self._features(params['prior'], self._scaled(images))
        return masks.by_parts(one, parts, features, masks.mask_keys(keys, num_samples))

    def for_sampling(self, params: Params) -> Params:
        """All but the posterior."""
        return {name: params[name] for name in ('prior', 'decoder')}


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The public code's training: Adam at 1e-3, batches of 12, no clipping.

    Below 128 pixels, where runs are short, gradients are clipped to 1: those of the first steps are fifty times as
    large as later ones, and Adam's mean of squares remembers them for a thousand steps, all of such a run.

    It keeps the weights that were best in validation; the average of weights stands in the place of that choice. The
    coarsest latent is 2 pixels wide as there, at 128 pixels by 7 resolutions and 5 latents: smaller images have as
    many of both less as they are doublings smaller.
    """
    optim = config.optim
    optim.learning_rate, optim.schedule, optim.warmup_steps = 1e-3, 'constant', 0
    optim.b2, optim.weight_decay, optim.ema_decay = 0.999, 0.0, 0.999
    optim.clip_norm = 0.0 if config.data.image_size >= 128 else 1.0
    config.train.batch_size = 12
    levels = min(max((config.data.image_size // 2).bit_length(), 3), 7)
    config.method.filters = Fields.filters[:levels]
    config.method.latent_levels = levels - 2
    return config


def create(config: ml_collections.ConfigDict, place: Any = None) -> PHiSeg:
    """From the config's groups data, model.dtype and method; `place` is of no use to it.

    Raises:
      UserError: a field is out of range, or the image or the filters do not suit the levels or the norms.
    """
    del place
    own = fields.read(Fields, config.method)
    conv_unet.check(own.filters, own.num_groups, config.data.image_size)
    if own.latent_levels > len(own.filters):
        raise UserError(
            f'config.method.latent_levels={own.latent_levels} is more than the {len(own.filters)} resolutions of '
            'config.method.filters'
        )
    dtype = jnp.dtype(config.model.dtype)
    return PHiSeg(
        conv_unet.ConvEncoder(own.filters, own.num_layers, own.num_groups, dtype),
        latent_pyramid.LatentPyramid(own.filters, own.latent_dim, own.num_groups, dtype),
        latent_pyramid.PyramidDecoder(own.filters, pixels.channels(config.data.num_classes), own.num_groups, dtype),
        own,
        config.data.num_classes,
    )
