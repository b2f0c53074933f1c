"""What one mask costs: network evaluations, FLOPs and seconds, for several configs.

  python benchmarks/sampling.py [--configs=configs/lidc.py,configs/lidc.py:small_cimd] [--rounds=3] [--masks=4]

Times are of the compiled sampler, interleaved, medians. Of a sampler of more than 20 steps, 2 and 4 steps are timed and
the time of a step is their difference; its line says so. FLOPs are the compiler's count of the whole sampler, its loops
as often as they run (`ambdiff/runtime/flops.py`), over the masks: what the masks of an image share is shared.
"""

import argparse
import importlib.util
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp

from ambdiff import methods
from ambdiff.runtime import flops

TIMED_WHOLE = 20


def config_named(name):
    """The config that --config=name would give."""
    file, _, variant = name.partition(':')
    spec = importlib.util.spec_from_file_location('config', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def sampler(config, masks, num_steps):
    """(a function that samples `masks` masks of one image in `num_steps` steps, its arguments, the method)."""
    config = config.copy_and_resolve_references()
    config.sample.num_steps, config.sample.num_samples = num_steps, masks
    method = methods.create(config)
    size = config.data.image_size
    images = jnp.zeros((1, size, size, config.data.channels))
    weights = jax.jit(method.init)(jax.random.key(0), {'image': images})
    keys = jax.random.split(jax.random.key(1), 1)
    return lambda *a: method.sample(*a, masks), (*weights, images, keys), method


def compiled(function, arguments):
    """A call without arguments."""
    made = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(made(*arguments))


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
        function, given, method = sampler(config, arguments.masks, steps)
        facts[name] = steps, method.evaluations, flops.of_function(function, *given) / arguments.masks
        for timed in [steps] if steps <= TIMED_WHOLE else [2, 4]:
            function, given, _ = sampler(config, arguments.masks, timed)
            calls[name, timed] = compiled(function, given)
    times = {key: [] for key in calls}
    for _ in range(arguments.rounds + 1):
        for key, call in calls.items():
            began = time.perf_counter()
            call()
            times[key].append(time.perf_counter() - began)
    print(f'{arguments.masks} masks at once on {jax.device_count()} x {jax.devices()[0].device_kind}')
    for name, (steps, evaluations, counted) in facts.items():
        median = {timed: statistics.median(t[1:]) for (n, timed), t in times.items() if n == name}
        seconds = median[steps] if steps in median else (median[4] - median[2]) / 2 * steps
        how = '' if steps in median else ' (from the time of 2 and 4 steps)'
        print(
            f'{name}: {evaluations:.4g} evaluations and {counted / 1e9:.4g} GFLOP a mask, '
            f'{seconds / arguments.masks:.4g} s a mask{how}'
        )


if __name__ == '__main__':
    main()
