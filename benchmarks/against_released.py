"""Sampling beside CIMD's released PyTorch code: its own loop, batch 1, and ours, with the same weights, in turn.

  python benchmarks/against_released.py --released=CHECKOUT [--checkpoint=WEIGHTS] [--config=configs/lidc.py]
      [--evaluations=4,10,50,100,1000] [--rounds=5] [--data=PATH --images=2 --masks=4]

CHECKOUT is a folder of that code, with guided_diffusion/ in it; nothing of it is in this project. Weights are ours, of
the method cimd (`ambdiff convert` brings released ones in), or random ones, which take as long. They are converted,
and the outputs of both networks compared before any time is taken. A turn is two evaluations of the released loop,
which always takes 1000, or a mask of ours in 2 and in 4 evaluations, from whose difference the rest follows. FLOPs are
counted by PyTorch and by XLA. With --data whole masks are sampled on both sides, and their GED is printed: on a CPU the
released loop takes some ten minutes a mask. `--rounds=2` is a short run.
"""

import argparse
import importlib
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import types

import numpy as np
import turns

EVALUATIONS = 1000  # the released loop's, whatever it is told
SIZE = 128  # of its images, which stands in the loop
COPIES = 4  # of the image that it feeds
TIMED = 2  # evaluations of a turn


def fail(message):
    """Ends the process in one line."""
    print(f'against_released.py: {message}', file=sys.stderr)
    sys.exit(2)


def config_of(arguments):
    """The config, held to what the released loop can do."""
    config = turns.config_of(arguments.config, arguments.field)
    wanted = {
        ('method', 'name'): 'cimd',
        ('data', 'image_size'): SIZE,
        ('data', 'channels'): 1,
        ('model', 'patch_size'): 1,
        ('model', 'num_groups'): 32,
        ('model', 'conv_resample'): True,
        ('diffusion', 'num_steps'): EVALUATIONS,
        ('diffusion', 'schedule'): 'linear',
        ('diffusion', 'prediction'): 'eps',
        ('diffusion', 'learned_variance'): True,
        ('method', 'image_range'): (0.0, 1.0),
        ('diffusion', 'mask_range'): (0.0, 1.0),
    }
    for (group, name), value in wanted.items():
        if config[group][name] != value:
            fail(f'config.{group}.{name}={config[group][name]!r}: the released loop runs {value!r} only')
    if any(mult != int(mult) for mult in config.model.channel_mult):
        fail(f'config.model.channel_mult={config.model.channel_mult}: the released code takes whole numbers only')
    config.checkpoint, config.data.path = arguments.checkpoint, arguments.data
    config.sample.sampler, config.sample.num_samples = 'ancestral', arguments.masks if arguments.data else 1
    config.sample.start, config.sample.noise, config.sample.symmetries = 'noise', 'independent', False
    return config


