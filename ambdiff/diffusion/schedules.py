"""Noise schedules: abar_t, t = 0 .. T-1, the share of the clean mask's variance left after step t.

linear          beta_t from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T (Ho et al. 2020)
cosine          abar(s) = cos^2(pi/2 (s + .008) / 1.008), beta_t = min(1 - abar((t+1)/T) / abar(t/T), .999)
                (Nichol & Dhariwal 2021)
shifted_cosine  log(abar / (1 - abar)) = -2 log tan(pi/2 (.98 u + .01)) - 1, u = (t + 1) / T: the cosine
                schedule, truncated and moved to more noise as suits large flat masks (Hoogeboom et al. 2023)
"""

import numpy as np

NAMES = ('linear', 'cosine', 'shifted_cosine')


def _from_betas(betas: np.ndarray) -> np.ndarray:
    return np.cumprod(1.0 - betas)


def alphas_cumprod(name: str, num_steps: int) -> np.ndarray:
    """The table abar_t.

    Args:
      name: one of `NAMES`.
      num_steps: T >= 1.

    Returns:
      [T] float64, decreasing, in (0, 1).

    Raises:
      ValueError: unknown name or num_steps < 1.
    """
    if num_steps < 1:
        raise ValueError(f'a schedule needs at least 1 step, got {num_steps}')
    steps = np.arange(num_steps, dtype=np.float64)
    if name == 'linear':
        scale = 1000.0 / num_steps
        if scale * 0.02 >= 1:
            raise ValueError(f"the linear schedule needs more than 20 steps, got {num_steps}; use 'cosine'")
        return _from_betas(np.linspace(scale * 1e-4, scale * 0.02, num_steps, dtype=np.float64))
    if name == 'cosine':
        edges = np.cos(np.pi / 2 * (np.arange(num_steps + 1) / num_steps + 0.008) / 1.008) ** 2
        return _from_betas(np.minimum(1 - edges[1:] / edges[:-1], 0.999))
    if name == 'shifted_cosine':
        u = (steps + 1) / num_steps
        log_snr = -2 * np.log(np.tan(np.pi / 2 * (0.98 * u + 0.01))) - 1
        return 1 / (1 + np.exp(-log_snr))
    raise ValueError(f'unknown schedule {name!r}; known: {", ".join(NAMES)}')
