"""DICOM headers that are odd, damaged or hostile: the right geometry, or unknown and noted, or one line."""

import numpy as np
import pydicom
import pytest
from dicom_files import HU, STORED, odd, series, values, write
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from ambdiff.data.files import dicom, images
from ambdiff.errors import UserError

SPACINGS = [
    ('DS', '0\\0'),
    ('DS', '-0.7\\0.7'),
    ('DS', 'nan\\0.7'),
    ('DS', '1e999\\0.7'),
    ('DS', '1e-300\\0.7'),
    ('DS', '0.7'),
    ('DS', '0.7\\0.7\\0.7'),
    ('DS', 'wide'),
    ('US', 7),
    ('SQ', []),
]


@pytest.mark.parametrize('spacing', SPACINGS)
def test_a_pixel_spacing_that_is_none_is_unknown_and_noted(tmp_path, spacing):
    read = images.read(odd(tmp_path / 'a.dcm', PixelSpacing=spacing))
    assert np.isnan(read.spacing[1:]).all() and read.affine is None
    assert [note.startswith('PixelSpacing ') for note in read.notes] == [True] * bool(spacing[1])
    np.testing.assert_array_equal(values(read)[0], HU)


@pytest.mark.parametrize('thickness', ['0', '-3', '1e999', 'nan', 'thin', '3\\3'])
def test_a_thickness_that_is_none_is_unknown_and_noted(tmp_path, thickness):
    read = images.read(odd(tmp_path / 'a.dcm', SliceThickness=('DS', thickness)))
    assert np.isnan(read.spacing[0]) and read.notes[0].startswith('SliceThickness ')


@pytest.mark.parametrize('position', ['0\\0\\1e999', 'nan\\0\\0', '0\\0', '0\\0\\x', '0\\0\\1e30'])
def test_a_slice_without_a_place_is_read_alone_and_left_out_of_a_series(tmp_path, position):
    folder = series(tmp_path / 'a')
    path = odd(folder / 'x.dcm', ImagePositionPatient=('DS', position))
    read = images.read(path)
    assert read.affine is None and read.notes == ('ImagePositionPatient is no position in mm, ignored',)
    np.testing.assert_array_equal(values(read)[0], HU)
    whole = images.read(folder)
    assert len(whole.values) == 5 and whole.notes == ('x.dcm: without a position, left out',)


@pytest.mark.parametrize('directions', [[2, 0, 0, 0, 2, 0], [1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0]])
def test_directions_that_are_none_are_unknown_and_noted(tmp_path, directions):
    folder = series(tmp_path / 'a')
    path = write(folder / 'x.dcm', STORED, ImageOrientationPatient=directions)
    assert images.read(path).notes == ('ImageOrientationPatient is not two directions at right angles, ignored',)
    assert len(images.read(folder).values) == 5


SCOUTS = {
    'not marked': {'ImageOrientationPatient': [0, 1, 0, 0, 0, -1]},
    'of another size and series': {
        'ImageOrientationPatient': [0, 1, 0, 0, 0, -1],
        'Rows': 3,
        'Columns': 8,
        'SeriesInstanceUID': '1.9',
    },
    'marked by one value': {'ImageType': 'LOCALIZER'},
    'a capture': {'ImageOrientationPatient': None, 'ImagePositionPatient': None, 'RescaleSlope': None},
}


@pytest.mark.parametrize('scout', SCOUTS)
@pytest.mark.parametrize('mend', [True, False])
def test_a_scout_in_a_series_is_left_out_and_noted(tmp_path, scout, mend):
    folder = series(tmp_path / 'a')
    alone = dicom.read_series(folder)
    write(folder / '0.dcm', STORED, **SCOUTS[scout])
    read = dicom.read_series(folder, mend=mend)
    np.testing.assert_array_equal(read.values, alone.values)
    np.testing.assert_array_equal(read.affine, alone.affine)
    assert len(read.notes) == 1 and read.notes[0].startswith('0.dcm: ')


