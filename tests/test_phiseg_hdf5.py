"""The layout `phiseg_hdf5`: both label orders, splits, and one line for each fault of a file."""

import h5py
import numpy as np
import pytest
from layout_files import fails, iter_, settings, write_hdf5

from ambdiff.data import example, sources
from ambdiff.data.layouts import phiseg_hdf5
from ambdiff.errors import UserError


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


def test_label_maps_of_several_classes_are_read_as_they_are(tmp_path):
    labels = np.random.default_rng(3).integers(0, 3, (6, 12, 12, 4)).astype(np.uint8)
    path = write_hdf5(tmp_path / 'labels.hdf5', labels=labels)
    item = sources.open_source(settings(path, num_classes=2), 'train')[0]
    assert set(np.unique(item['masks'])) == {0, 1, 2} and item['present'].all()
    with pytest.raises(UserError, match='num_classes=1 masks are stored as 0 and 1'):
        sources.open_source(settings(path), 'train')


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
