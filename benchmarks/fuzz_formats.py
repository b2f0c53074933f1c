"""The formats of fuzz_readers.py: how an input of each is made and what reads it."""

import functools
import json
from collections.abc import Callable

import fuzz_files
import numpy as np
from fuzz_damage import dicom_elements, nifti_fields, pickle_code, png_chunks, some_bytes, tiff_tags

from ambdiff import config_saved
from ambdiff.config import default
from ambdiff.data import check, sources, splits
from ambdiff.data.files import hdf5, images, tables
from ambdiff.data.files import masks as mask_files
from ambdiff.data.lidc import outlines, xml
from ambdiff.data.pattern import presets
from ambdiff.errors import UserError
from ambdiff.prediction import earlier
from ambdiff.runtime import integrity, weights_file


def _settings(path, **changes):
    data = default().data
    data.update({'path': str(path), 'image_size': 16, 'intensity': 'full_range'} | changes)
    return data


def _examine(path):
    """As the check reads data; what only its last net caught counts as if it had not."""
    for fault in check.examine(_settings(path, num_raters=2))[2]:
        if 'cannot be read (' in fault and 'Error: ' in fault:
            raise RuntimeError(fault)


def _examine_pattern(path):
    """As `_examine`, by a pattern that reads the same tree: pictures, structures and HDF5."""
    data = {'num_raters': 2, 'pattern': 'image=image.png,mask=mask_*.(png|tif)', 'num_classes': 1}
    for changes in (
        data,
        data | {'pattern': 'image=image.png,mask=mask_{structure}.png,classes=a:b', 'num_classes': 2},
    ):
        for fault in check.examine(_settings(path, **changes))[2]:
            if 'cannot be read (' in fault and 'Error: ' in fault:
                raise RuntimeError(fault)


def _data_set(path):
    hdf5.read(path, 'train/images')
    hdf5.names(path)


def _pattern(path):
    found = presets.pattern_of(path.read_text(errors='replace'))
    for place in (*found.images, *found.masks):
        place.match('a/b/c/image_1_2_3.png' * 8)


def _open(path):
    source = sources.open_source(_settings(path), 'train')
    for row in range(len(source)):
        source[row]


def _image(path):
    """As an image of one and of three channels, and as masks of one and of two classes."""
    problems = []
    for options in ({}, {'channels': 3}, {'classes': 1}, {'classes': 2}):
        try:
            volume = images.read(path, **options)
            if options.get('classes'):
                mask_files.labels(path, volume.values[..., 0], options['classes'], white=volume.white)
        except UserError as error:
            problems.append(error)
    if len(problems) == 4:
        raise problems[0]


def _table(path):
    try:
        [(row.number('x'), row.number('y')) for row in tables.read(path, ('x', 'y'), ('z', 'file'))]
    except UserError:
        splits.read_table(path)


def _json(path):
    """As a manifest, as a config that comes with weights, and as the summary of a prediction."""
    integrity.damage(path.parent, ('ema',))
    earlier.read(path.parent)
    try:
        saved = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: no JSON') from error
    config_saved.restored(saved, path)


def _made(name: str, seeds: Callable, *damages: Callable) -> Callable:
    """(folder, rng) -> a damaged file of that name; sound ones are made once for each kind that `seeds` gives."""
    kept = functools.cache(lambda: seeds(np.random.default_rng(0)))

    def make(folder, rng):
        sound, damage = kept(), damages[int(rng.integers(len(damages)))]
        path = folder / name
        path.write_bytes(damage(sound[int(rng.integers(len(sound)))], rng))
        return path

    return make


def _written(name: str, write: Callable) -> Callable:
    """(folder, rng) -> a file of that name with what write(rng) gives, further bytes damaged now and then."""

    def make(folder, rng):
        content = write(rng)
        (folder / name).write_bytes(content if rng.random() < 0.6 else some_bytes(content, rng))
        return folder / name

    return make


# Format -> (how a damaged input is made, what reads it).
FORMATS = {
    'png': (_made('a.png', fuzz_files.pngs, some_bytes, png_chunks), _image),
    'jpeg': (
        _made(
            'a.jpg', lambda rng: [fuzz_files.picture(m, rng, format='JPEG') for m in ('L', 'RGB', 'CMYK')], some_bytes
        ),
        _image,
    ),
    'tiff': (_made('a.tif', fuzz_files.tiffs, some_bytes, tiff_tags), _image),
    'nifti': (_made('a.nii', fuzz_files.niftis, some_bytes, nifti_fields), _image),
    'dicom': (
        _made('a.dcm', lambda rng: [fuzz_files.dicom(False), fuzz_files.dicom(True)], some_bytes, dicom_elements),
        _image,
    ),
    'hdf5': (_written('a.hdf5', fuzz_files.hdf5), _open),
    'pickle': (
        _made('a.pickle', lambda rng: [fuzz_files.knegt(rng) for _ in range(4)], some_bytes, pickle_code),
        _open,
    ),
    'csv': (_written('a.csv', fuzz_files.csv), _table),
    'safetensors': (_written('a.safetensors', fuzz_files.safetensors), weights_file.load_safetensors),
    'xml': (_written('a.xml', fuzz_files.odd_xml), xml.read),
    'sqlite': (fuzz_files.sqlite_file, outlines.read_nodules),
    'hpunet': (lambda folder, rng: fuzz_files.tree(folder / 'tree', rng, 'hpunet'), _examine),
    'pattern': (lambda folder, rng: fuzz_files.tree(folder / 'tree', rng, 'cases'), _examine_pattern),
    'grammar': (_written('a.txt', fuzz_files.pattern), _pattern),
    'data set': (_written('a.h5', fuzz_files.hdf5), _data_set),
    'cases': (lambda folder, rng: fuzz_files.tree(folder / 'tree', rng, 'cases'), _examine),
    'json': (fuzz_files.json_folder, _json),
}
