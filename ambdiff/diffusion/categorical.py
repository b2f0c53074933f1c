"""Diffusion of labels: the process of CCDM (Zbinden, Doorenbos et al. 2023, arXiv 2303.08888; Hoogeboom et al. 2021).

A pixel of K classes keeps its label or takes any of the K evenly; x_t is one-hot, t = 0 (clean) .. T:

    q(x_t | x_0) = Cat( abar_t x_0 + (1 - abar_t) / K ),           abar_0 = 1                       (1)
    q(x_t | x_s) = Cat( a x_s + (1 - a) / K ),                     a = abar_t / abar_s,  s < t      (2)
    q(x_s | x_t, x_0)  proportional to  A_j B_j,   A = a x_t + (1 - a) / K,  B = abar_s x_0 + (1 - abar_s) / K   (3)
    p(x_s | x_t) = sum_k q(x_s | x_t, x_0 = k) p_k,                p = the network's p(x_0 | x_t, image)         (4)
    L = KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ),           summed over pixels               (5)

(2) holds for any s < t, so that a step may skip others exactly; the public code keeps the neighbours' a there. At s = 0
(3) is x_0 and (5) the cross-entropy. The sum over k of (4) is closed: with Z_k = abar_s A_k + (1 - abar_s) / K,

    p(x_s = j | x_t) = A_j ( abar_s p_j / Z_j + (1 - abar_s) / K sum_k p_k / Z_k ).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_TINY = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class CategoricalDiffusion:
    """The process; arrays are [B, H, W, K], t and s [B] in 0 .. T."""

    abar: np.ndarray  # [T + 1] float32
    num_classes: int

    @classmethod
    def create(cls, num_steps: int, num_classes: int = 2) -> 'CategoricalDiffusion':
        """T steps of the cosine schedule (Nichol & Dhariwal 2021, s = .008; single steps change at most .999).

        Raises:
          ValueError: num_steps below 1 or num_classes below 2.
        """
        if num_steps < 1 or num_classes < 2:
            raise ValueError(f'{num_steps} steps of {num_classes} classes: at least 1 and 2 are needed')
        angle = (np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2
        ratio = np.cos(angle[1:]) ** 2 / np.cos(angle[:-1]) ** 2
        abar = np.cumprod(np.concatenate([[1.0], np.maximum(ratio, 0.001)]))
        return cls(abar.astype(np.float32), num_classes)

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.abar) - 1

    def _abar(self, t: Array) -> Array:
        return jnp.asarray(self.abar)[t][:, None, None, None]

    def q_probs(self, x0: Array, t: Array) -> Array:
        """Probabilities of x_t, equation (1); x0 one-hot."""
        abar = self._abar(t)
        return abar * x0 + (1 - abar) / self.num_classes

    def transition_probs(self, xs: Array, s: Array, t: Array) -> Array:
        """Probabilities of x_t given x_s, equation (2); also those by which x_t speaks for x_s, A of (3)."""
        a = self._abar(t) / self._abar(s)
        return a * xs + (1 - a) / self.num_classes

    def posterior_probs(self, x0: Array, xt: Array, s: Array, t: Array) -> Array:
        """Probabilities of x_s given x_t and x_0, equation (3)."""
        joint = self.transition_probs(xt, s, t) * self.q_probs(x0, s)
        return joint / joint.sum(-1, keepdims=True)

    def reverse_probs(self, p: Array, xt: Array, s: Array, t: Array) -> Array:
        """Probabilities of x_s given x_t, equation (4); p the network's probabilities of x_0."""
        abar = self._abar(s)
        towards = self.transition_probs(xt, s, t)
        even = (1 - abar) / self.num_classes
        share = p / (abar * towards + even)
        return towards * (abar * share + even * share.sum(-1, keepdims=True))

    def loss(self, p: Array, x0: Array, xt: Array, t: Array) -> Array:
        """Equation (5), [B]: t in 1 .. T."""
        q = self.posterior_probs(x0, xt, t - 1, t)
        reverse = self.reverse_probs(p, xt, t - 1, t)
        log = lambda x: jnp.log(jnp.maximum(x, _TINY))
        return jnp.sum(q * (log(q) - log(reverse)), axis=(1, 2, 3))

    def times(self, num_steps: int) -> np.ndarray:
        """T = t_n > .. > t_0 = 0, evenly spaced: [num_steps + 1] int."""
        return np.linspace(self.num_steps, 0, num_steps + 1).round().astype(int)
