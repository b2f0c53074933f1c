"""CIMD: collectively intelligent medical diffusion (Rahman et al., CVPR 2023, arXiv 2304.04745).

One diffusion model of ONE rater's mask x_0 given the image b; a rater is drawn anew for every example and step, so that
the model's samples follow the distribution of the raters. Loss of an example (paper, section 3.3):

    L = L_0 + w_vlb L_vlb + beta KL( AMN(b, mask) || ACN(b, prediction) )

    L_0 = mean (eps - eps_hat)^2                     loss 'mse', the paper's
    L_0 = mean cross-entropy(x_0, sigmoid(logit))    loss 'cross_entropy': masks are binary, and an error in
                                                     eps_hat's mean is a huge offset of x0_hat at large t

Target 'posterior' puts, for x_0 in the cross-entropy, its expectation given x_t over the image's raters (weights
P(rater | x_t), `GaussianDiffusion.candidate_weights`). The minimiser stays, since the cross-entropy is linear in the
target; the gradient loses the chance of the draw where x_t does not tell the raters apart (Xu et al. 2023, arXiv
2302.00670).

Sampling runs the denoiser alone, from N starts an image. A start is standard normal; with noise 'stratified' the N
starts of one image are a Latin hypercube sample in the cosine basis: each start is still exactly N(0, I), but together
they cover every direction evenly (McKay et al. 1979), so that N masks show the shares of the answers with less chance.
So are the levels of a level set and the noise that it goes on from.

Start 'level_set' spends the first evaluation on the share p of raters that mark each pixel and goes on from the noised
set {p > level}, level ~ U(0, 1) (`diffusion/samplers.py`): with few steps it keeps the shares of rare answers, above
all of the empty one, that large steps from pure noise lose. With symmetries, mask n of an image is drawn from the
image under symmetry n mod 8 of the square, and p is the mean over the N evaluations, turned back: what a network's
answer owes to the image's orientation averages out, at no cost.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from ambdiff import dihedral
from ambdiff.diffusion import samplers
from ambdiff.diffusion.gaussian import GaussianDiffusion
from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.models import gaussian_encoder
from ambdiff.models.unet import UNet

Array = jax.Array
Params = Any


def _init_encoders(encoder: gaussian_encoder.GaussianEncoder, key: Array, images: Array, channels: int) -> Params:
    """Parameters of AMN and ACN for images [B, H, W, C] and masks of so many channels."""
    mask = jnp.zeros((*images.shape[:3], channels))
    init = lambda k: encoder.init(k, images, mask)['params']
    return {name: init(k) for name, k in zip(('amn', 'acn'), jax.random.split(key), strict=True)}


@dataclasses.dataclass(frozen=True, eq=False)
class CIMD:
    """The method; build it with `create`.

    Images are [B, H, W, C] in [0, 1], masks [B, M, H, W] of 0 and 1; with data.num_classes = K > 1 labels 0 .. K, which
    the process sees as K + 1 one-hot channels.
    """

    unet: UNet
    encoder: gaussian_encoder.GaussianEncoder
    diffusion: GaussianDiffusion
    method: ml_collections.ConfigDict
    sampling: ml_collections.ConfigDict
    upright: bool  # images have a top (data.upright)
    frozen: Params  # AMN and ACN if they stay as drawn: constants of the loss

    @classmethod
    def create(cls, config: ml_collections.ConfigDict, place=None) -> 'CIMD':
        """From the config's groups model, diffusion, method and sample.

        Raises:
          UserError: a field's value is unknown, or two fields contradict each other.
        """
        model, diffusion = config.model, config.diffusion
        channels = 1 if config.data.num_classes == 1 else config.data.num_classes + 1
        unet = UNet(
            model_channels=model.channels,
            out_channels=channels * (2 if diffusion.learned_variance else 1),
            num_res_blocks=model.num_res_blocks,
            attention_resolutions=tuple(model.attention_resolutions),
            channel_mult=tuple(model.channel_mult),
            num_heads=model.num_heads,
            num_head_channels=model.num_head_channels,
            num_heads_upsample=model.num_heads_upsample,
            use_new_attention_order=model.use_new_attention_order,
            use_scale_shift_norm=model.use_scale_shift_norm,
            resblock_updown=model.resblock_updown,
            conv_resample=model.conv_resample,
            dropout=model.dropout,
            num_groups=model.num_groups,
            patch_size=model.patch_size,
            remat=model.remat,
            dtype=jnp.dtype(model.dtype),
            place=place,
        )
        if config.data.image_size % unet.stride:
            raise UserError(
                f'config.data.image_size={config.data.image_size} is not a multiple of {unet.stride}, '
                "the U-Net's down-sampling (model.patch_size and model.channel_mult)"
            )
        for mult in model.channel_mult:
            if model.channels * mult % model.num_groups:
                raise UserError(
                    f'config.model.num_groups={model.num_groups} does not divide the '
                    f'{model.channels * mult} channels of a level (model.channels x channel_mult)'
                )
            heads = (model.num_heads, model.num_heads_upsample)
            if model.num_head_channels > 0:
                heads = (model.num_head_channels,)
            if any(h > 0 and int(model.channels * mult) % h for h in heads):
                raise UserError(
                    f'the {int(model.channels * mult)} channels of a level (model.channels x channel_mult) do not '
                    'divide into the attention heads of config.model.num_heads, num_heads_upsample or num_head_channels'
                )
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
        encoder = gaussian_encoder.GaussianEncoder(config.method.latent_dim)
        frozen = None
        if config.method.encoders == 'frozen':
            image = jnp.zeros((1, 8, 8, config.data.channels))
            draw = jax.jit(lambda seed: _init_encoders(encoder, jax.random.key(seed), image, channels))
            frozen = jax.tree.map(np.asarray, draw(config.method.encoder_seed))
        return cls(unet, encoder, process, config.method, config.sample, config.data.upright, frozen)

    def _images(self, images: Array) -> Array:
        low, high = self.method.image_range
        return low + (high - low) * images

    def _denoise(self, params: Params, images: Array, xt: Array, t: Array, **kwargs) -> Array:
        stack = [images] * self.method.image_repeats + [xt]
        return self.unet.apply({'params': params['unet']}, jnp.concatenate(stack, -1), t, **kwargs)

    def init(self, key: Array, batch: dict[str, Array]) -> Params:
        """Parameters for batches like `batch` (only the image's shape is used)."""
        unet_key, encoder_key = jax.random.split(key)
        images = jnp.zeros_like(batch['image'][:1])
        channels = images.shape[-1] * self.method.image_repeats + self.diffusion.num_channels
        x = jnp.zeros((*images.shape[:3], channels))
        params = {'unet': self.unet.init(unet_key, x, jnp.zeros((1,), jnp.int32))['params']}
        if self.method.encoders == 'trained':
            params |= _init_encoders(self.encoder, encoder_key, images, self.diffusion.num_channels)
        return params

    def _draw_t(self, key: Array, batch_size: int) -> Array:
        """Steps [B]: independent, or one in each of B equal strata (Kingma et al. 2021, appendix I.1)."""
        if self.method.time_sampling == 'uniform':
            return jax.random.randint(key, (batch_size,), 0, self.diffusion.num_steps)
        u = (jnp.arange(batch_size) + jax.random.uniform(key)) / batch_size
        return jnp.minimum((u * self.diffusion.num_steps).astype(int), self.diffusion.num_steps - 1)

    def loss(self, params: Params, batch: dict[str, Array], key: Array) -> tuple[Array, dict[str, Array]]:
        """Loss [B] and its parts, each [B].

        Args:
          params: as from `init`.
          batch: image [B, H, W, C] in [0, 1], masks [B, M, H, W] uint8, present [B, M] bool.
          key: what is random here (rater, t, noise, dropout) follows from it.
        """
        rater_key, t_key, noise_key, dropout_key = jax.random.split(key, 4)
        images, masks, present = self._images(batch['image']), batch['masks'], batch['present']
        size = len(masks)
        # The u-th of the raters who are there.
        u = jax.random.randint(rater_key, (size,), 0, present.sum(1))
        rater = jnp.take_along_axis(jnp.argsort(~present, axis=1), u[:, None], axis=1)[:, 0]
        mask = jnp.take_along_axis(masks, rater[:, None, None, None], axis=1)[:, 0]
        mask = self.diffusion.one_hot(mask)
        x0 = self.diffusion.to_range(mask)
        t = self._draw_t(t_key, size)
        noise = jax.random.normal(noise_key, x0.shape)
        xt = self.diffusion.q_sample(x0, t, noise)
        rngs = {'dropout': dropout_key}
        output = self._denoise(params, images, xt, t, train=True, rngs=rngs)

        terms = self.diffusion.losses(output, x0, xt, t, noise)
        if self.method.loss == 'mse':
            parts = {'mse': terms['mse']}
        else:
            logits, _ = self.diffusion.split(output)
            if self.method.target == 'posterior':
                candidates = self.diffusion.one_hot(masks)
                weights = self.diffusion.candidate_weights(self.diffusion.to_range(candidates), present, xt, t)
                mask = jnp.einsum('bm,bmhwc->bhwc', weights, candidates)
            if self.diffusion.num_channels == 1:
                pixel_loss = optax.sigmoid_binary_cross_entropy(logits, mask)[..., 0]
            else:
                pixel_loss = optax.softmax_cross_entropy(logits, mask)
            parts = {'cross_entropy': pixel_loss.mean((1, 2))}
        if self.diffusion.learned_variance:
            parts['vlb'] = self.method.vlb_weight * terms['vlb']
        if self.method.encoders != 'none':
            kl = self._ambiguity_kl(params, images, x0, xt, t, output)
            parts['kl'] = self.method.kl_weight * kl
        return sum(parts.values()), parts

    def _ambiguity_kl(self, params: Params, images, x0, xt, t, output) -> Array:
        """KL(AMN || ACN) [B] on the inputs that the config names."""
        if self.method.encoders == 'frozen':
            params = self.frozen
        if self.method.acn_input == 'eps':
            prediction = self.diffusion.noise_hat(output, xt, t)
        else:
            prediction = self.diffusion.p_mean_variance(output, xt, t, clip=False)['mean']
        mask = x0 if self.method.amn_input == 'x0' else xt
        amn = self.encoder.apply({'params': params['amn']}, images, mask)
        acn = self.encoder.apply({'params': params['acn']}, images, prediction)
        return gaussian_encoder.kl_divergence(*amn, *acn)

    def bytes_per_mask(self, image_size: int) -> int:
        """Device memory that sampling one mask takes, for choosing chunks; an estimate from above."""
        return self.unet.activation_bytes(image_size, image_size)

    def turns(self, num_samples: int) -> Array:
        """The symmetry [N] that each mask of an image is drawn under; of images with a top only the mirror."""
        if not self.sampling.symmetries:
            return jnp.zeros(num_samples, int)
        return jnp.arange(num_samples) % 2 * 2 if self.upright else jnp.arange(num_samples) % 8

    def sample(self, params: Params, images: Array, keys: Array, num_samples: int, parts: int = 1) -> Array:
        """Draws N masks for each image.

        Args:
          params: as from `init` (the EMA).
          images: [B, H, W, C] in [0, 1].
          keys: [B] one key an image: its masks depend on nothing else of the batch.
          num_samples: N.
          parts: take the N masks in this many equal parts, one after the other, to save memory.

        Returns:
          [B, N, H, W] bool, or uint8 labels where data.num_classes > 1.
        """
        batch, height, width, _ = images.shape
        shape = (height, width, self.diffusion.num_channels)
        process, steps = self.diffusion, self.sampling.num_steps
        from_level_set = self.sampling.start == 'level_set'
        if from_level_set:
            # One evaluation goes into the start; with no other left, the level set is the answer.
            steps = max(steps - 1, 1)
            process = process.until(max(round(self.sampling.level_time * process.num_steps), steps))
        process = process.respace(steps)
        fold = lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(num_samples))
        row_keys = jax.vmap(fold)(keys)
        noise_key, level_key, again_key = (lambda key, i=i: jax.random.fold_in(key, 2**31 - i) for i in (1, 2, 3))
        stratified = lambda key_of: jax.vmap(lambda k: samplers.stratified_noise(key_of(k), num_samples, shape))(keys)
        if self.sampling.noise == 'stratified':
            start = stratified(noise_key)
            levels = jax.vmap(lambda k: samplers.stratified_levels(level_key(k), num_samples))(keys)
        else:
            start = jax.vmap(lambda k: samplers.row_noise(k, self.diffusion.num_steps, shape))(row_keys)
            levels = jax.vmap(lambda k: jax.random.uniform(level_key(k), (num_samples,)))(keys)
        turns = jnp.broadcast_to(self.turns(num_samples), (batch, num_samples))

        def by_parts(draw, *arrays):
            """Maps draw over the parts; arrays are [B, N, ..], in each part [B * N / parts, ..]."""

            def one(part):
                rows = part[0].shape[1]
                turned = dihedral.turn(jnp.repeat(self._images(images), rows, axis=0), part[0].reshape(-1))
                denoise_fn = lambda xt, t: self._denoise(params, turned, xt, t)
                result = draw(denoise_fn, *(x.reshape(-1, *x.shape[2:]) for x in part))
                return result.reshape(batch, rows, *result.shape[1:])

            # [B, N, ..] -> [parts, B, N / parts, ..]: the image axis, which devices share, stays whole.
            divide = lambda x: jnp.moveaxis(x.reshape(batch, parts, -1, *x.shape[2:]), 1, 0)
            joined = jnp.moveaxis(jax.lax.map(one, tuple(map(divide, (turns, *arrays)))), 0, 1)
            return joined.reshape(batch, num_samples, *joined.shape[3:])

        def draw_share(denoise_fn, turn, x):
            last = jnp.full(x.shape[0], self.diffusion.num_steps - 1)
            return dihedral.turn_back(self.diffusion.share(watched(denoise_fn(x, last))), turn)

        def draw_mask(denoise_fn, turn, x, row):
            arguments = (process, denoise_fn, x, row, self.sampling.clip)
            if self.sampling.sampler == 'ddim':
                x = samplers.ddim(*arguments, self.sampling.eta)
            else:
                x = samplers.ancestral(*arguments)
            return dihedral.turn_back(self.diffusion.to_mask(x), turn)

        if from_level_set:
            share = by_parts(draw_share, start)
            if self.sampling.symmetries:
                share = jnp.broadcast_to(share.mean(1, keepdims=True), share.shape)
            masks = samplers.level_set(share, levels)
            if self.sampling.num_steps == 1:
                return masks
            rows = (batch * num_samples,)
            if self.sampling.noise == 'stratified':
                noise = stratified(again_key).reshape(*rows, *shape)
            else:
                noise = samplers.row_noise(row_keys.reshape(rows), self.diffusion.num_steps + 1, shape)
            last = jnp.full(rows, process.num_steps - 1)
            start = process.to_range(process.one_hot(masks)).reshape(*rows, *shape)
            start = dihedral.turn(start, turns.reshape(rows))
            start = process.q_sample(start, last, noise).reshape(batch, num_samples, *shape)
        return by_parts(draw_mask, start, row_keys)


create = CIMD.create
