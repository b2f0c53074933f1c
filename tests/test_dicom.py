"""DICOM: values in the units the header gives them, slices in the order of space, and one line for each fault."""

import io
import tracemalloc

import numpy as np
import pydicom
import pytest
from dicom_files import AXIAL, deflated_bomb, series, write
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    RLELossless,
)

from ambdiff.data.files import dicom, images
from ambdiff.errors import UserError


@pytest.mark.parametrize(
    ('dtype', 'slope', 'intercept'),
    [(np.uint16, 1, -1024), (np.int16, 1, 0), (np.uint16, 2.5, -1000.5), (np.int16, 0.5, 24)],
)
def test_hu_are_stored_values_by_slope_and_intercept(tmp_path, dtype, slope, intercept):
    stored = np.linspace(0, 3000, 24).astype(dtype).reshape(4, 6)
    read = dicom.read_slice(write(tmp_path / 'a.dcm', stored, RescaleSlope=slope, RescaleIntercept=intercept))
    assert read.units == 'HU' and read.values.shape == (1, 4, 6, 1)
    np.testing.assert_allclose(read.values[0, ..., 0], stored * float(slope) + intercept)


def test_only_ct_with_a_rescale_is_hu(tmp_path):
    stored = np.arange(24, dtype=np.uint16).reshape(4, 6)
    for changes in ({'Modality': 'MR'}, {'RescaleSlope': None}, {'RescaleType': 'Z_EFF'}):
        assert dicom.read_slice(write(tmp_path / 'a.dcm', stored, **changes)).units == 'arbitrary'


