"""From a point to the finding around it, through slices: what is kept of each sample, and how large it is said to be.

The network is replaced by one that marks what is bright, sample 0 nothing: then the right masks are known.
"""

import csv
import os
import shutil
import subprocess
import sysconfig

import highdicom
import nibabel
import numpy as np
import pytest
import tiny
from test_predict_dicom import slice_dataset

import ambdiff
from ambdiff import modes
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.prediction import follow, points
from ambdiff.prediction.finding import Finding
from ambdiff.prediction.samples import Samples

SPACING = (2.5, 0.6, 0.8)  # slice, row, column
NAN = (np.nan, np.nan, np.nan)


def ball(shape, centre, radius):
    """A ball in voxels [Z, H, W] bool, half as thick across slices."""
    z, y, x = np.ogrid[tuple(map(slice, shape))]
    return 4 * (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def write_nifti(path, mask, affine):
    """Bright where mask [Z, H, W]; the file's first axis are columns, the last slices."""
    hu = np.where(mask, 30, -900).astype(np.int16).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(hu, affine), path)


def drawn(folder, number=1):
    """A sample [Z, H, W] bool, and the affine of the file's own axes."""
    image = nibabel.load(folder / 'samples.nii.gz')
    return np.asarray(image.dataobj)[..., number].transpose(2, 1, 0) > 0, image.affine


def rows(folder):
    return list(csv.DictReader((folder / 'predictions.csv').read_text('utf-8').splitlines()))


@pytest.fixture
def lying():
    """World axes that run against the file's, as scanners store them."""
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = (40, 60, -300)
    return affine


def test_a_finding_is_followed_through_its_slices_and_told_in_mm(weights, bright, lying, tmp_path):
    mask = ball((15, 40, 44), (7, 18, 30), 5)
    write_nifti(tmp_path / 'v.nii.gz', mask, lying)
    assert tiny.run_predict(weights, tmp_path / 'v.nii.gz', tmp_path / 'out', '--at=30,18,6') == 0
    found, affine = drawn(tmp_path / 'out/v')
    np.testing.assert_array_equal(found, mask)
    assert not drawn(tmp_path / 'out/v', 0)[0].any()
    world = lambda where, to: nibabel.affines.apply_affine(to, np.argwhere(where)[:, ::-1]).mean(0)
    assert np.linalg.norm(world(found, affine) - world(mask, lying)) < np.linalg.norm(SPACING)
    said = tiny.summary(tmp_path / 'out', 'v')
    volume = mask.sum() * np.prod(SPACING)
    assert said['volume']['unit'] == 'mm^3' and said['volume']['p05'] == said['volume']['p95'] == pytest.approx(volume)
    assert said['headline'] == f'volume {volume:.0f} mm³ in 3 of 4 samples, nothing in 1'
    assert said['empty_share'] == 0.25
    assert said['slices'] == mask.any((1, 2)).sum() == 5
    longest, across = modes.diameters(mask[7], SPACING[1:])
    assert (said['diameter']['p50'], said['perpendicular']['p50']) == pytest.approx((longest, across))
    assert [(m['share'], m['volume']) for m in said['modes']] == [(0.75, pytest.approx(volume)), (0.25, 0)]
    assert said['modes'][0]['words'] == f'{longest:.0f} x {across:.0f} mm, {volume:.0f} mm³'
    (row,) = rows(tmp_path / 'out')
    assert (row['volume_unit'], float(row['volume_p50'])) == ('mm^3', pytest.approx(volume, abs=0.01))
    assert (row['slices'], float(row['perpendicular_p50'])) == ('5', pytest.approx(across, abs=0.01))
    page = (tmp_path / 'out/v/index.html').read_text()
    assert said['headline'] in page and 'on 5 slices' in page and page.count('class="view"') == 1
    assert all(f'<g data-slice="{z}"' in page for z in range(5))


