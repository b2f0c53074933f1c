"""What a picture's file says of its values (palette, transparency, min-is-white, bits, turn) is honoured or refused."""

import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ambdiff.data.files import cases, images, pictures, tiff
from ambdiff.data.files import masks as mask_files
from ambdiff.errors import UserError

SHAPE = np.zeros((6, 8), bool)
SHAPE[1:4, 2:7] = True
LABELS = np.arange(48).reshape(6, 8) % 3


def mask(path, classes=1):
    """The labels [H, W] of a file, as a case is read."""
    read = images.read(path, classes=classes)
    return mask_files.labels(path, read.values[0, ..., 0], classes, white=read.white)


def save(folder, pixels, mode=None, **options):
    image = Image.fromarray(np.ascontiguousarray(pixels)) if not isinstance(pixels, Image.Image) else pixels
    image.save(folder / 'a.png', **options)
    return folder / 'a.png'


def palette(index, colours):
    image = Image.fromarray(np.ascontiguousarray(index, np.uint8))
    image = Image.frombytes('P', image.size, image.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def refused(path, message, classes=1):
    with pytest.raises(UserError, match=message) as caught:
        mask(path, classes)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('grey', [0, 255])
@pytest.mark.parametrize('bands', [2, 4])
def test_a_shape_that_is_in_the_transparency_alone_is_refused(tmp_path, grey, bands):
    pixels = np.full((*SHAPE.shape, bands), grey, np.uint8)
    pixels[..., -1] = 255 * SHAPE
    refused(save(tmp_path, pixels if bands == 4 else Image.fromarray(pixels, 'LA')), 'is transparent in part')


@pytest.mark.parametrize('bands', [2, 4])
def test_transparency_that_is_everywhere_opaque_or_where_nothing_is_drawn_is_harmless(tmp_path, bands):
    pixels = np.repeat(SHAPE[..., None] * np.uint8(255), bands, axis=-1)
    for alpha in (np.uint8(255), SHAPE * np.uint8(255)):
        pixels[..., -1] = alpha
        path = save(tmp_path, pixels if bands == 4 else Image.fromarray(pixels, 'LA'))
        np.testing.assert_array_equal(mask(path), SHAPE)


def test_a_colour_that_is_to_be_transparent_counts_as_transparency(tmp_path):
    grey = SHAPE * np.uint8(255)
    np.testing.assert_array_equal(mask(save(tmp_path, grey, transparency=0)), SHAPE)
    refused(save(tmp_path, grey, transparency=255), 'is transparent in part')
    refused(save(tmp_path, palette(SHAPE, [(0, 0, 0), (255, 0, 0)]), transparency=1), 'is transparent in part')
    np.testing.assert_array_equal(mask(save(tmp_path, palette(SHAPE, [(0, 0, 0), (255, 0, 0)]), transparency=0)), SHAPE)


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 128, 0)


@pytest.mark.parametrize(
    ('marked', 'colours'),
    [
        (SHAPE, [BLACK, WHITE]),
        (~SHAPE, [WHITE, BLACK]),  # as an optimiser may order them
        (SHAPE, [BLACK, (1, 1, 1)]),
        (SHAPE, [BLACK, RED]),
        (SHAPE * 7, [BLACK] + 6 * [RED] + [WHITE]),
        (SHAPE, [(i, i, i) for i in range(256)]),
    ],
)
def test_a_yes_or_no_mask_with_a_palette_gives_what_is_marked(tmp_path, marked, colours):
    np.testing.assert_array_equal(mask(save(tmp_path, palette(marked, colours))), SHAPE)


@pytest.mark.parametrize('colours', [[WHITE, RED], [RED, BLACK], [(9, 9, 9), (80, 80, 80)], [(80, 80, 80), BLACK]])
def test_a_palette_that_does_not_tell_what_is_drawn_is_refused(tmp_path, colours):
    refused(save(tmp_path, palette(SHAPE, colours)), 'palette')


