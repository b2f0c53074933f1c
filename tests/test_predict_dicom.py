"""Predict on DICOM: a segmentation that refers to its source, series that share a folder."""

import datetime

import highdicom
import nibabel
import numpy as np
import pydicom
import tiny

from ambdiff.prediction import inputs


def slice_dataset(pixels, z, number, uid):
    """One CT slice with all that a segmentation refers to."""
    new = pydicom.Dataset()
    new.file_meta = pydicom.dataset.FileMetaDataset()
    new.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    new.file_meta.MediaStorageSOPClassUID = new.SOPClassUID = pydicom.uid.CTImageStorage
    new.file_meta.MediaStorageSOPInstanceUID = new.SOPInstanceUID = f'{uid}.{number}'
    new.StudyInstanceUID, new.SeriesInstanceUID, new.FrameOfReferenceUID = '1.2.3', uid, '1.2.5'
    new.PatientID, new.PatientName, new.PatientBirthDate, new.PatientSex = 'p', 'a^b', '', ''
    new.StudyDate = new.ContentDate = datetime.date(2020, 1, 2).strftime('%Y%m%d')
    new.StudyTime = new.ContentTime = '120000'
    new.StudyID = new.AccessionNumber = new.ReferringPhysicianName = ''
    new.Modality, new.Manufacturer, new.SeriesNumber, new.InstanceNumber = 'CT', '', 1, number
    new.Rows, new.Columns = pixels.shape
    new.SamplesPerPixel, new.PhotometricInterpretation = 1, 'MONOCHROME2'
    new.BitsAllocated = new.BitsStored = 16
    new.HighBit, new.PixelRepresentation = 15, 1
    new.RescaleSlope, new.RescaleIntercept, new.RescaleType = 1, -1024, 'HU'
    new.PixelSpacing, new.SliceThickness = [0.7, 0.7], 2.5
    new.ImageOrientationPatient, new.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-40.0, -50.0, z]
    new.PixelData = (pixels + 1024).astype('<i2').tobytes()
    return new


def enhanced_dataset(slices, heights, uid):
    """The slices as frames of one file, in this order, with what places them in functional groups."""
    new = slice_dataset(slices[0], 0.0, 1, uid)
    new.file_meta.MediaStorageSOPClassUID = new.SOPClassUID = pydicom.uid.EnhancedCTImageStorage
    new.NumberOfFrames = len(slices)
    new.PixelData = (np.stack(slices) + 1024).astype('<i2').tobytes()

    def group(**macros):
        item = pydicom.Dataset()
        for macro, elements in macros.items():
            inner = pydicom.Dataset()
            for name in elements if isinstance(elements, tuple) else ():
                setattr(inner, name, new[name].value)
                del new[name]
            if not isinstance(elements, tuple):
                inner.ImagePositionPatient = elements
            setattr(item, macro, [inner])
        return item

    new.SharedFunctionalGroupsSequence = [
        group(
            PixelMeasuresSequence=('PixelSpacing', 'SliceThickness'),
            PlaneOrientationSequence=('ImageOrientationPatient',),
            PixelValueTransformationSequence=('RescaleSlope', 'RescaleIntercept', 'RescaleType'),
        )
    ]
    del new.ImagePositionPatient
    new.PerFrameFunctionalGroupsSequence = [group(PlanePositionSequence=[-40.0, -50.0, z]) for z in heights]
    return new