@pytest.mark.parametrize(
    ('slices', 'distance', 'looked'),
    [(0, 2.5, range(0, 15)), (0, 8.0, range(4, 9)), (0, np.nan, range(0, 15)), (1, 2.5, [6]), (4, 2.5, range(5, 9))],
)
def test_the_slices_looked_at_are_those_within_reach_or_as_many_as_asked(slices, distance, looked):
    assert list(follow.slices(6, 15, slices, distance)) == list(looked)
    assert list(follow.slices(0, 3, slices, distance)) == [z for z in range(3) if z <= max(looked) - 6]


def test_one_slice_is_told_as_a_slice_and_nothing_on_others(weights, bright, lying, tmp_path):
    mask = ball((15, 40, 44), (7, 18, 30), 5)
    write_nifti(tmp_path / 'v.nii.gz', mask, lying)
    assert tiny.run_predict(weights, tmp_path / 'v.nii.gz', tmp_path / 'out', '--at=30,18,7', '--slices=1') == 0
    found = drawn(tmp_path / 'out/v')[0]
    np.testing.assert_array_equal(found[7], mask[7])
    assert found.sum() == mask[7].sum() and len(bright) == 1
    said = tiny.summary(tmp_path / 'out', 'v')
    assert said['volume'] is None and said['modes'][0]['volume'] is None and said['settings']['slices'] == 1
    assert said['headline'] == f'75%: {said["modes"][0]["words"]}; 25%: nothing'
    (row,) = rows(tmp_path / 'out')
    assert (row['volume_unit'], row['volume_p50'], row['slices']) == ('', '', '1')


def test_what_no_mark_leads_to_is_dropped_and_a_sample_without_a_mark_on_the_points_slice_is_nothing():
    region = follow.Region(3, 2, 2, 18, 18, 0, 8)
    masks = np.zeros((4, 8, 20, 20), np.uint8)
    masks[0, 2:5, 8, 8] = 1  # through the point's slice
    masks[0, 5, 9, 9] = 2  # by a corner, another class
    masks[0, 7, 9, 9] = 1  # after an empty slice
    masks[0, 4, 3, 3] = 1  # beside it
    masks[0, 3, 0, 0] = 1  # outside the crop
    masks[1, 4:6, 8, 8] = 1  # not on the point's slice
    masks[2, 3, 4, 4] = masks[2, 3, 15, 15] = 1  # two parts on it
    kept = follow.union(Samples.of(masks, 2), [region])
    wanted = masks.copy()
    wanted[0, 7], wanted[0, 4, 3, 3], wanted[0, 3, 0, 0], wanted[1] = 0, 0, 0, 0
    np.testing.assert_array_equal(np.stack([kept.whole(number) for number in range(4)]), wanted)
    found = Finding(kept, NAN, True, (8.0, 8.0, 3.0), region)
    assert found.volumes.tolist() == [4, 0, 2, 0] and found.empty_share == 0.5
    assert found.headline == 'volume 4 voxels in 1 of 4 samples, 2 in 1, nothing in 2'
    assert Finding(Samples.of(masks[1:2, :3]), NAN, True).headline == 'nothing in 1 of 1 samples'
    np.testing.assert_array_equal(found.modes[1].mask, wanted[found.modes[1].sample])
    one = follow.Region(3, 2, 2, 18, 18, 3, 4)
    same = Samples.of(masks, 2)
    assert follow.union(same, [one]) is same


