"""The two layers that training on a CPU spends its time in: our forms beside the plain ones.

  python benchmarks/cpu_layers.py [--rounds=15]

Forward and backward pass of a 3x3 convolution (XLA's own weight gradient against models/cpu_conv.py) and of GroupNorm
(flax.linen's against models/layers.py), interleaved, medians in milliseconds and their ratio.
"""

import argparse
import functools
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambdiff.models import cpu_conv, layers

# [B, H, W, Cin] and Cout of the small config's levels and of their concatenated inputs.
CONVOLUTIONS = [((16, 16, 16, 64), 64), ((16, 16, 16, 192), 64), ((16, 8, 8, 128), 128), ((16, 32, 32, 32), 32)]
NORMS = [(16, 16, 16, 64), (16, 16, 16, 192), (16, 8, 8, 128), (16, 32, 32, 32)]


def plain_conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f'{"layer":34} {"plain ms":>9} {"ours ms":>9} {"ratio":>6}')
    key = jax.random.key(0)
    for shape, features in CONVOLUTIONS:
        x, kernel = jax.random.normal(key, shape), jax.random.normal(key, (3, 3, shape[-1], features))
        ms = compare(rounds, {'plain': plain_conv, 'ours': cpu_conv.conv3x3}, x, kernel)
        print(
            f'conv {shape!s:22} -> {features:<3} {ms["plain"]:9.2f} {ms["ours"]:9.2f} {ms["plain"] / ms["ours"]:6.2f}'
        )
    for shape in NORMS:
        x, scale, bias = jax.random.normal(key, shape), jnp.ones(shape[-1]), jnp.zeros(shape[-1])
        functions = {
            'plain': functools.partial(norm, nn.GroupNorm(8)),
            'ours': functools.partial(norm, layers.GroupNorm(8)),
        }
        ms = compare(rounds, functions, x, scale, bias)
        print(f'norm {shape!s:29} {ms["plain"]:9.2f} {ms["ours"]:9.2f} {ms["plain"] / ms["ours"]:6.2f}')


if __name__ == '__main__':
    main()
