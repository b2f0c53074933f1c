"""MoSE: a mixture of stochastic experts (Gao et al., ICLR 2023, arXiv 2212.07328; public code gaozhitong/MoSE-AUSeg).

One network sees the image b once. A mask takes an expert k and one number z, and a head of 1x1 convolutions:

    k ~ pi(b),   z ~ N(mu_k, sigma_k^2),   mask = argmax of logits(features(b), z)                       (1)

pi is a softmax of the coarsest features; mu and sigma are learned and the same for every image. In training S numbers
are drawn for each of K experts: masks s_n, n = 1 .. N = K S, with weights pi_n = pi_k / S. All raters y_m of an image
are in every step, each with mass 1 / (their number):

    L = sum_nm P_nm c_nm + w KL( q || pi_n ),    q_n = sum_m P_nm                                        (2)
    c_nm = 1 - ( |s_n y_m| + 1 ) / ( |s_n| + |y_m| - |s_n y_m| + 1 ),   s_n the soft mask                (3)

c is the mean over classes but the background. P, which has no gradient, moves the raters' mass to masks: raters in the
order of their cheapest mask's cost, each to its cheapest masks, of which one takes at most gamma from all raters
(`coupling`). With gamma = 1 that is every rater to its nearest mask. w is 1 in the paper; the public code takes the
mean over masks of PyTorch's kl_div, so that w = 1 / N: gate_loss 'mean', the default, and 'sum' the paper's.

Where this differs from the public code:
- gamma goes from its first value to 1 there once the mean training loss has not improved for 10 epochs. Here it does
  after `limited_share` of the run, counted in steps by the method's state.
- Batch norm: a group norm in the image's network (`models/conv_unet.py`). The head has none: at sampling batch norm is
  an affine map, which a 1x1 convolution holds already, while a norm over an image's pixels would take away what z adds.
- The learning rate, halved there where the loss stands still, is constant or as config.optim says.
- Its image is standardised by itself; here its [0, 1] is mapped to `image_range`.
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods.kit import fields, masks, pixels
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import conv_unet, experts

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Fields:
    """MoSE's own fields of config.method; the public code's values."""

    filters: Annotated[tuple[int, ...], Between(1, 8192)] = (32, 64, 128, 192, 192, 192, 192)  # of each level
    num_groups: Annotated[int, Between(1, 8192)] = 8  # of the group norm in the place of batch norm
    experts: Annotated[int, Between(1, 256)] = 4  # K
    draws_per_expert: Annotated[int, Between(1, 256)] = 4  # S, in training
    gamma: Annotated[float, Between(1e-3, 1)] = 0.5  # the most that a mask takes of the raters' mass, at first
    limited_share: Annotated[float, Between(0, 1)] = 0.5  # of the run, after which gamma is 1
    gate_loss: Literal['mean', 'sum'] = 'mean'  # KL of the gate over N masks: the public code's, or the paper's
    image_range: tuple[float, float] = (-1.0, 1.0)  # the image's [0, 1] is mapped to this for the network


@dataclasses.dataclass(frozen=True, eq=False)
class MoSE(Method):
    """The method; build it with `create`. Its state counts the steps."""

    unet: conv_unet.ConvUNet
    gate: experts.Gate
    head: experts.NoiseHead
    fields: Fields
    limited_steps: int  # after so many gamma is 1
    num_classes: int
    num_samples: int  # config.sample.num_samples, for `evaluations`

    architecture = ('method.filters', 'method.num_groups', 'method.experts', 'method.image_range')

    @property
    def evaluations(self) -> float:
        """The N masks of an image share one of the U-Net; the heads, 1x1 convolutions, are not counted."""
        return 1 / self.num_samples

    def _of_image(self, params: Params, images: Array) -> tuple[Array, Array]:
        """Features [B, H, W, C] and log pi [B, K]."""
        low, high = self.fields.image_range
        features, coarsest = self.unet.apply({'params': params['unet']}, low + (high - low) * images)
        return features, jax.nn.log_softmax(self.gate.apply({'params': params['gate']}, coarsest))

    def _logits(self, params: Params, features: Array, z: Array) -> Array:
        """Of masks with numbers z [R]: [R, H, W, classes]."""
        return self.head.apply({'params': params['head']}, features, z[:, None])

    def draw_numbers(self, params: Params, log_pi: Array, rows: Array) -> Array:
        """z [R] of masks with keys rows [R], each from an expert of log pi [R, K]."""
        keys = jax.vmap(jax.random.split)(rows)
        k = jax.vmap(jax.random.categorical)(keys[:, 0], log_pi)
        return _numbers(params['experts'], k, jax.vmap(jax.random.normal)(keys[:, 1]))

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below unet, gate, head and experts; the state counts steps.

        Experts start at 0, 1 and then anywhere between, with sigma 1/8.
        """
        unet_key, gate_key, head_key, mean_key = jax.random.split(key, 4)
        params = {'unet': self.unet.init(unet_key, batch['image'][:1])['params']}
        features, coarsest = self.unet.apply({'params': params['unet']}, batch['image'][:1])
        params['gate'] = self.gate.init(gate_key, coarsest)['params']
        params['head'] = self.head.init(head_key, features, jnp.zeros((1, 1)))['params']
        count = self.fields.experts
        corners = jnp.arange(2.0)[:count]
        mean = jnp.concatenate([corners, jax.random.uniform(mean_key, (count,))[len(corners) :]])
        params['experts'] = {'mean': mean, 'log_sigma': jnp.full(count, jnp.log(1 / 8))}
        return params, {'step': jnp.zeros((), jnp.int32)}

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B] and its terms."""
        own, size = self.fields, len(batch['image'])
        each = own.experts * own.draws_per_expert
        features, log_pi = self._of_image(params, batch['image'])
        k = jnp.tile(jnp.repeat(jnp.arange(own.experts), own.draws_per_expert), size)
        z = _numbers(params['experts'], k, jax.random.normal(key, k.shape))

        # One mask of each image at a time, its head once more in the backward pass: all at once do not fit the caches.
        @jax.checkpoint
        def soft(z):
            return jax.nn.softmax(self._logits(params, features, z))[..., 1:].reshape(size, -1, self.num_classes)

        drawn = jnp.moveaxis(jax.lax.map(soft, z.reshape(size, each).T), 0, 1)
        raters = pixels.one_hot(batch['masks'], self.num_classes)[..., 1:]
        cost = soft_costs(drawn, raters.reshape(*raters.shape[:2], -1, self.num_classes))
        gamma = jnp.where(state['step'] < self.limited_steps, own.gamma, 1.0)
        plan = coupling(jax.lax.stop_gradient(cost), batch['present'], gamma)
        target = plan.sum(2)
        log_weight = jnp.repeat(log_pi, own.draws_per_expert, axis=1) - jnp.log(own.draws_per_expert)
        divergence = (jax.scipy.special.xlogy(target, target) - target * log_weight).sum(1)
        parts = {
            'cost': (plan * cost).sum((1, 2)),
            'gate': divergence / (each if own.gate_loss == 'mean' else 1),
        }
        return sum(parts.values()), parts, {'step': state['step'] + 1}

    def bytes_per_mask(self, image_size: int) -> int:
        """The image's network, or a mask's copy of the features, two layers of its head and its logits."""
        head = image_size**2 * 4 * (4 * self.fields.filters[0] + 2 * pixels.channels(self.num_classes))
        return max(head, conv_unet.activation_bytes(self.fields.filters, image_size, image_size))

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Draws N masks for each image, by equation (1)."""
        del state

        def draw(shared, rows):
            features, log_pi = shared
            logits = self._logits(params, features, self.draw_numbers(params, log_pi, rows))
            return pixels.to_mask(watched(logits), self.num_classes)

        features, log_pi = self._of_image(params, images)
        return masks.by_parts(draw, parts, (features, watched(log_pi)), masks.mask_keys(keys, num_samples))


