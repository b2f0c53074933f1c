"""NIfTI: millimetres, place and values as its header states them, and one line for each header that lies."""

import gzip
import tracemalloc

import nibabel
import numpy as np
import pytest

from ambdiff.data.files import images
from ambdiff.errors import UserError
from ambdiff.prediction import nifti as prediction_nifti

VALUES = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
HALF = {'pixdim': (1, 0.5, 0.5, 3, 1, 1, 1, 1), 'qform_code': 1}
ONES = {'sform_code': 1, 'srow_x': (1, 0, 0, 0), 'srow_y': (0, 1, 0, 0), 'srow_z': (0, 0, 1, 0)}


def write(path, values=VALUES, *, version=1, order='<', gap=b'', **fields):
    """A single file whose header has `fields`, unchecked; `gap` lies between header and values."""
    kind = (nibabel.Nifti1Header, nibabel.Nifti2Header)[version - 1]
    header = kind(endianness=order)
    header.set_data_shape(values.shape)
    if values.dtype.kind != 'V':
        header.set_data_dtype(values.dtype)
    header['magic'] = (b'n+1', b'n+2')[version - 1]
    header['scl_slope'] = header['scl_inter'] = np.nan
    header['vox_offset'] = (352, 544)[version - 1] + len(gap)
    for name, value in fields.items():
        header[name] = value
    stored = values.astype(values.dtype.newbyteorder(order)) if values.dtype.kind != 'V' else values
    data = header.binaryblock + bytes(4) + gap + stored.tobytes(order='F')
    path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)
    return path


def read(path, **fields):
    return images.read(write(path, **fields))


def test_pixdim_counts_where_the_sform_is_of_another_scale_and_the_note_names_both(tmp_path):
    """As in ACDC, whose sform is an identity; and in an image moved to a template, whose voxels are its own."""
    found = read(tmp_path / 'a.nii', **HALF | ONES)
    assert found.spacing == (3, 0.5, 0.5)
    assert found.notes == ('its sform has voxels of 1 x 1 x 1 mm, its pixdim says 0.5 x 0.5 x 3 mm; pixdim counts',)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, :3], axis=0), found.spacing)
    alone = read(tmp_path / 'b.nii', **HALF | ONES | {'qform_code': 0})
    assert alone.spacing == (3, 0.5, 0.5) and len(alone.notes) == 1
    np.testing.assert_allclose(np.linalg.norm(alone.affine[:3, :3], axis=0), alone.spacing)


def test_a_pixdim_of_ones_beside_a_scaled_sform_alone_is_one_not_filled_in(tmp_path):
    rows = {'sform_code': 1, 'srow_x': (0.7, 0, 0, 0), 'srow_y': (0, 0.7, 0, 0), 'srow_z': (0, 0, 2, 0)}
    found = read(tmp_path / 'a.nii', pixdim=(1,) * 8, **rows)
    assert found.spacing == pytest.approx((2, 0.7, 0.7)) and 'the sform counts' in found.notes[0]


def test_scales_that_agree_to_one_percent_are_no_news(tmp_path):
    rows = {'sform_code': 1, 'srow_x': (0.502, 0, 0, 0), 'srow_y': (0, 0.502, 0, 0), 'srow_z': (0, 0, 3, 0)}
    found = read(tmp_path / 'a.nii', **HALF | rows)
    assert found.spacing == pytest.approx((3, 0.502, 0.502)) and found.notes == ()


def test_an_sform_and_a_qform_at_different_places_are_named(tmp_path):
    rows = {'sform_code': 1, 'srow_x': (-0.5, 0, 0, 0), 'srow_y': (0, 0.5, 0, 0), 'srow_z': (0, 0, 3, 0)}
    found = read(tmp_path / 'a.nii', **HALF | rows)
    assert found.notes == ('its sform and qform place it up to 4 mm apart; the sform counts',)
    assert found.affine[0, 2] == 0.5 or found.affine[0, 2] == -0.5


