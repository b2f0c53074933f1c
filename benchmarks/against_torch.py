"""Training on this machine beside PyTorch: the same U-Net, batch, loss and optimiser, in one run.

  python benchmarks/against_torch.py [--config=configs/lidc.py:small] [--rounds=15] [--batch=32] [--compile]

A step is forward, backward, clipping and AdamW; the loss is cross-entropy with a share of raters. PyTorch runs with
channels_last, its fused AdamW and a malloc that keeps what it has (`--compile`: torch.compile as well). Both sides hold
the same weights, and their outputs are compared before any time is taken. Each is a process that waits while the other
takes a step; times are medians, and the ratio is that of neighbouring steps. `--rounds=3` is a short run.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile

import numpy as np
import turns

# What torch_unet.py has no other form of.
PLAIN = {
    'resblock_updown': False,
    'conv_resample': True,
    'dropout': 0.0,
    'num_head_channels': -1,
    'num_heads_upsample': -1,
    'use_new_attention_order': False,
    'dtype': 'float32',
}


def loaded(name):
    """The config; ends the process in one line where its network cannot be had in PyTorch."""
    config = turns.config_of(name)
    for field, value in PLAIN.items():
        if config.model[field] != value:
            print(f'config.model.{field}={config.model[field]}: this comparison knows {value} only', file=sys.stderr)
            sys.exit(2)
    return config


def batch_of(config, number):
    """(x [B, H, W, C + 1], shares of raters [B, H, W, 1]) of noise: values do not change how long a step takes."""
    size, random = config.data.image_size, np.random.default_rng(0)
    x = random.normal(size=(number, size, size, config.data.channels + 1)).astype(np.float32)
    return x, random.integers(0, 5, (number, size, size, 1)).astype(np.float32) / 4


def ours(config, x, shares, folder):
    """(a step without arguments, what is said of it); leaves weights and outputs in the folder."""
    import jax
    import jax.numpy as jnp
    import optax
    import safetensors.numpy

    from ambdiff import optim
    from ambdiff.models import unet
    from ambdiff.released import layout

    network = unet.from_config(config.model, config.data.image_size, 1)
    optimiser = optim.create(config.optim, config.train.num_steps)
    t = jnp.full(len(x), config.diffusion.num_steps - 1)
    params = jax.jit(network.init)(jax.random.key(0), x[:1], t[:1])['params']
    # Away from the zeros of the start, behind which differences would not show.
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + 0.02 * random.normal(size=p.shape).astype(np.float32), params)
    safetensors.numpy.save_file(layout.state_dict(layout.unet_name, {'params': params}), folder / 'weights.safetensors')
    np.save(folder / 'output.npy', jax.jit(network.apply)({'params': params}, x[:2], t[:2]))

    def loss(params, x, shares):
        return optax.sigmoid_binary_cross_entropy(network.apply({'params': params}, x, t), shares).mean()

    def step(state, x, shares):
        params, opt_state = state
        updates, opt_state = optimiser.update(jax.grad(loss)(params, x, shares), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    state = (params, optimiser.init(params))
    made = jax.jit(step, donate_argnums=0).lower(state, x, shares).compile()
    said = {'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)), 'version': f'jax {jax.__version__}'}

    def run():
        nonlocal state
        state = jax.block_until_ready(made(state, x, shares))

    return run, said


def theirs(config, x, shares, folder, compiled):
    """As `ours`, in PyTorch; the weights come from the folder."""
    import torch
    from safetensors.torch import load_file
    from torch_unet import UNet

    network = UNet(config.model, x.shape[-1], 1)
    network.load_state_dict(load_file(folder / 'weights.safetensors'))
    network = network.to(memory_format=torch.channels_last)
    turned = lambda array: torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    x, shares, t = turned(x), turned(shares), torch.full((len(x),), config.diffusion.num_steps - 1)
    with torch.no_grad():
        expected = turned(np.load(folder / 'output.npy'))
        apart = float((network(x[:2], t[:2]) - expected).abs().max() / expected.abs().max())
    optim = config.optim
    kernels = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{'params': kernels, 'weight_decay': optim.weight_decay}, {'params': rest, 'weight_decay': 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=optim.learning_rate, betas=(0.9, optim.b2), fused=True)
    parameters = sum(p.numel() for p in network.parameters())
    forward = torch.compile(network) if compiled else network

    def run():
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.binary_cross_entropy_with_logits(forward(x, t), shares).backward()
        if optim.clip_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
        optimiser.step()

    return run, {'parameters': parameters, 'version': f'torch {torch.__version__}', 'apart': apart}


def side(arguments):
    """One side's program, which takes a step a turn."""
    config = loaded(arguments.config)
    x, shares = batch_of(config, arguments.batch or config.train.batch_size)
    if arguments.side == 'ours':
        run, said = ours(config, x, shares, arguments.folder)
    else:
        run, said = theirs(config, x, shares, arguments.folder, arguments.compile)
    for _ in range(2):
        run()
    return lambda _: run(), said | {'batch': len(x)}


def compare(arguments):
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        shared = [f'--folder={folder}', f'--config={arguments.config}', f'--batch={arguments.batch}']
        shared += ['--compile'] if arguments.compile else []
        program = lambda name, more: turns.Program([__file__, f'--side={name}', *shared], more)
        # Ours leaves the weights that theirs takes.
        sides = {'ours': program('ours', {})}
        sides['theirs'] = program('theirs', turns.MALLOC)
        seconds = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, one in sides.items():
                seconds[name].append(one.take())
        for one in sides.values():
            one.close()
    us, them = sides['ours'].ready, sides['theirs'].ready
    if us['parameters'] != them['parameters'] or them['apart'] > 1e-3:
        counts = f'{us["parameters"]} and {them["parameters"]} parameters'
        sys.exit(f'not the same network: {counts}, outputs {them["apart"]:.1e} of their size apart')
    print(
        f'{arguments.config}: {us["parameters"]:,} parameters each, outputs {them["apart"]:.0e} of their size apart, '
        f'batch {us["batch"]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds'
    )
    for name, said in (('ours', us), ('theirs', them)):
        median, low, high = statistics.median(seconds[name]), min(seconds[name]), max(seconds[name])
        how = f'{said["version"]}{" compiled" if name == "theirs" and arguments.compile else ""}'
        print(f'{how:24} {us["batch"] / median:8.1f} images/s, a step {median:.3f} s ({low:.3f} to {high:.3f})')
    ratios = sorted(b / a for a, b in zip(seconds['ours'], seconds['theirs'], strict=True))
    quarter = len(ratios) // 4
    print(
        f'ours over PyTorch: {statistics.median(ratios):.2f} times as fast '
        f'(middle half {ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f})'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default=str(turns.ROOT / 'configs' / 'lidc.py') + ':small')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--batch', type=int, default=0, help="default: the config's")
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    turns.needs_torch('against_torch.py')
    if arguments.side:
        turns.serve(lambda: side(arguments))
    else:
        loaded(arguments.config)
        compare(arguments)


if __name__ == '__main__':
    main()