@pytest.mark.parametrize('orientation', [AXIAL, (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (0, 0.6, 0.8, 1, 0, 0)])
def test_a_series_is_sorted_in_space_and_its_affine_is_that_of_every_pixel(tmp_path, orientation):
    folder = series(tmp_path / 'a', orientation=orientation, PixelSpacing=[0.5, 0.8])
    read = images.read(folder)
    assert read.spacing == pytest.approx((2.5, 0.5, 0.8))
    np.testing.assert_array_equal(read.values[:, 0, 0, 0], np.arange(5) * 100 - 1024)
    for k, file in enumerate(read.files):
        header = pydicom.dcmread(file)
        row, column = 3, 2
        lps = np.array(header.ImagePositionPatient, float)
        lps += 0.8 * column * np.array(orientation[:3]) + 0.5 * row * np.array(orientation[3:])
        np.testing.assert_allclose((read.affine @ [k, row, column, 1])[:3], lps * [-1, -1, 1], atol=1e-6)


def test_each_slice_has_its_own_rescale(tmp_path):
    for k in range(3):
        stored = np.full((4, 4), 10, np.uint16)
        write(tmp_path / f'{k}.dcm', stored, RescaleSlope=k + 1, ImagePositionPatient=[0, 0, k])
    values = dicom.read_series(tmp_path).values
    np.testing.assert_array_equal(values[:, 0, 0, 0], [10 - 1024, 20 - 1024, 30 - 1024])


def test_monochrome1_is_turned_round_but_not_where_values_are_hu(tmp_path):
    stored = np.array([[0, 1], [100, 4095]], np.uint16)
    inverted = {'PhotometricInterpretation': 'MONOCHROME1', 'BitsStored': 12, 'HighBit': 11}
    changes = {'Modality': 'DX', 'RescaleSlope': None, 'RescaleIntercept': None}
    read = dicom.read_slice(write(tmp_path / 'a.dcm', stored, **inverted, **changes))
    np.testing.assert_array_equal(read.values[0, ..., 0], 4095 - stored)
    read = dicom.read_slice(write(tmp_path / 'b.dcm', stored, **inverted))
    np.testing.assert_array_equal(read.values[0, ..., 0], stored - 1024.0)


@pytest.mark.parametrize('padding', [-2000, 63536])
def test_padding_becomes_air(tmp_path, padding):
    path = write(tmp_path / 'a.dcm', np.array([[-2000, 40], [1000, 0]], np.int16), RescaleIntercept=0)
    header = pydicom.dcmread(path)
    header.add_new('PixelPaddingValue', 'SS' if padding < 0 else 'US', padding)
    header.save_as(path)
    np.testing.assert_array_equal(dicom.read_slice(path).values[0, ..., 0], [[-1000, 40], [1000, 0]])


def test_a_colour_capture_becomes_luminance_and_frames_become_slices(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    plain = {'Modality': 'US', 'RescaleSlope': None, 'ImagePositionPatient': None, 'ImageOrientationPatient': None}
    rgb = {'SamplesPerPixel': 3, 'PhotometricInterpretation': 'RGB', 'PlanarConfiguration': 0}
    path = write(tmp_path / 'a.dcm', colours, **rgb, **plain)
    np.testing.assert_allclose(images.read(path).values[0, ..., 0], colours @ [0.299, 0.587, 0.114], atol=0.51)
    np.testing.assert_array_equal(images.read(path, channels=3).values[0], colours)
    loop = np.random.default_rng(0).integers(0, 256, (3, 4, 6), np.uint8)
    np.testing.assert_array_equal(images.read(write(tmp_path / 'b.dcm', loop, **plain)).values[..., 0], loop)


def test_a_palette_is_looked_up(tmp_path):
    tables = {'PhotometricInterpretation': 'PALETTE COLOR', 'Modality': 'US', 'RescaleSlope': None}
    for number, colour in enumerate(('Red', 'Green', 'Blue')):
        tables[f'{colour}PaletteColorLookupTableDescriptor'] = [256, 0, 8]
        tables[f'{colour}PaletteColorLookupTableData'] = bytes((50 * number + value) % 256 for value in range(256))
    path = write(tmp_path / 'a.dcm', np.array([[0, 1], [100, 255]], np.uint8), **tables)
    expected = [[[0, 50, 100], [1, 51, 101]], [[100, 150, 200], [255, 49, 99]]]
    np.testing.assert_array_equal(images.read(path, channels=3).values[0], expected)


def test_ultrasound_and_x_ray_spacings_are_found_where_these_keep_them(tmp_path):
    stored = np.zeros((4, 4), np.uint8)
    path = write(tmp_path / 'a.dcm', stored, Modality='DX', PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.1])
    read = dicom.read_slice(path)
    assert read.spacing[1:] == (0.2, 0.1) and 'magnified' in read.notes[0]
    region = pydicom.Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.01, 0.02
    path = write(tmp_path / 'b.dcm', stored, Modality='US', PixelSpacing=None, SequenceOfUltrasoundRegions=[region])
    assert dicom.read_slice(path).spacing[1:] == pytest.approx((0.2, 0.1))


def test_localizers_segmentations_and_foreign_files_in_a_series_are_left_out(tmp_path):
    folder = series(tmp_path / 'a')
    pixels = np.zeros((9, 9), np.uint16)
    write(folder / 'loc.dcm', pixels, ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'], SeriesInstanceUID='1.9')
    write(folder / 'seg.dcm', pixels, SOPClassUID=pydicom.uid.SegmentationStorage, SeriesInstanceUID='1.8')
    (folder / 'notes.xml').write_text('<a/>')
    (folder / '.DS_Store').write_bytes(b'x')
    read = dicom.read_series(folder)
    assert len(read.values) == 5
    assert [note.split(':')[0] for note in read.notes] == ['loc.dcm', 'seg.dcm']


FAULTS = {
    'another series': ({'SeriesInstanceUID': '1.2.4'}, r'x\.dcm: series 1\.2\.4, but \S+ has 1\.2\.3'),
    'mixed spacing': ({'PixelSpacing': [0.8, 0.8]}, r'x\.dcm: pixel spacing in mm \(0\.8, 0\.8\)'),
    'a missing slice': ({'ImagePositionPatient': [-10, 20, 50]}, r'x\.dcm: slices 3 missing between it and 5_4\.dcm'),
    'a moved slice': ({'ImagePositionPatient': [-10, 20, 43.3]}, r'x\.dcm: slices unevenly spaced'),
    'a position twice': ({'ImagePositionPatient': [-10, 20, 35]}, r'x\.dcm: at the same position as'),
    'huge': ({'Rows': 60000, 'Columns': 60000}, r'x\.dcm: an image of 60000x60000'),
    'many frames': ({'NumberOfFrames': 2**30}, r'x\.dcm: claims'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_in_a_series_is_named_with_its_file(tmp_path, fault):
    folder = series(tmp_path / 'a')
    changes, message = FAULTS[fault]
    write(folder / 'x.dcm', np.zeros((4, 6), np.uint16), **{'ImagePositionPatient': [-10, 20, 42.5], **changes})
    with pytest.raises(UserError, match=message) as caught:
        dicom.read_series(folder)
    assert '\n' not in str(caught.value)


def test_a_slice_of_another_size_is_refused(tmp_path):
    folder = series(tmp_path / 'a')
    write(folder / 'x.dcm', np.zeros((4, 4), np.uint16), ImagePositionPatient=[-10, 20, 42.5])
    with pytest.raises(UserError, match=r'x\.dcm: size \(4, 4, 1\)'):
        dicom.read_series(folder)


def test_gaps_and_repeats_are_noted_where_slices_are_used_one_by_one(tmp_path):
    folder = series(tmp_path / 'a')
    write(folder / 'x.dcm', np.zeros((4, 6), np.uint16), ImagePositionPatient=[-10, 20, 50])
    write(folder / 'y.dcm', np.zeros((4, 6), np.uint16), ImagePositionPatient=[-10, 20, 50])
    read = dicom.read_series(folder, mend=True)
    assert len(read.values) == 6 and read.affine is None
    assert 'same position' in read.notes[0] and '3 missing' in read.notes[1]


@pytest.mark.parametrize('keep', [0.1, 0.3, 0.5, 0.99])
def test_a_truncated_file_is_refused_and_named(tmp_path, keep):
    stored = np.random.default_rng(0).integers(0, 4096, (32, 32), np.uint16)
    data = write(tmp_path / 'a.dcm', stored).read_bytes()
    (tmp_path / 'b.dcm').write_bytes(data[: int(keep * len(data))])
    for path in (tmp_path / 'b.dcm', tmp_path):
        with pytest.raises(UserError, match=r'b\.dcm: ') as caught:
            images.read(path)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('syntax', [RLELossless, JPEG2000Lossless])
def test_compressed_pixels_are_decoded_and_refused_when_cut_off_or_lying(tmp_path, syntax):
    if syntax == JPEG2000Lossless:
        pytest.importorskip('openjpeg')
    stored = np.random.default_rng(0).integers(0, 4096, (32, 32), np.uint16)
    header = pydicom.dcmread(write(tmp_path / 'a.dcm', stored))
    header.compress(syntax, generate_instance_uid=False)
    header.save_as(tmp_path / 'a.dcm')
    np.testing.assert_array_equal(dicom.read_slice(tmp_path / 'a.dcm').values[0, ..., 0], stored - 1024.0)
    data = (tmp_path / 'a.dcm').read_bytes()
    (tmp_path / 'b.dcm').write_bytes(data[: len(data) - 400])
    with pytest.raises(UserError, match=r'b\.dcm: '):
        dicom.read_slice(tmp_path / 'b.dcm')
    if syntax == JPEG2000Lossless:
        header.Rows = 16
        header.save_as(tmp_path / 'c.dcm')
        with pytest.raises(UserError, match=r'c\.dcm: its compressed pixels claim 32x32, its header 16x32'):
            dicom.read_slice(tmp_path / 'c.dcm')


def test_what_decodes_compressed_pixels_is_named_where_it_is_not_installed(tmp_path, monkeypatch):
    stored = np.random.default_rng(0).integers(0, 4096, (32, 32), np.uint16)
    header = pydicom.dcmread(write(tmp_path / 'a.dcm', stored))
    header.compress(RLELossless, generate_instance_uid=False)
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    header.save_as(tmp_path / 'a.dcm')
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    monkeypatch.setattr(JPEG2000LosslessDecoder, '_available', {})
    with pytest.raises(UserError, match=r'a\.dcm: compressed \(JPEG 2000.*pip install pylibjpeg'):
        dicom.read_slice(tmp_path / 'a.dcm')


def test_a_folder_above_the_series_names_the_one_below(tmp_path):
    (tmp_path / 'study').mkdir()
    series(tmp_path / 'study' / 'series')
    with pytest.raises(UserError, match=r'holds no DICOM file; did you mean \S+series\?'):
        images.read(tmp_path)


def test_an_enhanced_file_of_many_frames_keeps_its_geometry_in_functional_groups(tmp_path):
    stored = np.arange(3 * 4 * 6, dtype=np.uint16).reshape(3, 4, 6)

    def group(**macros):
        item = pydicom.Dataset()
        for macro, elements in macros.items():
            inner = pydicom.Dataset()
            for name, value in elements.items():
                setattr(inner, name, value)
            setattr(item, macro, [inner])
        return item

    shared = group(
        PixelMeasuresSequence={'PixelSpacing': [0.5, 0.4], 'SliceThickness': 3},
        PlaneOrientationSequence={'ImageOrientationPatient': list(AXIAL)},
        PixelValueTransformationSequence={'RescaleSlope': 2, 'RescaleIntercept': -1024, 'RescaleType': 'HU'},
    )
    frames = [group(PlanePositionSequence={'ImagePositionPatient': [0, 0, z]}) for z in (6, 0, 3)]
    none = dict.fromkeys(
        ['RescaleSlope', 'RescaleIntercept', 'PixelSpacing', 'ImageOrientationPatient', 'ImagePositionPatient']
    )
    groups = {'SharedFunctionalGroupsSequence': [shared], 'PerFrameFunctionalGroupsSequence': frames}
    read = dicom.read_slice(write(tmp_path / 'a.dcm', stored, **none, **groups))
    assert read.units == 'HU' and read.spacing == pytest.approx((3, 0.5, 0.4))
    np.testing.assert_allclose(read.values[..., 0], stored[[1, 2, 0]] * 2.0 - 1024)


@pytest.mark.parametrize('preamble', [True, False])
def test_a_deflated_file_is_refused_before_it_grows(tmp_path, preamble):
    deflated_bomb(tmp_path / 'b.dcm', write(tmp_path / 'a.dcm', np.zeros((4, 6), np.int16)), preamble)
    (tmp_path / 'a.dcm').unlink()
    tracemalloc.start()
    with pytest.raises(UserError, match=r'b\.dcm: (deflated as a whole|its first 132 bytes)'):
        dicom.read_series(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_a_jpeg_2000_file_within_a_slice_cannot_claim_more_than_the_header(tmp_path):
    packed = io.BytesIO()
    Image.fromarray(np.zeros((300, 200), np.uint8)).save(packed, 'JPEG2000', no_jp2=False)
    header = pydicom.dcmread(write(tmp_path / 'a.dcm', np.zeros((4, 6), np.uint8)))
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    header.PixelData = encapsulate([packed.getvalue()])
    header['PixelData'].VR = 'OB'
    header['PixelData'].is_undefined_length = True
    header.save_as(tmp_path / 'a.dcm')
    with pytest.raises(UserError, match=r'its compressed pixels claim 300x200, its header'):
        dicom.read_slice(tmp_path / 'a.dcm')