def _numbers(law: Params, k: Array, noise: Array) -> Array:
    return jnp.take(law['mean'], k) + jnp.exp(jnp.take(law['log_sigma'], k)) * noise


def soft_costs(soft: Array, raters: Array) -> Array:
    """Equation (3): soft masks [B, N, P, K] of K classes and raters' [B, M, P, K] of 0 and 1 -> [B, N, M]."""
    both = jnp.einsum('bnpk,bmpk->bnmk', soft, raters)
    either = soft.sum(2)[:, :, None] + raters.sum(2)[:, None] - both
    return 1 - ((both + 1) / (either + 1)).mean(-1)


def coupling(cost: Array, present: Array, gamma: Array | float) -> Array:
    """P of equation (2), greedy: cost [B, N, M], present [B, M] -> [B, N, M].

    Each rater who is there gives 1 / (their number), the others nothing; no mask takes more than gamma, N gamma >= 1.
    """
    return jax.vmap(_coupling, (0, 0, None))(cost, present, gamma)


def _coupling(cost: Array, present: Array, gamma: Array | float) -> Array:
    mass = present / present.sum()
    order = jnp.argsort(jnp.where(present, cost.min(0), jnp.inf))

    def fill(free, m):
        cheapest = jnp.argsort(cost[:, m])
        room = free[cheapest]
        before = jnp.cumsum(room) - room
        taken = jnp.zeros_like(free).at[cheapest].set(jnp.clip(mass[m] - before, 0, room))
        return free - taken, taken

    _, taken = jax.lax.scan(fill, jnp.full(len(cost), gamma), order)
    return jnp.zeros_like(cost).at[:, order].set(taken.T)


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The public code's Adam: 1e-3, weight decay 1e-5, batches of 16, no clipping.

    It keeps the weights that were best in validation; the average of weights stands in the place of that choice.
    """
    config.optim.learning_rate = 1e-3
    config.optim.schedule = 'constant'
    config.optim.warmup_steps = 0
    config.optim.weight_decay = 1e-5
    config.optim.clip_norm = 0.0
    config.optim.ema_decay = 0.999
    config.train.batch_size = 16
    return config


def create(config: ml_collections.ConfigDict, place=None) -> MoSE:
    """From the config's groups method, data, train and sample.

    Raises:
      UserError: a field is unknown, the image does not divide by the levels, or gamma leaves no room for all raters.
    """
    own = fields.read(Fields, config.method)
    conv_unet.check(own.filters, own.num_groups, config.data.image_size)
    number = own.experts * own.draws_per_expert
    if number * own.gamma < 1:
        raise UserError(
            f'config.method.gamma={own.gamma}: {number} masks (experts x draws_per_expert) then hold less than all '
            f'raters; set it to {1 / number:.3g} or more'
        )
    return MoSE(
        conv_unet.ConvUNet(own.filters, num_groups=own.num_groups, dtype=jnp.dtype(config.model.dtype)),
        experts.Gate(own.experts),
        experts.NoiseHead(pixels.channels(config.data.num_classes)),
        own,
        round(own.limited_share * config.train.num_steps),
        config.data.num_classes,
        config.sample.num_samples,
    )
