"""Reads pictures: PNG, JPEG and TIFF. What a file says of its values is honoured, or the file is refused.

One rule for every picture that is read, whatever asks for it:

                 as an image                              as a rater's mask of K classes
  grey           as stored (1, 2 and 4 bits up to 255)    the stored value is the label, or 0 and white yes and no
  min-is-white   turned round: larger is brighter; noted  refused: what is marked could be 0 or white
  palette        its colours                              grey entries: their grey where that is a label, else the
                                                          index where grey rises with it from black; coloured entries:
                                                          the index, where entry 0 is black; else refused
  transparency   laid over black; noted                   must be where nothing is marked and nowhere else, or refused
  colour         luminance (ITU-R 601); noted, unless     refused, unless the channels are equal: then as grey
                 three channels are asked for
  16-bit colour  read at 8 bits; noted                    refused
  turned (EXIF)  read as stored; noted                    read as stored; `Volume.orientation` tells
  pages (TIFF)   slices; smaller copies and masks of transparency among them are left out
  more pictures  (PNG, JPEG) left out; noted              refused

Gamma and colour profiles say how a screen shows a value, not which value it is, and are ignored. Sides and pages are
checked before anything is decoded, and pages that claim more bytes than the file has are refused. Truncated files are
refused, never half read.
"""

import pathlib
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from ambdiff.data.files import tiff
from ambdiff.data.files.volume import Volume, check_size
from ambdiff.errors import UserError

COLOUR = 'colour converted to luminance'
_GREY = ('1', 'L', 'I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N')
_COLOURS = ('RGB', 'RGBA', 'LA', 'La', 'P', 'PA')
_CONVERTED = ('CMYK', 'YCbCr')
_MAX_SCANS = 100
_EXIF = ('exif', 'Raw profile type exif', 'xmp', 'XML:com.adobe.xmp')
# What undoes the turn that Pillow makes of a TIFF when it is decoded, by orientation.
_UNDO = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


