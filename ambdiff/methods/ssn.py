"""SSN: stochastic segmentation networks (Monteiro et al., NeurIPS 2020, arXiv 2006.06015), with the LIDC network of
their fork of PHiSeg's code.

One network sees the image b and gives the law of all pixels' logits at once, a normal one of low rank
(`models/low_rank_normal.py`); a mask is the likeliest under one draw of it, so that N masks of an image cost one
evaluation and a matrix-vector product each:

    eta = mu(b) + F(b) z + sqrt(D(b)) eps,   z ~ N(0, I_R),   eps ~ N(0, I),   mask = argmax eta         (1)
    L = - log 1/M sum_m p(y | eta_m),   log p(y | eta) = sum over pixels of log softmax(eta)[y]          (2)

with y one rater's mask, drawn for each image and step, and M independent draws of eta, as in the fork. With
`antithetic` they are pairs mu +- (F z + sqrt(D) eps), as in the loss of the authors' own code.

Where this differs from the public code:
- For the first `mean_share` of the run F and D are left out, and over as many steps again they come in, by a factor of
  z and eps from 0 to 1 (the method's state counts steps): sums over so many pixels let one of M draws carry the whole
  gradient, and a mean that is none yet is then hidden by its noise. The authors learn the mean alone in half of their
  toy problem's run, not for LIDC.
- F starts at 0 (at random in the fork): in a short run a third of the samples would mark the whole image.
- sqrt(D) and F are bounded by `limit`. The authors set F and D to zero outside the brain and fall back to independent
  normals where the covariance can not be inverted; here it is never inverted.
- Batch norm: a group norm (`models/conv_unet.py`). The last level has filters[0] channels; the fork keeps 64 there.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods.kit import fields, masks, pixels
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import conv_unet
from ambdiff.models.low_rank_normal import LowRankHead, LowRankNormal

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Fields:
    """SSN's own fields of config.method."""

    filters: Annotated[tuple[int, ...], Between(1, 8192)] = (32, 64, 128, 192, 192, 192, 192)  # of each level
    num_groups: Annotated[int, Between(0, 8192)] = 8  # of the group norm in the place of batch norm; 0 = none
    rank: Annotated[int, Between(1, 4096)] = 10  # R
    draws: Annotated[int, Between(1, 10**4)] = 20  # M
    antithetic: bool = False  # draws in pairs, mu + x and mu - x
    mean_share: Annotated[float, Between(0, 0.5)] = 0.1  # of the run that learns the mean alone
    limit: Annotated[float, Between(1e-2, 1e3)] = 10.0  # of sqrt(D) and F, in logits
    image_range: tuple[float, float] = (-1.0, 1.0)  # the image's [0, 1] is mapped to this for the network


@dataclasses.dataclass(frozen=True, eq=False)
class SSN(Method):
    """The method; build it with `create`. Its state counts the steps."""

    unet: conv_unet.ConvUNet
    head: LowRankHead
    fields: Fields
    mean_steps: int  # so many learn the mean alone
    num_classes: int
    num_samples: int  # config.sample.num_samples, for `evaluations`

    architecture = ('method.filters', 'method.num_groups', 'method.rank', 'method.limit', 'method.image_range')

    @property
    def evaluations(self) -> float:
        """The N masks of an image share one."""
        return 1 / self.num_samples

    def law(self, params: Params, images: Array) -> LowRankNormal:
        """Of the logits of images [B, H, W, C] in [0, 1]."""
        low, high = self.fields.image_range
        features, _ = self.unet.apply({'params': params['unet']}, low + (high - low) * images)
        return self.head.apply({'params': params['head']}, features.astype(jnp.float32))

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below unet and head; the state counts steps."""
        unet_key, head_key = jax.random.split(key)
        image = jnp.zeros_like(batch['image'][:1])
        features = jnp.zeros((*image.shape[:3], self.unet.filters[0]))
        params = {
            'unet': self.unet.init(unet_key, image)['params'],
            'head': self.head.init(head_key, features)['params'],
        }
        return params, {'step': jnp.zeros((), jnp.int32)}

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B], its only term."""
        rater_key, z_key, eps_key = jax.random.split(key, 3)
        y = masks.of_rater(batch['masks'], masks.draw_rater(rater_key, batch['present']))
        law = self.law(params, batch['image'])
        draws = self.fields.draws // (2 if self.fields.antithetic else 1)
        z = jax.random.normal(z_key, (len(y), draws, self.head.rank))
        eps = jax.random.normal(eps_key, (len(y), draws, *law.mean.shape[1:]))
        if self.fields.antithetic:
            z, eps = (jnp.concatenate([x, -x], axis=1) for x in (z, eps))
        spread = jnp.clip((state['step'] + 1 - self.mean_steps) / max(self.mean_steps, 1), 0.0, 1.0)
        log_p = pixels.log_probability(law.at(spread * z, spread * eps), y[:, None])
        loss = jnp.log(self.fields.draws) - jax.scipy.special.logsumexp(log_p, axis=1)
        return loss, {'likelihood': loss}, {'step': state['step'] + 1}

    def bytes_per_mask(self, image_size: int) -> int:
        """The image's network, or a mask's copy of its law and the draw of it."""
        law = 4 * image_size**2 * pixels.channels(self.num_classes) * (self.head.rank + 5)
        return max(law, conv_unet.activation_bytes(self.fields.filters, image_size, image_size))

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Draws N masks for each image, by equation (1)."""
        del state

        def draw(law, rows):
            keys = jax.vmap(jax.random.split)(rows)
            z = jax.vmap(lambda key: jax.random.normal(key, (1, self.head.rank)))(keys[:, 0])
            eps = jax.vmap(lambda key: jax.random.normal(key, (1, *law.mean.shape[1:])))(keys[:, 1])
            return pixels.to_mask(watched(law.at(z, eps)[:, 0]), self.num_classes)

        return masks.by_parts(draw, parts, self.law(params, images), masks.mask_keys(keys, num_samples))


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The fork's Adam: 1e-3, batches of 12, no decay and no clipping.

    It keeps the weights that were best in validation; the average of weights stands in the place of that choice.
    Smaller images are for shorter runs, and a short run leaves the background's mean near 0: `limit` keeps F from
    marking all of it (chosen on validation; docs/league.md).
    """
    if config.data.image_size < 128:
        config.method.limit = 0.5
    config.optim.learning_rate = 1e-3
    config.optim.schedule = 'constant'
    config.optim.warmup_steps = 0
    config.optim.weight_decay = 0.0
    config.optim.b2 = 0.999
    config.optim.clip_norm = 0.0
    config.optim.ema_decay = 0.999
    config.train.batch_size = 12
    return config


def create(config: ml_collections.ConfigDict, place=None) -> SSN:
    """From the config's groups method, data, train and sample, and model.dtype; `place` is of no use to it.

    Raises:
      UserError: a field is unknown, the image does not divide by the levels, or antithetic draws are odd in number.
    """
    del place
    own = fields.read(Fields, config.method)
    conv_unet.check(own.filters, own.num_groups, config.data.image_size)
    if own.antithetic and own.draws % 2:
        raise UserError(f'config.method.draws={own.draws} is odd: pairs (config.method.antithetic) need an even number')
    return SSN(
        conv_unet.ConvUNet(own.filters, num_groups=own.num_groups, dtype=jnp.dtype(config.model.dtype)),
        LowRankHead(pixels.channels(config.data.num_classes), own.rank, own.limit),
        own,
        round(own.mean_share * config.train.num_steps),
        config.data.num_classes,
        config.sample.num_samples,
    )