def test_overlapping_surroundings_of_points_are_told_apart_and_written_together():
    masks = np.zeros((1, 9, 20, 30), np.uint8)
    masks[0, 1:4, 5:9, 5:9] = 1
    masks[0, 5:8, 5:9, 12:18] = 1
    masks[0, 4, 0:2, 0:2] = 1  # on no point's slice
    regions = [follow.Region(2, 0, 0, 16, 16, 0, 9), follow.Region(6, 0, 8, 16, 24, 0, 9)]
    kept = follow.union(Samples.of(masks), regions)
    wanted = masks.copy()
    wanted[0, 4] = 0
    np.testing.assert_array_equal(kept.whole(0), wanted[0])
    first, second = (Finding(kept, (2.0, 1.0, 1.0), True, region=region) for region in regions)
    assert (first.volumes[0], second.volumes[0]) == (3 * 16 * 2, 3 * 24 * 2)
    np.testing.assert_array_equal(first.modes[0].mask, wanted[0] * (np.arange(9)[:, None, None] < 4))


@pytest.mark.parametrize('angle', [0.0, 0.4, 1.3])
def test_the_diameters_of_an_ellipse_are_its_axes(angle):
    y, x = np.mgrid[-60:61, -60:61]
    along, aside = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = (along / 40) ** 2 + (aside / 22) ** 2 <= 1
    longest, across = modes.diameters(mask, (0.5, 0.5))
    assert (longest, across) == (pytest.approx(40, abs=1), pytest.approx(22, abs=1))
    # Of a volume those of the slice where it is longest, not where it is widest.
    line = np.zeros_like(mask)
    line[60, 5:115] = True
    assert modes.diameters(np.stack([mask, line]), (3.0, 0.5, 0.5)) == modes.diameters(line, (0.5, 0.5))


def test_points_in_mm_lead_where_the_files_own_tools_point(weights, bright, lying, tmp_path):
    mask = ball((9, 40, 44), (4, 18, 30), 5)
    write_nifti(tmp_path / 'v.nii.gz', mask, lying)
    ras = nibabel.affines.apply_affine(lying, (30, 18, 4))
    text = ','.join(f'{value:g}' for value in ras)
    assert tiny.run_predict(weights, tmp_path / 'v.nii.gz', tmp_path / 'mm', f'--at-mm={text}') == 0
    assert tiny.run_predict(weights, tmp_path / 'v.nii.gz', tmp_path / 'px', '--at=30,18,4') == 0
    found, wanted = tiny.summary(tmp_path / 'mm', 'v'), tiny.summary(tmp_path / 'px', 'v')
    assert found['points'] == wanted['points'] and found['points'][0]['at'] == [30, 18, 4]
    np.testing.assert_array_equal(drawn(tmp_path / 'mm/v')[0], mask)
    (tmp_path / 'points.csv').write_text('x_mm,y_mm,z_mm\n' + text)
    (point,) = points.parse(str(tmp_path / 'points.csv'), ['a'])['a']
    assert point == points.parse('', ['a'], text)['a'][0] == points.Millimetres(*ras)


