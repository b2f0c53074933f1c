"""Measures the pieces of benchmarks/scaling.py by tracing: no network runs, and nothing is compiled.

  python benchmarks/scaling_pieces.py configs/lidc.py:pod 8 [v5e:2x4]

compiles one evaluation of 8 masks a chip instead, ahead of time for that TPU, and prints what XLA counts beside what
the pieces say. It needs libtpu (the extra tpu) but no TPU, and takes minutes: a check of the pieces, no part of them.
"""

import json
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
from jax.extend import core
from sampling import config_named

from ambdiff import methods, optim, train
from ambdiff.models import unet

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


def _evaluation(config, masks: int) -> tuple:
    """(function, *arguments) of one evaluation of the denoiser, config.model, for this many masks."""
    size, array = config.data.image_size, jax.ShapeDtypeStruct
    denoiser = unet.from_config(config.model, size, 2 if config.diffusion.learned_variance else 1)
    x, t = array((masks, size, size, config.data.channels + 1), jnp.float32), array((masks,), jnp.int32)
    return denoiser.apply, jax.eval_shape(denoiser.init, jax.random.key(0), x, t), x, t


def compiled(name: str, masks: int, topology: str) -> dict[str, float]:
    """FLOPs and bytes of one evaluation on each chip, as XLA compiles it for the TPU topology."""
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
    mesh = Mesh(devices, ('data',))
    on = lambda tree, *axes: jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes))), tree
    )
    config = config_named(name)
    function, params, *batch = _evaluation(config, masks * len(devices))
    cost = jax.jit(function).lower(on(params), *on(batch, 'data')).compile().cost_analysis()
    return {'flops': cost['flops'], 'bytes': cost['bytes accessed']}


def of(name: str) -> dict:
    """The pieces of one config."""
    config = config_named(name)
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
            'present': array((images, config.data.num_raters), jnp.bool_),
        }
        # The optimiser is left out: it is the same for every batch, and counted by hand.
        loss = lambda params, batch, key: method.loss(params, state.carried, batch, key)[0].mean()
        kept = jax.eval_shape(lambda p, b, k: jax.vjp(lambda q: loss(q, b, k), p)[1], state.params, batch, key)
        residuals = sum(math.prod(r.shape) * r.dtype.itemsize for r in jax.tree.leaves(kept))
        return _count(jax.grad(loss), state.params, batch, key) | {'residuals': residuals}

    def evaluation(masks: int) -> dict[str, float]:
        return _count(*_evaluation(config, masks))

    return {
        'dtype': config.model.dtype,
        'batch': config.train.batch_size,
        'num_steps': config.train.num_steps,
        'params': params,
        'train': _line(training(1), training(2)),
        'evaluation': _line(evaluation(1), evaluation(2)),
    }


def main():
    name, masks, *topology = sys.argv[1:]
    found = compiled(name, int(masks), *topology or ['v5e:2x4'])
    pieces = json.loads((pathlib.Path(__file__).parent / 'scaling.json').read_text())[name]['evaluation']
    for what, value in found.items():
        print(f'{what}: {value:.4g} compiled, {pieces[what][0] + int(masks) * pieces[what][1]:.4g} by the pieces')


if __name__ == '__main__':
    main()