def inputs(config):
    """(network input [1, H, W, 2], step [1]) on which the outputs are compared."""
    x = np.random.default_rng(2).normal(size=(1, SIZE, SIZE, 2)).astype(np.float32)
    return x, np.array([EVALUATIONS // 2])


def ours(arguments):
    """Our program; leaves the weights, an output and, with data, images and raters in the folder."""
    import jax
    import safetensors.numpy

    from ambdiff import convert, methods, sampling
    from ambdiff.methods.kit.contract import Weights
    from ambdiff.runtime import checkpoint, flops, sharding

    config, folder, mesh = config_of(arguments), arguments.folder, sharding.local_mesh()
    method = methods.create(config)
    if config.checkpoint:
        weights = checkpoint.load_weights(config.checkpoint, config, sharding.replicated(mesh))[0]
    else:
        params, _ = jax.jit(method.init)(jax.random.key(0), {'image': np.zeros((1, SIZE, SIZE, 1), np.float32)})
        random = np.random.default_rng(1)
        # Away from the zeros of the start, behind which differences would not show.
        moved = jax.tree.map(lambda p: p + 0.02 * random.normal(size=p.shape).astype(np.float32), params['unet'])
        weights = Weights({'unet': moved}, {})
    weights = Weights(jax.device_put(method.for_sampling(weights.params), sharding.replicated(mesh)), weights.state)
    repeats = config.method.image_repeats
    state = convert.unet_to_torch({'params': weights.params['unet']}, COPIES if repeats == 1 else 0)
    safetensors.numpy.save_file(state, folder / 'weights.safetensors')
    x, t = inputs(config)
    stacked = np.concatenate([*[x[..., :1]] * repeats, x[..., 1:]], axis=-1)
    np.save(folder / 'output.npy', jax.jit(method.unet.apply)({'params': weights.params['unet']}, stacked, t))

    def sampler(steps):
        own = config.copy_and_resolve_references()
        own.sample.num_steps = steps
        return own, sampling.Sampler(own, methods.create(own), mesh)

    images = np.random.default_rng(3).random((1, SIZE, SIZE, 1)).astype(np.float32)
    if arguments.data:
        from ambdiff.data import sources
        from ambdiff.evaluation import cases

        source = sources.open_source(config.data, config.evaluate.split)
        found = cases.load(source, cases.evenly_spaced(len(source), arguments.images))
        images = found.images
        np.savez(folder / 'data.npz', images=images, raters=found.raters, present=found.present)
    made = {steps: sampler(steps)[1] for steps in (TIMED, 2 * TIMED)}
    count = lambda own: flops.of_function(
        lambda *a: methods.create(own).sample(*a, own.sample.num_samples), *weights, images[:1], keys(1)
    )
    keys = lambda number: sampling.image_keys(jax.random.key(0), range(number))
    counted = {n: count(sampler(n)[0]) / config.sample.num_samples for n in arguments.evaluations}

    def work(what):
        kind, steps = what.split()
        if kind == 'timed':
            made[int(steps)](weights, images[:1], keys(1))
            return
        masks = sampler(int(steps))[1](weights, images, keys(len(images)))
        np.save(folder / f'masks_{steps}.npy', masks)

    for steps in made:
        work(f'timed {steps}')
    return work, {'version': f'jax {jax.__version__}', 'flops': counted, 'masks': config.sample.num_samples}


def released_code(checkout):
    """Its module script_util, and what it needs of it."""
    sys.path.insert(0, str(checkout))
    # It shows pictures on a server while it samples: here nobody looks.
    seen = types.SimpleNamespace(image=lambda *_, **__: None, line=lambda *_, **__: None)
    sys.modules['visdom'] = types.SimpleNamespace(Visdom=lambda *_, **__: seen)
    try:
        found = importlib.import_module('guided_diffusion.script_util')
    except Exception as error:  # a stranger's module: whatever it does when it is imported
        fail(f'{checkout}: guided_diffusion.script_util cannot be imported ({type(error).__name__}: {error})')
    for name in ('model_and_diffusion_defaults', 'create_model_and_diffusion'):
        if not callable(getattr(found, name, None)):
            fail(f'{checkout}: guided_diffusion.script_util has no function {name}')
    return found


def settings_of(config, defaults, checkout):
    """The arguments of its create_model_and_diffusion."""
    model = config.model
    given = {
        'image_size': SIZE,
        'num_channels': model.channels,
        'num_res_blocks': model.num_res_blocks,
        'num_heads': model.num_heads,
        'num_heads_upsample': model.num_heads_upsample,
        'num_head_channels': model.num_head_channels,
        'attention_resolutions': ','.join(str(SIZE // factor) for factor in model.attention_resolutions),
        'channel_mult': ','.join(str(int(mult)) for mult in model.channel_mult),
        'dropout': model.dropout,
        'use_scale_shift_norm': model.use_scale_shift_norm,
        'resblock_updown': model.resblock_updown,
        'use_new_attention_order': model.use_new_attention_order,
        'class_cond': False,
        'learn_sigma': True,
        'diffusion_steps': EVALUATIONS,
        'noise_schedule': 'linear',
        'timestep_respacing': '',
    }
    if strange := sorted(set(given) - set(defaults)):
        fail(f'{checkout}: model_and_diffusion_defaults has no {", ".join(strange)}')
    return {**defaults, **given}


def theirs(arguments):
    """Its program; the weights come from the folder."""
    import torch
    from safetensors.torch import load_file
    from torch.utils.flop_counter import FlopCounterMode

    config, folder, checkout = config_of(arguments), arguments.folder, arguments.released
    code = released_code(checkout)
    try:
        made = code.create_model_and_diffusion(**settings_of(config, code.model_and_diffusion_defaults(), checkout))
        model, diffusion = made[:2]
    except Exception as error:  # as above
        fail(f'{checkout}: create_model_and_diffusion does not work as expected ({type(error).__name__}: {error})')
    for name in ('p_sample_loop_progressive', 'p_sample_loop_known'):
        if not callable(getattr(diffusion, name, None)):
            fail(f'{checkout}: its diffusion has no {name}')
    try:
        model.load_state_dict(load_file(folder / 'weights.safetensors'))
    except RuntimeError as error:
        fail(f'{checkout}: its network does not take the converted weights ({" ".join(str(error).split())[:200]})')
    model.eval()

    def stacked(image, last):
        """Image and last channel [1, 1, H, W] -> [1, 5, H, W]."""
        return torch.cat([image] * COPIES + [last], dim=1)

    x, t = inputs(config)
    image, last = (torch.from_numpy(x[None, ..., channel]) for channel in (0, 1))
    expected = torch.from_numpy(np.load(folder / 'output.npy')).permute(0, 3, 1, 2)
    with torch.no_grad():
        output = model(stacked(image, last), torch.from_numpy(t))
        if output.shape != expected.shape:
            fail(f'{checkout}: its network gives {list(output.shape)} for {list(expected.shape)}')
        apart = float((output - expected).abs().max() / expected.abs().max())
        with FlopCounterMode(display=False) as counter:
            model(stacked(image, last), torch.from_numpy(t))
    shape, clips = (1, COPIES - 1, SIZE, SIZE), dict(clip_denoised=True, model_kwargs={})

    def work(what):
        if what == 'timed':
            start = stacked(image, torch.randn_like(image))
            loop = diffusion.p_sample_loop_progressive(model, shape, noise=start, **clips)
            if len(list(itertools.islice(loop, TIMED))) != TIMED:
                fail(f'{checkout}: p_sample_loop_progressive ended before {TIMED} evaluations')
            return
        images = torch.from_numpy(np.load(folder / 'data.npz')['images']).permute(0, 3, 1, 2)
        torch.manual_seed(0)
        one = lambda image: diffusion.p_sample_loop_known(model, shape, stacked(image, image), **clips)[0][0, -1] > 0.5
        masks = [[one(image[None]).numpy() for _ in range(arguments.masks)] for image in images]
        np.save(folder / 'masks_released.npy', np.array(masks))

    work('timed')
    said = {'version': f'torch {torch.__version__}', 'flops': counter.get_total_flops() * EVALUATIONS, 'apart': apart}
    return work, said


def ged(folder, name):
    """'.1234' of the masks that a side left, as they are scored everywhere."""
    from ambdiff import metrics

    data, masks = np.load(folder / 'data.npz'), np.load(folder / f'masks_{name}.npy')
    values, _ = metrics.per_class(data['raters'], masks, 1, 'independent', data['present'])
    return f'{np.mean(values["ged"]):.4f}'


def compare(arguments):
    """Prints the table."""
    config_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shared = [*sys.argv[1:], f'--folder={folder}']
        us = turns.Program([__file__, '--side=ours', *shared])
        them = turns.Program([__file__, '--side=theirs', *shared], turns.MALLOC)
        apart = them.ready['apart']
        if apart > 1e-3:
            fail(f'the outputs of the two networks are {apart:.1e} of their size apart: not the same network')
        seconds = {'released': [], 'a step': [], 'a start': []}
        for _ in range(arguments.rounds):
            seconds['released'].append(them.take('timed') / TIMED)
            short, long = (us.take(f'timed {steps}') / us.ready['masks'] for steps in (TIMED, 2 * TIMED))
            seconds['a step'].append((long - short) / TIMED)
            seconds['a start'].append(2 * short - long)
        scores = {}
        if arguments.data:
            them.take('whole')
            scores['released'] = ged(folder, 'released')
            for steps in arguments.evaluations:
                us.take(f'whole {steps}')
                scores[steps] = ged(folder, steps)
        us.close(), them.close()
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f'{us.ready["version"]}, {them.ready["version"]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; '
        f'outputs {apart:.0e} of their size apart; an evaluation takes {middle["released"]:.3f} s there '
        f'({min(seconds["released"]):.3f} to {max(seconds["released"]):.3f}) and {middle["a step"]:.3f} s here '
        f'({min(seconds["a step"]):.3f} to {max(seconds["a step"]):.3f})'
    )
    print('| sampler | evaluations | s a mask | masks/s | TFLOP a mask |' + ' GED |' * bool(scores))
    print('| --- | ---: | ---: | ---: | ---: |' + ' ---: |' * bool(scores))
    rows = [('released', EVALUATIONS, middle['released'] * EVALUATIONS, them.ready['flops'])]
    for steps in arguments.evaluations:
        whole = max(middle['a start'], 0) + steps * middle['a step']
        rows.append((steps, steps, whole, us.ready['flops'][str(steps)]))
    for name, steps, whole, count in rows:
        score = f' {scores[name]} |' if scores else ''
        words = 'released, batch 1' if name == 'released' else 'ours'
        print(f'| {words} | {steps} | {whole:.4g} | {1 / whole:.4g} | {count / 1e12:.4g} |{score}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--released', type=pathlib.Path, required=True, help='a checkout of the released code')
    parser.add_argument('--checkpoint', default='', help='our weights; default: random ones')
    parser.add_argument('--config', default=str(turns.ROOT / 'configs' / 'lidc.py'))
    parser.add_argument('--field', action='append', default=[], metavar='GROUP.FIELD=VALUE', help='of the config')
    numbers = lambda text: [int(number) for number in text.split(',')]
    parser.add_argument('--evaluations', type=numbers, default=[4, 10, 50, 100, 1000])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--data', default='', help='images to score whole masks on')
    parser.add_argument('--images', type=int, default=2)
    parser.add_argument('--masks', type=int, default=4, help='of each image of --data')
    parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not (arguments.released / 'guided_diffusion').is_dir():
        fail(f'--released={arguments.released} is no checkout of the released code: it has no folder guided_diffusion')
    turns.needs_torch('against_released.py')
    if arguments.side:
        turns.serve(lambda: (ours if arguments.side == 'ours' else theirs)(arguments))
    else:
        compare(arguments)


if __name__ == '__main__':
    main()