def test_dicom_is_followed_in_its_own_world_and_its_segments_hold_all_slices(weights, bright, tmp_path):
    mask = ball((9, 40, 44), (4, 18, 20), 5) | ball((9, 40, 44), (5, 30, 36), 4)
    (tmp_path / 'in').mkdir()
    for z in range(9):
        new = slice_dataset(np.where(mask[z], 30, -900), 100 + 2.5 * z, z + 1, '1.2.4')
        new.save_as(tmp_path / 'in' / str(z), enforce_file_format=True)
    at = lambda z, y, x: f'{-40 + 0.7 * x:.1f},{-50 + 0.7 * y:.1f},{100 + 2.5 * z}'
    where = f'--at_mm={at(4, 18, 20)};{at(5, 30, 36)}'
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out', where) == 0
    said = tiny.summary(tmp_path / 'out', 'in')
    assert [point['at'] for point in said['points']] == [[20, 18, 4], [36, 30, 5]]
    volumes = [ball((9, 40, 44), *of).sum() * 0.7 * 0.7 * 2.5 for of in (((4, 18, 20), 5), ((5, 30, 36), 4))]
    assert [point['volume']['p50'] for point in said['points']] == pytest.approx(volumes)
    assert len(rows(tmp_path / 'out')) == 2
    segmentation = highdicom.seg.segread(tmp_path / 'out/in/segmentation.dcm')
    marked = [f'1.2.4.{z + 1}' for z in range(9) if mask[z].any()]
    frames = segmentation.get_pixels_by_source_instance(marked, segment_numbers=[1])
    np.testing.assert_array_equal(frames[..., 0] > 0, mask[mask.any((1, 2))])
    labels = nibabel.load(tmp_path / 'out/in/answers.nii.gz')
    shown = np.asarray(labels.dataobj).T
    np.testing.assert_array_equal(shown == 1, mask)
    assert shown.max() == 1
    # As 3D Slicer reads it: a program of its own, in C++.
    reader = shutil.which('segimage2itkimage', path=f'{sysconfig.get_path("scripts")}:{os.environ["PATH"]}')
    if not reader:
        pytest.skip('dcmqi is not installed: the segmentation was read by highdicom alone')
    places = ['--inputDICOM', tmp_path / 'out/in/segmentation.dcm', '--outputDirectory', tmp_path]
    subprocess.run([reader, *places, '--outputType', 'nii', '--prefix', 'read'], check=True, capture_output=True)
    theirs = nibabel.load(tmp_path / 'read-1.nii.gz')
    to = np.linalg.inv(theirs.affine) @ labels.affine
    index = np.rint(nibabel.affines.apply_affine(to, np.argwhere(shown.T == 1))).astype(int)
    assert len(index) == np.count_nonzero(theirs.get_fdata()) and theirs.get_fdata()[tuple(index.T)].all()
    with pytest.raises(UserError, match=r'\(LPS\) lies outside the image: in pixels it is 20,18,-40'):
        points.to_volume(points.Millimetres(-26, -37.4, 0), Volume(np.zeros((9, 40, 44, 1)), 'dicom', affine=_RAS))


def test_python_follows_a_point_as_the_command_does(weights, bright, lying, tmp_path):
    mask = ball((9, 40, 44), (4, 18, 30), 5)
    write_nifti(tmp_path / 'v.nii.gz', mask, lying)
    model = ambdiff.load(weights)
    ras = nibabel.affines.apply_affine(lying, (30, 18, 4))
    (found,) = model.predict(tmp_path / 'v.nii.gz', num_samples=4, num_steps=2, at_mm=ras, slices=3)
    inside = mask & (abs(np.arange(9) - 4) < 2)[:, None, None]
    np.testing.assert_array_equal(found.masks[1], inside)
    assert found.marked_volume['p50'] == pytest.approx(inside.sum() * np.prod(SPACING)) and found.marked_slices == 3
    assert (found.diameter['p50'], found.perpendicular['p50']) == pytest.approx(modes.diameters(mask[4], SPACING[1:]))
    for places, said in (({'at_mm': (1, 2)}, 'x, y, z'), ({'at': (1, 2, 3), 'at_mm': '1,2,3'}, 'give one of them')):
        with pytest.raises(UserError, match=said):
            model.predict(tmp_path / 'v.nii.gz', **places)


_RAS = np.array([[0, 0, -0.7, 40], [0, -0.7, 0, 50], [2.5, 0, 0, 100], [0, 0, 0, 1.0]])


def test_a_file_without_a_place_or_two_ways_of_pointing_are_told(tmp_path):
    with pytest.raises(UserError, match='does not say where it lies'):
        points.to_volume(points.Millimetres(1, 2, 3), Volume(np.zeros((1, 8, 8, 1))))
    with pytest.raises(UserError, match='give one of them'):
        points.parse('1,2', ['a'], '1,2,3')
    with pytest.raises(UserError, match='x,y,z in mm'):
        points.parse('', ['a'], '1,2')
    (tmp_path / 'a.csv').write_text('x_mm,y_mm\n1,2')
    with pytest.raises(UserError, match='no column z_mm'):
        points.parse(str(tmp_path / 'a.csv'), ['a'])
