"""Where a training step's time goes, by the profiler's trace, and its share of this machine's matrix product.

  python benchmarks/training_step.py [--config=configs/lidc.py:small] [--batch=32] [--steps=10]

The step is that of `ambdiff.main`: augmentation, loss and its gradient, optimiser and averaged weights, on random
images. FLOPs are XLA's count. The matrix product is of 2048 x 2048 float32, in the same process, before and after.
An operation that XLA fused of several counts as what most of it is: the convolution or product in it, else its last
part. `--batch=1 --steps=2` suits the paper's setting on a CPU.
"""

import argparse
import collections
import os
import pathlib
import re
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import turns

from ambdiff import plan, train
from ambdiff.runtime import flops

SIDE = 2048  # of the matrices
# The first pattern that is found in an operation's path names its part; a gradient's path has transpose(.
PARTS = {
    'convolutions: gradient of the kernels': r'kernel gradient',
    'convolutions: gradient of the inputs': r'transpose\(.*conv_general_dilated',
    'convolutions: forward': r'conv_general_dilated',
    '1x1 convolutions and attention': r'qkv|proj_out|skip_connection|bhqk|bqhc|softmax',
    'norms and SiLU': r'norm|silu',
    'time embedding': r'embed|emb_layers',
    'rest of the network, and the loss': r'jvp|transpose\(',
    'augmentation, optimiser, averaged weights': r'.',
    'copies into other layouts': r'',
}
PRODUCT = re.compile(r' (?:convolution|dot)\(')


def made(config, batch):
    """(the compiled step, its state, a batch of random images and masks)."""
    _, method, optimiser = plan.of(config)
    draw, data = np.random.default_rng(0), config.data
    shape = (batch, data.image_size, data.image_size)
    images = draw.random((*shape, data.channels), np.float32)
    masks = draw.integers(0, 2, (batch, 4, *shape[1:]), np.uint8)
    arrays = {'image': images, 'masks': masks, 'present': np.ones((batch, 4), bool)}
    state = jax.jit(lambda key: train.create_state(config, method, optimiser, key))(jax.random.key(0))
    arrays = jax.tree.map(jnp.asarray, arrays)
    step = jax.jit(train.make_train_step(config, method, optimiser), donate_argnums=0)
    return step.lower(state, arrays).compile(), state, arrays


def paths(text):
    """{operation: its path in the program}, of a compiled program's text; a kernel's gradient has its kind there."""
    found, inside, room = {}, {}, ''
    for line in text.splitlines():
        if header := re.match(r'(?:ENTRY )?%?([\w.\-]+) \(.*\{$', line):
            room = header[1]
        elif parsed := re.match(r'\s*(?:ROOT )?%?([\w.\-]+) = (.*)', line):
            name, said = parsed.groups()
            path = re.search(r'op_name="([^"]*)"', said)
            path = path[1] if path else ''
            if called := re.search(r'calls=%?([\w.\-]+)', said):
                path = inside.get(called[1]) or path
            elif PRODUCT.search(said):
                inside[room] = path
            if re.match(r'\w+\[\d+,3,3,\d+\]', said) and PRODUCT.search(said):
                path = inside[room] = f'{path} kernel gradient'
            found[name] = path
    return found


def traced(step, state, arrays, steps, folder):
    """(state, {operation: milliseconds a step})."""
    jax.profiler.start_trace(str(folder))
    for _ in range(steps):
        state, metrics = step(state, arrays)
    jax.block_until_ready(metrics)
    jax.profiler.stop_trace()
    spent = collections.Counter()
    for path in folder.rglob('*.xplane.pb'):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for event in (event for line in plane.lines for event in line.events):
                name = dict(event.stats).get('hlo_op')
                if name:
                    spent[name] += event.duration_ns / 1e6 / steps
    return state, spent


def product(repeats=5):
    """FLOP/s of a product of matrices."""
    multiply = jax.jit(jnp.matmul)
    a = jnp.ones((SIDE, SIDE))
    multiply(a, a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        multiply(a, a).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * SIDE**3 / statistics.median(seconds)


def shares(spent, where):
    """{part: milliseconds}, the longest first."""
    parts = collections.Counter()
    for name, milliseconds in spent.items():
        path = where.get(name, '')
        parts[next(part for part, pattern in PARTS.items() if re.search(pattern, path))] += milliseconds
    return dict(parts.most_common())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default=str(turns.ROOT / 'configs' / 'lidc.py') + ':small')
    parser.add_argument('--batch', type=int, default=0, help="default: the config's")
    parser.add_argument('--steps', type=int, default=10)
    arguments = parser.parse_args()
    config = turns.config_of(arguments.config)
    batch = config.train.batch_size = arguments.batch or config.train.batch_size
    step, state, arrays = made(config, batch)
    peak = [product()]
    seconds = []
    for _ in range(arguments.steps + 1):
        began = time.perf_counter()
        state, metrics = step(state, arrays)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        state, spent = traced(step, state, arrays, arguments.steps, pathlib.Path(folder))
    peak.append(product())
    took, count = statistics.median(seconds[1:]), flops.of(step) * config.train.accumulation_steps
    print(
        f'{arguments.config}: batch {batch}, {count / 1e9:.4g} GFLOP a step, {took:.3f} s ({min(seconds[1:]):.3f} to '
        f'{max(seconds[1:]):.3f}), {batch / took:.1f} images/s; {jax.devices()[0].device_kind}, '
        f'{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}'
    )
    best = max(peak)
    print(f'{count / took / 1e9:.0f} of {best / 1e9:.0f} GFLOP/s of a matrix product: {count / took / best:.0%}')
    print(f'\n{"part":44} {"ms a step":>9}')
    found = shares(spent, paths(step.as_text()))
    for part, milliseconds in found.items():
        print(f'{part:44} {milliseconds:9.1f} {milliseconds / sum(found.values()):5.0%}')


if __name__ == '__main__':
    main()