def test_label_maps_with_palettes(tmp_path):
    voc = pictures._voc()
    assert voc[1:4] == [RED, GREEN, (128, 128, 0)] and voc[255] == (224, 224, 192)
    read = lambda index, colours: mask(save(tmp_path, palette(index, colours)), 2)
    np.testing.assert_array_equal(read(LABELS, voc), LABELS)
    np.testing.assert_array_equal(read(LABELS, [BLACK, (1, 2, 3), (250, 0, 9)]), LABELS)
    ramp = [(i, i, i) for i in (0, 127, 255)]
    np.testing.assert_array_equal(read(LABELS, ramp), LABELS)
    # Greys that are labels themselves count, in whatever order an optimiser left them.
    for order in itertools.permutations(range(3)):
        np.testing.assert_array_equal(read(np.argsort(order)[LABELS], [(i, i, i) for i in order]), LABELS)
    np.testing.assert_array_equal(read(SHAPE, [BLACK, (2, 2, 2)]), SHAPE * 2)
    refused(save(tmp_path, palette(LABELS, [BLACK, GREEN, RED])), 'out of order', 2)
    refused(save(tmp_path, palette(LABELS, [BLACK, RED, RED])), 'out of order or twice', 2)


def write_grey_png(path, values, bits):
    """A grey PNG of few bits a pixel, which Pillow does not write."""
    chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    height, width = values.shape
    planes = (values[..., None] >> np.arange(bits)[::-1] & 1).reshape(height, -1).astype(np.uint8)
    rows = b''.join(b'\0' + row.tobytes() for row in np.packbits(planes, axis=1))
    head = struct.pack('>2I5B', width, height, bits, 0, 0, 0, 0)
    data = chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + data)
    return path


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_masks_of_few_bits_hold_their_labels_and_images_the_whole_range(tmp_path, bits):
    top = 2**bits - 1
    np.testing.assert_array_equal(mask(write_grey_png(tmp_path / 'a', SHAPE * 1, bits)), SHAPE)
    np.testing.assert_array_equal(mask(write_grey_png(tmp_path / 'a', SHAPE * top, bits)), SHAPE)
    assert set(np.unique(images.read(tmp_path / 'a').values)) == {0, 255}
    if bits > 1:
        np.testing.assert_array_equal(mask(write_grey_png(tmp_path / 'a', LABELS, bits), 3), LABELS)
        np.testing.assert_array_equal(mask(write_grey_png(tmp_path / 'a', SHAPE * 3, bits), 3), SHAPE * 3)


def test_sixteen_bits_with_transparency_or_colour_lose_no_label_without_a_word(tmp_path):
    chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    pixels = np.stack([SHAPE * 1, np.full(SHAPE.shape, 65535)], -1).astype('>u2')
    rows = b''.join(b'\0' + row.tobytes() for row in pixels)
    data = chunk(b'IHDR', struct.pack('>2I5B', 8, 6, 16, 4, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(rows))
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + data + chunk(b'IEND', b''))
    refused(tmp_path / 'a.png', 'colour or transparency of 16 bits')
    assert 'colour of 16 bits read at 8' in images.read(tmp_path / 'a.png').notes


def write_tiff(path, *arrays, extra=(), **changes):
    """An uncompressed little-endian TIFF, a page an array [H, W] or [H, W, C]; changes replace tags by their number."""
    kinds = {'u': 1, 'i': 2, 'f': 3, 'b': 1}
    content, places = bytearray(b'II*\0\0\0\0\0'), []
    for array in arrays:
        samples = array.shape[2] if array.ndim == 3 else 1
        packed = np.packbits(array, axis=1) if array.dtype == bool else array
        data, bits = packed.tobytes(), 1 if array.dtype == bool else 8 * array.itemsize
        start = len(content)
        content += data
        tags = {
            256: (3, array.shape[1]), 257: (3, array.shape[0]), 258: (3, bits), 259: (3, 1),
            262: (3, 1 if samples < 3 else 2), 273: (4, start), 277: (3, samples), 278: (3, array.shape[0]),
            279: (4, len(data)), 339: (3, kinds[array.dtype.kind]),
        }  # fmt: skip
        tags |= {int(name[1:]): value for name, value in changes.items()}
        if samples > 1:  # as many bits for each
            tags[258] = (3, bits)
        if extra:
            tags[338] = (3, extra[0])
        content += bytes(len(content) % 2)
        places.append(len(content))
        content += struct.pack('<H', len(tags))
        for tag, (kind, value) in sorted(tags.items()):
            content += struct.pack('<HHI', tag, kind, 1) + struct.pack('<I' if kind == 4 else '<HH', *(
                (value,) if kind == 4 else (value, 0)))  # fmt: skip
        content += bytes(4)
    for place, following in zip([4, *places], [*places, 0], strict=True):
        end = 4 if place == 4 else place + 2 + 12 * struct.unpack_from('<H', content, place)[0]
        content[end : end + 4] = struct.pack('<I', following)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize('dtype', [bool, np.uint8, np.uint16])
