"""Readers of foreign layouts: what they yield, and one clear line for each mistake in a file."""

import logging
import os
import struct

import h5py
import numpy as np
import pytest
from PIL import Image

from ambdiff.config import default
from ambdiff.data import example, sources
from ambdiff.data.layouts import cimd_folder, phiseg_hdf5
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


def test_the_real_hdf5_has_its_splits_with_disjoint_patients_and_a_third_of_masks_empty(shared):
    path = shared / 'data' / 'data_lidc.hdf5'
    if not path.exists():
        pytest.skip('no real HDF5 sample')
    data = settings(path, image_size=64)
    opened = {split: sources.open_source(data, split) for split in example.SPLITS}
    assert [len(source) for source in opened.values()] == [1823, 139, 121]
    patients = [set(source.patients) for source in opened.values()]
    assert len(set.union(*patients)) == sum(map(len, patients))
    empty = [~item['masks'].any((1, 2)) for source in opened.values() for item in iter_(source)]
    assert 0.33 < np.mean(empty) < 0.37
    # The files list absent readers last; shuffled, every slot is empty about as often.
    assert np.ptp(np.mean(empty, 0)) < 0.05
    described = sources.describe(opened['test'])
    assert described == '121 cases, 43 patients, 4 raters, 36% of masks empty'


def test_the_real_cimd_folder_serves_every_split_and_no_case_twice(shared):
    path = shared / 'data' / 'cimd_sample'
    if not path.exists():
        pytest.skip('no real folder sample')
    data = settings(path, image_size=128)
    opened = [list(iter_(sources.open_source(data, split))) for split in example.SPLITS]
    assert [len(items) for items in opened] == [17, 1, 1]
    assert len({item['case'] for items in opened for item in items}) == 19
    # JPEG noise around 0 would mark half of each mask if the threshold were 0.
    assert all(item['masks'].mean() < 0.15 for items in opened for item in items)


def iter_(source):
    return (source[index] for index in range(len(source)))


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


def test_both_label_orders_give_the_same_examples_with_half_added_to_the_image(tmp_path):
    last = sources.open_source(settings(write_hdf5(tmp_path / 'a')), 'test')
    first = sources.open_source(settings(write_hdf5(tmp_path / 'b', order='first')), 'test')
    with h5py.File(tmp_path / 'a') as file:
        images, labels = file['test/images'][()], file['test/labels'][()]
    for index in range(6):
        np.testing.assert_array_equal(first[index]['masks'], last[index]['masks'])
        np.testing.assert_allclose(last[index]['image'][..., 0], images[index] + 0.5, atol=1e-6)
        ours = {mask.tobytes() for mask in last[index]['masks']}
        assert ours == {labels[index, :, :, rater].tobytes() for rater in range(4)}


@pytest.mark.parametrize(
    ('images', 'labels', 'axis'),
    [
        ((9, 8, 8), (9, 8, 8, 4), 3),
        ((9, 8, 8), (9, 4, 8, 8), 1),
        ((9, 4, 4), (9, 4, 4, 4), 3),  # nothing tells them apart: PHiSeg's order
        ((9, 8, 4), (9, 4, 8, 4), 1),
        ((9, 4, 8), (9, 4, 8, 4), 3),
    ],
)
def test_the_rater_axis_is_told_by_the_shapes(images, labels, axis):
    assert phiseg_hdf5.rater_axis('here', images, labels, 4) == axis


