"""DICOM files of many frames: the place, spacing and rescale of each, and how many a file may claim."""

import time

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import AXIAL, HU, STORED, series, values, write
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedCTImageStorage, RLELossless

from ambdiff.data.files import images
from ambdiff.errors import UserError


@pytest.mark.parametrize('frames', [500_000_000, 60_000])
def test_a_small_file_cannot_claim_many_frames(tmp_path, frames):
    path = write(tmp_path / 'a.dcm', STORED[:1, :1], NumberOfFrames=frames)
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = RLELossless
    header.PixelData = encapsulate([bytes(64)])
    header['PixelData'].VR, header['PixelData'].is_undefined_length = 'OB', True
    header.save_as(path)
    start = time.perf_counter()
    with pytest.raises(UserError, match=r'a\.dcm: truncated, \d+ bytes where its header claims'):
        images.read(path)
    assert time.perf_counter() - start < 2


def test_a_thousand_frames_of_rle_are_decoded_in_turn(tmp_path):
    stored = np.random.default_rng(0).integers(0, 4096, (1000, 3, 4), np.uint16)
    header = pydicom.dcmread(write(tmp_path / 'a.dcm', stored, ImagePositionPatient=None))
    header.compress(RLELossless, generate_instance_uid=False)
    header.save_as(tmp_path / 'a.dcm')
    read = images.read(tmp_path / 'a.dcm')
    np.testing.assert_array_equal(values(read), stored - 1024.0)
    assert read.notes == ('its frames tell no positions, and are taken in their order',)


def group(**macros):
    item = Dataset()
    for macro, elements in macros.items():
        inner = Dataset()
        for name, value in elements.items():
            setattr(inner, name, value)
        setattr(item, macro, [inner])
    return item


BARE = dict.fromkeys(
    ['RescaleSlope', 'RescaleIntercept', 'PixelSpacing', 'ImageOrientationPatient', 'ImagePositionPatient']
) | {'SOPClassUID': EnhancedCTImageStorage}


def frame(z, slope=1.0, intercept=-1024.0, spacing=(0.5, 0.4), directions=AXIAL):
    return group(
        PlanePositionSequence={'ImagePositionPatient': [-3.0, 4.0, z]},
        PlaneOrientationSequence={'ImageOrientationPatient': list(directions)},
        PixelMeasuresSequence={'PixelSpacing': list(spacing), 'SliceThickness': 3},
        PixelValueTransformationSequence={'RescaleSlope': slope, 'RescaleIntercept': intercept, 'RescaleType': 'HU'},
    )


def test_frames_have_a_place_a_spacing_and_a_rescale_of_their_own(tmp_path):
    stored = np.stack([STORED, STORED, STORED])
    frames = [frame(6, 2), frame(0, 1, -1000), frame(3, 0.5, 24)]
    read = images.read(write(tmp_path / 'a.dcm', stored, **BARE, PerFrameFunctionalGroupsSequence=frames))
    assert read.units == 'HU' and read.spacing == (3, 0.5, 0.4) and read.notes == () and read.frames == (1, 2, 0)
    np.testing.assert_allclose(values(read), [STORED - 1000.0, STORED * 0.5 + 24, STORED * 2.0 - 1024])
    for k, (row, column) in enumerate(((0, 0), (3, 1), (2, 5))):
        place = [-(-3 + 0.4 * column), -(4 + 0.5 * row), 3 * k]
        np.testing.assert_allclose((read.affine @ [k, row, column, 1])[:3], place, atol=1e-6)


def test_frames_that_differ_from_the_others_are_left_out_or_refused(tmp_path):
    stored = np.stack([STORED] * 4)
    frames = [frame(z) for z in (0, 3, 6)]
    scout = frame(3, directions=(0, 1, 0, 0, 0, -1))
    read = images.read(write(tmp_path / 'a.dcm', stored, **BARE, PerFrameFunctionalGroupsSequence=[scout, *frames]))
    assert read.frames == (1, 2, 3) and 'in another direction than the other 3 slices' in read.notes[0]
    for other, told in (
        (frame(9, spacing=(0.8, 0.8)), 'pixel spacing in mm'),
        (frame(6), 'its frames 2 and 3 lie at the same position; store the frames of each phase'),
        (frame(18), '3 missing'),
        (frame(9, slope=0), 'RescaleSlope 0'),
    ):
        path = write(tmp_path / 'b.dcm', stored, **BARE, PerFrameFunctionalGroupsSequence=[*frames, other])
        with pytest.raises(UserError, match=rf'b\.dcm: .*{told}'):
            images.read(path)


def test_a_spacing_outside_of_the_functional_groups_that_differs_is_named(tmp_path):
    bare = BARE | {'PixelSpacing': [0.9, 0.9]}
    path = write(
        tmp_path / 'a.dcm', np.stack([STORED] * 2), **bare, PerFrameFunctionalGroupsSequence=[frame(0), frame(3)]
    )
    read = images.read(path)
    assert read.spacing == (3, 0.5, 0.4)
    assert 'PixelSpacing is 0.5\\0.4 mm in its functional groups, which count, and 0.9\\0.9 mm outside' in read.notes


def test_frames_without_groups_are_slices_in_their_order(tmp_path):
    read = images.read(write(tmp_path / 'a.dcm', np.stack([STORED, STORED + np.uint16(9)]), SpacingBetweenSlices=4))
    np.testing.assert_array_equal(values(read), [HU, HU + 9])
    assert read.spacing == (4, 0.7, 0.7) and read.affine is None and 'tell no positions' in read.notes[0]


def test_an_enhanced_file_that_another_library_made_of_a_series_is_that_series(tmp_path):
    study = {'StudyInstanceUID': '1.5', 'FrameOfReferenceUID': '1.6', 'PatientID': 'p', 'PatientName': 'p^'}
    study |= {
        'StudyID': '1',
        'StudyDate': '20200101',
        'StudyTime': '101010',
        'AccessionNumber': '',
        'InstanceNumber': 1,
    }
    study |= {'PatientBirthDate': '', 'PatientSex': '', 'ReferringPhysicianName': '', 'SliceThickness': 2.5}
    study |= {'ImageType': ['ORIGINAL', 'PRIMARY', 'AXIAL'], 'Manufacturer': 'none', 'RescaleType': 'HU'}
    folder = series(tmp_path / 'a', orientation=(1, 0, 0, 0, 0, -1), PixelSpacing=[0.5, 0.8], **study)
    for number, path in enumerate(sorted(folder.iterdir())):
        header = pydicom.dcmread(path)
        header.RescaleSlope = number + 1
        header.save_as(path)
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(path) for path in sorted(folder.iterdir())],
        series_instance_uid='1.7',
        series_number=2,
        sop_instance_uid='1.8',
        instance_number=1,
    )
    made.save_as(tmp_path / 'made.dcm')
    expected, read = images.read(folder), images.read(tmp_path / 'made.dcm')
    np.testing.assert_array_equal(read.values, expected.values)
    np.testing.assert_allclose(read.affine, expected.affine)
    assert read.spacing == expected.spacing and read.units == 'HU'
