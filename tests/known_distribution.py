"""A known distribution to learn: one image of which raters draw one of two masks, with shares .7 and .3."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

# The tests' settings (conftest.py) compile fast and run slow: a thousand steps take a minute with them, 2 s with these.
OPTIMISED = {'xla_backend_optimization_level': 1, 'xla_llvm_disable_expensive_passes': False}
SHARE = 0.7  # of the first mask
RATERS = 10


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a method learned.

    Attributes:
      share: of the samples nearest the first mask.
      error: pixels in which a sample differs from the mask nearest to it, the mean over samples.
      masks: the samples, [N, H, W].
      loss: of every training step, [steps].
    """

    share: float
    error: float
    masks: np.ndarray
    loss: np.ndarray


def batch(batch_size: int, size: int = 8) -> dict[str, np.ndarray]:
    """The image, of size x size pixels, and its ten raters' masks, so many times over: a quarter of it, or its half."""
    one, two = np.zeros((2, size, size), np.uint8)
    one[: size // 2, : size // 2] = 1
    two[: size // 2] = 1
    first = round(SHARE * RATERS)
    masks = np.stack([one] * first + [two] * (RATERS - first))
    image = np.linspace(0, 1, size * size, dtype=np.float32).reshape(1, size, size, 1)
    return {
        'image': np.repeat(image, batch_size, 0),
        'masks': np.repeat(masks[None], batch_size, 0),
        'present': np.ones((batch_size, RATERS), bool),
    }


def learn(
    method,
    steps: int,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    num_samples: int = 400,
    size: int = 8,
    seed: int = 0,
) -> Learned:
    """Trains a method by Adam to a learning rate of 0, all steps in one compiled program, and samples it."""
    given = jax.tree.map(jnp.asarray, batch(batch_size, size))
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    init_key, loss_key, sample_key = jax.random.split(jax.random.key(seed), 3)

    @functools.partial(jax.jit, compiler_options=OPTIMISED)
    def train(params, state, given, keys):
        def step(carry, key):
            params, state, opt_state = carry

            def mean_loss(params):
                loss, _, new = method.loss(params, state, given, key)
                return loss.mean(), new

            (loss, state), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
            updates, opt_state = optimiser.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), state, opt_state), loss

        start = (params, state, optimiser.init(params))
        (params, state, _), loss = jax.lax.scan(step, start, keys)
        return params, state, loss

    params, state = jax.jit(method.init)(init_key, given)
    params, state, loss = train(params, state, given, jax.random.split(loss_key, steps))
    sample = jax.jit(lambda *arguments: method.sample(*arguments, num_samples))
    masks = np.asarray(sample(params, state, given['image'][:1], sample_key[None])[0])
    answers = np.asarray(given['masks'])[0, [0, -1]]
    away = (masks[:, None] != answers[None]).sum((2, 3))
    return Learned(float((away[:, 0] < away[:, 1]).mean()), float(away.min(1).mean()), masks, np.asarray(loss))
