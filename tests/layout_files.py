"""Small files of the layouts `phiseg_hdf5` and `cimd_folder`, and how opening them fails."""

import h5py
import numpy as np
import pytest
from PIL import Image

from ambdiff.config import default
from ambdiff.data import sources
from ambdiff.errors import UserError


def settings(path='', **changes):
    data = default().data
    data.update({'path': str(path), 'image_size': 12} | changes)
    return data


def write_hdf5(path, cases=6, height=12, width=12, order='last', **changes):
    """A file of three splits; changes replace datasets of train, None leaves one out."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (cases, height, width, 4), dtype=np.uint8)
    with h5py.File(path, 'w') as file:
        for number, group in enumerate(('train', 'val', 'test')):
            data = {
                'images': rng.uniform(-0.5, 0.5, (cases, height, width)).astype(np.float32),
                'labels': labels if order == 'last' else np.moveaxis(labels, 3, 1),
                'uids': np.arange(cases) // 2 + 100 * number,
            }
            if group == 'train':
                data |= changes
            for name, value in data.items():
                if value is not None:
                    file.create_dataset(f'{group}/{name}', data=value)
    return path


def write_jpeg(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, quality=95)


def write_case(folder, raters=4, height=16, width=16):
    """A case of the CIMD layout; rater r marks a square of side 4 + 2 r, the last one nothing."""
    write_jpeg(folder / 'image_1.jpg', np.full((height, width), 51))
    for rater in range(raters):
        mask = np.zeros((height, width))
        if rater < raters - 1:
            mask[2 : 6 + 2 * rater, 2 : 6 + 2 * rater] = 255
        write_jpeg(folder / f'label{rater}_.jpg', mask)


def iter_(source):
    return (source[index] for index in range(len(source)))


def fails(data, split, *parts):
    """The one-line message of the UserError that opening `data` raises, which names all parts."""
    with pytest.raises(UserError) as caught:
        source = sources.open_source(data, split)
        list(iter_(source))
    message = str(caught.value)
    assert '\n' not in message
    for part in parts:
        assert part in message
    return message