def test_two_slices_that_are_not_parallel_are_no_series(tmp_path):
    write(tmp_path / 'a.dcm', STORED)
    write(tmp_path / 'b.dcm', STORED, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    with pytest.raises(UserError, match=r'b\.dcm: lies in another direction than a\.dcm'):
        dicom.read_series(tmp_path)
    write(tmp_path / 'b.dcm', STORED, ImagePositionPatient=None)
    with pytest.raises(UserError, match=r'b\.dcm: has no ImagePositionPatient'):
        dicom.read_series(tmp_path)


def test_after_a_gap_the_distance_of_slices_is_the_usual_one(tmp_path):
    folder = series(tmp_path / 'a', gap=2.5)
    write(folder / 'x.dcm', STORED, ImagePositionPatient=[-10, 20, 90])
    read = dicom.read_series(folder, mend=True)
    assert read.spacing[0] == pytest.approx(2.5) and read.affine is None


def test_positions_count_against_a_stated_distance_of_slices_and_a_tilt_is_told(tmp_path):
    read = dicom.read_series(series(tmp_path / 'a', gap=2.5, SpacingBetweenSlices=5))
    assert read.spacing[0] == pytest.approx(2.5)
    assert read.notes == ('its slices lie 2.5 mm apart, which counts, and SpacingBetweenSlices is 5 mm',)
    assert dicom.read_series(series(tmp_path / 'b', gap=2.5, SpacingBetweenSlices=2.5)).notes == ()
    cosine, sine = np.cos(np.radians(15)), np.sin(np.radians(15))
    (tmp_path / 'c').mkdir()
    for k in range(4):
        place = {'ImageOrientationPatient': [1, 0, 0, 0, cosine, sine], 'ImagePositionPatient': [0, 0, 3 * k]}
        write(tmp_path / f'c/{k}', STORED, **place)
    tilted = dicom.read_series(tmp_path / 'c')
    assert tilted.spacing[0] == pytest.approx(3) and tilted.notes == (
        'its slices are shifted by 15 degrees (a tilted gantry)',
    )
    np.testing.assert_allclose(tilted.affine[:3, 0], [0, 0, 3])


def test_a_ratio_of_pixels_is_told_where_it_is_all_there_is_or_contradicts(tmp_path):
    bare = write(tmp_path / 'a.dcm', STORED, PixelSpacing=None, PixelAspectRatio=[2, 1])
    read = images.read(bare)
    assert np.isnan(read.spacing[1:]).all() and 'not square (PixelAspectRatio 2)' in read.notes[0]
    read = images.read(write(tmp_path / 'b.dcm', STORED, PixelAspectRatio=[2, 1]))
    assert read.spacing[1:] == (0.7, 0.7) and 'PixelSpacing 0.7\\0.7 mm counts' in read.notes[0]
    assert images.read(write(tmp_path / 'c.dcm', STORED, PixelAspectRatio=[1, 1])).notes == ()


ODD = {
    'ImageType a number': {'ImageType': ('US', 7)},
    'ImageType a sequence': {'ImageType': ('SQ', [Dataset()])},
    'padding text': {'PixelPaddingValue': ('LO', 'abc')},
    'padding twice': {'PixelPaddingValue': ('US', [1, 2])},
    'padding bytes': {'PixelPaddingValue': ('OB', b'ab')},
    'padding to text': {'PixelPaddingValue': ('US', 4000), 'PixelPaddingRangeLimit': ('LO', 'abc')},
    'RescaleType a number': {'RescaleType': ('US', 7)},
    'Modality twice': {'Modality': ('CS', ['CT', 'CT'])},
    'regions text': {'SequenceOfUltrasoundRegions': ('LO', 'abc')},
    'groups text': {'PerFrameFunctionalGroupsSequence': ('LO', 'abc')},
    'unknown letters': {'SpecificCharacterSet': ('CS', 'ISO_IR 999'), 'PatientName': ('PN', 'Doe')},
    'nothing in them': {'ImageType': ('CS', ''), 'PixelPaddingValue': ('US', None), 'NumberOfFrames': ('IS', None)},
}


@pytest.mark.parametrize('what', ODD)
def test_elements_of_odd_types_cost_no_more_than_themselves(tmp_path, what):
    read = images.read(odd(tmp_path / 'a.dcm', **ODD[what]))
    np.testing.assert_array_equal(values(read)[0], HU)
    assert all(note.startswith('PixelPadding') for note in read.notes)
    assert len(read.notes) == what.startswith('padding')


REFUSED = {
    'no rows': {'Rows': ('US', 0)},
    'rows as text': {'Rows': ('LO', 'four')},
    'more rows than pixels': {'Rows': ('US', 5)},
    'bits beyond those there are': {'BitsStored': ('US', 20)},
    'values in the upper bits': {'BitsStored': ('US', 12)},
    'no bits': {'BitsStored': ('US', 0)},
    'bits of no byte': {'BitsAllocated': ('US', 12)},
    'a sign of another kind': {'PixelRepresentation': ('US', 5)},
    'samples without an order': {'SamplesPerPixel': ('US', 3)},
    'frames as text': {'NumberOfFrames': ('LO', 'many')},
    'frames below none': {'NumberOfFrames': ('IS', -3)},
    'more frames than pixels': {'NumberOfFrames': ('IS', 2)},
    'no way to show': {'PhotometricInterpretation': ('CS', 'PURPLE')},
    'groups of fewer frames': {
        'NumberOfFrames': ('IS', 2),
        'Rows': ('US', 2),
        'PerFrameFunctionalGroupsSequence': ('SQ', [Dataset()]),
    },
}


@pytest.mark.parametrize('what', REFUSED)
def test_a_header_that_cannot_be_is_refused_in_one_line(tmp_path, what):
    with pytest.raises(UserError, match=r'a\.dcm: ') as caught:
        images.read(odd(tmp_path / 'a.dcm', **REFUSED[what]))
    assert '\n' not in str(caught.value)


def test_a_private_way_of_storing_is_named(tmp_path):
    header = pydicom.dcmread(write(tmp_path / 'a.dcm', STORED))
    data = (tmp_path / 'a.dcm').read_bytes()
    assert len(header.file_meta.TransferSyntaxUID) == 19
    (tmp_path / 'a.dcm').write_bytes(data.replace(b'1.2.840.10008.1.2.1', b'1.2.840.113619.5.2\0', 1))
    with pytest.raises(UserError, match=r'stored in a way of its own \(transfer syntax 1\.2\.840\.113619\.5\.2\)'):
        images.read(tmp_path / 'a.dcm')


def test_sequences_nested_a_thousand_deep_are_one_line(tmp_path):
    data = write(tmp_path / 'a.dcm', STORED).read_bytes()
    item = b'\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff'
    start = (
        data.index(b'\x10\0\x20\0') if b'\x10\0\x20\0' in data else data.index(b'\x18\0') if b'\x18\0' in data else 0
    )
    start = start or data.index(b'\x20\0\x0d\0') if b'\x20\0\x0d\0' in data else data.index(b'\x20\0\x0e\0UI')
    (tmp_path / 'b.dcm').write_bytes(data[:start] + item * 5000 + data[start:])
    with pytest.raises(UserError, match=r'b\.dcm: not a whole DICOM file') as caught:
        images.read(tmp_path / 'b.dcm')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('how', ['no preamble', 'no first group', 'big-endian'])
def test_files_stored_in_older_ways_are_dicom_alone_and_in_a_folder(tmp_path, how):
    folder = series(tmp_path / 'a')
    expected = dicom.read_series(folder)
    for path in sorted(folder.iterdir()):
        if how == 'big-endian':
            header = pydicom.dcmread(path)
            header.PixelData = header.pixel_array.astype('>u2').tobytes()
            header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
            pydicom.dcmwrite(path, header, implicit_vr=False, little_endian=False)
        else:
            data = path.read_bytes()
            start = 132 if how == 'no preamble' else 144 + int.from_bytes(data[140:144], 'little')
            path.write_bytes(data[start:])
        path.rename(path.with_suffix(''))  # and of no suffix
    (folder / 'notes').write_text('not DICOM')
    read = images.read(folder)
    np.testing.assert_array_equal(read.values, expected.values)
    np.testing.assert_array_equal(read.affine, expected.affine)
    alone = images.read(next(path for path in sorted(folder.iterdir()) if path.name != 'notes'))
    assert alone.units == 'HU' and alone.spacing[1:] == (0.7, 0.7)


def test_faults_kept_outside_are_read_right_or_refused(shared):
    faults = shared / 'fixtures/faults'
    scouted = images.read(faults / '17_scout_spoils_series/scout1')
    assert len(scouted.values) == 5 and len(scouted.notes) == 1
    for name in ('01_pixelspacing_zero/two/bad.dcm', 'attack_02_predict_one_dicom_ends_all/spacing0'):
        path = faults / name
        path = path if path.is_file() else next(path.glob('*.dcm'))
        assert np.isnan(images.read(path).spacing[1:]).all()
    paths = sorted(faults.glob('attack_0[245]*/**/*.dcm'))
    assert len(paths) > 8
    for path in paths:
        try:
            assert np.isfinite(images.read(path).values).all()
        except UserError as error:
            assert path.name in str(error) and '\n' not in str(error)