def test_min_is_white_is_refused_in_a_mask_and_turned_round_in_an_image(tmp_path, dtype):
    values = SHAPE if dtype is bool else (SHAPE * np.iinfo(dtype).max).astype(dtype)
    np.testing.assert_array_equal(mask(write_tiff(tmp_path / 'a.tif', values)), SHAPE)
    path = write_tiff(tmp_path / 'b.tif', values, t262=(3, 0))
    refused(path, 'min-is-white')
    read = images.read(path)
    np.testing.assert_array_equal(read.values[0, ..., 0], np.where(SHAPE, 0, 65535 if dtype is np.uint16 else 255))
    assert read.notes == ('min-is-white turned round',)


@pytest.mark.parametrize('dtype', [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32])
def test_every_type_of_a_tiff_keeps_its_values(tmp_path, dtype):
    ends = (np.iinfo(dtype).min, np.iinfo(dtype).max) if np.dtype(dtype).kind != 'f' else (-1e30, 1e30)
    values = np.array([[ends[0], 0, 1], [2, 100, ends[1]]], dtype)
    np.testing.assert_array_equal(images.read(write_tiff(tmp_path / 'a.tif', values)).values[0, ..., 0], values)


@pytest.mark.parametrize(('dtype', 'what'), [(np.float64, '64-bit floats'), (np.int64, '64-bit signed integers')])
def test_a_tiff_of_a_type_that_is_not_read_is_told_so(tmp_path, dtype, what):
    with pytest.raises(UserError, match=rf'a\.tif: a TIFF of {what}.*32-bit floats'):
        images.read(write_tiff(tmp_path / 'a.tif', np.ones((4, 4), dtype)))


def test_a_channel_of_unknown_meaning_is_refused_in_a_mask(tmp_path):
    pixels = np.repeat(SHAPE[..., None] * np.uint8(255), 4, axis=-1)
    pixels[..., :3] = 255
    path = write_tiff(tmp_path / 'a.tif', pixels, extra=(0,))
    refused(path, 'a channel of unknown meaning')
    assert 'a channel of unknown meaning left out' in images.read(path).notes


def test_smaller_copies_among_the_pages_are_no_slices(tmp_path):
    path = write_tiff(tmp_path / 'a.tif', np.ones((6, 8), np.uint8), np.zeros((3, 4), np.uint8))
    data = bytearray(path.read_bytes())
    with pytest.raises(UserError, match='page 1 is 3x4'):
        images.read(path)
    last = data.rindex(struct.pack('<HHI', 256, 3, 1))
    data[last : last + 12] = struct.pack('<HHII', 254, 4, 1, 1)  # its width becomes NewSubfileType
    path.write_bytes(data)
    assert images.read(path).values.shape == (1, 6, 8, 1)


def test_pages_that_claim_more_than_there_is_are_refused_before_decoding(tmp_path, monkeypatch):
    page = np.zeros((64, 64), np.uint8)
    assert images.read(write_tiff(tmp_path / 'a.tif', *[page] * 3)).values.shape == (3, 64, 64, 1)
    monkeypatch.setattr(Image.Image, 'load', lambda *_: pytest.fail('decoded'))
    claims = {
        'b': write_tiff(tmp_path / 'b.tif', page, t279=(4, 1 << 20)),
        'c': write_tiff(tmp_path / 'c.tif', page, *[page[:1]] * 2, t257=(3, 64), t273=(4, 8), t279=(4, 1)),
        'd': write_tiff(tmp_path / 'd.tif', *[page] * 2, t259=(3, 8), t279=(4, 6000)),
    }
    for path in claims.values():
        with pytest.raises(UserError, match='claim more bytes than the file holds'):
            images.read(path)
    with pytest.raises(UserError, match=r'e\.tif: has more than 4096 pages'):
        images.read(write_tiff(tmp_path / 'e.tif', *[np.zeros((1, 1), np.uint8)] * (tiff.MAX_PAGES + 1)))


