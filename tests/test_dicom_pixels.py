"""DICOM pixels to values: rescale, lookup, unused bits, padding and colours."""

import numpy as np
import pytest
from dicom_files import HU, STORED, odd, values, write
from pydicom.dataset import Dataset

from ambdiff.data.files import images
from ambdiff.errors import UserError


@pytest.mark.parametrize(
    ('slope', 'intercept', 'told'),
    [
        (0, 0, 'RescaleSlope 0 and'),
        ('nan', 0, 'RescaleSlope nan'),
        (1, '1e999', 'RescaleIntercept 1e999'),
        ('1e30', 0, 'RescaleSlope 1e30'),
        ('one', 0, 'are no rescale'),
        ('1\\2', 0, 'are no rescale'),
    ],
)
def test_a_rescale_that_is_none_is_refused(tmp_path, slope, intercept, told):
    path = odd(tmp_path / 'a.dcm', RescaleSlope=('DS', str(slope)), RescaleIntercept=('DS', str(intercept)))
    with pytest.raises(UserError, match=rf'a\.dcm: .*{told}.*; export it again'):
        images.read(path)


def test_a_rescale_that_gives_no_hounsfield_units_or_is_half_is_told(tmp_path):
    read = images.read(write(tmp_path / 'a.dcm', STORED, RescaleSlope=5000))
    assert read.units == 'arbitrary' and 'give no Hounsfield units' in read.notes[0]
    half = images.read(write(tmp_path / 'b.dcm', STORED, RescaleSlope=None))
    assert half.units == 'arbitrary' and 'one of RescaleSlope and RescaleIntercept is missing' in half.notes[0]
    np.testing.assert_array_equal(values(half)[0], STORED)


def lookup(**elements):
    table = Dataset()
    for name, value in elements.items():
        setattr(table, name, value)
    return ('SQ', [table])


def test_a_modality_lookup_is_looked_up_or_refused(tmp_path):
    bare = {'RescaleSlope': None, 'RescaleIntercept': None}
    whole = lookup(LUTDescriptor=[24, 0, 16], LUTData=(3 * STORED).tobytes(), ModalityLUTType='US')
    read = images.read(odd(tmp_path / 'a.dcm', base=bare, ModalityLUTSequence=whole))
    np.testing.assert_array_equal(values(read)[0], 3 * STORED)
    for table in (lookup(), lookup(LUTDescriptor=[24, 0, 16]), lookup(LUTDescriptor=[24, 0], LUTData=b'ab')):
        with pytest.raises(UserError, match=r'b\.dcm: .*; (copy or )?export it again'):
            images.read(odd(tmp_path / 'b.dcm', base=bare, ModalityLUTSequence=table))
    for none in (('SQ', []), ('LO', 'abc')):
        np.testing.assert_array_equal(
            values(images.read(odd(tmp_path / 'c.dcm', base=bare, ModalityLUTSequence=none)))[0], STORED
        )


def test_bits_that_no_value_uses_are_left_out(tmp_path):
    """12 of 16 bits: an overlay above them, or a sign that is not extended."""
    twelve = {'BitsStored': 12, 'HighBit': 11}
    read = images.read(write(tmp_path / 'a.dcm', STORED | np.uint16(0x8000), **twelve))
    np.testing.assert_array_equal(values(read)[0], HU)
    signed = np.array([[-1000, 5], [-1, 2047]], np.int16)
    read = images.read(write(tmp_path / 'b.dcm', signed & np.int16(0xFFF), RescaleIntercept=0, **twelve))
    np.testing.assert_array_equal(values(read)[0], signed)


def test_padding_outside_of_the_stored_bits_is_air_all_the_same(tmp_path):
    stored = np.array([[63536, 2096], [1024, 4095]], np.uint16)
    path = odd(
        tmp_path / 'a.dcm', stored=stored, base={'BitsStored': 12, 'HighBit': 11}, PixelPaddingValue=('US', 63536)
    )
    np.testing.assert_array_equal(values(images.read(path))[0], [[-1000, 1072], [0, 3071]])


def test_colours_by_plane_and_in_luma_and_chroma_are_colours(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    plain = {'Modality': 'US', 'RescaleSlope': None, 'RescaleIntercept': None, 'SamplesPerPixel': 3}
    planes = np.ascontiguousarray(colours.transpose(2, 0, 1)).reshape(4, 6, 3)
    path = write(tmp_path / 'a.dcm', planes, PhotometricInterpretation='RGB', PlanarConfiguration=1, **plain)
    np.testing.assert_array_equal(images.read(path, channels=3).values[0], colours)
    grey = np.stack([np.arange(24).reshape(4, 6), np.full((4, 6), 128), np.full((4, 6), 128)], -1).astype(np.uint8)
    path = write(tmp_path / 'b.dcm', grey, PhotometricInterpretation='YBR_FULL', PlanarConfiguration=0, **plain)
    np.testing.assert_array_equal(images.read(path).values[0, ..., 0], grey[..., 0])