def test_a_file_too_large_for_memory_gives_the_same_examples_and_checks(tmp_path, monkeypatch):
    path = write_hdf5(tmp_path / 'a')
    kept = sources.open_source(settings(path), 'train')
    monkeypatch.setattr(example, 'MEMORY_LIMIT', 1)
    lazy = sources.open_source(settings(path), 'train')
    for a, b in zip(iter_(kept), iter_(lazy), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    broken = np.zeros((6, 12, 12), np.float32)
    broken[4, 1, 2] = np.nan
    lazy = sources.open_source(settings(write_hdf5(tmp_path / 'b', images=broken)), 'train')
    assert lazy[3]['image'].max() == 0.5
    with pytest.raises(UserError, match=r'train/images\[4\]: has NaN'):
        lazy[4]


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


def test_masks_of_jpegs_are_thresholded_between_black_and_white(tmp_path):
    write_case(tmp_path / 'testing' / '7', height=32, width=32)
    item = sources.open_source(settings(tmp_path, image_size=32), 'test')[0]
    assert sorted(item['masks'].sum((1, 2))) == [0, 16, 36, 64]
    np.testing.assert_allclose(item['image'], 0.2, atol=0.01)
    assert item['case'] == 'testing/7/image_1' and item['patient'] == ''
    assert np.isnan(item['spacing']).all()


def test_a_folder_too_large_for_memory_gives_the_same_examples(tmp_path, monkeypatch):
    for case in range(3):
        write_case(tmp_path / 'training' / str(case))
    kept = sources.open_source(settings(tmp_path), 'train')
    monkeypatch.setattr(example, 'MEMORY_LIMIT', 1)
    lazy = sources.open_source(settings(tmp_path), 'train')
    for name in kept[0]:
        np.testing.assert_array_equal(kept[0][name], lazy[0][name])


def test_splits_missing_from_a_folder_are_cut_from_the_end_of_training(tmp_path, caplog):
    for case in range(30):
        write_case(tmp_path / 'training' / str(case))
    write_case(tmp_path / 'testing' / '0')
    with caplog.at_level(logging.WARNING):
        names = {
            split: [item['case'] for item in iter_(sources.open_source(settings(tmp_path), split))]
            for split in example.SPLITS
        }
    assert names['train'] == [f'training/{case}/image_1' for case in range(27)]
    assert names['validation'] == [f'training/{case}/image_1' for case in range(27, 30)]
    assert names['test'] == ['testing/0/image_1']
    assert 'patients are not named' in caplog.text
    opened = sources.open_source(settings(tmp_path / 'training'), 'test')
    assert opened[0]['case'] == 'training/27/image_1'
    assert 'patients unknown' in sources.describe(opened)


def test_every_case_of_a_folder_is_in_exactly_one_split_at_any_number_of_cases():
    for cases in range(3, 60):
        parts = cimd_folder.cut(list(range(cases)), ['validation', 'test'])
        assert [case for part in parts.values() for case in part] == list(range(cases))
        assert all(parts.values())


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


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_hdf5_is_one_line(tmp_path, share):
    path = write_hdf5(tmp_path / 'cut.hdf5')
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    fails(settings(path), 'train', 'cut.hdf5')


def test_a_damaged_chunk_of_an_hdf5_is_one_line(tmp_path):
    path = tmp_path / 'damaged.hdf5'
    write_hdf5(path, images=None)
    with h5py.File(path, 'a') as file:
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 12, 12))
        images = file.create_dataset('train/images', data=noise, chunks=(6, 12, 12), compression='gzip')
        chunk = images.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 64] = bytes(64)
    path.write_bytes(content)
    fails(settings(path), 'train', 'damaged.hdf5: train', 'slices 0 to 5 cannot be read')


@pytest.mark.parametrize(
    ('changes', 'parts'),
    [
        ({'labels': None}, ["no 'train/labels'"]),
        ({'uids': None}, ["no 'train/uids'"]),
        ({'labels': np.zeros((6, 10, 12, 4))}, ['[6,12,12]', '[6,10,12,4]', 'same height']),
        ({'labels': np.zeros((6, 12, 12, 3))}, ['3 labels', '--config.data.num_raters=3']),
        ({'labels': np.zeros((5, 12, 12, 4))}, ['6 images, 5 labels and 6 uids']),
        ({'labels': np.full((6, 12, 12, 4), 255)}, ['train/labels[0]', 'value 255']),
        ({'labels': np.zeros((6, 12, 12))}, ['labels [6,12,12]', '[n,H,W,M]']),
        ({'images': np.full((6, 12, 12), np.inf)}, ['train/images[0]', 'infinite']),
        ({'images': np.full((6, 12, 12), 120.0)}, ['120', '[-0.5, 0.5]']),
        ({'images': np.full((6, 12, 12), b'x')}, ["'train/images' holds"]),
        ({'uids': np.zeros(0, int)}, ["split 'train' has no patient"]),
        ({'uids': np.array([b'a', b'', b'a', b'a', b'a', b'a'])}, ['1 slices', 'no patient']),
        ({'uids': np.full(6, 100)}, ['1 patients', 'train and val', "'100'"]),
        ({'uids': np.zeros((6, 2), int)}, ["'train/uids' is [6,2]"]),
    ],
)
def test_each_mistake_in_an_hdf5_is_named_with_its_place(tmp_path, changes, parts):
    path = write_hdf5(tmp_path / 'a.hdf5', **changes)
    fails(settings(path), 'train', 'a.hdf5', *parts)


