"""Cases of the layout `case_folder`: pictures, volumes, masks and the table of patients."""

import csv

import nibabel
import numpy as np
from PIL import Image

from ambdiff.config import default
from ambdiff.data import sources


def settings(path, **changes):
    config = default()
    with config.unlocked():
        config.data.update({'path': str(path), 'image_size': 16, 'num_raters': 3, 'intensity': 'full_range'} | changes)
    return config.data


def save(path, pixels, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if '.nii' in path.name:
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4) if affine is None else affine), path)
    else:
        Image.fromarray(pixels).save(path)


def write_case(folder, raters=3, size=16, value=100, white=255, suffix='png'):
    """A picture of one grey value; rater r marks a square of side 2 + r."""
    save(folder / f'image.{suffix}', np.full((size, size), value, np.uint8))
    for rater in range(raters):
        mask = np.zeros((size, size), np.uint8)
        mask[4 : 6 + rater, 4 : 6 + rater] = white
        save(folder / f'mask_{rater}.{suffix}', mask)
    return folder


def write_cases(root, count=12, **changes):
    for number in range(count):
        write_case(root / f'case{number}', value=10 * number, **changes)
    return root


def write_volume(folder, raters=2, affine=None, mask_affine=None):
    """A 3-D case of 5 axial slices whose values tell them apart; rater r marks slices 1 .. 1 + r."""
    image = np.broadcast_to(np.arange(5, dtype=np.uint8) * 50, (8, 6, 5)).copy()
    save(folder / 'image.nii.gz', image, affine)
    for rater in range(raters):
        mask = np.zeros((8, 6, 5), np.uint8)
        mask[2:5, 3:4, 1 : 2 + rater] = 1
        save(folder / f'mask_r{rater}.nii.gz', mask, affine if mask_affine is None else mask_affine)
    return folder


def opened(path, split='train', **changes):
    return sources.open_source(settings(path, **changes), split)


def areas(item):
    return sorted(item['masks'].sum((1, 2)).tolist())


def write_table(root, rows, columns=('case', 'patient')):
    with (root / 'patients.csv').open('w', newline='') as file:
        csv.writer(file).writerows([columns, *rows])


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
