"""How long predict takes for a whole chest CT, and how much memory: with points, and without.

  python benchmarks/whole_volume.py --folder=FOLDER [--weights=lidc_small] [--slices=300] [--points]

Writes a simulated CT of 512 x 512 x --slices voxels of .7 x .7 x 1.25 mm into the folder: a body with two lungs on a
table, noise, and three balls of known place and size. --points samples around those; else tiles cover the body. The
balls show speed, units and places alone: the weights never saw such images. A run that is killed goes on.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import time

import nibabel
import numpy as np

BALLS = ((150, 240, 0.33, 6), (350, 230, 0.5, 8), (180, 270, 0.67, 10))  # column, row, share of the height, radius


def chest(slices: int) -> np.ndarray:
    """HU of the simulated CT, int16 [columns, rows, slices]."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:512, :512].astype(np.float32)
    ellipse = lambda y, x, a, b: ((row - y) / a) ** 2 + ((column - x) / b) ** 2 < 1
    volume = np.full((512, 512, slices), -1000, np.int16)
    for z in range(slices):
        wide = np.sin(np.pi * (z / slices * 300 + 20) / 340)
        plane = np.full((512, 512), -1000, np.float32)
        plane[ellipse(250, 256, 150, 210)] = 40
        if wide > 0.3:
            plane[ellipse(240, 170, 95 * wide, 62 * wide) | ellipse(240, 345, 95 * wide, 62 * wide)] = -860
        plane[415:425] = -100  # the table
        volume[:, :, z] = (plane + rng.normal(0, 20, plane.shape)).T
    x, y, z = np.ogrid[:512, :512, :slices]
    for at_x, at_y, height, radius in BALLS:
        inside = (x - at_x) ** 2 + (y - at_y) ** 2 + (2 * (z - round(height * slices))) ** 2 < radius**2
        volume[inside] = 20
        print(f'ball at {at_x},{at_y},{round(height * slices)}: {inside.sum() * 0.7 * 0.7 * 1.25:.0f} mm³')
    return volume


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--folder', type=pathlib.Path, required=True)
    parser.add_argument('--weights', default='lidc_small')
    parser.add_argument('--slices', type=int, default=300)
    parser.add_argument('--points', action='store_true')
    flags = parser.parse_args(argv)
    flags.folder.mkdir(parents=True, exist_ok=True)
    path = flags.folder / f'ct{flags.slices}.nii.gz'
    if not path.exists():
        nibabel.save(nibabel.Nifti1Image(chest(flags.slices), np.diag([-0.7, -0.7, 1.25, 1])), path)
    places = ';'.join(f'{x},{y},{round(height * flags.slices)}' for x, y, height, _ in BALLS)
    command = [sys.executable, '-m', 'ambdiff', 'predict', str(path), '--weights', flags.weights]
    command += ['-o', str(flags.folder / ('points' if flags.points else 'tiles'))]
    began = time.perf_counter()
    status = subprocess.run([*command, *(['--at', places] if flags.points else [])]).returncode
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f'{time.perf_counter() - began:.0f} s, peak {peak:.2f} GiB')
    return status


if __name__ == '__main__':
    sys.exit(main())
