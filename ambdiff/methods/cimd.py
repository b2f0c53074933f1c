"""CIMD: collectively intelligent medical diffusion (Rahman et al., CVPR 2023, arXiv 2304.04745).

One diffusion model of ONE rater's mask x_0 given the image b. A rater is chosen anew for every example and step, so
that the model's samples follow the distribution of the raters. With t, eps random too,

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps                                                   (1)
    L = L_0 + w_vlb L_vlb + beta KL( AMN(b, x_t) || ACN(b, x_{t-1} of one step) )                   (2)
    L_0 = mean (eps - eps_hat)^2                   loss 'mse', the paper's                          (3)
    L_0 = mean CE(sigmoid(logit), y)               loss 'cross_entropy': masks are binary, and an error of eps_hat's
                                                   mean is a huge offset of x0_hat at large t       (4)
    y = the mask of the rater chosen               target 'rater'
    y = sum_m P(m | x_t) mask of rater m           target 'posterior' (`GaussianDiffusion.candidate_weights`)

The minimiser of (4) is the same for both targets, since cross-entropy is linear in y; the posterior's gradient has less
variance where x_t does not tell the raters apart (Xu et al. 2023, arXiv 2302.00670).

Sampling runs the denoiser alone, from N starts an image (`diffusion/starts.py`). Start 'level_set' spends the first
evaluation on the share p of raters that mark each pixel, and goes on from the noised set {p > level}.

With symmetries, masks are sampled under the eight symmetries of the square and turned back, so that what a
network's answer owes to the image's orientation averages out. Noise 'stratified': the symmetries take turns over the N
masks, and p is the mean over their N first evaluations, at no cost. Noise 'independent': each has a random symmetry,
and p is the mean over all eight, each from one noise that never changes. So p is a function of the image, the N masks
are independent draws given it, whatever N is, and the image costs eight evaluations in the place of the masks' first.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from ambdiff import dihedral, streams
from ambdiff.diffusion import samplers, starts
from ambdiff.diffusion.gaussian import GaussianDiffusion
from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods.kit import fields, masks
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.models import gaussian_encoder, unet

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Fields:
    """CIMD's own fields of config.method; the paper's values."""

    loss: Literal['mse', 'cross_entropy'] = 'mse'  # of the noise, or of the mask (prediction 'x0')
    target: Literal['rater', 'posterior'] = 'rater'  # of 'cross_entropy': the rater chosen, or the mean given x_t
    vlb_weight: Annotated[float, Between(0)] = 1.0  # w_vlb; needs diffusion.learned_variance
    time_sampling: Literal['uniform', 'stratified'] = 'uniform'  # t of a batch
    image_range: tuple[float, float] = (0.0, 1.0)  # the image's [0, 1] is mapped to this for the network
    image_repeats: Annotated[int, Between(1, 64)] = 1  # times the image is fed to the network (released code: 4)
    encoders: Literal['none', 'frozen', 'trained'] = 'trained'  # AMN and ACN: 'frozen' stay as initialised
    encoder_seed: int = 0  # of the random frozen encoders
    latent_dim: Annotated[int, Between(1, 4096)] = 6  # of AMN and ACN
    kl_weight: Annotated[float, Between(0)] = 1e-3  # beta
    amn_input: Literal['xt', 'x0'] = 'xt'  # mask that AMN sees: the paper's x_t, or x_0 (released code)
    acn_input: Literal['reverse_step', 'eps'] = 'reverse_step'  # ACN: the paper's x_{t-1}, or eps_hat (released code)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The fields of config.sample that CIMD reads."""

    sampler: str
    eta: float
    num_steps: int
    noise: str
    num_samples: int
    start: str
    level_time: float
    symmetries: bool
    clip: bool


