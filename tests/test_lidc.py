"""LIDC-IDRI from DICOM and outlines: the masks and HU that others would get, built whole, and resumed."""

import logging
import shutil

import numpy as np
import pydicom
import pytest
import tensorflow_datasets as tfds
from lidc_files import SHAPE, SIZE, SPACING, SmallLidc, records, settings
from matplotlib.path import Path
from PIL import Image, ImageDraw
from scipy.interpolate import RegularGridInterpolator

from ambdiff.data import example, sources, splits
from ambdiff.data.lidc import crop as lidc_crop
from ambdiff.data.lidc import database, scans
from ambdiff.data.lidc import splits as lidc_splits


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return SmallLidc(tmp_path_factory.mktemp('lidc'))


@pytest.fixture(scope='module')
def built_dir(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp('built')
    sources.open_source(settings(small, folder), 'train')
    return folder


def by_matplotlib(points):
    """The interior by pylidc's own rule: matplotlib's, less the outline."""
    rows, columns = np.indices(SHAPE)
    path = Path(np.concatenate([points, points[:1]]), closed=True)
    inside = path.contains_points(np.stack([rows.ravel(), columns.ravel()], 1)).reshape(SHAPE)
    inside[points[:, 0], points[:, 1]] = False
    return inside


def by_pillow(points):
    """The interior by Pillow's polygon, which fills the outline too, less the outline."""
    image = Image.new('L', SHAPE[::-1])
    ImageDraw.Draw(image).polygon([(int(x), int(y)) for y, x in points], fill=1)
    inside = np.array(image, bool)
    inside[points[:, 0], points[:, 1]] = False
    return inside


def whole_masks(contours_at_z, rasterise):
    """A reader's mask of a whole slice: inclusions, less exclusions with their outlines."""
    mask = np.zeros(SHAPE, bool)
    for inclusion, points in contours_at_z:
        if inclusion:
            mask |= rasterise(points)
    for inclusion, points in contours_at_z:
        if not inclusion:
            mask &= ~rasterise(points)
            mask[points[:, 0], points[:, 1]] = False
    return mask


def expected_masks(small, series, z, rasterise):
    """Of every reading of a slice the whole mask, those of nodule 0 and of nodule 1 apart."""
    nodules = {0: [], 1: []}
    for contours in small.readings[series]:
        here = [(inclusion, points) for inclusion, height, points in contours if height == z]
        if here:
            nodules[int(here[0][1].mean() > 65)].append(whole_masks(here, rasterise))
    return nodules


@pytest.mark.parametrize('source', ['database', 'xml'])
@pytest.mark.parametrize('rasterise', [by_matplotlib, by_pillow])
def test_masks_are_those_of_independent_rasterisers_and_images_are_hu(small, built_dir, source, rasterise):
    seen = set()
    for _, record, item in records(settings(small, built_dir, outlines=str(getattr(small, source)))):
        series = record['series'].decode()
        z = next(height for s, height in small.hu if s == series and abs(height - record['z']) < 1e-3)
        top, left = record['corner'].astype(int)
        window = (slice(top, top + SIZE), slice(left, left + SIZE))
        np.testing.assert_array_equal(record['image'], small.hu[series, z][window])
        hu = item['image'][..., 0] * 1400 - 1000
        np.testing.assert_allclose(hu, small.hu[series, z][window].clip(-1000, 400), atol=1e-3)
        nodule = int('_n01_' in item['case'])
        marked = [mask[window] for mask in expected_masks(small, series, z, rasterise)[nodule]]
        marked += [np.zeros((SIZE, SIZE), bool)] * (4 - len(marked))
        assert sorted(m.astype(np.uint8).tobytes() for m in marked) == sorted(m.tobytes() for m in item['masks'])
        assert item['patient'] == small.patient[series]
        np.testing.assert_allclose(item['spacing'], SPACING)
        seen.add((series, z, nodule))
    everything = {
        (series, z, int(points.mean() > 65))
        for series, readings in small.readings.items()
        for contours in readings
        for _, z, points in contours
    }
    assert seen == everything and len(seen) > 30


def test_resampled_crops_are_linear_in_hu_and_nearest_in_masks(small, tmp_path):
    checked = 0
    for _, record, item in records(settings(small, tmp_path, spacing=0.5)):
        series = record['series'].decode()
        z = next(height for s, height in small.hu if s == series and abs(height - record['z']) < 1e-3)
        grid = [start + 0.5 / SPACING * np.arange(SIZE) for start in record['corner']]
        points = np.stack(np.meshgrid(*grid, indexing='ij'), -1)
        assert points.min() > -1e-4 and (points.max((0, 1)) < np.array(SHAPE) - 1 + 1e-4).all()
        axes = (np.arange(SHAPE[0]), np.arange(SHAPE[1]))
        linear = RegularGridInterpolator(axes, small.hu[series, z])
        limits = np.array(SHAPE) - 1
        np.testing.assert_allclose(record['image'], linear(points.clip(0, limits)), atol=0.1)
        nearest = np.rint(points).astype(int)
        nodule = int('_n01_' in item['case'])
        marked = expected_masks(small, series, z, by_matplotlib)[nodule]
        ours = np.sort(item['masks'].reshape(4, -1).sum(1))[::-1]
        other = np.sort([mask[nearest[..., 0], nearest[..., 1]].sum() for mask in marked])[::-1]
        np.testing.assert_array_equal(ours[: len(other)], other)
        np.testing.assert_allclose(item['spacing'], 0.5)
        checked += 1
    assert checked > 30


def test_a_window_stays_in_the_slice_and_a_small_slice_is_continued_by_its_edge(small):
    hu = np.arange(40 * 200, dtype=np.float32).reshape(40, 200)
    points = np.array([[3, 190], [3, 198], [9, 198], [9, 190]])
    chain = np.concatenate([np.linspace(a, b, 9).round() for a, b in zip(points, np.roll(points, -1, 0), strict=True)])
    marked = [lidc_crop.outlines.Outline(0, True, chain.astype(int))]
    image, masks, corner = lidc_crop.crop(hu, marked, 32)
    np.testing.assert_array_equal(corner, [0, 168])
    np.testing.assert_array_equal(image, hu[:32, 168:])
    assert masks[0, 4:9, 23:30].all() and masks.sum() == 5 * 7
    image, masks, corner = lidc_crop.crop(hu, marked, 64)
    np.testing.assert_array_equal(corner, [6 - 32, 136])
    np.testing.assert_array_equal(image[26:66], hu[:38, 136:])
    np.testing.assert_array_equal(image[0], hu[0, 136:])


@pytest.mark.parametrize('rule', lidc_splits.RULES)
def test_the_split_of_every_series_is_written_out_and_kept(small, built_dir, tmp_path, rule):
    folder = built_dir if rule == 'patient' else tmp_path
    expected = lidc_splits.divide(rule, small.patient)
    data = settings(small, folder, lidc_split=rule)
    found = {record['series'].decode(): split for split, record, _ in records(data)}
    assert found == expected
    sources.write_splits(data, tmp_path / 'run')
    table = splits.read_table(tmp_path / 'run' / 'splits.csv')
    assert table == {series: (small.patient[series], split) for series, split in expected.items()}
    if rule == 'patient':
        assert not splits.shared_patients(table)


def test_a_part_of_the_tree_is_divided_as_the_whole(small, tmp_path):
    gone = next(iter(small.patient))
    copy = tmp_path / 'scans'
    shutil.copytree(small.root, copy)
    for (series, _), path in small.path.items():
        if series == gone:
            (copy / path.relative_to(small.root)).unlink()
    data = settings(small, tmp_path / 'built', path=str(copy), lidc_split='mose')
    found = {record['series'].decode(): split for split, record, _ in records(data)}
    whole = lidc_splits.divide('mose', small.patient)
    assert found == {series: split for series, split in whole.items() if series != gone}


def test_an_interrupted_build_goes_on_and_reads_no_series_twice(small, tmp_path, monkeypatch):
    crop, calls = lidc_crop.crop_series, []

    def dies(nodules, *arguments):
        calls.append(nodules[0].series)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return crop(nodules, *arguments)

    monkeypatch.setattr(lidc_crop, 'crop_series', dies)
    data = settings(small, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sources.open_source(data, 'train')
    assert not list(tmp_path.rglob('dataset_info.json'))
    sources.open_source(data, 'train')
    assert len(calls) == len(small.patient) + 1  # the one that was cut short is read again
    assert not list(tmp_path.rglob('parts-*'))
    calls.clear()
    sources.open_source(data, 'test')
    assert not calls


def test_headers_are_read_once_unless_a_file_changes(small, tmp_path, monkeypatch):
    copy = tmp_path / 'scans'
    shutil.copytree(small.root, copy)
    read, calls = scans.tree._header, []
    monkeypatch.setattr(scans.tree, '_header', lambda path: calls.append(path) or read(path))
    first, _ = scans.tree.index(copy, tmp_path / 'kept.json')
    assert len(calls) == len(small.hu) + 1
    calls.clear()
    changed = sorted(copy.rglob('*.dcm'))[0]
    changed.touch()
    again, _ = scans.tree.index(copy, tmp_path / 'kept.json')
    assert calls == [changed] and again == first


def test_of_two_slices_at_one_z_the_first_taken_counts(small, tmp_path):
    copy = tmp_path / 'scans'
    shutil.copytree(small.root, copy)
    for path in small.path.values():
        repeat = pydicom.dcmread(path)
        repeat.InstanceNumber += 1000
        repeat.PixelData = bytes(len(repeat.PixelData))
        repeat.save_as((copy / path.relative_to(small.root)).with_name(f'0{path.name}'))
    ours = {item['case']: item['image'] for _, _, item in records(settings(small, tmp_path / 'b', path=str(copy)))}
    expected = {item['case']: item['image'] for _, _, item in records(settings(small, tmp_path / 'a'))}
    assert ours.keys() == expected.keys()
    assert all((ours[case] == expected[case]).all() for case in ours)


def test_counts_are_told_after_the_build_and_only_then(small, tmp_path, caplog):
    data = settings(small, tmp_path, lidc_split='mose')
    with caplog.at_level(logging.INFO):
        sources.open_source(data, 'train')
    number = sum(1 for _ in records(data))
    assert f'lidc: {number} slices of 16 nodules, 11 series, 10 patients' in caplog.text
    assert 'not found: 0; faults: 0' in caplog.text
    caplog.clear()
    sources.open_source(data, 'train')
    assert 'ambdiff' not in caplog.text


def test_a_tree_that_grew_since_the_build_is_told_and_one_that_is_gone_is_not(small, tmp_path, caplog):
    copy = tmp_path / 'scans'
    shutil.copytree(small.root, copy)
    data = settings(small, tmp_path / 'built', path=str(copy))
    sources.open_source(data, 'train')
    (copy / 'LIDC-IDRI-9999').mkdir()
    caplog.clear()
    with caplog.at_level(logging.WARNING, 'ambdiff'):
        sources.open_source(data, 'train')
        (message,) = caplog.messages
        assert 'to build it anew, delete' in message
        shutil.rmtree(copy)
        sources.open_source(data, 'train')
    assert caplog.messages == [message]


def test_tensorflow_datasets_builds_it_from_manual_dir(small, tmp_path, monkeypatch):
    monkeypatch.setattr(database, 'find', lambda: small.database)
    builder = scans.Lidc(data_dir=tmp_path, config='128_mose', file_format='array_record')
    config = tfds.download.DownloadConfig(manual_dir=small.root)
    builder.download_and_prepare(download_dir=tmp_path / 'downloads', download_config=config)
    record = builder.as_data_source(split='train')[0]
    assert record['image'].shape == (128, 128) and record['masks'].shape == (4, 128, 16)
    assert {c.name for c in scans.Lidc.BUILDER_CONFIGS} >= {'128_patient', '128_mose_0.5mm', '128_phiseg'}


def test_a_split_too_large_for_memory_gives_the_same_examples(small, built_dir, monkeypatch):
    kept = sources.open_source(settings(small, built_dir), 'train')
    monkeypatch.setattr(example, 'MEMORY_LIMIT', 1)
    lazy = sources.open_source(settings(small, built_dir), 'train')
    assert len(kept) == len(lazy) > 20
    for row in range(len(kept)):
        for name in kept[row]:
            np.testing.assert_array_equal(kept[row][name], lazy[row][name])


def test_slices_on_either_side_are_cut_at_the_same_place_in_the_order_of_prediction(small, tmp_path):
    edges = 0
    for _, record, found in records(settings(small, tmp_path, channels=5, neighbours=2)):
        series, z = record['series'].decode(), float(record['z'])
        heights = sorted(height for one, height in small.hu if one == series)
        place = heights.index(z)
        near = [heights[min(max(place + step, 0), len(heights) - 1)] for step in range(-2, 3)]
        orientation = np.array(pydicom.dcmread(small.path[series, z]).ImageOrientationPatient, float)
        if np.cross(orientation[:3], orientation[3:])[2] < 0:  # a series is read along the normal of its slices
            near = near[::-1]
        row, column = record['corner'].astype(int)
        expected = np.stack([small.hu[series, height][row : row + 64, column : column + 64] for height in near], -1)
        np.testing.assert_array_equal(record['image'], expected)
        np.testing.assert_allclose(found['image'], np.clip((expected + 1000) / 1400, 0, 1), atol=1e-6)
        edges += len(set(near)) < 5
    assert edges
    resampled = settings(small, tmp_path, channels=3, neighbours=1, spacing=0.5)
    plain = {r['case']: r['image'] for _, r, _ in records(settings(small, tmp_path, spacing=0.5))}
    for _, record, _ in records(resampled):
        np.testing.assert_array_equal(record['image'][..., 1], plain[record['case']])
