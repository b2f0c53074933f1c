"""Level sets: what raters disagree on as one map and one number, learned on the metric itself.

Raters' masks of an image are nearly nested: who draws more draws around the others. So a network that sees the image
alone gives the logits z of a map, p = sigmoid(z), and the share q of raters who mark nothing; a mask is then, with one
number u ~ U(0, 1),

    nothing                             if u < q
    {p > v max p},  v = (u - q) / (1 - q)     else, never empty                                           (1)

q stands by itself since half of what raters disagree on is whether there is anything: a map's maximum says it badly.
The loss of an example with raters y_1 .. y_M is

    L = w_e ES + w_q CE(q, share of empty y_m) + w_p mean over pixels of CE(p, mean of y_m)               (2)

ES is the energy score of (1) under d = 1 - IoU (`kit/energy.py`): GED, which the model is judged by, without the part
that no model changes. Its expectation over u is taken in full: the empty mask with weight q, and K levels, one drawn in
each K-th of (0, 1), with weight (1 - q) / K each. All of (2) are proper scores, and all raters of an image are learned
from at once.

The network is the U-Net of `cimd` at its last step, where x_t says nothing: it sees concat(b, 0) and t = T - 1, so that
it can start from a trained denoiser (config.checkpoint). Sampling evaluates it for the image in its eight orientations,
or the first few of them, turned back, averages z and q, and then draws all N masks by (1): 8 / N evaluations a mask.
Masks are independent given the image with sample.noise 'independent'; 'stratified' takes one u in each N-th of (0, 1).
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ambdiff import dihedral, streams
from ambdiff.diffusion import starts
from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods.kit import cross_entropy, energy, fields
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import emptiness_head, unet

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Fields:
    """The method's own fields of config.method."""

    energy_weight: Annotated[float, Between(0)] = 1.0  # w_e
    emptiness_weight: Annotated[float, Between(0)] = 0.2  # w_q
    share_weight: Annotated[float, Between(0)] = 2.0  # w_p
    levels: Annotated[int, Between(2, 1024)] = 8  # K
    slope: Annotated[float, Between(1e-3, 1e3)] = 1.0  # of a set's edge in the backward pass, in logits
    head_width: Annotated[int, Between(1, 4096)] = 128  # of the hidden layer of q
    head_dropout: Annotated[float, Between(0, 0.99)] = 0.3  # of what q is made from
    orientations: Annotated[int, Between(1, 8)] = 8  # that an image is evaluated in, where sample.symmetries
    image_range: tuple[float, float] = (-1.0, 1.0)  # the image's [0, 1] is mapped to this for the network