def test_a_jpeg_of_scans_without_end_is_refused_before_decoding(tmp_path, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    noise.save(tmp_path / 'a.jpg', progressive=True)
    data = (tmp_path / 'a.jpg').read_bytes()
    assert images.read(tmp_path / 'a.jpg').values.shape == (1, 64, 64, 1)
    scan = data[data.rindex(b'\xff\xda') : -2]
    (tmp_path / 'a.jpg').write_bytes(data[:-2] + scan * 200 + data[-2:])
    monkeypatch.setattr(Image.Image, 'load', lambda *_: pytest.fail('decoded'))
    with pytest.raises(UserError, match=r'a\.jpg: a JPEG of 2\d\d scans'):
        images.read(tmp_path / 'a.jpg')


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_a_picture_that_asks_to_be_turned_is_read_as_stored_and_says_so(tmp_path, suffix, turn):
    stored = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(stored).save(tmp_path / f'a.{suffix}', exif=exif, **({'quality': 100} if suffix == 'jpg' else {}))
    read = images.read(tmp_path / f'a.{suffix}')
    np.testing.assert_allclose(read.values[0, ..., 0], stored, atol=3)
    assert read.orientation == turn and any('--at' in note for note in read.notes) == (turn != 1)


def test_an_image_that_is_shown_turned_needs_masks_that_are_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    picture, marked = Image.fromarray(np.zeros((6, 8), np.uint8)), Image.fromarray(SHAPE * np.uint8(255))
    picture.save(tmp_path / 'image.png', exif=exif)
    marked.save(tmp_path / 'mask_1.png')
    image = images.read(tmp_path / 'image.png')
    with pytest.raises(UserError, match=r'mask_1\.png: its EXIF orientation is 1, image\.png has 3'):
        cases.read_mask(tmp_path / 'mask_1.png', tmp_path / 'image.png', image, 1)
    marked.save(tmp_path / 'mask_1.png', exif=exif)
    np.testing.assert_array_equal(cases.read_mask(tmp_path / 'mask_1.png', tmp_path / 'image.png', image, 1)[0], SHAPE)


def test_more_pictures_in_a_file_are_refused_in_a_mask_and_noted_in_an_image(tmp_path):
    frames = [Image.fromarray(SHAPE * np.uint8(value)) for value in (255, 100)]
    path = save(tmp_path, frames[0], save_all=True, append_images=frames[1:])
    refused(path, 'holds 2 pictures')
    read = images.read(path)
    assert read.values.shape[0] == 1 and 'more pictures than the first' in read.notes[0]


def test_an_image_has_its_transparency_over_black_and_its_palette_as_colours(tmp_path):
    pixels = np.full((*SHAPE.shape, 4), 200, np.uint8)
    pixels[..., 3] = SHAPE * 255
    read = images.read(save(tmp_path, pixels))
    np.testing.assert_array_equal(read.values[0, ..., 0], SHAPE * 200)
    assert read.notes == ('transparency laid over black',)
    read = images.read(save(tmp_path, palette(SHAPE, [(40, 40, 40), (90, 90, 90)])))
    np.testing.assert_array_equal(read.values[0, ..., 0], np.where(SHAPE, 90, 40))


def test_cmyk_is_an_image_and_no_mask(tmp_path):
    Image.fromarray(np.full((6, 8, 4), 30, np.uint8), 'CMYK').save(tmp_path / 'a.tif')
    assert images.read(tmp_path / 'a.tif', channels=3).values.shape == (1, 6, 8, 3)
    refused(tmp_path / 'a.tif', 'a mask in CMYK')


def test_a_value_that_is_nearly_one_is_told_as_it_is(tmp_path):
    refused(write_tiff(tmp_path / 'a.tif', SHAPE * np.float32(0.9999999)), r'values 0, 0\.99999988')


def test_a_damaged_reader_is_one_line_whatever_it_raises(tmp_path, monkeypatch):
    path = save(tmp_path, SHAPE * np.uint8(255))
    monkeypatch.setattr(pictures, 'read_page', lambda *_, **__: [][0])
    with pytest.raises(UserError, match=r'a\.png: damaged, or of a kind that is not read \(IndexError'):
        images.read(path)
