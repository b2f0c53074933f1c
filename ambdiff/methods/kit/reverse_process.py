"""N masks of an image by a reverse process of Gaussian diffusion, for any denoiser of masks.

A mask starts from noise, or from a level set: the first evaluation is spent on the share p of raters that mark each
pixel, and the process goes on from the noised set {p > level} (`diffusion/starts.py`).

With symmetries, masks are sampled under the eight symmetries of the square and turned back, so that what a
network's answer owes to the image's orientation averages out. Noise 'stratified': the symmetries take turns over the N
masks, and p is the mean over their N first evaluations, at no cost. Noise 'independent': each has a random symmetry,
and p is the mean over all eight, each from one noise that never changes. So p is a function of the image, the N masks
are independent draws given it, whatever N is, and the image costs eight evaluations in the place of the masks' first.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import ml_collections

from ambdiff import dihedral, streams
from ambdiff.diffusion import samplers, starts
from ambdiff.diffusion.gaussian import GaussianDiffusion
from ambdiff.errors import UserError
from ambdiff.finite import watched
from ambdiff.methods.kit import masks

Array = jax.Array
# (images b [R, H, W, C], x_t [R, H, W, C], t [R]) -> what the network says
Denoise = Callable[[Array, Array, Array], Array]
# (images b, symmetries [R]) -> what the network takes of each image under its symmetry
Turn = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The fields of config.sample that a reverse process reads."""

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
class ReverseProcess:
    """How masks are sampled; build it with `from_config`."""

    process: GaussianDiffusion
    fields: Sampling
    upright: bool  # images have a top (data.upright)

    @property
    def draws(self) -> Literal['independent', 'dependent']:
        """Strata, and symmetries that take turns, tie the masks of an image together."""
        return 'dependent' if self.fields.noise == 'stratified' else 'independent'

    @property
    def _share_of_image(self) -> bool:
        """p is the image's, not the masks'."""
        s = self.fields
        return s.start == 'level_set' and s.symmetries and s.noise == 'independent'

    @property
    def evaluations(self) -> float:
        """The level set's evaluation is one of them; where it is the image's, the N masks share its cost."""
        if self._share_of_image:
            return self.fields.num_steps - 1 + dihedral.count(self.upright) / self.fields.num_samples
        return self.fields.num_steps

    def sample(
        self, denoise: Denoise, b: Array, keys: Array, num_samples: int, parts: int, turn: Turn = dihedral.turn
    ) -> Array:
        """Samples N masks [B, N, H, W] for each image.

        Args:
          denoise: the network, as of `Denoise`.
          b: images [B, H, W, C] as the network takes them.
          keys: [B], one an image.
          num_samples: N.
          parts: divides N; masks are taken in so many parts, one after the other.
          turn: of b, where that is not an image: a network's features [B, H, W, ...] of it in every orientation.
        """
        shape = (*b.shape[1:3], self.process.num_channels)
        rows = masks.mask_keys(keys, num_samples)
        # Of a row's streams 0 .. T - 1 are the sampler's steps.
        k = self._symmetries(rows, self.process.num_steps + 2)
        noise = functools.partial(starts.noise, self.fields.noise, keys, rows, shape=shape)
        x = noise(streams.STARTS, self.process.num_steps)
        process, steps = self.process, self.fields.num_steps
        if self.fields.start == 'level_set':
            first = self._level_sets(denoise, turn, b, k, x, keys, parts)
            if steps == 1:
                return first
            steps -= 1
            process = process.until(max(round(self.fields.level_time * process.num_steps), steps))
            x = self._noised(process, first, k, noise(streams.RESTARTS, self.process.num_steps + 1))
        process = process.respace(steps)

        def sample(b, k, x, row):
            turned = turn(b, k)
            arguments = (process, lambda xt, t: denoise(turned, xt, t), x, row, self.fields.clip)
            if self.fields.sampler == 'ddim':
                x0 = samplers.ddim(*arguments, self.fields.eta)
            else:
                x0 = samplers.ancestral(*arguments)
            return dihedral.turn_back(process.to_mask(x0), k)

        return masks.by_parts(sample, parts, b, k, x, rows)

    def _symmetries(self, rows: Array, stream: int) -> Array:
        """The symmetry [B, N] of each mask; rows: their keys, of which a random one takes this stream."""
        if not self.fields.symmetries:
            return jnp.zeros(rows.shape, int)
        if self.fields.noise == 'stratified':
            return jnp.broadcast_to(dihedral.cycle(rows.shape[1], self.upright), rows.shape)
        streams_of = jax.vmap(jax.vmap(lambda row: jax.random.fold_in(row, stream)))
        return dihedral.draw(streams_of(rows), self.upright)

    def _level_sets(self, denoise: Denoise, turn: Turn, b: Array, k: Array, x: Array, keys: Array, parts: int) -> Array:
        """First masks [B, N, H, W] from one evaluation at t = T - 1 of noise x [B, N, H, W, C]."""

        def share(b, k, x):
            turned = turn(b, k)
            last = jnp.full(len(x), self.process.num_steps - 1)
            return dihedral.turn_back(self.process.share(watched(denoise(turned, x, last))), k)

        number = k.shape[1]
        if self._share_of_image:
            turns = dihedral.count(self.upright)
            k = jnp.broadcast_to(dihedral.cycle(turns, self.upright), (len(b), turns))
            fixed = jax.random.normal(jax.random.key(streams.SHARE), (turns, *x.shape[2:]))
            x = jnp.broadcast_to(fixed, (len(b), *fixed.shape))
            at_once = max(number // parts, 1)
            parts = next(p for p in range(1, turns + 1) if turns % p == 0 and turns // p <= at_once)
        p = masks.by_parts(share, parts, b, k, x)
        if self.fields.symmetries:
            p = jnp.broadcast_to(p.mean(1, keepdims=True), (len(b), number, *p.shape[2:]))
        levels = starts.levels(self.fields.noise, keys, streams.LEVELS, number)
        return starts.level_set(p, levels)

    def _noised(self, process: GaussianDiffusion, first: Array, k: Array, noise: Array) -> Array:
        """First masks [B, N, H, W], turned as their images are, at the last step of `process`: [B, N, H, W, C]."""
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        x0 = dihedral.turn(flat(process.to_range(process.one_hot(first))), flat(k))
        last = jnp.full(len(x0), process.num_steps - 1)
        return process.q_sample(x0, last, flat(noise)).reshape(noise.shape)


def from_config(config: ml_collections.ConfigDict) -> ReverseProcess:
    """From the config's groups diffusion and sample.

    Raises:
      UserError: a field is unknown, or two fields contradict each other.
    """
    diffusion, sample, classes = config.diffusion, config.sample, config.data.num_classes
    if sample.start == 'level_set' and diffusion.prediction != 'x0':
        raise UserError("config.sample.start='level_set' needs config.diffusion.prediction='x0'")
    if not 1 <= sample.num_steps <= diffusion.num_steps:
        raise UserError(
            f'config.sample.num_steps={sample.num_steps} must lie in 1 .. '
            f'{diffusion.num_steps} (config.diffusion.num_steps)'
        )
    try:
        process = GaussianDiffusion.create(
            diffusion.num_steps,
            diffusion.schedule,
            diffusion.learned_variance,
            diffusion.prediction,
            tuple(diffusion.mask_range),
            1 if classes == 1 else classes + 1,
        )
    except ValueError as error:
        raise UserError(f'config.diffusion: {error}') from error
    fields = Sampling(**{field.name: sample[field.name] for field in dataclasses.fields(Sampling)})
    return ReverseProcess(process, fields, config.data.upright)