@pytest.mark.parametrize('rows', [(0, 0, 0, 0), (np.nan, 0, 0, 0), (np.inf, 0, 0, 0), (1e30, 0, 0, 0)])
def test_an_sform_that_is_none_does_not_hide_a_good_qform(tmp_path, rows):
    found = read(tmp_path / 'a.nii', **HALF | {'sform_code': 1, 'srow_x': rows, 'srow_y': rows, 'srow_z': rows})
    assert found.spacing == (3, 0.5, 0.5) and found.affine is not None
    assert found.notes == ('its sform is degenerate or no numbers, and ignored',)


@pytest.mark.parametrize('field', [{'quatern_b': np.nan}, {'quatern_c': 7}, {'qoffset_x': np.inf}])
def test_a_qform_that_is_none_leaves_the_spacing(tmp_path, field):
    found = read(tmp_path / 'a.nii', **HALF | field)
    assert found.spacing == (3, 0.5, 0.5) and found.affine is None and 'qform is degenerate' in found.notes[0]


@pytest.mark.parametrize(('factor', 'direction'), [(0, 1), (1, 1), (-1, -1), (np.nan, 1), (0.5, 1)])
def test_the_qform_is_turned_only_where_pixdim_0_is_negative(tmp_path, factor, direction):
    """NIfTI-1: a factor of 0 counts as 1."""
    found = read(tmp_path / 'a.nii', **HALF | {'pixdim': (factor, *HALF['pixdim'][1:])})
    assert found.spacing == (3, 0.5, 0.5) and found.notes == ()
    assert found.affine[2, 0] * (1 - 2 * found.file_flips[0]) == 3 * direction


@pytest.mark.parametrize('step', [0, -0.5, np.nan, np.inf, 1e30])
def test_a_pixdim_that_is_no_length_is_an_unknown_spacing_and_noted(tmp_path, step):
    found = read(tmp_path / 'a.nii', pixdim=(1, step, 0.5, 3, 1, 1, 1, 1))
    assert np.isnan(found.spacing[2]) and found.spacing[:2] == (3, 0.5)
    assert len(found.notes) == 1 and found.notes[0].startswith('no spacing in mm: pixdim is ')
    placed = read(tmp_path / 'b.nii', pixdim=(1, step, 0.5, 3, 1, 1, 1, 1), qform_code=1)
    assert np.isnan(placed.spacing[2]) and placed.affine is None and len(placed.notes) == 2
    rows = {'sform_code': 1, 'srow_x': (0.5, 0, 0, 0), 'srow_y': (0, 0.5, 0, 0), 'srow_z': (0, 0, 3, 0)}
    known = read(tmp_path / 'c.nii', pixdim=(1, step, 0.5, 3, 1, 1, 1, 1), **rows)
    assert known.spacing == (3, 0.5, 0.5) and known.notes == ()


def test_a_flat_image_needs_no_third_pixdim(tmp_path):
    found = read(tmp_path / 'a.nii', values=VALUES[:, :, 0], pixdim=(1, 0.5, 0.5, 0, 0, 0, 0, 0), qform_code=1)
    assert found.spacing[1:] == (0.5, 0.5) and found.notes == () and found.affine is not None


@pytest.mark.parametrize(('code', 'scale'), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (8, 1), (10, 1), (255, 1)])
def test_lengths_are_millimetres_whatever_their_unit(tmp_path, code, scale):
    pixdim = (1, 0.5 / scale, 0.5 / scale, 3 / scale, 1, 1, 1, 1)
    for name, fields in (('plain', {}), ('placed', {'qform_code': 1, 'qoffset_x': 12 / scale})):
        found = read(tmp_path / f'{name}.nii', pixdim=pixdim, xyzt_units=code, **fields)
        assert found.spacing == pytest.approx((3, 0.5, 0.5)) and found.notes == ()
    assert found.forms[1][0][0, 3] == pytest.approx(12)


def test_pixels_of_half_a_metre_are_read_and_noted(tmp_path):
    found = read(tmp_path / 'a.nii', xyzt_units=1, **HALF | {'pixdim': (1, 0.5, 0.5, 0.9, 1, 1, 1, 1)})
    assert found.spacing == pytest.approx((900, 500, 500)) and 'check xyzt_units' in found.notes[0]


