"""The layout `cimd_folder`: what its JPEGs hold, which split a case is in, and one line for each fault."""

import logging
import struct

import numpy as np
import pytest
from layout_files import fails, iter_, settings, write_case, write_jpeg

from ambdiff.data import example, sources
from ambdiff.data.layouts import cimd_folder


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


@pytest.mark.parametrize('name', ['label4.jpg', 'label4_.png', 'label01_again.jpg'])
def test_a_label_of_another_name_is_a_fault_and_no_lost_rater(tmp_path, name):
    write_case(tmp_path / 'testing' / '1')
    write_jpeg(tmp_path / 'testing' / '1' / 'label4_.jpg', np.zeros((16, 16)))
    (tmp_path / 'testing' / '1' / 'label4_.jpg').rename(tmp_path / 'testing' / '1' / name)
    fails(settings(tmp_path), 'test', 'of a rater of its own')