@dataclasses.dataclass(frozen=True, eq=False)
class CIMD(Method):
    """The method; build it with `create`.

    With data.num_classes = K > 1 masks are labels 0 .. K, which the process sees as K + 1 one-hot channels.
    """

    unet: unet.UNet
    encoder: gaussian_encoder.GaussianEncoder
    process: GaussianDiffusion
    fields: Fields
    sampling: Sampling
    upright: bool  # images have a top (data.upright)
    frozen: Params  # AMN and ACN if they stay as initialised: constants of the loss

    architecture = ('model', 'diffusion', 'method.image_range', 'method.image_repeats')

    @property
    def draws(self) -> Literal['independent', 'dependent']:
        """Strata, and symmetries that take turns, tie the masks of an image together."""
        return 'dependent' if self.sampling.noise == 'stratified' else 'independent'

    @property
    def _share_of_image(self) -> bool:
        """p is the image's, not the masks'."""
        s = self.sampling
        return s.start == 'level_set' and s.symmetries and s.noise == 'independent'

    @property
    def evaluations(self) -> float:
        """The level set's evaluation is one of them; where it is the image's, the N masks share its cost."""
        if self._share_of_image:
            return self.sampling.num_steps - 1 + dihedral.count(self.upright) / self.sampling.num_samples
        return self.sampling.num_steps

    def _scaled(self, images: Array) -> Array:
        low, high = self.fields.image_range
        return low + (high - low) * images

    def _denoise(self, params: Params, b: Array, xt: Array, t: Array, **kwargs) -> Array:
        stack = [b] * self.fields.image_repeats + [xt]
        return self.unet.apply({'params': params['unet']}, jnp.concatenate(stack, -1), t, **kwargs)

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters below unet, amn and acn; no state."""
        unet_key, encoder_key = jax.random.split(key)
        b = jnp.zeros_like(batch['image'][:1])
        channels = b.shape[-1] * self.fields.image_repeats + self.process.num_channels
        x = jnp.zeros((*b.shape[:3], channels))
        params = {'unet': self.unet.init(unet_key, x, jnp.zeros((1,), jnp.int32))['params']}
        if self.fields.encoders == 'trained':
            params |= _init_encoders(self.encoder, encoder_key, b, self.process.num_channels)
        return params, {}

    def for_sampling(self, params: Params) -> Params:
        """The denoiser alone."""
        return {'unet': params['unet']}

    def _draw_t(self, key: Array, batch_size: int) -> Array:
        """Steps [B]: independent, or one in each of B equal strata (Kingma et al. 2021, appendix I.1)."""
        if self.fields.time_sampling == 'uniform':
            return jax.random.randint(key, (batch_size,), 0, self.process.num_steps)
        u = (jnp.arange(batch_size) + jax.random.uniform(key)) / batch_size
        return jnp.minimum((u * self.process.num_steps).astype(int), self.process.num_steps - 1)

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B] and its terms."""
        rater_key, t_key, noise_key, dropout_key = jax.random.split(key, 4)
        b, raters, present = self._scaled(batch['image']), batch['masks'], batch['present']
        y = self.process.one_hot(masks.of_rater(raters, masks.draw_rater(rater_key, present)))
        x0 = self.process.to_range(y)
        t = self._draw_t(t_key, len(y))
        eps = jax.random.normal(noise_key, x0.shape)
        xt = self.process.q_sample(x0, t, eps)
        output = self._denoise(params, b, xt, t, train=True, rngs={'dropout': dropout_key})

        terms = self.process.losses(output, x0, xt, t, eps)
        if self.fields.loss == 'mse':
            parts = {'mse': terms['mse']}
        else:
            logits, _ = self.process.split(output)
            if self.fields.target == 'posterior':
                candidates = self.process.one_hot(raters)
                weights = self.process.candidate_weights(self.process.to_range(candidates), present, xt, t)
                y = jnp.einsum('bm,bmhwc->bhwc', weights, candidates)
            if self.process.num_channels == 1:
                pixel_loss = optax.sigmoid_binary_cross_entropy(logits, y)[..., 0]
            else:
                pixel_loss = optax.softmax_cross_entropy(logits, y)
            parts = {'cross_entropy': pixel_loss.mean((1, 2))}
        if self.process.learned_variance:
            parts['vlb'] = self.fields.vlb_weight * terms['vlb']
        if self.fields.encoders != 'none':
            parts['kl'] = self.fields.kl_weight * self._ambiguity_kl(params, b, x0, xt, t, output)
        return sum(parts.values()), parts, state

    def _ambiguity_kl(self, params: Params, b: Array, x0: Array, xt: Array, t: Array, output: Array) -> Array:
        """KL(AMN || ACN) [B] on the inputs that the config names."""
        if self.fields.encoders == 'frozen':
            params = self.frozen
        if self.fields.acn_input == 'eps':
            prediction = self.process.noise_hat(output, xt, t)
        else:
            prediction = self.process.p_mean_variance(output, xt, t, clip=False)['mean']
        mask = x0 if self.fields.amn_input == 'x0' else xt
        amn = self.encoder.apply({'params': params['amn']}, b, mask)
        acn = self.encoder.apply({'params': params['acn']}, b, prediction)
        return gaussian_encoder.axis_aligned_kl(*amn, *acn)

    def bytes_per_mask(self, image_size: int) -> int:
        """The activations of one evaluation."""
        return self.unet.activation_bytes(image_size, image_size)

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Samples N masks for each image."""
        del state
        shape = (*images.shape[1:3], self.process.num_channels)
        b, rows = self._scaled(images), masks.mask_keys(keys, num_samples)
        # Of a row's streams 0 .. T - 1 are the sampler's steps.
        k = self._symmetries(rows, self.process.num_steps + 2)
        noise = functools.partial(starts.noise, self.sampling.noise, keys, rows, shape=shape)
        x = noise(streams.STARTS, self.process.num_steps)
        process, steps = self.process, self.sampling.num_steps
        if self.sampling.start == 'level_set':
            first = self._level_sets(params, b, k, x, keys, parts)
            if steps == 1:
                return first
            steps -= 1
            process = process.until(max(round(self.sampling.level_time * process.num_steps), steps))
            x = self._noised(process, first, k, noise(streams.RESTARTS, self.process.num_steps + 1))
        process = process.respace(steps)

        def sample(b, k, x, row):
            turned = dihedral.turn(b, k)
            arguments = (process, lambda xt, t: self._denoise(params, turned, xt, t), x, row, self.sampling.clip)
            if self.sampling.sampler == 'ddim':
                x0 = samplers.ddim(*arguments, self.sampling.eta)
            else:
                x0 = samplers.ancestral(*arguments)
            return dihedral.turn_back(process.to_mask(x0), k)

        return masks.by_parts(sample, parts, b, k, x, rows)

    def _symmetries(self, rows: Array, stream: int) -> Array:
        """The symmetry [B, N] of each mask; rows: their keys, of which a random one takes this stream."""
        if not self.sampling.symmetries:
            return jnp.zeros(rows.shape, int)
        if self.sampling.noise == 'stratified':
            return jnp.broadcast_to(dihedral.cycle(rows.shape[1], self.upright), rows.shape)
        streams_of = jax.vmap(jax.vmap(lambda row: jax.random.fold_in(row, stream)))
        return dihedral.draw(streams_of(rows), self.upright)

    def _level_sets(self, params: Params, b: Array, k: Array, x: Array, keys: Array, parts: int) -> Array:
        """First masks [B, N, H, W] from one evaluation at t = T - 1 of noise x [B, N, H, W, C]."""

        def share(b, k, x):
            turned = dihedral.turn(b, k)
            last = jnp.full(len(x), self.process.num_steps - 1)
            return dihedral.turn_back(self.process.share(watched(self._denoise(params, turned, x, last))), k)

        number = k.shape[1]
        if self._share_of_image:
            turns = dihedral.count(self.upright)
            k = jnp.broadcast_to(dihedral.cycle(turns, self.upright), (len(b), turns))
            fixed = jax.random.normal(jax.random.key(streams.SHARE), (turns, *x.shape[2:]))
            x = jnp.broadcast_to(fixed, (len(b), *fixed.shape))
            at_once = max(number // parts, 1)
            parts = next(p for p in range(1, turns + 1) if turns % p == 0 and turns // p <= at_once)
        p = masks.by_parts(share, parts, b, k, x)
        if self.sampling.symmetries:
            p = jnp.broadcast_to(p.mean(1, keepdims=True), (len(b), number, *p.shape[2:]))
        levels = starts.levels(self.sampling.noise, keys, streams.LEVELS, number)
        return starts.level_set(p, levels)

    def _noised(self, process: GaussianDiffusion, first: Array, k: Array, noise: Array) -> Array:
        """First masks [B, N, H, W], turned as their images are, at the last step of `process`: [B, N, H, W, C]."""
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        x0 = dihedral.turn(flat(process.to_range(process.one_hot(first))), flat(k))
        last = jnp.full(len(x0), process.num_steps - 1)
        return process.q_sample(x0, last, flat(noise)).reshape(noise.shape)


def _init_encoders(encoder: gaussian_encoder.GaussianEncoder, key: Array, b: Array, channels: int) -> Params:
    """Parameters of AMN and ACN for images b [B, H, W, C] and masks of so many channels."""
    mask = jnp.zeros((*b.shape[:3], channels))
    init = lambda k: encoder.init(k, b, mask)['params']
    return {name: init(k) for name, k in zip(('amn', 'acn'), jax.random.split(key), strict=True)}


@functools.cache
def _draw_frozen(encoder: gaussian_encoder.GaussianEncoder, seed: int, image_channels: int, channels: int) -> Params:
    b = jnp.zeros((1, 8, 8, image_channels))
    init = jax.jit(lambda seed: _init_encoders(encoder, jax.random.key(seed), b, channels))
    return jax.tree.map(np.asarray, init(seed))


def create(config: ml_collections.ConfigDict, place=None) -> CIMD:
    """From the config's groups model, diffusion, method and sample.

    Raises:
      UserError: a field's value is unknown, or two fields contradict each other.
    """
    own, diffusion, sample = fields.read(Fields, config.method), config.diffusion, config.sample
    _check_together(own, diffusion, sample)
    channels = 1 if config.data.num_classes == 1 else config.data.num_classes + 1
    out_channels = channels * (2 if diffusion.learned_variance else 1)
    denoiser = unet.from_config(config.model, config.data.image_size, out_channels, place)
    try:
        process = GaussianDiffusion.create(
            diffusion.num_steps,
            diffusion.schedule,
            diffusion.learned_variance,
            diffusion.prediction,
            tuple(diffusion.mask_range),
            channels,
        )
    except ValueError as error:
        raise UserError(f'config.diffusion: {error}') from error
    encoder = gaussian_encoder.GaussianEncoder(own.latent_dim)
    frozen = None
    if own.encoders == 'frozen':
        frozen = _draw_frozen(encoder, own.encoder_seed, config.data.channels, channels)
    sampling = Sampling(**{field.name: sample[field.name] for field in dataclasses.fields(Sampling)})
    return CIMD(denoiser, encoder, process, own, sampling, config.data.upright, frozen)


def _check_together(own: Fields, diffusion: ml_collections.ConfigDict, sample: ml_collections.ConfigDict) -> None:
    """Raises UserError where one field needs another."""
    if own.loss == 'cross_entropy' and diffusion.prediction != 'x0':
        raise UserError("config.method.loss='cross_entropy' needs config.diffusion.prediction='x0'")
    if own.target == 'posterior' and own.loss != 'cross_entropy':
        raise UserError("config.method.target='posterior' needs config.method.loss='cross_entropy'")
    if bool(own.vlb_weight) != diffusion.learned_variance:
        raise UserError(
            'config.method.vlb_weight trains the learned variance: set it above 0 together with '
            'config.diffusion.learned_variance=True, or to 0 with False'
        )
    if sample.start == 'level_set' and diffusion.prediction != 'x0':
        raise UserError("config.sample.start='level_set' needs config.diffusion.prediction='x0'")
    if not 1 <= sample.num_steps <= diffusion.num_steps:
        raise UserError(
            f'config.sample.num_steps={sample.num_steps} must lie in 1 .. '
            f'{diffusion.num_steps} (config.diffusion.num_steps)'
        )
