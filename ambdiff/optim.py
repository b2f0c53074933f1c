"""The optimiser: AdamW (Loshchilov & Hutter 2019) with warm-up, gradient clipping, and the EMA of weights."""

import jax
import jax.numpy as jnp
import ml_collections
import optax

from ambdiff.errors import UserError


def learning_rate(optim: ml_collections.ConfigDict, num_steps: int) -> optax.Schedule:
    """Linear warm-up, then constant, or a cosine to final_fraction of the peak at num_steps.

    Raises:
      UserError: unknown config.optim.schedule.
    """
    first = warmup_steps(optim, num_steps)
    if optim.schedule == 'constant':
        after = optax.constant_schedule(optim.learning_rate)
    elif optim.schedule == 'cosine':
        after = optax.cosine_decay_schedule(optim.learning_rate, num_steps - first, optim.final_fraction)
    else:
        raise UserError(f"config.optim.schedule={optim.schedule!r}; use 'constant' or 'cosine'")
    if not first:
        return after
    warmup = optax.linear_schedule(0.0, optim.learning_rate, first)
    return optax.join_schedules([warmup, after], [first])


def warmup_steps(optim: ml_collections.ConfigDict, num_steps: int) -> int:
    """config.optim.warmup_steps, or a tenth of the run where it is no longer than that, as a short trial is."""
    return optim.warmup_steps if optim.warmup_steps < num_steps else num_steps // 10


def create(optim: ml_collections.ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """AdamW as the config's group optim says; decay acts on matrices and kernels only."""
    adamw = optax.adamw(
        learning_rate(optim, num_steps),
        b2=optim.b2,
        weight_decay=optim.weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )
    if not optim.clip_norm:
        return adamw
    return optax.chain(optax.clip_by_global_norm(optim.clip_norm), adamw)


def update_ema(optim: ml_collections.ConfigDict, ema, params, step: jax.Array):
    """EMA after optimiser step `step` (0 for the first): ema <- d ema + (1 - d) params.

    With ema_warmup d = min(ema_decay, (1 + step) / (10 + step)), so that a short run is not an average with its start.
    """
    decay = jnp.asarray(optim.ema_decay, jnp.float32)
    if optim.ema_warmup:
        decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema, 1 - decay)
