"""What one mask costs: network evaluations, FLOPs and seconds, for several configs.

  python benchmarks/sampling.py [--configs=configs/lidc.py,configs/lidc.py:small_cimd] [--rounds=3] [--masks=4]

Times are of the compiled sampler, interleaved, medians. Of a sampler of more than 20 steps, 2 and 4 steps are timed and
the time of a step is their difference; its line says so. FLOPs are the compiler's count of one network evaluation times
the number of evaluations.
"""

import argparse
import importlib.util
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp

from ambdiff import methods
from ambdiff.models import unet

TIMED_WHOLE = 20


def config_named(name):
    """The config that --config=name would give."""
    file, _, variant = name.partition(':')
    spec = importlib.util.spec_from_file_location('config', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def compiled_sampler(config, masks, num_steps):
    """A call without arguments that samples `masks` masks of one image in `num_steps` steps."""
    config = config.copy_and_resolve_references()
    config.sample.num_steps = num_steps
    method = methods.create(config)
    size = config.data.image_size
    images = jnp.zeros((1, size, size, config.data.channels))
    params, state = jax.jit(method.init)(jax.random.key(0), {'image': images})
    keys = jax.random.split(jax.random.key(1), 1)
    sample = jax.jit(lambda *a: method.sample(*a, masks)).lower(params, state, images, keys).compile()
    return lambda: jax.block_until_ready(sample(params, state, images, keys))


def network_flops(config):
    """FLOPs of one evaluation of the denoiser, config.model, for one mask."""
    size = config.data.image_size
    denoiser = unet.from_config(config.model, size, 2 if config.diffusion.learned_variance else 1)
    x = jax.ShapeDtypeStruct((1, size, size, config.data.channels + 1), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    variables = jax.eval_shape(denoiser.init, jax.random.key(0), x, t)
    return jax.jit(denoiser.apply).lower(variables, x, t).compile().cost_analysis()['flops']


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--configs', default='configs/lidc.py,configs/lidc.py:small_cimd')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--masks', type=int, default=4)
    arguments = parser.parse_args()
    calls, facts = {}, {}
    for name in arguments.configs.split(','):
        if not pathlib.Path(name.partition(':')[0]).is_file():
            parser.error(f'no config file {name}')
        config = config_named(name)
        steps = config.sample.num_steps
        facts[name] = steps, network_flops(config)
        for timed in [steps] if steps <= TIMED_WHOLE else [2, 4]:
            calls[name, timed] = compiled_sampler(config, arguments.masks, timed)
    times = {key: [] for key in calls}
    for _ in range(arguments.rounds + 1):
        for key, call in calls.items():
            began = time.perf_counter()
            call()
            times[key].append(time.perf_counter() - began)
    print(f'{arguments.masks} masks at once on {jax.device_count()} x {jax.devices()[0].device_kind}')
    for name, (steps, flops) in facts.items():
        median = {timed: statistics.median(t[1:]) for (n, timed), t in times.items() if n == name}
        seconds = median[steps] if steps in median else (median[4] - median[2]) / 2 * steps
        how = '' if steps in median else ' (from the time of 2 and 4 steps)'
        print(
            f'{name}: {steps} evaluations, {steps * flops / 1e12:.4g} TFLOP, '
            f'{seconds / arguments.masks:.4g} s a mask{how}'
        )


if __name__ == '__main__':
    main()