def test_dicom_gives_a_segmentation_that_can_be_read_back(weights, bright, tmp_path):
    mask = tiny.disc((40, 44), (18, 30))
    (tmp_path / 'in').mkdir()
    for number, file in enumerate(('c', 'a', 'b')):  # the names' order is not that of space
        hu = np.where(mask & (number == 1), 30, -900)
        slice_dataset(hu, 10 + 2.5 * number, number, '1.2.4').save_as(tmp_path / 'in' / file, enforce_file_format=True)
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out', '--at=30,18,1') == 0
    found = tiny.summary(tmp_path / 'out', 'in')
    assert found['files'][-1] == 'segmentation.dcm' and found['warnings'] == []
    segmentation = highdicom.seg.segread(tmp_path / 'out/in/segmentation.dcm')
    assert segmentation.number_of_segments == len(found['modes']) == 2
    label = segmentation.get_segment_description(1).SegmentLabel
    assert found['modes'][0]['words'] == '5 x 5 mm, 45 mm³' and label == '75%: 5 x 5 mm, 45 mm^3'
    assert segmentation.get_segment_description(2).SegmentLabel == '25%: nothing'
    plain = pydicom.dcmread(tmp_path / 'out/in/segmentation.dcm')
    np.testing.assert_array_equal(plain.pixel_array[0] > 0, mask)
    assert [str(i.ReferencedSOPInstanceUID) for i in plain.ReferencedSeriesSequence[0].ReferencedInstanceSequence] == [
        '1.2.4.1'
    ]
    samples = nibabel.load(tmp_path / 'out/in/samples.nii.gz')
    drawn = np.argwhere(np.asarray(samples.dataobj)[..., 2])
    assert (drawn[:, 2] == 1).all() and len(drawn) == mask.sum()
    # Patient coordinates: left and posterior in DICOM, right and anterior in NIfTI.
    world = nibabel.affines.apply_affine(samples.affine, drawn.mean(0))
    np.testing.assert_allclose(world, (-(-40 + 0.7 * 30), -(-50 + 0.7 * 18), 12.5), atol=0.1)


def test_a_header_that_lacks_what_a_segmentation_needs_costs_no_more_than_the_segmentation(weights, bright, tmp_path):
    new = slice_dataset(np.where(tiny.disc((40, 44), (18, 30)), 30, -900), 10, 1, '1.2.4')
    del new.StudyInstanceUID
    new.save_as(tmp_path / 'a.dcm', enforce_file_format=True)
    assert tiny.run_predict(weights, tmp_path / 'a.dcm', tmp_path / 'out', '--at=30,18') == 0
    found = tiny.summary(tmp_path / 'out', 'a')
    assert 'segmentation.dcm' not in found['files'] and 'no DICOM-SEG' in found['warnings'][0]
    assert np.asarray(nibabel.load(tmp_path / 'out/a/samples.nii.gz').dataobj)[..., 1].any()


def test_series_that_share_a_folder_are_cases_of_their_own(tmp_path):
    for series in ('1.2.4', '1.2.6'):
        for number in range(2):
            new = slice_dataset(np.zeros((20, 20)), 2.0 * number, number, series)
            new.save_as(tmp_path / f'{series}-{number}.dcm', enforce_file_format=True)
    slice_dataset(np.zeros((20, 20)), 0, 9, '1.2.8').save_as(tmp_path / 'single.dcm', enforce_file_format=True)
    found = inputs.find([tmp_path], tmp_path / 'out').inputs
    assert sorted(len(item.files) for item in found) == [1, 2, 2]
    assert len({item.name for item in found}) == 3 and 'single' in {item.name for item in found}


def test_the_segmentation_of_a_file_of_many_frames_refers_to_the_frames(weights, bright, tmp_path):
    mask = tiny.disc((40, 44), (18, 30))
    empty = np.full(mask.shape, -900)
    # In space the frame with the disc is the middle one, in the file the last.
    frames = [empty, empty, np.where(mask, 30, -900)]
    enhanced_dataset(frames, (15.0, 10.0, 12.5), '1.2.4').save_as(tmp_path / 'e.dcm', enforce_file_format=True)
    assert tiny.run_predict(weights, tmp_path / 'e.dcm', tmp_path / 'out', '--at=30,18,1') == 0
    found = tiny.summary(tmp_path / 'out', 'e')
    assert found['files'][-1] == 'segmentation.dcm' and found['warnings'] == []
    segmentation = highdicom.seg.segread(tmp_path / 'out/e/segmentation.dcm')
    assert segmentation.number_of_segments == 2
    np.testing.assert_array_equal(segmentation.pixel_array[0] > 0, mask)
    first = segmentation.PerFrameFunctionalGroupsSequence[0]
    source = first.DerivationImageSequence[0].SourceImageSequence[0]
    assert (source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber) == ('1.2.4.1', 3)
    assert list(first.PlanePositionSequence[0].ImagePositionPatient) == [-40, -50, 12.5]
