"""Measures the pieces of benchmarks/scaling.py by tracing: no network runs, and nothing is compiled."""

import math
import sys

import jax
import jax.numpy as jnp
from jax.extend import core
from sampling import load_config

from ambdiff import methods, optim, train

PRODUCTS = ('conv_general_dilated', 'dot_general')


def moved_bytes(jaxpr: core.Jaxpr) -> int:
    """Operands and results of products, and operands of reductions: memory traffic if all else is fused."""
    size = lambda v: math.prod(v.aval.shape) * v.aval.dtype.itemsize
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inside = _inside(equation)
        if inside:
            if name in ('scan', 'while'):
                raise ValueError(f'a loop ({name}): its body would be counted once')
            total += sum(map(moved_bytes, inside))
        elif name in PRODUCTS:
            total += sum(map(size, [*equation.invars, *equation.outvars]))
        elif name.startswith('reduce_'):
            total += sum(map(size, equation.invars))
    return total


def _inside(equation) -> list:
    values = [v for p in equation.params.values() for v in (p if isinstance(p, tuple | list) else [p])]
    return [getattr(v, 'jaxpr', v) for v in values if hasattr(v, 'eqns') or hasattr(getattr(v, 'jaxpr', None), 'eqns')]


def _count(function, *arguments) -> dict[str, float]:
    traced = jax.jit(function).trace(*arguments)
    return {'flops': traced.lower().cost_analysis()['flops'], 'bytes': moved_bytes(traced.jaxpr.jaxpr)}


def _line(one: dict, two: dict) -> dict[str, list[float]]:
    """[rest, for an image more] of each figure, from batches of 1 and 2."""
    return {name: [2 * one[name] - two[name], two[name] - one[name]] for name in one}


def of(name: str) -> dict:
    """The pieces of one config."""
    config = load_config(name)
    method, optimiser = methods.create(config), optim.create(config.optim, config.train.num_steps)
    size, channels = config.data.image_size, config.data.channels
    array = jax.ShapeDtypeStruct
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda k: train.create_state(config, method, optimiser, k), key)
    params = sum(math.prod(p.shape) for p in jax.tree.leaves(state.params))

    def training(images: int) -> dict[str, float]:
        print(f'{name}: tracing the step of {images}', file=sys.stderr)
        batch = {
            'image': array((images, size, size, channels), jnp.float32),
            'masks': array((images, config.data.num_raters, size, size), jnp.uint8),
        }
        # The optimiser is left out: it is the same for every batch, and counted by hand.
        loss = lambda params, batch, key: method.loss(params, batch, key)[0].mean()
        kept = jax.eval_shape(lambda p, b, k: jax.vjp(lambda q: loss(q, b, k), p)[1], state.params, batch, key)
        residuals = sum(math.prod(r.shape) * r.dtype.itemsize for r in jax.tree.leaves(kept))
        return _count(jax.grad(loss), state.params, batch, key) | {'residuals': residuals}

    def evaluation(masks: int) -> dict[str, float]:
        stack = array((masks, size, size, channels * config.method.image_repeats + 1), jnp.float32)
        apply = lambda params, x, t: method.unet.apply({'params': params['unet']}, x, t)
        return _count(apply, state.params, stack, array((masks,), jnp.int32))

    return {
        'dtype': config.model.dtype,
        'batch': config.train.batch_size,
        'num_steps': config.train.num_steps,
        'params': params,
        'train': _line(training(1), training(2)),
        'evaluation': _line(evaluation(1), evaluation(2)),
    }
