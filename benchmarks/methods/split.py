"""CIMD with its denoiser in two parts: most of the work once an image, the rest once a mask and step.

    f = image part(b)                          the U-Net of the config, [H, W, F]; its first channel is a map of logits
    logits of x_0 = f_1 + light part(f, x_t, t)       the same U-Net made narrow                               (1)

Losses and sampler are CIMD's (`ambdiff/methods/cimd.py`, `kit/reverse_process.py`). With `orientations` above 1 the
image part sees the image in each of them, and a mask is sampled under one of those: then an image costs so many
evaluations of the image part, and a mask num_steps - 1 of the light part beside the first, which the masks share.
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff import dihedral
from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods import cimd
from ambdiff.methods.kit import fields
from ambdiff.methods.kit.contract import Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import unet

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Fields(cimd.Fields):
    """CIMD's fields, and those of the split."""

    light_channels: Annotated[int, Between(4, 1024)] = 8  # width of the light part, model.channels of the image's
    light_patch: Annotated[int, Between(1, 64)] = 4  # its patch size, as model.patch_size
    features: Annotated[int, Between(1, 64)] = 4  # F, channels a pixel that it is given
    repeats: Annotated[int, Between(1, 64)] = 1  # raters and x_t drawn for an image in a training step
    orientations: Literal[1, 2, 8] = 2  # that the image part sees in sampling


@dataclasses.dataclass(frozen=True, eq=False)
class Split(cimd.CIMD):
    """The method; build it with `create`. What CIMD calls b are here the features of b."""

    light: unet.UNet
    turns: tuple[int, ...]  # the symmetries that the image part sees

    architecture = (
        'model',
        'diffusion',
        *(f'method.{n}' for n in ('image_range', 'features')),
        *(f'method.light_{n}' for n in ('channels', 'patch')),
    )

    def features(self, params: Params, images: Array, **kwargs) -> Array:
        """Of images [B, H, W, C] in [0, 1]: [B, H, W, F]."""
        t = jnp.zeros(len(images), int)
        return self.unet.apply({'params': params['image']}, super()._scaled(images), t, **kwargs)

    def _scaled(self, images: Array) -> Array:
        return images  # features

    def _denoise(self, params: Params, b: Array, xt: Array, t: Array, **kwargs) -> Array:
        x = jnp.concatenate([b, xt], axis=-1)
        return b[..., :1] + self.light.apply({'params': params['light']}, x, t, **kwargs)

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below image and light; no state."""
        image = jnp.zeros_like(batch['image'][:1])
        x = jnp.zeros((*image.shape[:3], self.fields.features + 1))
        made = {'image': (self.unet, image), 'light': (self.light, x)}
        keys = jax.random.split(key)
        init = lambda key, network, x: network.init(key, x, jnp.zeros(1, int))['params']
        return {name: init(key, *of) for key, (name, of) in zip(keys, made.items(), strict=True)}, {}

    def for_sampling(self, params: Params) -> Params:
        """Both parts."""
        return params

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """CIMD's, of `repeats` draws for each image."""
        feature_key, key = jax.random.split(key)
        b = self.features(params, batch['image'], train=True, rngs={'dropout': feature_key})
        count = self.fields.repeats
        repeated = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), batch | {'image': b})
        loss, parts, state = super().loss(params, state, repeated, key)
        mean = lambda x: x.reshape(-1, count).mean(1)
        return mean(loss), jax.tree.map(mean, parts), state

    def bytes_per_mask(self, image_size: int) -> int:
        """The activations of the larger part, and the features in all orientations."""
        larger = max(part.activation_bytes(image_size, image_size) for part in (self.unet, self.light))
        return larger + image_size**2 * self.fields.features * len(self.turns) * 4

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Samples N masks for each image."""
        del state
        turns = jnp.array(self.turns)
        one = lambda k: self.features(params, dihedral.turn(images, jnp.full(len(images), k)))
        f = jnp.moveaxis(watched(jax.lax.map(one, turns)), 0, 3)  # [B, H, W, orientations, F]

        def of_turned(f, k):
            place = (turns[None] == k[:, None]).argmax(1)
            return jnp.take_along_axis(f, place[:, None, None, None, None], axis=3)[..., 0, :]

        denoise = lambda f, xt, t: self._denoise(params, f, xt, t)
        return self.reverse.sample(denoise, f, keys, num_samples, parts, of_turned)


def small(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """As of CIMD."""
    return cimd.small(config)


def create(config: ml_collections.ConfigDict, place=None) -> Split:
    """From the config's groups model, diffusion, method and sample.

    Raises:
      UserError: as CIMD's, or the config asks for what a split was not made for.
    """
    own, whole = fields.read(Fields, config.method), cimd.create(config, place)
    if config.data.num_classes != 1 or own.loss != 'cross_entropy' or own.encoders != 'none':
        raise UserError(
            'split learns the masks of one class by their cross-entropy alone: --config.data.num_classes=1, and '
            "config.method.loss='cross_entropy', encoders='none'"
        )
    upright = config.data.upright or own.orientations == 2
    sampling = dataclasses.replace(whole.reverse.fields, symmetries=own.orientations > 1)
    turns = dihedral.cycle(dihedral.count(upright), upright) if own.orientations > 1 else [0]
    # As many channels in a group as half of those of `small`: alone, or two of them, they would lose what they say.
    light = whole.unet.clone(
        model_channels=own.light_channels, patch_size=own.light_patch, num_groups=max(own.light_channels // 8, 1)
    )
    return Split(
        whole.unet.clone(out_channels=own.features),
        whole.encoder,
        dataclasses.replace(whole.reverse, upright=upright, fields=sampling),
        own,
        None,
        light,
        tuple(int(k) for k in turns),
    )