@dataclasses.dataclass(frozen=True, eq=False)
class LevelSets(Method):
    """The method; build it with `create`."""

    unet: unet.UNet
    head: emptiness_head.EmptinessHead
    fields: Fields
    last_step: int  # T - 1, what the network is told
    noise: str  # config.sample.noise
    orientations: tuple[int, ...]  # symmetries that an image is evaluated in
    num_samples: int  # config.sample.num_samples, for `evaluations`

    architecture = ('model', 'diffusion.num_steps', 'method.head_width', 'method.image_range')

    @property
    def draws(self) -> Literal['independent', 'dependent']:
        """Strata tie the masks of an image together."""
        return 'dependent' if self.noise == 'stratified' else 'independent'

    @property
    def evaluations(self) -> float:
        """The N masks of an image share them."""
        return len(self.orientations) / self.num_samples

    def _outputs(self, params: Params, images: Array, key: Array | None = None) -> tuple[Array, Array]:
        """z [B, H, W, 1] and the logit of q [B]; with a key for training."""
        low, high = self.fields.image_range
        x = jnp.concatenate([low + (high - low) * images, jnp.zeros_like(images[..., :1])], axis=-1)
        t = jnp.full(len(x), self.last_step)
        train = key is not None
        rngs = [{'dropout': k} for k in jax.random.split(key)] if train else [None, None]
        z, features = self.unet.with_features(params['unet'], x, t, train=train, rngs=rngs[0])
        return z, self.head.apply({'params': params['head']}, features, z, train=train, rngs=rngs[1])

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below unet and head; no state."""
        unet_key, head_key = jax.random.split(key)
        image = jnp.zeros_like(batch['image'][:1])
        x = jnp.concatenate([image, image[..., :1]], axis=-1)
        t = jnp.zeros(1, int)
        params, z, features = self.unet.init_with_features(unet_key, x, t)
        return {'unet': params, 'head': self.head.init(head_key, features, z)['params']}, {}

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B] and its terms."""
        network_key, level_key = jax.random.split(key)
        own, raters, present = self.fields, batch['masks'].astype(jnp.float32), batch['present']
        z, empty = self._outputs(params, batch['image'], network_key)
        shares = present / present.sum(1, keepdims=True)
        target = jnp.einsum('bm,bmhw->bhw', shares, raters)[..., None]
        q = jax.nn.sigmoid(empty)
        true_q = (shares * ~raters.any((2, 3))).sum(1)

        flat = lambda x: x.reshape(*x.shape[:-2], -1)
        drawn = jax.random.uniform(level_key, (len(z), own.levels))
        sets = energy.level_sets(flat(z[..., 0]), (jnp.arange(own.levels)[None] + drawn) / own.levels, own.slope)
        sets = jnp.concatenate([jnp.zeros_like(sets[:, :1]), sets], axis=1)
        each = jnp.broadcast_to((1 - q)[:, None] / own.levels, drawn.shape)
        score = energy.energy_score(jnp.concatenate([q[:, None], each], axis=1), sets, flat(raters), present)
        parts = {
            'energy': own.energy_weight * score,
            'emptiness': own.emptiness_weight * cross_entropy.sigmoid(empty, true_q),
            'share': own.share_weight * cross_entropy.sigmoid(z, target).mean((1, 2, 3)),
        }
        return sum(parts.values()), parts, state

    def bytes_per_mask(self, image_size: int) -> int:
        """The activations of one evaluation: orientations are taken one after the other."""
        return self.unet.activation_bytes(image_size, image_size)

    def shares(self, params: Params, images: Array) -> tuple[Array, Array]:
        """The map p [B, H, W] and q [B] of images [B, H, W, C] in [0, 1], averaged over their orientations."""

        def one(k):
            k = jnp.full(len(images), k)
            z, empty = self._outputs(params, dihedral.turn(images, k))
            return dihedral.turn_back(z[..., 0], k), jax.nn.sigmoid(empty)

        z, q = jax.lax.map(one, jnp.array(self.orientations))
        return jax.nn.sigmoid(watched(z).mean(0)), watched(q).mean(0)

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Draws N masks for each image, by equation (1)."""
        del state, parts  # all masks of an image come from the same few evaluations
        p, q = self.shares(params, images)
        u, q = starts.levels(self.noise, keys, streams.LEVELS, num_samples), q[:, None]
        level = jnp.maximum(u - q, 0.0) / jnp.maximum(1 - q, 1e-6)
        masks = p[:, None] > level[..., None, None] * p.max((1, 2))[:, None, None, None]
        return masks & (u >= q)[..., None, None]


def recommend(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The settings of weights/lidc_small.safetensors: larger steps, of more images, than those of a denoiser."""
    config.optim.learning_rate = 1e-3
    config.optim.schedule = 'cosine'
    config.optim.warmup_steps = 100
    config.optim.weight_decay = 1e-2
    config.optim.b2 = 0.99
    config.optim.ema_decay = 0.998
    config.train.batch_size = 32
    return config


def create(config: ml_collections.ConfigDict, place=None) -> LevelSets:
    """From the config's groups model, method and sample.

    Raises:
      UserError: the config asks for several classes, or a field is unknown.
    """
    if config.data.num_classes != 1:
        raise UserError(f'config.data.num_classes={config.data.num_classes}: level_sets draws one class; set it to 1')
    own = fields.read(Fields, config.method)
    upright = config.data.upright
    turned = np.arange(1)
    if config.sample.symmetries:
        turned = dihedral.cycle(min(own.orientations, dihedral.count(upright)), upright)
    return LevelSets(
        unet.from_config(config.model, config.data.image_size, 1, place),
        emptiness_head.EmptinessHead(own.head_width, own.head_dropout),
        own,
        config.diffusion.num_steps - 1,
        config.sample.noise,
        tuple(turned.tolist()),
        config.sample.num_samples,
    )
