"""Flow-SSN, the continuous one: a flow from logits' noise to a mask (ICCV 2025, arXiv 2507.18838; public code
biomedia-mira/flow-ssn).

A large network sees the image b once and gives where the noise starts; a small one, which does not see the image, moves
it to one rater's mask y (one-hot, 0 and 1) along straight lines:

    u = mean(b) + eps,   y_t = (1 - t) u + t y,   eps ~ N(0, I),   t ~ U(0, 1)                           (1)
    L = mean over pixels of CE( softmax(f(y_t, t)), y )                                                  (2)

f is the flow's guess of y, and the large network learns through u. A mask takes T = config.sample.num_steps Euler steps
of the velocity softmax(f(y, t)) - u, with u the START throughout, as in the public code:

    y <- y + ( softmax(f(y, k / T)) - u ) / T,   k = 0 .. T - 1,   mask = argmax y                       (3)

so that y ends as the mean of the T guesses (the code's shift to a least value of 0 and division by the sum do not
change which class is largest). With T = 1 it is argmax f(u, 0): SSN's normal logits, through a network.

The public code also has a learned scale of eps (base_std 0), several draws of u a step (then the log of the mean of
exp(-L), a tempered likelihood) and a flow that sees the image; its LIDC script uses none of them, nor is it here.

The large network is the U-Net of config.model, told t = 0; the small one has `flow_channels` at each of the levels of
`flow_mult`, one residual block each and attention in the middle. Both have config.model.dropout. The public U-Net has
groups of 16 channels in its norms and 3x3 convolutions where a block changes its width; this one has as many groups in
each norm (config.model.num_groups, 1 in the flow), and 1x1.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff import config_check
from ambdiff.diffusion import starts
from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods.kit import cross_entropy, fields, masks, pixels
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import unet

Array = jax.Array

_CLOCK = 1000.0  # the U-Net embeds times of 0 .. 1000


@dataclasses.dataclass(frozen=True)
class Fields:
    """Flow-SSN's own fields of config.method; the public code's values."""

    flow_channels: Annotated[int, Between(2, 8192)] = 16  # of the small network's widest level
    flow_mult: Annotated[tuple[int, ...], Between(1, 1024)] = (1, 1, 1)  # width of each of its levels over that
    image_range: tuple[float, float] = (-1.0, 1.0)  # the image's [0, 1] is mapped to this for the network


@dataclasses.dataclass(frozen=True, eq=False)
class FlowSSN(Method):
    """The method; build it with `create`."""

    unet: unet.UNet  # gives the mean
    flow: unet.UNet  # f
    fields: Fields
    num_steps: int  # T
    num_classes: int
    num_samples: int  # config.sample.num_samples, for `evaluations`

    architecture = ('model', 'method')

    @property
    def evaluations(self) -> float:
        """T of the small network; the N masks of an image share one of the large one."""
        return self.num_steps + 1 / self.num_samples

    def mean(self, params: Params, images: Array, **kwargs) -> Array:
        """Where the noise of images [B, H, W, C] in [0, 1] starts: [B, H, W, K]."""
        low, high = self.fields.image_range
        b = low + (high - low) * images
        return self.unet.apply({'params': params['unet']}, b, jnp.zeros(len(b)), **kwargs)

    def guess(self, params: Params, y: Array, t: Array, **kwargs) -> Array:
        """f's logits [B, H, W, K] for y [B, H, W, K] at times t [B] in [0, 1]."""
        return self.flow.apply({'params': params['flow']}, y, t * _CLOCK, **kwargs)

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below unet and flow; no state."""
        unet_key, flow_key = jax.random.split(key)
        image = jnp.zeros_like(batch['image'][:1])
        y = jnp.zeros((*image.shape[:3], pixels.channels(self.num_classes)))
        return {
            'unet': self.unet.init(unet_key, image, jnp.zeros(1))['params'],
            'flow': self.flow.init(flow_key, y, jnp.zeros(1))['params'],
        }, {}

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B], its only term."""
        rater_key, t_key, noise_key, *dropout_keys = jax.random.split(key, 5)
        rngs = [{'dropout': k} for k in dropout_keys]
        rater = masks.draw_rater(rater_key, batch['present'])
        y = pixels.one_hot(masks.of_rater(batch['masks'], rater), self.num_classes)
        u = self.mean(params, batch['image'], train=True, rngs=rngs[0]) + jax.random.normal(noise_key, y.shape)
        t = jax.random.uniform(t_key, (len(y),))
        at = t[:, None, None, None]
        logits = self.guess(params, (1 - at) * u + at * y, t, train=True, rngs=rngs[1])
        loss = cross_entropy.softmax(logits, y).mean((1, 2))
        return loss, {'cross_entropy': loss}, state

    def bytes_per_mask(self, image_size: int) -> int:
        """The activations of an evaluation of the network that takes more."""
        return max(network.activation_bytes(image_size, image_size) for network in (self.unet, self.flow))

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Draws N masks for each image, by equation (3)."""
        del state

        def draw(mean, rows):
            u = mean + starts.row_noise(rows, 0, mean.shape[1:])

            def step(y, k):
                guess = watched(self.guess(params, y, jnp.full(len(y), k / self.num_steps)))
                return y + (jax.nn.softmax(guess) - u) / self.num_steps, None

            y, _ = jax.lax.scan(step, u, jnp.arange(self.num_steps))
            return pixels.to_mask(y, self.num_classes)

        return masks.by_parts(draw, parts, self.mean(params, images), masks.mask_keys(keys, num_samples))


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The public script's AdamW, for 1001 epochs: 1e-4 after 2000 steps, decay 1e-4, batches of 32, EMA .9999.

    And its 50 steps a mask. Below 128 pixels, where runs are short: the U-Net that the config has, ten times that
    rate, half of that batch, a warm-up of 100 steps, and 10 steps a mask, as its validation takes.
    """
    published = config.data.image_size >= 128
    if published:
        config.model.channels = 32
        config.model.channel_mult = (1, 2, 4, 8)
        config.model.num_res_blocks = 1
        config.model.attention_resolutions = ()
        config.model.num_heads = 4  # of 64 channels, in the middle
        config.model.num_groups = 2  # of 16 channels at the widest level
        config.model.use_scale_shift_norm = True
        config.model.resblock_updown = True
    config.model.dropout = 0.1
    config.optim.learning_rate = 1e-4 if published else 1e-3
    config.optim.schedule = 'constant'
    config.optim.warmup_steps = 2000 if published else 100
    config.optim.weight_decay = 1e-4
    config.optim.clip_norm = 10.0
    config.optim.ema_decay = 0.9999
    config.train.batch_size = 32 if published else 16
    config.sample.num_steps = 50 if published else 10
    return config


def create(config: ml_collections.ConfigDict, place=None) -> FlowSSN:
    """From the config's groups model, method, data and sample.

    Raises:
      UserError: a field is unknown, the image does not divide by a network's down-sampling, or there is no step.
    """
    own, size = fields.read(Fields, config.method), config.data.image_size
    config_check.between('sample.num_steps', config.sample.num_steps, 1)
    classes = pixels.channels(config.data.num_classes)
    flow = unet.UNet(
        model_channels=own.flow_channels,
        out_channels=classes,
        num_res_blocks=1,
        attention_resolutions=(),
        channel_mult=tuple(own.flow_mult),
        use_scale_shift_norm=True,
        resblock_updown=True,
        dropout=config.model.dropout,
        num_groups=1,
        remat=config.model.remat,
        dtype=jnp.dtype(config.model.dtype),
        place=place,
    )
    if size % flow.stride:
        raise UserError(
            f'config.data.image_size={size} is not a multiple of {flow.stride}, the down-sampling of the '
            f'{len(own.flow_mult)} levels of config.method.flow_mult'
        )
    base = unet.from_config(config.model, size, classes, place)
    return FlowSSN(base, flow, own, config.sample.num_steps, config.data.num_classes, config.sample.num_samples)
