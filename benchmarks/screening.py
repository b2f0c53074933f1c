"""What the first pass of `--screen` drops: crops with a rater's outline (misses), and simulated crops without.

  python benchmarks/screening.py --checkpoint=weights/lidc_small.safetensors --data=data_lidc.hdf5 --split=test

--data is a file of real crops in the layout of PHiSeg. Each is screened as stored, and moved by up to --shift pixels
each way, as a nodule lies in the nearest tile (the image is reflected where that leaves it). The crops without a nodule
are corners of larger simulated CT crops whose only lesion, a pixel in the middle, is left outside: lung, vessels, chest
wall. A threshold t drops the crops of which at most a share t of the first pass's masks marks anything.
"""

import argparse
import sys

import numpy as np

from ambdiff import command
from ambdiff.data import sources
from ambdiff.data.lidc import phantom
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.prediction.crop_sampler import SCREEN_SAMPLES, CropSampler
from ambdiff.prediction.result import Settings


def background(count: int, size: int, seed: int) -> np.ndarray:
    """Simulated crops [count, size, size, 1] in [0, 1] of a lung, without a nodule."""
    wide = 4 * size
    lesion = np.zeros((1, wide, wide), np.uint8)
    lesion[0, wide // 2, wide // 2] = 1
    rng = np.random.default_rng(seed)
    crops = []
    for number in range(-(-count // 4)):
        ratings = np.array([[3.0, 5.0, 1.0, 6.0]])
        image = phantom.simulate(lesion, ratings, f'background {rng.integers(2**32)} {number}') / np.float32(1400)
        crops += [image[y, x] for y in (slice(size), slice(-size, None)) for x in (slice(size), slice(-size, None))]
    return np.stack(crops[:count])[..., None]


def moved(images: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Each image moved by up to so many pixels each way, reflected where that leaves it."""
    rng, size = np.random.default_rng(seed), images.shape[1]
    padded = np.pad(images, [(0, 0), (most, most), (most, most), (0, 0)], mode='reflect')
    starts = rng.integers(0, 2 * most + 1, (len(images), 2))
    return np.stack([image[y : y + size, x : x + size] for image, (y, x) in zip(padded, starts, strict=True)])


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--data', required=True)
    parser.add_argument('--split', default='test')
    parser.add_argument('--shift', type=int, default=24)
    parser.add_argument('--background', type=int, default=256)
    parser.add_argument('--seed', type=int, default=0)
    flags = parser.parse_args(argv)
    command.keep_compiled()
    model = CropSampler(flags.checkpoint)
    config = model.config
    config.data.path = flags.data
    source = sources.open_source(config.data, flags.split)
    cases = cases_lib.load(source, range(len(source)))
    marked = cases.raters.any((1, 2, 3))
    real, raters = cases.images[marked], cases.raters[marked].any((2, 3)).sum(1)
    sets = {
        'real, as stored': real,
        f'real, moved by up to {flags.shift}': moved(real, flags.shift, flags.seed),
        'simulated, no nodule': background(flags.background, config.data.image_size, flags.seed),
    }
    settings = Settings(config.sample.num_samples, config.sample.num_steps, flags.seed, 1, 1)
    shares = {}
    for name, crops in sets.items():
        numbers = np.random.default_rng(flags.seed).integers(0, 2**32, len(crops), np.uint32)
        shares[name] = model.screen(settings, crops, numbers, [f'{name} {row}' for row in range(len(crops))])
    most = raters.max()
    print(f'{flags.checkpoint}, {flags.split}: dropped at each threshold')
    for threshold in [0, *(2**n / SCREEN_SAMPLES for n in range(4))]:
        told = []
        for name, share in shares.items():
            dropped = share <= threshold
            told.append(f'{name} {dropped.sum()} of {len(share)} ({dropped.mean():.1%})')
            if 'real' in name:
                told[-1] += f', of those all {most} raters outlined {(dropped & (raters == most)).sum()}'
        print(f'{threshold:.4g}: {"; ".join(told)}', flush=True)
    screener = model.screener()
    total = sum(map(len, sets.values()))
    print(f'{screener.seconds / total:.3f} s a crop')
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(command.fail(error))
