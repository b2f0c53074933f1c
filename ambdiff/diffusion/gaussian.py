"""Gaussian diffusion over discrete steps t = 0 .. T-1 (Ho et al. 2020; Nichol & Dhariwal 2021; CIMD section 3).

    q(x_t | x_0)          = N(sqrt(abar_t) x_0, 1 - abar_t)                                              (1)
    q(x_{t-1} | x_t, x_0) = N(mu~_t, beta~_t),  beta~_t = beta_t (1 - abar_{t-1}) / (1 - abar_t)         (2)
        mu~_t = beta_t sqrt(abar_{t-1}) / (1 - abar_t) x_0 + (1 - abar_{t-1}) sqrt(alpha_t) / (1 - abar_t) x_t
    p(x_{t-1} | x_t)      = N(mu~_t(x0_hat, x_t), Sigma)                                                 (3)
        x0_hat = x_t / sqrt(abar_t) - sqrt(1 / abar_t - 1) eps_hat            prediction 'eps'
        x0_hat = low + (high - low) sigmoid(logit)                            prediction 'x0'
        log Sigma = w log beta_t + (1 - w) log beta~_t,  w = (v + 1) / 2      learned variance range
        Sigma = beta~_t                                                       otherwise
    L_vlb,t = KL(q(x_{t-1} | x_t, x_0) || p), and at t = 0 the negative log-likelihood of the 8-bit x_0  (4)
        under the Gaussian discretised to bins of width 2 / 255 on [-1, 1]; both in bits per pixel.

Tables are float64 NumPy; what is computed from them is float32. Nothing here knows a network.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from ambdiff.diffusion import schedules

Array = jax.Array


def normal_kl(mean1: Array, log_variance1: Array, mean2: Array, log_variance2: Array) -> Array:
    """KL(N1 || N2) for each element, in nats; arguments of one shape."""
    # expm1: near its minimum the divergence is far below the 1 that the textbook form subtracts.
    gap = log_variance1 - log_variance2
    return 0.5 * (jnp.expm1(gap) - gap + jnp.square(mean1 - mean2) * jnp.exp(-log_variance2))


def discretized_gaussian_log_likelihood(x: Array, mean: Array, log_scale: Array) -> Array:
    """log p of 8-bit data under a Gaussian over bins of 2 / 255, the outer ones open, in nats.

    The released code's tanh approximation of Phi (error below 3e-4) is sigmoid(2 u(z)) with
    u(z) = sqrt(2 / pi) (z + 0.044715 z^3); the mass of a bin is then a product of sigmoids, which in
    float32 keeps the digits that a difference of two numbers near 1 loses. Floor 1e-12, as there.

    Args:
      x: data in [-1, 1].
      mean: of the Gaussian, shape of x.
      log_scale: log of its standard deviation, shape of x.

    Returns:
      log probability, shape of x.
    """
    inverse = jnp.exp(-log_scale)
    upper, lower = (x - mean + 1 / 255) * inverse, (x - mean - 1 / 255) * inverse
    factor = 2 * math.sqrt(2 / math.pi)
    logit_upper = factor * (upper + 0.044715 * upper**3)
    logit_lower = factor * (lower + 0.044715 * lower**3)
    cubes = upper**2 + upper * lower + lower**2  # (upper^3 - lower^3) / (upper - lower)
    width = factor * (2 / 255) * inverse * (1 + 0.044715 * cubes)  # logit_upper - logit_lower
    below = jax.nn.log_sigmoid(logit_upper)
    above = jax.nn.log_sigmoid(-logit_lower)
    within = below + above + jnp.log(-jnp.expm1(-width))
    log_p = jnp.where(x < -0.999, below, jnp.where(x > 0.999, above, within))
    return jnp.maximum(log_p, math.log(1e-12))


def _pixel_mean(x: Array) -> Array:
    return x.mean(axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianDiffusion:
    """The process; build it with `create`.

    Attributes:
      alphas_cumprod: [K] float64, abar of each step kept.
      timesteps: [K] int, the step of the full schedule that each stands for: what the network is told.
      learned_variance: the network's second half of channels is v of equation (3).
      prediction: 'eps' or 'x0' (a logit).
      mask_range: (low, high), the values of background and foreground.
      num_channels: C of x: 1 for foreground or not; K + 1 for a one-hot map of background and K classes.
    """

    alphas_cumprod: np.ndarray
    timesteps: np.ndarray
    learned_variance: bool = True
    prediction: str = 'eps'
    mask_range: tuple[float, float] = (0.0, 1.0)
    num_channels: int = 1

    @classmethod
    def create(
        cls,
        num_steps: int = 1000,
        schedule: str = 'linear',
        learned_variance: bool = True,
        prediction: str = 'eps',
        mask_range: tuple[float, float] = (0.0, 1.0),
        num_channels: int = 1,
    ) -> 'GaussianDiffusion':
        """Makes the process of `num_steps` steps; schedule names are in `schedules`.

        Raises:
          ValueError: unknown schedule or prediction, no step, or an empty mask range.
        """
        if prediction not in ('eps', 'x0'):
            raise ValueError(f"unknown prediction {prediction!r}; known: 'eps', 'x0'")
        low, high = mask_range
        if not low < high:
            raise ValueError(f'mask_range must be (low, high) with low < high, got {mask_range}')
        table = schedules.alphas_cumprod(schedule, num_steps)
        return cls(table, np.arange(num_steps), learned_variance, prediction, (low, high), num_channels)

    @property
    def num_steps(self) -> int:
        """Number of steps of this process."""
        return len(self.alphas_cumprod)

    @property
    def alphas_cumprod_prev(self) -> np.ndarray:
        """abar_{t-1}, with abar_{-1} = 1."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @property
    def betas(self) -> np.ndarray:
        """beta_t = 1 - abar_t / abar_{t-1}."""
        return 1 - self.alphas_cumprod / self.alphas_cumprod_prev

    @property
    def posterior_variance(self) -> np.ndarray:
        """beta~_t of equation (2); 0 at t = 0."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def posterior_log_variance(self) -> np.ndarray:
        """log beta~_t, with the value of t = 1 at t = 0, where beta~ is 0."""
        variance = self.posterior_variance
        if self.num_steps == 1:
            return np.log(self.betas)
        return np.log(np.append(variance[1], variance[1:]))

    def until(self, num_steps: int) -> 'GaussianDiffusion':
        """The process of the first `num_steps` steps only: it starts from less noise.

        Raises:
          ValueError: num_steps is not in 1 .. T.
        """
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f'a process of {self.num_steps} steps has no first {num_steps}')
        table, steps = self.alphas_cumprod[:num_steps], self.timesteps[:num_steps]
        return dataclasses.replace(self, alphas_cumprod=table, timesteps=steps)

    def respace(self, num_steps: int) -> 'GaussianDiffusion':
        """The process seen at `num_steps` evenly spaced steps, the last of them T - 1.

        Raises:
          ValueError: num_steps is not in 1 .. T.
        """
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f'sampling takes 1 to {self.num_steps} steps, got {num_steps}')
        if num_steps == self.num_steps:
            return self
        ends = np.arange(1, num_steps + 1) * self.num_steps / num_steps
        keep = np.round(ends).astype(int) - 1
        return dataclasses.replace(self, alphas_cumprod=self.alphas_cumprod[keep], timesteps=self.timesteps[keep])

    def _at(self, table: np.ndarray, t: Array) -> Array:
        """table[t] as float32 [B, 1, 1, 1]."""
        return jnp.asarray(table, jnp.float32)[t][:, None, None, None]

    def one_hot(self, mask: Array) -> Array:
        """Masks [..., H, W] of 0 and 1, or labels 0 .. K -> [..., H, W, C] float32 of 0 and 1."""
        if self.num_channels == 1:
            return mask[..., None].astype(jnp.float32)
        return jax.nn.one_hot(mask, self.num_channels)

    def to_range(self, one_hot: Array) -> Array:
        """Shares in [0, 1] -> [low, high]."""
        low, high = self.mask_range
        return low + (high - low) * one_hot

    def to_mask(self, x: Array) -> Array:
        """x [..., H, W, C] -> [..., H, W]: bool, nearer `high` than `low`; C > 1: the largest channel's label."""
        if self.num_channels == 1:
            return x[..., 0] > sum(self.mask_range) / 2
        return jnp.argmax(x, axis=-1).astype(jnp.uint8)

    def share(self, network_output: Array) -> Array:
        """Prediction 'x0': the probability of each channel [B, H, W, C], by sigmoid or (C > 1) softmax."""
        logits, _ = self.split(network_output)
        return jax.nn.sigmoid(logits) if self.num_channels == 1 else jax.nn.softmax(logits, axis=-1)

    def draw_t(self, key: Array, batch_size: int, stratified: bool) -> Array:
        """Steps [B] to train on: independent, or one in each of B equal strata (Kingma et al. 2021, appendix I.1)."""
        if not stratified:
            return jax.random.randint(key, (batch_size,), 0, self.num_steps)
        u = (jnp.arange(batch_size) + jax.random.uniform(key)) / batch_size
        return jnp.minimum((u * self.num_steps).astype(int), self.num_steps - 1)

    def q_sample(self, x0: Array, t: Array, noise: Array) -> Array:
        """x_t of equation (1): x0 and noise [B, H, W, 1], t [B] -> [B, H, W, 1]."""
        abar = self.alphas_cumprod
        return self._at(np.sqrt(abar), t) * x0 + self._at(np.sqrt(1 - abar), t) * noise

    def posterior(self, x0: Array, xt: Array, t: Array) -> tuple[Array, Array, Array]:
        """Equation (2): (mean, variance, log variance), each [B, H, W, 1]."""
        abar, prev, betas = self.alphas_cumprod, self.alphas_cumprod_prev, self.betas
        coef1 = self._at(betas * np.sqrt(prev) / (1 - abar), t)
        coef2 = self._at((1 - prev) * np.sqrt(1 - betas) / (1 - abar), t)
        mean = coef1 * x0 + coef2 * xt
        variance = jnp.broadcast_to(self._at(self.posterior_variance, t), mean.shape)
        log_variance = jnp.broadcast_to(self._at(self.posterior_log_variance, t), mean.shape)
        return mean, variance, log_variance

    def candidate_weights(self, candidates: Array, present: Array, xt: Array, t: Array) -> Array:
        """P(x_0 = candidate m | x_t) [B, M]: x_0 is one of the candidates [B, M, H, W, 1] that are `present` [B, M].

        By equation (1) and Bayes, all being equally likely before, it is proportional to
        exp(-|x_t - sqrt(abar_t) x_0^m|^2 / (2 (1 - abar_t))).
        """
        abar = self.alphas_cumprod
        mean = self._at(np.sqrt(abar), t)[:, None] * candidates
        distance = jnp.square(xt[:, None] - mean).sum((2, 3, 4))
        log_weight = -distance * self._at(0.5 / (1 - abar), t)[:, :, 0, 0]
        return jax.nn.softmax(jnp.where(present, log_weight, -jnp.inf), axis=1)

    def split(self, network_output: Array) -> tuple[Array, Array | None]:
        """The network's output [B, H, W, C or 2 C] -> (eps-hat or logit, v or None).

        Raises:
          ValueError: the number of channels does not fit `learned_variance`.
        """
        channels = self.num_channels * (2 if self.learned_variance else 1)
        if network_output.shape[-1] != channels:
            raise ValueError(
                f'learned_variance={self.learned_variance} needs {channels} output channels, '
                f'got {network_output.shape[-1]}'
            )
        v = network_output[..., self.num_channels :] if self.learned_variance else None
        return network_output[..., : self.num_channels], v

    def pred_x0(self, network_output: Array, xt: Array, t: Array, clip: bool) -> Array:
        """x0_hat of equation (3), clipped to [-1, 1] if asked: [B, H, W, 1]."""
        prediction, _ = self.split(network_output)
        if self.prediction == 'x0':
            return self.to_range(self.share(network_output))
        abar = self.alphas_cumprod
        x0 = self._at(np.sqrt(1 / abar), t) * xt - self._at(np.sqrt(1 / abar - 1), t) * prediction
        return jnp.clip(x0, -1, 1) if clip else x0

    def pred_eps(self, x0: Array, xt: Array, t: Array) -> Array:
        """The noise that leads from x0 to xt, the inverse of equation (1): [B, H, W, 1]."""
        abar = self.alphas_cumprod
        return (self._at(np.sqrt(1 / abar), t) * xt - x0) / self._at(np.sqrt(1 / abar - 1), t)

    def noise_hat(self, network_output: Array, xt: Array, t: Array) -> Array:
        """The noise that the network's output stands for: [B, H, W, 1]."""
        prediction, _ = self.split(network_output)
        if self.prediction == 'eps':
            return prediction
        return self.pred_eps(self.pred_x0(network_output, xt, t, clip=False), xt, t)

    def p_mean_variance(self, network_output: Array, xt: Array, t: Array, clip: bool) -> dict[str, Array]:
        """Equation (3): dict(mean, variance, log_variance, pred_x0), each [B, H, W, 1]."""
        _, v = self.split(network_output)
        x0 = self.pred_x0(network_output, xt, t, clip)
        mean, variance, log_variance = self.posterior(x0, xt, t)
        if v is not None:
            w = (v + 1) / 2
            log_variance = w * self._at(np.log(self.betas), t) + (1 - w) * log_variance
            variance = jnp.exp(log_variance)
        return {'mean': mean, 'variance': variance, 'log_variance': log_variance, 'pred_x0': x0}

    def ddpm_step(self, network_output: Array, xt: Array, t: Array, noise: Array, clip: bool) -> Array:
        """One ancestral step: a draw from equation (3), its mean at t = 0. All [B, H, W, 1]."""
        p = self.p_mean_variance(network_output, xt, t, clip)
        noisy = (t > 0).astype(jnp.float32)[:, None, None, None]
        return p['mean'] + noisy * jnp.exp(0.5 * p['log_variance']) * noise

    def ddim_step(
        self,
        network_output: Array,
        xt: Array,
        t: Array,
        t_prev: Array,
        noise: Array,
        eta: float,
        clip: bool,
    ) -> Array:
        """One step t -> t_prev of DDIM (Song et al. 2021, equation 12); t_prev = -1 is the clean end.

        sigma = eta sqrt((1 - abar_prev) / (1 - abar_t)) sqrt(1 - abar_t / abar_prev). Arrays [B, H, W, 1], steps [B].
        """
        x0 = self.pred_x0(network_output, xt, t, clip)
        eps = self.pred_eps(x0, xt, t)
        # 1 - abar is taken in float32, as the released code does: at t = 1 its rounding is 2e-4 of
        # the direction, more than the tolerance to which the steps of the two are held together.
        abar = self._at(self.alphas_cumprod, t)
        prev = self._at(np.append(1.0, self.alphas_cumprod), t_prev + 1)
        sigma = eta * jnp.sqrt((1 - prev) / (1 - abar)) * jnp.sqrt(1 - abar / prev)
        direction = jnp.sqrt(jnp.maximum(1 - prev - sigma**2, 0.0))
        return jnp.sqrt(prev) * x0 + direction * eps + sigma * noise

    def losses(self, network_output: Array, x0: Array, xt: Array, t: Array, noise: Array) -> dict[str, Array]:
        """Per-example losses [B]: `mse` of the noise and `vlb` of equation (4), in bits per pixel.

        The mean of p is frozen inside vlb (Nichol & Dhariwal's hybrid loss): it trains v alone.
        """
        prediction, v = self.split(network_output)
        frozen = jax.lax.stop_gradient(prediction)
        if v is not None:
            frozen = jnp.concatenate([frozen, v], axis=-1)
        p = self.p_mean_variance(frozen, xt, t, clip=False)
        mean, _, log_variance = self.posterior(x0, xt, t)
        kl = normal_kl(mean, log_variance, p['mean'], p['log_variance'])
        nll = -discretized_gaussian_log_likelihood(x0, p['mean'], 0.5 * p['log_variance'])
        vlb = jnp.where(t == 0, _pixel_mean(nll), _pixel_mean(kl)) / math.log(2)
        eps = self.noise_hat(network_output, xt, t)
        return {'mse': _pixel_mean(jnp.square(noise - eps)), 'vlb': vlb}
