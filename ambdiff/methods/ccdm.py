"""CCDM: categorical diffusion of labels (Zbinden, Doorenbos et al., ICCV 2023, arXiv 2303.08888; public code
LarsDoorenbos/ccdm-stochastic-segmentation).

Noise exchanges the labels of pixels for even ones (`diffusion/categorical.py`: T steps, cosine schedule), and a network
that sees the noisy mask x_t, the image b and t gives p(x_0 | x_t, b), pixel by pixel:

    t ~ U{1 .. T},   x_t ~ q(x_t | x_0),   x_0 one rater's mask                                          (1)
    L = KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ),   summed over pixels                            (2)
    x_T even,   x_s ~ p(x_s | x_t) for T = t_n > .. > t_0 = 0,   the last one the likeliest              (3)

T is config.diffusion.num_steps, n is config.sample.num_steps. A step that skips others has its own transition here
(`reverse_probs`); the public code keeps the neighbours'. Each pixel is drawn by itself, so that few steps speckle.

The U-Net is that of config.model, on concat(x_t one-hot, b). As x_t is its input, nothing is shared by the masks of an
image: n evaluations a mask.
"""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff import config_check
from ambdiff.diffusion.categorical import CategoricalDiffusion
from ambdiff.finite import watched
from ambdiff.methods.kit import fields, masks, pixels
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.models import unet

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Fields:
    """CCDM's own field of config.method."""

    image_range: tuple[float, float] = (-1.0, 1.0)  # the image's [0, 1] is mapped to this for the network


@dataclasses.dataclass(frozen=True, eq=False)
class CCDM(Method):
    """The method; build it with `create`."""

    unet: unet.UNet
    process: CategoricalDiffusion
    fields: Fields
    num_classes: int
    evaluations: int  # steps a mask, n

    architecture = ('model', 'diffusion.num_steps', 'method')

    def logits(self, params: Params, images: Array, xt: Array, t: Array, **kwargs) -> Array:
        """Of p(x_0 | x_t, b) [B, H, W, K], for images [B, H, W, C] in [0, 1] and x_t one-hot [B, H, W, K]."""
        low, high = self.fields.image_range
        x = jnp.concatenate([xt, low + (high - low) * images], axis=-1)
        return self.unet.apply({'params': params['unet']}, x, t, **kwargs)

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below unet; no state."""
        image = jnp.zeros_like(batch['image'][:1])
        x = jnp.concatenate([jnp.zeros((*image.shape[:3], self.process.num_classes)), image], axis=-1)
        return {'unet': self.unet.init(key, x, jnp.zeros(1))['params']}, {}

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B], its only term."""
        rater_key, t_key, noise_key, dropout_key = jax.random.split(key, 4)
        rater = masks.draw_rater(rater_key, batch['present'])
        x0 = pixels.one_hot(masks.of_rater(batch['masks'], rater), self.num_classes)
        t = jax.random.randint(t_key, (len(x0),), 1, self.process.num_steps + 1)
        xt = self._one_hot(jax.random.categorical(noise_key, jnp.log(self.process.q_probs(x0, t))))
        logits = self.logits(params, batch['image'], xt, t, train=True, rngs={'dropout': dropout_key})
        loss = self.process.loss(jax.nn.softmax(logits), x0, xt, t)
        return loss, {'kl': loss}, state

    def _one_hot(self, labels: Array) -> Array:
        return jax.nn.one_hot(labels, self.process.num_classes)

    def bytes_per_mask(self, image_size: int) -> int:
        """The activations of one evaluation."""
        return self.unet.activation_bytes(image_size, image_size)

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Draws N masks for each image, by equation (3)."""
        del state
        times = jnp.asarray(self.process.times(self.evaluations))

        def draw(b, rows):
            def labels(stream, probs):
                one = lambda key, probs: jax.random.categorical(jax.random.fold_in(key, stream), jnp.log(probs))
                return self._one_hot(jax.vmap(one)(rows, probs))

            def step(carry, k):
                xt, _ = carry
                s, t = (jnp.full(len(b), time) for time in (times[k + 1], times[k]))
                p = jax.nn.softmax(watched(self.logits(params, b, xt, t)))
                return (labels(k, self.process.reverse_probs(p, xt, s, t)), p), None

            even = jnp.full((*b.shape[:3], self.process.num_classes), 1 / self.process.num_classes)
            start = (labels(self.evaluations, even), even)
            (_, p), _ = jax.lax.scan(step, start, jnp.arange(self.evaluations))
            return pixels.to_mask(p, self.num_classes)

        return masks.by_parts(draw, parts, images, masks.mask_keys(keys, num_samples))


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The public script's Adam, for 2000 epochs: from 1e-4 to 1e-6, batches of 16, EMA .9999, all of 250 steps.

    Its rate falls linearly, for which a cosine stands, and its U-Net has 5.8 M parameters; the paper's 9 M are those of
    channel_mult (1, 2, 2, 4, 5), as a comment of the code says. Below 128 pixels, where runs are short: the U-Net
    that the config has, ten times that rate, half of that batch, gradients clipped to 1, without which the loss of (2),
    a sum over pixels, throws such a run back again and again, and 20 steps a mask.
    """
    published = config.data.image_size >= 128
    if published:
        config.model.channels = 32
        config.model.channel_mult = (1, 1, 2, 3, 4)
        config.model.num_res_blocks = 2
        config.model.attention_resolutions = (4, 8, 16)  # 32, 16 and 8 pixels
        config.model.num_head_channels = 32
        config.model.num_groups = 32
        config.model.use_scale_shift_norm = False
        config.model.resblock_updown = False
    config.diffusion.num_steps = 250
    config.optim.learning_rate = 1e-4 if published else 1e-3
    config.optim.schedule = 'cosine'
    config.optim.final_fraction = 0.01
    config.optim.warmup_steps = 0 if published else 100
    config.optim.weight_decay = 0.0
    config.optim.clip_norm = 0.0 if published else 1.0
    config.optim.ema_decay = 0.9999
    config.train.batch_size = 16 if published else 8
    config.sample.num_steps = 250 if published else 20
    return config


def create(config: ml_collections.ConfigDict, place=None) -> CCDM:
    """From the config's groups model, diffusion, method, data and sample.

    Raises:
      UserError: a field is unknown, the image does not divide by the U-Net's down-sampling, or a mask takes more steps
        than the process has.
    """
    own = fields.read(Fields, config.method)
    process = CategoricalDiffusion.create(config.diffusion.num_steps, pixels.channels(config.data.num_classes))
    config_check.between('sample.num_steps', config.sample.num_steps, 1, process.num_steps)
    network = unet.from_config(config.model, config.data.image_size, process.num_classes, place)
    return CCDM(network, process, own, config.data.num_classes, config.sample.num_steps)
