"""Readers of foreign layouts: what they yield, and one clear line for each mistake in a file."""

import os

import numpy as np
import pytest
from layout_files import fails, settings, write_hdf5

from ambdiff.data import example, sources
from ambdiff.errors import UserError


@pytest.mark.parametrize('fit', ['crop', 'resize'])
@pytest.mark.parametrize('size', [8, 12, 17])
def test_an_example_has_the_types_shapes_and_ranges_of_the_contract(tmp_path, fit, size):
    path = write_hdf5(tmp_path / 'a.hdf5', height=12, width=9)
    item = sources.open_source(settings(path, fit=fit, image_size=size), 'train')[3]
    assert item['image'].shape == (size, size, 1) and item['image'].dtype == np.float32
    assert item['image'].min() >= 0 and item['image'].max() <= 1
    assert item['masks'].shape == (4, size, size) and item['masks'].dtype == np.uint8
    assert set(np.unique(item['masks'])) == {0, 1}
    assert item['spacing'].shape == (2,) and item['spacing'].dtype == np.float32
    assert (item['case'], item['patient']) == ('train-00003', '1')


def test_raters_are_shuffled_by_case_and_the_same_each_time():
    masks = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)

    def order(index):
        item = example.make(np.zeros((2, 2)), masks, case='', patient='', index=index, size=2, fit='crop')
        return tuple(item['masks'][:, 0, 0])

    orders = [order(index) for index in range(500)]
    assert orders == [order(index) for index in range(500)]
    assert len(set(orders)) == 24
    assert all(len(set(one)) == 4 for one in orders)


def test_crop_keeps_the_centre_and_pads_images_by_reflection_and_masks_by_nothing():
    image = np.arange(20, dtype=np.float32).reshape(4, 5) / 20
    np.testing.assert_array_equal(example.centre(image, 2, 'reflect'), image[1:3, 1:3])
    padded = example.centre(image, 8, 'reflect')
    np.testing.assert_array_equal(padded[2:6, 1:6], image)
    np.testing.assert_array_equal(padded[1, 1:6], image[1])
    masks = example.centre(np.ones((3, 4, 5), np.uint8), 8, 'constant')
    assert masks.sum() == 3 * 20 and masks[:, 2:6, 1:6].all()


def test_resize_moves_image_masks_and_spacing_together():
    square = np.zeros((8, 16), np.float32)
    square[2:6, 4:12] = 1
    item = example.make(
        square,
        square[None].astype(np.uint8),
        case='',
        patient='',
        index=0,
        size=32,
        fit='resize',
        spacing=(1.0, 0.5),
    )
    expected = np.zeros((32, 32), bool)
    expected[8:24, 8:24] = True
    np.testing.assert_array_equal(item['masks'][0].astype(bool), expected)
    np.testing.assert_array_equal(item['image'][..., 0] > 0.4, expected)
    np.testing.assert_allclose(item['spacing'], [0.25, 0.25])


def test_no_data_says_what_is_missing_where_it_comes_from_and_what_runs_without(tmp_path):
    cure = 'python -m ambdiff.main --config=configs/demo.py'
    fails(settings(), 'train', 'config.data.path', 'LIDC-IDRI', cure)
    fails(settings(tmp_path / 'nowhere.hdf5'), 'train', 'nowhere.hdf5: no such file', cure)


def test_settings_that_do_not_exist_are_named(tmp_path):
    path = write_hdf5(tmp_path / 'a')
    fails(settings(path), 'val', "split 'val'", 'train, validation, test')
    fails(settings(path, fit='zoom'), 'train', 'config.data.fit', "'zoom'")
    fails(settings(path, image_size=0), 'train', 'config.data.image_size is 0')
    fails(settings(path, channels=3), 'train', 'config.data.channels is 3')
    fails(settings(builder='lidc_real'), 'train', 'config.data.builder', 'lidc_simulated')


def test_a_folder_beside_its_hdf5_points_at_the_file(tmp_path):
    path = write_hdf5(tmp_path / 'data_lidc.hdf5')
    fails(settings(tmp_path), 'train', f'did you mean {path}')


def test_cases_with_fewer_raters_are_padded_and_marked():
    masks, present = example.padded('case 3', np.ones((2, 4, 4), np.uint8), 4)
    item = example.make(np.zeros((4, 4)), masks, case='3', patient='', index=0, size=4, fit='crop', present=present)
    assert item['present'].sum() == 2
    np.testing.assert_array_equal(item['masks'].any((1, 2)), item['present'])
    for count in (0, 5):
        with pytest.raises(UserError, match=f'case 3: {count} masks.*num_raters is 4'):
            example.padded('case 3', np.ones((count, 4, 4), np.uint8), 4)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    fails(settings(tmp_path / 'pipe'), 'train', 'pipe: neither a file nor a folder')