@pytest.mark.parametrize(('sform', 'qform'), [(4, 1), (0, 3), (2, 0), (4, 4), (1, 1)])
def test_what_is_written_lies_on_what_was_read_by_the_same_codes(tmp_path, sform, qform):
    turned = {'sform_code': sform, 'srow_x': (0, 0.5, 0, 9), 'srow_y': (0.5, 0, 0, 8), 'srow_z': (0, 0, -3, 7)}
    path = write(tmp_path / 'a.nii', **HALF | turned | {'qform_code': qform, 'qoffset_y': -4, 'quatern_c': 0.6})
    volume = images.read(path)
    ones = lambda number, z: np.ones(volume.values.shape[1:3], np.uint8)
    prediction_nifti.write(tmp_path / 'samples.nii.gz', volume, np.uint8, ones, 1)
    before, after = nibabel.load(path).header, nibabel.load(tmp_path / 'samples.nii.gz').header
    assert (after['sform_code'], after['qform_code']) == (sform, qform)
    for get in ('get_sform', 'get_qform'):
        ours, theirs = getattr(after, get)(coded=True)[0], getattr(before, get)(coded=True)[0]
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(after['pixdim'][1:4], before['pixdim'][1:4], atol=1e-4)


@pytest.mark.parametrize(('version', 'offset'), [(1, 0), (1, 100), (1, 348), (1, 351), (2, 0), (2, 352), (2, 540)])
def test_values_cannot_begin_in_the_header(tmp_path, version, offset):
    path = write(tmp_path / 'a.nii', version=version, vox_offset=offset)
    with pytest.raises(UserError, match=rf'a\.nii: says its values start at byte {offset} \(vox_offset\)'):
        images.read(path)


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
def test_both_versions_and_byte_orders_and_extensions_of_any_length_are_read(tmp_path, version, order, name):
    extension = b'\xff\xff\xff\xff\x04\0\0\0' + bytes(24)  # a size below 0: only the offset says where values begin
    found = read(tmp_path / name, version=version, order=order, gap=extension, **HALF)
    np.testing.assert_array_equal(found.to_file_order(found.values)[..., 0], VALUES)
    assert found.spacing == (3, 0.5, 0.5) and found.values.dtype == np.int16


def test_the_content_tells_whether_a_file_is_compressed(tmp_path):
    data = write(tmp_path / 'a.nii').read_bytes()
    (tmp_path / 'b.nii.gz').write_bytes(data)
    (tmp_path / 'c.nii').write_bytes(gzip.compress(data))
    (tmp_path / 'd.nii.gz').write_bytes(gzip.compress(data[:300]) + gzip.compress(data[300:]))  # two members
    for name in ('b.nii.gz', 'c.nii', 'd.nii.gz'):
        np.testing.assert_array_equal(images.read(tmp_path / name).values[..., 0], VALUES.T)


@pytest.mark.parametrize(
    ('slope', 'intercept', 'expected', 'noted'),
    [
        (2, -5, (-5, -3), 0),
        (0, 7, (0, 1), 0),
        (np.nan, np.nan, (0, 1), 0),
        (-1, 0, (0, -1), 0),
        (np.inf, 0, (0, 1), 1),
        (1, np.inf, (0, 1), 1),
        (2, np.nan, (0, 1), 1),
    ],
)
def test_values_are_scaled_by_what_is_a_scaling(tmp_path, slope, intercept, expected, noted):
    found = read(tmp_path / 'a.nii', scl_slope=slope, scl_inter=intercept)
    assert found.values.ravel()[:1] == expected[0]
    assert VALUES.T.ravel()[1] == 15 and found.values[0, 0, 1, 0] == expected[0] + 15 * (expected[1] - expected[0])
    assert len(found.notes) == noted


def test_a_scaling_that_overflows_is_told(tmp_path):
    with pytest.raises(UserError, match=r'a\.nii: .* NaN or infinite'):
        read(tmp_path / 'a.nii', values=VALUES + np.int16(1), scl_slope=3e38, scl_inter=3e38)


