"""Layers of models/layers.py on a CPU: the norm beside flax.linen's, a 1x1 convolution beside einsum's gradient.

  python benchmarks/cpu_layers.py [--rounds=15]

Forward and backward pass, interleaved, medians in milliseconds and their ratio.
"""

import argparse
import functools
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambdiff.models import layers

# [B, H, W, C] of the small config's levels and of their concatenated inputs.
NORMS = [(16, 16, 16, 64), (16, 16, 16, 192), (16, 8, 8, 128), (16, 32, 32, 32)]
# The same with the channels that a 1x1 convolution makes of them.
POINTWISE = [((32, 16, 16, 192), 64), ((32, 8, 8, 128), 384), ((32, 4, 4, 128), 384)]


def compiled_gradient(function, *arguments):
    """Value and gradient with respect to every argument, compiled."""
    loss = lambda *a: jnp.sum(jnp.sin(function(*a)))
    both = jax.value_and_grad(loss, argnums=tuple(range(len(arguments))))
    return jax.jit(both).lower(*arguments).compile()


def compare(rounds, functions, *arguments):
    """Median milliseconds of each function, called in turn."""
    compiled = {name: compiled_gradient(f, *arguments) for name, f in functions.items()}
    times = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, call in compiled.items():
            began = time.perf_counter()
            jax.block_until_ready(call(*arguments))
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def norm(module, x, scale, bias):
    return module.apply({'params': {'scale': scale, 'bias': bias}}, x)


def attended(convolution, x, kernel, back):
    """What surrounds the projections of an attention block: a norm before, a residual branch around."""
    h = jax.nn.silu(x - x.mean(axis=(1, 2), keepdims=True))
    return x + convolution(jnp.tanh(convolution(h, kernel)), back)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f'{"layer":34} {"plain ms":>9} {"ours ms":>9} {"ratio":>6}')
    key = jax.random.key(0)
    for shape in NORMS:
        x, scale, bias = jax.random.normal(key, shape), jnp.ones(shape[-1]), jnp.zeros(shape[-1])
        functions = {
            'plain': functools.partial(norm, nn.GroupNorm(8)),
            'ours': functools.partial(norm, layers.GroupNorm(8)),
        }
        ms = compare(rounds, functions, x, scale, bias)
        print(f'norm {shape!s:29} {ms["plain"]:9.2f} {ms["ours"]:9.2f} {ms["plain"] / ms["ours"]:6.2f}')
    for shape, features in POINTWISE:
        x, kernel = jax.random.normal(key, shape), jax.random.normal(key, (shape[-1], features)) / 10
        plain = functools.partial(jnp.einsum, 'bhwc,cd->bhwd')
        functions = {name: functools.partial(attended, f) for name, f in (('plain', plain), ('ours', layers.pointwise))}
        ms = compare(rounds, functions, x, kernel, kernel.T)
        name = f'1x1 {shape} -> {features}'
        print(f'{name:34} {ms["plain"]:9.2f} {ms["ours"]:9.2f} {ms["plain"] / ms["ours"]:6.2f}')


if __name__ == '__main__':
    main()
