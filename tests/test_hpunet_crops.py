"""HPU-Net's PNG crops: images and masks as stored, and one line for each mistake in a file."""

import shutil
import struct
import zlib

import ml_collections
import numpy as np
import pytest
from PIL import Image

from ambdiff.data import example, sources
from ambdiff.errors import UserError


def settings(path, **changes):
    fields = {
        'path': str(path),
        'builder': '',
        'pattern': '',
        'image_size': 128,
        'fit': 'crop',
        'num_raters': 4,
        'num_classes': 1,
        'channels': 1,
        'neighbours': 0,
    }
    return ml_collections.ConfigDict(fields | changes)


def write(root, inner='', slices=2, dtype=np.uint8):
    """Two patients a split; returns {(split, case): (image, masks)}."""
    rng = np.random.default_rng(0)
    expected = {}
    for number, split in enumerate(('train', 'val', 'test')):
        base = root / inner.format(split) / split
        for patient in (f'LIDC-IDRI-{number}1', f'LIDC-IDRI-{number}2'):
            for part in ('images', 'gt'):
                (base / part / patient).mkdir(parents=True)
            for z in range(slices):
                name = f'z--{z}.5_c{z}'
                image = rng.integers(0, np.iinfo(dtype).max, (180, 180)).astype(dtype)
                masks = rng.integers(0, 2, (4, 180, 180)).astype(np.uint8)
                Image.fromarray(image).save(base / 'images' / patient / f'{name}.png')
                for rater, mask in enumerate(masks):
                    Image.fromarray(mask * 255).save(base / 'gt' / patient / f'{name}_l{rater}.png')
                expected[split, f'{patient}/{name}'] = image, masks
    return expected


@pytest.mark.parametrize(('inner', 'dtype'), [('', np.uint8), ('lidc_crops_{}', np.uint8), ('', np.uint16)])
@pytest.mark.parametrize('kept', [True, False])
def test_the_centre_of_each_crop_is_read_as_stored(tmp_path, monkeypatch, inner, dtype, kept):
    expected = write(tmp_path, inner, dtype=dtype)
    if not kept:
        monkeypatch.setattr(example, 'MEMORY_LIMIT', 1)
    for split, folder in (('train', 'train'), ('validation', 'val'), ('test', 'test')):
        source = sources.open_source(settings(tmp_path), split)
        assert len(source) == 4 == len(source.patients)
        for item in (source[i] for i in range(4)):
            image, masks = expected[folder, item['case']]
            np.testing.assert_allclose(item['image'][..., 0], image[26:154, 26:154] / np.iinfo(dtype).max, atol=1e-6)
            assert {m.tobytes() for m in item['masks']} == {m[26:154, 26:154].tobytes() for m in masks}
            assert item['patient'] == item['case'].split('/')[0]
            np.testing.assert_array_equal(item['spacing'], [0.5, 0.5])


def first(root, part):
    return sorted((root / 'train' / part).rglob('*.png'))[0]


def fails(root, *parts):
    with pytest.raises(UserError) as caught:
        sources.open_source(settings(root), 'train')
    assert '\n' not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_each_mistake_is_named_with_its_file(tmp_path):
    write(tmp_path, slices=1)
    mask = first(tmp_path, 'gt')
    whole = mask.read_bytes()
    mask.write_bytes(whole[:-40])
    fails(tmp_path, mask.name, 'not a whole PNG')
    Image.fromarray(np.zeros((180, 170), np.uint8)).save(mask)
    fails(tmp_path, mask.name, '180x170', '180x180')
    Image.fromarray(np.arange(180 * 180, dtype=np.uint8).reshape(180, 180)).save(mask)
    fails(tmp_path, mask.name, 'black and white')
    mask.unlink()
    present = sources.open_source(settings(tmp_path), 'train')[0]['present']
    assert present.sum() == 3
    (extra := mask.with_name(mask.name.replace('_l0', '_l4'))).write_bytes(whole)
    (another := mask.with_name(mask.name.replace('_l0', '_l5'))).write_bytes(whole)
    fails(tmp_path, first(tmp_path, 'images').name, 'has 5 masks', 'config.data.num_raters is 4')
    extra.unlink()
    another.unlink()
    mask.write_bytes(whole)
    image = first(tmp_path, 'images')
    colour = np.zeros((180, 180, 3), np.uint8)
    colour[..., 1] = 9
    Image.fromarray(colour).save(image)
    fails(tmp_path, image.name, 'colour')
    # A header that claims 2^31 x 2^31 pixels; nothing is decoded.
    header = b'IHDR' + struct.pack('>II', 2**31 - 1, 2**31 - 1) + bytes([8, 0, 0, 0, 0])
    chunk = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    image.write_bytes(image.read_bytes()[:8] + chunk + image.read_bytes()[33:])
    fails(tmp_path, image.name)


def test_a_grey_image_stored_in_colour_is_read(tmp_path):
    write(tmp_path, slices=1)
    before = sources.open_source(settings(tmp_path), 'train')[0]
    image = first(tmp_path, 'images')
    Image.fromarray(np.asarray(Image.open(image))).convert('RGB').save(image)
    np.testing.assert_array_equal(sources.open_source(settings(tmp_path), 'train')[0]['image'], before['image'])


def test_a_patient_in_two_splits_is_refused(tmp_path):
    write(tmp_path, slices=1)
    (tmp_path / 'test' / 'images' / 'LIDC-IDRI-01').mkdir()
    fails(tmp_path, 'both train and test', 'LIDC-IDRI-01')


@pytest.mark.parametrize('name', ['{}_l9.PNG', '{}-l3.png', '{}_l00.png', 'x_l1.png'])
def test_a_mask_of_another_name_is_a_fault_and_no_lost_rater(tmp_path, name):
    write(tmp_path, slices=1)
    image = sorted((tmp_path / 'train' / 'images').rglob('*.png'))[0]
    folder = tmp_path / 'train' / 'gt' / image.parent.name
    shutil.copy(sorted(folder.iterdir())[0], folder / name.format(image.stem))
    (folder / 'Thumbs.db').write_bytes(b'')
    with pytest.raises(UserError, match=r'of a rater of its own|is not there'):
        sources.open_source(settings(tmp_path), 'train')
    assert len(sources.open_source(settings(tmp_path), 'train', walk=True).findings().faults) == 1