def read(path: pathlib.Path, *, channels: int = 1, classes: int = 0) -> Volume:
    """The picture, or the pages of a TIFF as slices.

    Args:
      path: a file that begins as a PNG, JPEG or TIFF.
      channels: 1, or 3 to keep colours.
      classes: 0 for an image; K for a mask of K classes.

    Returns:
      A Volume with values [Z, H, W, 1 or channels], by the rule of the module docstring.

    Raises:
      UserError: truncated, damaged, larger than is read, pages that differ, or what the rule refuses; names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # oddities of the metadata; what cannot be decoded raises
            return _read(path, channels, classes)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f'{path}: claims more pixels than any image; crop or resize it first') from error
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, OverflowError) as error:
        why = 'in its header' if isinstance(error, UnidentifiedImageError) else ' '.join(str(error).split())[:160]
        raise UserError(f'{path}: truncated or damaged ({why}); copy or export it again') from error


def _read(path, channels, classes):
    values, notes, first, orientation, white = [], {}, None, 1, 0
    # A file, not its name: Pillow would map a turned TIFF of that name into memory with its sides swapped.
    with path.open('rb') as file:
        pages = tiff.pages(path, file) if file.read(2) in (b'II', b'MM') else [None]
        file.seek(0)
        image = _opened(path, file, pages[0])
        check_size(str(path), (1, image.height, image.width))
        check_size(str(path), (len(pages), image.height, image.width, channels))
        for page in pages:
            if page and page.number:
                image.seek(page.number)
            alike = image.size, image.mode
            first = first or alike
            if alike != first:
                (width, height), mode = first
                raise UserError(
                    f'{path}: page {page.number} is {image.height}x{image.width} pixels of type {image.mode}, the '
                    f'first {height}x{width} of type {mode}; keep the pages of one image alike'
                )
            pixels, more, turn, white = read_page(path, image, channels=channels, classes=classes, page=page)
            values.append(pixels)
            notes |= dict.fromkeys(more)
            orientation = turn if turn != 1 else orientation
    return Volume(np.stack(values), notes=tuple(sorted(notes)), orientation=orientation, white=white)


def _opened(path, file, page):
    try:
        return Image.open(file, formats=('PNG', 'JPEG', 'TIFF'))
    except UnidentifiedImageError as error:
        if page is None:
            raise
        raise UserError(
            f'{path}: a TIFF of {page.what()} that is not read, or damaged; store it as 8- or 16-bit integers or '
            '32-bit floats, one or three a pixel'
        ) from error


def read_page(
    path: pathlib.Path, image: Image.Image, *, channels: int = 1, classes: int = 0, page: tiff.Page | None = None
) -> tuple[np.ndarray, list[str], int, int]:
    """(values [H, W, C], notes, orientation 1 .. 8, the value of white) of a picture that is open, by the one rule.

    Args:
      path: names it in messages.
      image: opened by Pillow, its size checked, not yet decoded.
      channels, classes: as `read`.
      page: of a TIFF, what its tags say.

    Raises:
      UserError: what the rule refuses.
      Exception: Pillow's own, of what it cannot decode.
    """
    notes = []
    if image.info.get('progressive'):
        _check_scans(path, image)
    raw = _raw_mode(image)
    count = 1 if page else getattr(image, 'n_frames', 1)
    if count > 1:
        _refuse_mask(path, classes, f'holds {count} pictures', 'keep one')
        notes.append('more pictures than the first in one file, left out')
    if image.mode not in (*_GREY, *_COLOURS, *_CONVERTED):
        raise UserError(f'{path}: stores colours as {image.mode}, which is not read; convert it to grey or RGB')
    if raw.endswith((';16B', ';16L', ';16N')) and image.mode not in _GREY:
        _refuse_mask(path, classes, 'is colour or transparency of 16 bits', 'store it in grey')
        if page and page.planar[0] == 2:
            raise UserError(f'{path}: colour of 16 bits in separate planes is not read; store its samples together')
        notes.append('colour of 16 bits read at 8')
    if page and 0 in page.extra:
        _refuse_mask(path, classes, 'has a channel of unknown meaning', 'store it in grey')
        notes.append('a channel of unknown meaning left out')
    orientation = page.orientation[0] if page else 1
    undo = _UNDO.get(orientation, lambda x: x)
    stored = undo(np.asarray(image))
    if not page and any(name in image.info for name in _EXIF):
        orientation = image.getexif().get(0x0112, 1)
    if orientation not in range(1, 9):
        orientation = 1
    if orientation != 1:
        notes.append('the file asks to be shown turned (EXIF): pixels, and so points (--at), are counted as stored')
    if image.mode in _GREY:
        values, white = _grey(path, image, stored, raw, classes, page, notes)
        transparent = image.info.get('transparency')
        if isinstance(transparent, int):
            scale = white // (2 ** _bits(raw) - 1) if not classes and _bits(raw) < 8 else 1
            alpha = np.where(values[..., 0] == transparent * scale, 0, 255)
            values = _without(path, values, alpha, classes, notes)
        return values, notes, orientation, white
    if classes and image.mode in ('P', 'PA'):
        return _labels(path, image, stored, classes, notes), notes, orientation, 255
    if classes and image.mode in _CONVERTED:
        raise UserError(f'{path}: a mask in {image.mode}; store it in grey or with a palette, one value a class')
    values = _colours(path, image, stored, undo, classes, notes)
    if values.shape[-1] == 1 or ((channels == 1 or classes) and (values == values[..., :1]).all()):
        return values[..., :1], notes, orientation, 255
    if classes:
        raise UserError(f'{path}: a mask in colour; store it in grey or with a palette, one value a class')
    if channels == 1:
        notes.append(COLOUR)
        values = np.asarray(Image.fromarray(np.ascontiguousarray(values)).convert('L'))[..., None]
    return values, notes, orientation, 255


def _check_scans(path, image):
    """Refuses a progressive JPEG whose scans, a few bytes each, go over the whole image again and again."""
    place, count, last = image.fp.tell(), 0, b''
    image.fp.seek(0)
    while block := image.fp.read(1 << 20):
        count += (last + block).count(b'\xff\xda')  # within a scan 255 is always followed by 0
        last = block[-1:]
    image.fp.seek(place)
    if count > _MAX_SCANS:
        raise UserError(f'{path}: a JPEG of {count} scans, where a dozen is usual; store it again')


def _raw_mode(image):
    """How the file packs its pixels, as Pillow names it: 'L;4', 'RGB;16B'; '' where it does not say."""
    tile = image.tile[0].args if image.tile else ''
    return tile if isinstance(tile, str) else next((part for part in tile or () if isinstance(part, str)), '')


def _bits(raw):
    """Bits of a grey sample of a packed kind, 8 for any other."""
    return next((bits for bits in (1, 2, 4) if raw.startswith(f'L;{bits}') or raw == '1'), 8)


def _refuse_mask(path, classes, what, cure):
    if classes:
        raise UserError(f'{path}: {what}, so what is marked cannot be told; {cure}')


def _grey(path, image, stored, raw, classes, page, notes):
    """([H, W, 1], value of white) of a grey picture."""
    white, values = 255, stored
    if page and page.photometric[0] == 0:
        _refuse_mask(path, classes, 'says that 0 is white (min-is-white)', 'store it as 0 for nothing, min-is-black')
        if image.mode == 'F':
            raise UserError(f'{path}: floats that say 0 is white (min-is-white); store it as min-is-black')
        notes.append('min-is-white turned round')  # Pillow has done so up to 8 bits
        values = np.uint16(65535) - stored if image.mode.startswith('I;16') else stored
    if image.mode == '1':
        return (values[..., None].astype(np.uint8), 1) if classes else (values[..., None] * np.uint8(255), 255)
    if image.mode == 'L' and classes and (bits := _bits(raw)) < 8:
        white = 2**bits - 1
        values = values // np.uint8(255 // white)
    elif image.mode.startswith('I;16'):
        values, white = values.astype(np.uint16, copy=False), 65535
    elif page and page.bits[0] == 8 and page.format[0] == 2:
        values = values.view(np.int8)  # Pillow takes it as unsigned
    elif image.mode == 'I' and page and page.bits[0] == 32 and page.format[0] == 1:
        values = values.view(np.uint32)  # Pillow takes it as signed
    return values[..., None], white


def _colours(path, image, stored, undo, classes, notes):
    """[H, W, 1 or 3] uint8 of any other picture, its transparency gone."""
    if image.mode in ('LA', 'La', 'RGBA'):
        colours, alpha, multiplied = stored[..., :-1], stored[..., -1], image.mode == 'La'
    else:
        clear = image.mode == 'PA' or 'transparency' in image.info
        every = undo(np.asarray(image.convert('RGBA' if clear else 'RGB')))
        colours, alpha, multiplied = every[..., :3], every[..., 3] if clear else None, False
    if alpha is None:
        return colours
    return _without(path, colours, alpha, classes, notes, multiplied)


def _without(path, values, alpha, classes, notes, multiplied=False):
    """Values [H, W, C] with their transparency [H, W] laid over black; of a mask, checked against what is marked."""
    if (alpha == 255).all():
        return values
    marked = (values != 0).any(-1)
    if (alpha == np.where(marked, 255, 0)).all():
        return values
    _refuse_mask(path, classes, 'is transparent in part', 'store it in grey without transparency')
    notes.append('transparency laid over black')
    if multiplied:
        return values
    share = alpha[..., None] / np.float32(255)
    return np.rint(values * share).astype(values.dtype)


def _labels(path, image, stored, classes, notes):
    """[H, W, 1] of a mask with a palette."""
    index = stored if image.mode == 'P' else stored[..., 0]
    listed = np.array(image.getpalette('RGB') or [], np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(listed)] = listed[:256]
    used = np.unique(index)
    colours = palette[used].astype(int)
    table = np.arange(256, dtype=np.uint8)
    if (colours == colours[:, :1]).all():
        grey = colours[:, 0]
        rises = tuple(palette[0]) == (0, 0, 0) and (np.diff(grey) > 0).all() and (used[0] == 0 or grey[0] > 0)
        if _legit(grey, classes):
            table[used] = grey
        elif not (rises and _legit(used, classes)):
            raise UserError(
                f'{path}: a palette whose greys ({_some(grey)}) are no labels and do not rise with its indices '
                f'({_some(used)}); store the mask in grey, one value a class'
            )
    else:
        known = {tuple(colour): label for label, colour in enumerate(_voc())}
        own = [known.get(tuple(colour), -1) for colour in colours.tolist()]
        shuffled = classes > 1 and own != used.tolist() and all(0 <= label <= classes for label in own)
        if palette[0].any() or len({tuple(colour) for colour in colours.tolist()}) < len(used) or shuffled:
            why = 'has not black as its entry 0' if palette[0].any() else 'has entries out of order or twice'
            raise UserError(
                f'{path}: its palette {why}, so its indices cannot be taken as labels; store the mask in grey, one '
                'value a class'
            )
        notes.append('labels are the indices of a coloured palette')
    values = table[index]
    clear = image.info.get('transparency')
    if image.mode == 'PA':
        alpha = stored[..., 1]
    elif isinstance(clear, bytes):
        opacity = np.full(256, 255, np.uint8)
        opacity[: len(clear)] = np.frombuffer(clear[:256], np.uint8)
        alpha = opacity[index]
    else:
        alpha = np.where(index == clear, 0, 255) if isinstance(clear, int) else np.full(index.shape, 255)
    return _without(path, values[..., None], alpha, classes, notes)


def _legit(values, classes):
    """Whether values are those of a mask of so many classes."""
    return set(values.tolist()) <= ({0, 255} if classes == 1 else set()) or max(values) <= classes


def _some(values):
    return ', '.join(map(str, values[:4])) + ' ..' * (len(values) > 4)


def _voc():
    """The 256 colours that Pascal VOC gives the labels 0 .. 255, [(red, green, blue)]."""
    bit = lambda label, place, shift: (label >> (3 * place + shift) & 1) << (7 - place)
    return [tuple(sum(bit(label, place, shift) for place in range(8)) for shift in range(3)) for label in range(256)]
