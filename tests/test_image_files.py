"""Reading users' image files: values and geometry as the formats define them, and one line for each fault."""

import gzip
import io
import itertools
import struct
import zlib

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import write as write_dicom
from PIL import Image

from ambdiff.data.files import images as image_files
from ambdiff.data.files import nifti, volume
from ambdiff.errors import UserError


def ramp(*shape, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def save_nifti(path, values, affine=None, **header):
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_grey_pictures_of_8_and_16_bit_keep_their_values(tmp_path, suffix, dtype):
    values = np.linspace(0, np.iinfo(dtype).max, 30).astype(dtype).reshape(5, 6)
    Image.fromarray(values).save(tmp_path / f'a.{suffix}')
    read = image_files.read(tmp_path / f'a.{suffix}')
    assert read.values.dtype == dtype and read.units == 'arbitrary' and read.notes == ()
    np.testing.assert_array_equal(read.values, values[None, ..., None])


@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
def test_colour_becomes_luminance_and_the_volume_says_so_unless_three_channels_are_asked_for(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, len(mode)), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    read = image_files.read(tmp_path / 'a.png')
    colours = pixels[..., :3] * (pixels[..., 3:] / 255 if mode == 'RGBA' else 1)
    np.testing.assert_allclose(read.values[0, ..., 0], colours @ [0.299, 0.587, 0.114], atol=1)
    notes = ('colour converted to luminance', 'transparency laid over black')
    assert read.notes == notes[: len(mode) - 2]
    np.testing.assert_allclose(image_files.read(tmp_path / 'a.png', channels=3).values[0], colours, atol=0.51)


def test_pages_of_a_tiff_are_slices_and_must_be_alike(tmp_path):
    pages = [ramp(4, 5, dtype=np.uint16) + np.uint16(100 * page) for page in range(3)]
    images = [Image.fromarray(page) for page in pages]
    images[0].save(tmp_path / 'a.tif', save_all=True, append_images=images[1:])
    np.testing.assert_array_equal(image_files.read(tmp_path / 'a.tif').values[..., 0], pages)
    images[0].save(tmp_path / 'b.tif', save_all=True, append_images=[Image.fromarray(ramp(5, 5, dtype=np.uint16))])
    with pytest.raises(UserError, match=r'b\.tif: page 1 is 5x5'):
        image_files.read(tmp_path / 'b.tif')


def test_a_mask_with_a_palette_gives_its_labels_and_a_coloured_one_is_refused(tmp_path):
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.new('P', (2, 2))
    picture.putdata(labels.ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / 'a.png')
    np.testing.assert_array_equal(image_files.read(tmp_path / 'a.png', classes=1).values[0, ..., 0], labels)
    Image.fromarray(np.full((2, 2, 3), (255, 0, 0), np.uint8)).save(tmp_path / 'b.png')
    with pytest.raises(UserError, match=r'b\.png: a mask in colour'):
        image_files.read(tmp_path / 'b.png', classes=1)


ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(('order', 'flips'), ORIENTATIONS[::3])
@pytest.mark.parametrize('through', [0, 1, 2])
def test_a_nifti_is_seen_alike_however_it_is_stored_and_its_geometry_goes_along(tmp_path, order, flips, through):
    """Every voxel holds a code of its place in the body, so that directions can be read off the values."""
    sizes, spacing = (4, 5, 6), np.array([1.0, 1.1, 1.2])
    spacing[through] = 3.0
    world = np.stack(np.meshgrid(*[np.arange(n) for n in sizes], indexing='ij'), -1)  # R, A, S index
    code = world @ [1, 10, 100]
    stored, affine = code.transpose(order), np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (anatomical, flip) in enumerate(zip(order, flips, strict=True)):
        affine[anatomical, axis] = flip * spacing[anatomical]
        affine[anatomical, 3] = 0 if flip > 0 else (sizes[anatomical] - 1) * spacing[anatomical]
        stored = np.flip(stored, axis) if flip < 0 else stored
    read = image_files.read(save_nifti(tmp_path / 'a.nii.gz', stored.astype(np.int16), affine))
    values = read.values[..., 0]
    # (top, left, first slice) as the module states: axial A, R, foot; coronal head, R, front; sagittal head, A, left.
    top, left, first = {2: ('A', 'R', 'I'), 1: ('S', 'R', 'A'), 0: ('S', 'A', 'L')}[through]

    def edge(slab):  # the anatomical end that a slab of values lies at
        places = np.stack([slab // 10**axis % 10 for axis in range(3)], -1).reshape(-1, 3)
        axis = int(np.flatnonzero(np.ptp(places, axis=0) == 0)[0])
        return 'LPI'[axis] if places[0, axis] == 0 else 'RAS'[axis]

    assert (edge(values[:, 0]), edge(values[:, :, 0]), edge(values[0])) == (top, left, first)
    assert read.spacing[0] == pytest.approx(3)
    for index in ((0, 0, 0), (1, 2, 3), (2, 1, 0)):
        place = [values[index] // 10**axis % 10 for axis in range(3)] * spacing
        np.testing.assert_allclose((read.affine @ [*index, 1])[:3], place, atol=1e-5)
    np.testing.assert_array_equal(read.to_file_order(values), stored)


def test_an_isotropic_nifti_is_axial_and_a_flat_one_is_one_slice(tmp_path):
    assert image_files.read(save_nifti(tmp_path / 'a.nii', ramp(4, 5, 6))).values.shape == (6, 5, 4, 1)
    assert image_files.read(save_nifti(tmp_path / 'b.nii', ramp(4, 5))).values.shape == (1, 5, 4, 1)
    assert image_files.read(save_nifti(tmp_path / 'c.nii', ramp(1, 5, 4))).values.shape == (1, 4, 5, 1)


def test_a_nifti_without_orientation_is_columns_rows_slices_with_its_own_spacing(tmp_path):
    path = tmp_path / 'a.nii'
    save_nifti(path, ramp(4, 5, 6), np.diag([2.0, 3.0, 4.0, 1.0]))
    data = bytearray(path.read_bytes())
    data[252:256] = bytes(4)  # both codes
    path.write_bytes(data)
    read = image_files.read(path)
    assert read.affine is None and read.spacing == (4, 3, 2)
    np.testing.assert_array_equal(read.values[..., 0], ramp(4, 5, 6).T)


def test_scl_slope_is_applied_and_micrometres_become_millimetres(tmp_path):
    path = save_nifti(tmp_path / 'a.nii', ramp(3, 4, 5), np.diag([500.0, 500.0, 500.0, 1.0]))
    data = bytearray(path.read_bytes())
    data[112:120] = struct.pack('<2f', 2.5, -1024)
    data[123] = 3  # micrometres
    path.write_bytes(data)
    read = image_files.read(path)
    expected = nibabel.load(path).get_fdata()
    np.testing.assert_allclose(read.to_file_order(read.values[..., 0]), expected)
    assert expected[0, 0, 0] == -1024 and read.spacing == (0.5, 0.5, 0.5)


def test_the_fourth_axis_is_channels_only_if_asked(tmp_path):
    values = ramp(4, 5, 6, 3)
    path = save_nifti(tmp_path / 'a.nii.gz', values)
    with pytest.raises(UserError, match=r'a\.nii\.gz: 4-D, 3 volumes .*1 is read .*config\.data\.channels'):
        image_files.read(path)
    read = image_files.read(path, channels=3)
    np.testing.assert_array_equal(read.to_file_order(read.values), values)


def test_hu_are_refused_of_a_file_that_cannot_hold_them(tmp_path):
    Image.fromarray(ramp(4, 4, dtype=np.uint8)).save(tmp_path / 'a.png')
    with pytest.raises(UserError, match=r'a\.png: holds no HU .*--config\.data\.intensity=full_range'):
        image_files.require_hu(tmp_path / 'a.png', image_files.read(tmp_path / 'a.png'))
    path = save_nifti(tmp_path / 'b.nii', ramp(4, 4, 4) - np.int16(1000))
    image_files.require_hu(path, image_files.read(path))


def test_nan_becomes_the_smallest_value_and_is_refused_in_a_mask(tmp_path):
    values = ramp(3, 3, 3, dtype=np.float32) + 5
    values[1, 1, 1] = np.nan
    path = save_nifti(tmp_path / 'a.nii', values)
    read = image_files.read(path)
    assert read.values.min() == 5 and np.count_nonzero(read.values == 5) == 2 and '1 NaN' in read.notes[0]
    with pytest.raises(UserError, match=r'a\.nii: 1 of 27 values are NaN'):
        image_files.read(path, classes=1)


def write(path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    if 'nii' in kind:
        return save_nifti(path, noise.reshape(16, 16, 16).astype(np.int16))
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize('keep', [0.003, 0.1, 0.5, 0.97])
@pytest.mark.parametrize('kind', ['png', 'jpg', 'tif', 'nii', 'nii.gz'])
def test_a_truncated_file_is_refused_in_one_line_that_names_it(tmp_path, kind, keep):
    data = write(tmp_path / f'whole.{kind}', kind).read_bytes()
    (tmp_path / f'cut.{kind}').write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=rf'cut\.{kind}: ') as caught:
        image_files.read(tmp_path / f'cut.{kind}')
    assert '\n' not in str(caught.value)


def test_an_empty_or_foreign_file_is_refused(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'')
    (tmp_path / 'b.nii').write_bytes(b'hello, this is text')
    for name, what in (('a.png', 'an empty file'), ('b.nii', 'not a PNG')):
        with pytest.raises(UserError, match=f'{name}: {what}'):
            image_files.read(tmp_path / name)


def test_a_png_that_claims_sixty_thousand_pixels_a_side_is_refused_before_decoding(tmp_path, monkeypatch):
    chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    head = struct.pack('>2I5B', 60_000, 60_000, 8, 0, 0, 0, 0)
    data = chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(60_001) * 50)) + chunk(b'IEND', b'')
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + data)
    monkeypatch.setattr(Image.Image, 'load', lambda *_: pytest.fail('decoded'))
    with pytest.raises(UserError, match=r'a\.png: '):
        image_files.read(tmp_path / 'a.png')


def nifti_header(shape, datatype=4, bits=16):
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header['datatype'], header['bitpix'], header['vox_offset'], header['magic'] = datatype, bits, 352, b'n+1'
    return header.binaryblock + bytes(4)


@pytest.mark.parametrize('shape', [(30_000, 30_000, 2), (4000, 4000, 4000), (100, 100, 100)])
def test_a_nifti_that_lies_about_its_size_is_refused(tmp_path, shape):
    data = nifti_header(shape) + bytes(1000)
    (tmp_path / 'a.nii').write_bytes(data)
    (tmp_path / 'a.nii.gz').write_bytes(gzip.compress(data))
    for name in ('a.nii', 'a.nii.gz'):
        with pytest.raises(UserError, match=rf'{name}: '):
            image_files.read(tmp_path / name)


def test_a_gzip_bomb_is_decompressed_no_further_than_its_header_claims(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode='wb', compresslevel=9) as file:
        file.write(nifti_header((8, 8, 8)))
        for _ in range(64):
            file.write(bytes(1 << 20))
    (tmp_path / 'a.nii.gz').write_bytes(buffer.getvalue())
    taken, read = [], gzip.GzipFile.read

    def counted(self, size=-1):
        data = read(self, size)
        taken.append(len(data))
        return data

    monkeypatch.setattr(gzip.GzipFile, 'read', counted)
    with pytest.raises(UserError, match=r'a\.nii\.gz: holds more than the 1376 bytes its header claims'):
        image_files.read(tmp_path / 'a.nii.gz')
    assert sum(taken) < 1 << 18


def test_volumes_are_turned_back_to_the_files_axes(tmp_path):
    values = ramp(2, 3, 4)
    turned = volume.Volume(values[..., None], file_axes=(2, 0, 1), file_flips=(True, False, True))
    back = turned.to_file_order(values)
    assert back.shape == (3, 4, 2)
    assert back[2, 0, 1] == values[0, 2, 3]


def mutated(data, rng):
    """Bytes changed, dropped, put in or cut off, mostly in the header."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place, kind = int(rng.integers(len(data) if rng.random() < 0.4 else min(len(data), 700))), rng.random()
        if kind < 0.7:
            data[place] = rng.integers(256)
        elif kind < 0.8:
            del data[place : place + int(rng.integers(1, 20))]
        elif kind < 0.9:
            data[place:place] = rng.bytes(int(rng.integers(1, 20)))
        else:
            del data[max(place, 1) :]
    return bytes(data)


@pytest.mark.parametrize('kind', ['png', 'jpg', 'tif', 'nii', 'nii.gz', 'dcm', 'rle.dcm'])
def test_a_damaged_file_is_read_or_refused_in_one_line_and_nothing_else(tmp_path, kind):
    rng = np.random.default_rng(7)
    if 'dcm' in kind:
        path = write_dicom(tmp_path / 'whole.dcm', rng.integers(0, 4000, (32, 32), np.uint16))
        if kind == 'rle.dcm':
            header = pydicom.dcmread(path)
            header.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
            header.save_as(path)
    else:
        path = write(tmp_path / f'whole.{kind}', kind)
    data, refused = path.read_bytes(), 0
    for number in range(60):
        (tmp_path / 'a').write_bytes(mutated(data, rng))
        try:
            image_files.read(tmp_path / 'a', classes=number % 2)
        except UserError as error:
            refused += 1
            assert str(error).startswith(f'{tmp_path / "a"}: ') and '\n' not in str(error)
    assert refused > 5


def test_a_volume_that_does_not_fit_into_memory_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / 'a.nii'
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4)), path)

    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr(nifti, '_as_seen', full)
    with pytest.raises(UserError, match=r'a\.nii: takes more memory than there is'):
        image_files.read(path)