@pytest.mark.parametrize(
    ('fields', 'told'),
    [
        ({'dim': (0, 4, 5, 3, 1, 1, 1, 1)}, 'claims 0 dimensions'),
        ({'dim': (9, 4, 5, 3, 1, 1, 1, 1)}, 'claims 9 dimensions'),
        ({'dim': (-3, 4, 5, 3, 1, 1, 1, 1)}, 'claims -3 dimensions'),
        ({'dim': (3, -4, 5, 3, 1, 1, 1, 1)}, 'an image of -4x5x3'),
        ({'dim': (3, 4, 0, 3, 1, 1, 1, 1)}, 'an image of 4x0x3'),
        ({'dim': (1, 60, 1, 1, 1, 1, 1, 1)}, 'an image of 60'),
        ({'dim': (4, 4, 5, 1, 3, 1, 1, 1)}, '3 volumes in one file'),
        ({'dim': (3, 30000, 30000, 30000, 1, 1, 1, 1)}, ''),
        ({'datatype': 32}, r'complex64 \(datatype 32\); convert it'),
        ({'datatype': 1536}, r'float128 \(datatype 1536\); convert it'),
        ({'datatype': 2304}, 'colours with transparency'),
        ({'datatype': 1}, 'holds bits'),
        ({'datatype': 777}, 'header is damaged'),
        ({'vox_offset': np.nan}, 'header is damaged'),
        ({'vox_offset': 1e30}, 'values start at byte'),
        ({'magic': b'ni1'}, r'\.hdr/\.img pair'),
        ({'magic': b''}, r'\.hdr/\.img pair, or Analyze'),
    ],
)
def test_a_header_that_cannot_be_is_told_in_one_line(tmp_path, fields, told):
    for name in ('a.nii', 'a.nii.gz'):
        with pytest.raises(UserError, match=rf'{name}: .*{told}') as caught:
            read(tmp_path / name, **fields)
        assert '\n' not in str(caught.value)


def test_colours_are_luminance_and_never_scaled(tmp_path):
    pixels = np.zeros((4, 5), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    pixels['G'] = 100
    path = write(tmp_path / 'a.nii', pixels, datatype=128, bitpix=24, scl_slope=5, scl_inter=1)
    np.testing.assert_array_equal(images.read(path).values, np.full((1, 5, 4, 1), 59))
    np.testing.assert_array_equal(images.read(path, channels=3).values[0, 0, 0], [0, 100, 0])


def test_a_pair_and_its_neighbours_are_told_with_the_cure(tmp_path):
    header = write(tmp_path / 'a.hdr', magic=b'ni1').read_bytes()[:348]
    (tmp_path / 'a.hdr').write_bytes(header)
    (tmp_path / 'a.img').write_bytes(VALUES.tobytes())
    for name in ('a.hdr', 'a.img'):
        with pytest.raises(UserError, match=rf'{name}: .* pair.*; convert the pair to one \.nii\.gz file'):
            images.read(tmp_path / name)
    freesurfer = b'\0\0\0\1' + np.array([4, 5, 3, 1, 4, 0, 1], '>i4').tobytes() + bytes(400)
    for name, content, told in (
        ('b.mgz', gzip.compress(freesurfer), 'FreeSurfer'),
        ('b.mgh', freesurfer, 'FreeSurfer'),
        ('c.nrrd', b'NRRD0004\ntype: short\n', 'NRRD'),
        ('d.mha', b'ObjectType = Image\n', 'MetaImage'),
        ('e.nii.gz', gzip.compress(gzip.compress(header)), 'gzip twice'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f'{name}: .*{told}.*; (convert|unpack) it'):
            images.read(tmp_path / name)


@pytest.mark.parametrize('version', [1, 2])
def test_a_small_file_cannot_claim_much(tmp_path, version):
    """4 GiB of float64 in some hundred bytes: nothing is allocated for them, as deflate shrinks 1032-fold at best."""
    shape = (3, 512, 512, 2048, 1, 1, 1, 1)
    path = write(tmp_path / 'a.nii.gz', VALUES[:1, :1, :1], version=version, dim=shape, datatype=64)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r'a\.nii\.gz: truncated, \d+ bytes where its header claims 4294967\d+'):
            images.read(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_faults_kept_outside_are_read_right_or_refused(shared):
    found = images.read(shared / 'fixtures/faults/05_sform_against_pixdim/acdc.nii.gz')
    assert found.spacing == (3, 0.5, 0.5) and len(found.notes) == 1
    for path in sorted((shared / 'fixtures/faults/12_vox_offset_low').glob('*.nii')):
        with pytest.raises(UserError, match=f'{path.name}: says its values start'):
            images.read(path)
