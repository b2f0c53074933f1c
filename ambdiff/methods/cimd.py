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

Sampling runs the denoiser alone (`kit/reverse_process.py`).
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ambdiff.diffusion.gaussian import GaussianDiffusion
from ambdiff.errors import UserError
from ambdiff.methods.kit import cross_entropy, fields, masks, reverse_process
from ambdiff.methods.kit.contract import Method, Params, State
from ambdiff.methods.kit.fields import Between
from ambdiff.methods.kit.reverse_process import ReverseProcess
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


@dataclasses.dataclass(frozen=True, eq=False)
class CIMD(Method):
    """The method; build it with `create`.

    With data.num_classes = K > 1 masks are labels 0 .. K, which the process sees as K + 1 one-hot channels.
    """

    unet: unet.UNet
    encoder: gaussian_encoder.GaussianEncoder
    reverse: ReverseProcess
    fields: Fields
    frozen: Params  # AMN and ACN if they stay as initialised: constants of the loss

    architecture = ('model', 'diffusion', 'method.image_range', 'method.image_repeats')

    @property
    def process(self) -> GaussianDiffusion:
        """Of equation (1)."""
        return self.reverse.process

    @property
    def draws(self) -> Literal['independent', 'dependent']:
        """As the reverse process draws."""
        return self.reverse.draws

    @property
    def evaluations(self) -> float:
        """Of the reverse process."""
        return self.reverse.evaluations

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

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """Equation (2): the loss [B] and its terms."""
        rater_key, t_key, noise_key, dropout_key = jax.random.split(key, 4)
        b, raters, present = self._scaled(batch['image']), batch['masks'], batch['present']
        y = self.process.one_hot(masks.of_rater(raters, masks.draw_rater(rater_key, present)))
        x0 = self.process.to_range(y)
        t = self.process.draw_t(t_key, len(y), self.fields.time_sampling == 'stratified')
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
                pixel_loss = cross_entropy.sigmoid(logits, y)[..., 0]
            else:
                pixel_loss = cross_entropy.softmax(logits, y)
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
        denoise = functools.partial(self._denoise, params)
        return self.reverse.sample(denoise, self._scaled(images), keys, num_samples, parts)


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


def small(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Equation (4) with the posterior's target instead of (3) and of both KLs: it learns faster."""
    config.method.loss = 'cross_entropy'
    config.method.vlb_weight = 0.0
    config.method.target = 'posterior'
    config.method.time_sampling = 'stratified'
    config.method.image_range = (-1.0, 1.0)
    config.method.encoders = 'none'
    return config


def create(config: ml_collections.ConfigDict, place=None) -> CIMD:
    """From the config's groups model, diffusion, method and sample.

    Raises:
      UserError: a field's value is unknown, or two fields contradict each other.
    """
    own, diffusion = fields.read(Fields, config.method), config.diffusion
    if own.loss == 'cross_entropy' and diffusion.prediction != 'x0':
        raise UserError("config.method.loss='cross_entropy' needs config.diffusion.prediction='x0'")
    if own.target == 'posterior' and own.loss != 'cross_entropy':
        raise UserError("config.method.target='posterior' needs config.method.loss='cross_entropy'")
    if bool(own.vlb_weight) != diffusion.learned_variance:
        raise UserError(
            'config.method.vlb_weight trains the learned variance: set it above 0 together with '
            'config.diffusion.learned_variance=True, or to 0 with False'
        )
    reverse = reverse_process.from_config(config)
    channels = reverse.process.num_channels
    denoiser = unet.from_config(
        config.model, config.data.image_size, channels * (2 if diffusion.learned_variance else 1), place
    )
    encoder = gaussian_encoder.GaussianEncoder(own.latent_dim)
    frozen = None
    if own.encoders == 'frozen':
        frozen = _draw_frozen(encoder, own.encoder_seed, config.data.channels, channels)
    return CIMD(denoiser, encoder, reverse, own, frozen)