def test_a_missing_split_of_an_hdf5_is_named_and_the_others_can_be_read(tmp_path):
    path = write_hdf5(tmp_path / 'a.hdf5')
    with h5py.File(path, 'a') as file:
        del file['val']
    fails(settings(path), 'validation', "no 'val'", 'test, train')
    assert len(sources.open_source(settings(path), 'test')) == 6


def test_an_hdf5_cannot_pull_in_other_files(tmp_path):
    secret = write_hdf5(tmp_path / 'secret.hdf5')
    path = write_hdf5(tmp_path / 'linked.hdf5', images=None)
    with h5py.File(path, 'a') as file:
        file['train/images'] = h5py.ExternalLink(str(secret), 'train/images')
    fails(settings(path), 'train', "'train/images' is a link")
    path = write_hdf5(tmp_path / 'virtual.hdf5', images=None)
    layout = h5py.VirtualLayout((6, 12, 12), 'f4')
    layout[:] = h5py.VirtualSource(str(secret), 'train/images', (6, 12, 12))
    with h5py.File(path, 'a') as file:
        file['train'].create_virtual_dataset('images', layout)
    fails(settings(path), 'train', "'train/images' keeps its data in other files")


def test_an_hdf5_that_claims_huge_images_is_refused_before_reading(tmp_path):
    path = write_hdf5(tmp_path / 'bomb.hdf5', images=None, labels=None)
    with h5py.File(path, 'a') as file:
        file.create_dataset('train/images', (6, 99999, 99999), 'f4', chunks=(1, 64, 64))
        file.create_dataset('train/labels', (6, 99999, 99999, 4), 'u1', chunks=(1, 64, 64, 4))
    fails(settings(path), 'train', 'train/images', '99999x99999')


def test_each_mistake_in_a_folder_is_named_with_its_file(tmp_path):
    (tmp_path / 'empty').mkdir()
    fails(settings(tmp_path / 'empty'), 'train', 'empty', 'no case')
    (tmp_path / 'bare' / 'training').mkdir(parents=True)
    fails(settings(tmp_path / 'bare'), 'train', "split 'train' has no case")
    write_case(tmp_path / 'few' / 'testing' / '1', raters=3)
    fails(settings(tmp_path / 'few'), 'test', '3 files label', 'config.data.num_raters is 4')
    fails(settings(tmp_path / 'few'), 'train', "no split for 'train'")
    write_case(tmp_path / 'two' / 'testing' / '1')
    write_jpeg(tmp_path / 'two' / 'testing' / '1' / 'image_2.jpg', np.zeros((16, 16)))
    fails(settings(tmp_path / 'two'), 'test', '2 files image_')
    write_case(tmp_path / 'size' / 'testing' / '1')
    write_jpeg(tmp_path / 'size' / 'testing' / '1' / 'label2_.jpg', np.zeros((16, 15)))
    fails(settings(tmp_path / 'size'), 'test', 'label2_.jpg: 16x15', '16x16', 'same size')
    write_case(tmp_path / 'grey' / 'testing' / '1')
    write_jpeg(tmp_path / 'grey' / 'testing' / '1' / 'label2_.jpg', np.ones((16, 16)))
    fails(settings(tmp_path / 'grey'), 'test', 'label2_.jpg', 'black and white')


def test_a_folder_beside_its_hdf5_points_at_the_file(tmp_path):
    path = write_hdf5(tmp_path / 'data_lidc.hdf5')
    fails(settings(tmp_path), 'train', f'did you mean {path}')


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9])
def test_a_truncated_jpeg_is_one_line(tmp_path, share):
    write_case(tmp_path / 'testing' / '1', height=64, width=64)
    path = tmp_path / 'testing' / '1' / 'image_1.jpg'
    write_jpeg(path, np.random.default_rng(0).integers(0, 255, (64, 64)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    fails(settings(tmp_path), 'test', 'image_1.jpg')


@pytest.mark.parametrize('side', [5000, 12000, 60000])
def test_a_jpeg_that_claims_huge_sides_is_refused_before_decoding(tmp_path, side):
    write_case(tmp_path / 'testing' / '1')
    path = tmp_path / 'testing' / '1' / 'label1_.jpg'
    content = bytearray(path.read_bytes())
    frame = content.index(b'\xff\xc0')  # start of frame: length, precision, height, width
    content[frame + 5 : frame + 9] = struct.pack('>HH', side, side)
    path.write_bytes(content)
    fails(settings(tmp_path), 'test', 'label1_.jpg', 'pixels')


def test_label_maps_of_several_classes_are_read_as_they_are(tmp_path):
    labels = np.random.default_rng(3).integers(0, 3, (6, 12, 12, 4)).astype(np.uint8)
    path = write_hdf5(tmp_path / 'labels.hdf5', labels=labels)
    item = sources.open_source(settings(path, num_classes=2), 'train')[0]
    assert set(np.unique(item['masks'])) == {0, 1, 2} and item['present'].all()
    with pytest.raises(UserError, match='num_classes=1 masks are stored as 0 and 1'):
        sources.open_source(settings(path), 'train')


def test_cases_with_fewer_raters_are_padded_and_marked():
    masks, present = example.padded('case 3', np.ones((2, 4, 4), np.uint8), 4)
    item = example.make(np.zeros((4, 4)), masks, case='3', patient='', index=0, size=4, fit='crop', present=present)
    assert item['present'].sum() == 2
    np.testing.assert_array_equal(item['masks'].any((1, 2)), item['present'])
    for count in (0, 5):
        with pytest.raises(UserError, match=f'case 3: {count} masks.*num_raters is 4'):
            example.padded('case 3', np.ones((count, 4, 4), np.uint8), 4)


@pytest.mark.parametrize(
    ('name', 'shape', 'kind', 'chunks', 'message'),
    [
        ('images', (6, 4096, 4096), 'f8', (6, 4096, 4096), 'chunks of 805306368 bytes'),
        ('images', (6, 4096, 4096), 'f8', (1, 512, 4096), 'claims 805306368 bytes and holds 0'),
        ('uids', (6,), 'S1000000000', (1,), 'chunks of 1000000000 bytes'),
        ('uids', (2_000_000,), 'S1000', (1000,), 'claims 2000000000 bytes and holds 0'),
    ],
)
def test_an_hdf5_that_would_grow_far_beyond_the_file_is_refused_before_reading(
    tmp_path, name, shape, kind, chunks, message
):
    path = write_hdf5(tmp_path / 'bomb.hdf5', images=None, labels=None)
    with h5py.File(path, 'a') as file:
        file.create_dataset('train/images', (6, 4096, 4096), 'u1', chunks=(1, 512, 4096), compression='gzip')
        file.create_dataset('train/labels', (6, 4096, 4096, 4), 'u1', chunks=(1, 4096, 4096, 4), compression='gzip')
        del file[f'train/{name}']
        file.create_dataset(f'train/{name}', shape, kind, chunks=chunks, compression='gzip')
    fails(settings(path), 'train', f'train/{name}', message)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    fails(settings(tmp_path / 'pipe'), 'train', 'pipe: neither a file nor a folder')


@pytest.mark.parametrize('name', ['label4.jpg', 'label4_.png', 'label01_again.jpg'])
def test_a_label_of_another_name_is_a_fault_and_no_lost_rater(tmp_path, name):
    write_case(tmp_path / 'testing' / '1')
    write_jpeg(tmp_path / 'testing' / '1' / 'label4_.jpg', np.zeros((16, 16)))
    (tmp_path / 'testing' / '1' / 'label4_.jpg').rename(tmp_path / 'testing' / '1' / name)
    fails(settings(tmp_path), 'test', 'of a rater of its own')
