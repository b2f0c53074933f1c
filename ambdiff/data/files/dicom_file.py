"""One DICOM file: its opening, and the decoding of its pixels to values.

Values are stored value x RescaleSlope + RescaleIntercept, slice by slice, and HU for CT with both. Outside CT,
MONOCHROME1 (the smallest value is white) is turned round within the range of the stored bits, so that larger is
brighter; HU keep their meaning whatever the display. Pixels of PixelPaddingValue (outside the scanner's field) become
-1000 HU, air, else the smallest value of their slice.

Several frames in one file (enhanced CT and MR, ultrasound loops) are so many slices. What a header claims is checked,
also within a compressed stream, before anything is decoded; `ambdiff.data.files.dicom_header` reads what it says.
"""

import logging
import pathlib
import re
import warnings

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, iter_pixels, pixel_array
from pydicom.pixels.utils import get_expected_length

from ambdiff.data.files.dicom_header import Slice, items
from ambdiff.errors import UserError

AIR = -1000.0  # HU
DEFLATED = 'deflated as a whole, which is not read; store it uncompressed'
_IDENTITY = ('SOPClassUID', 'SOPInstanceUID', 'SeriesInstanceUID', 'Modality', 'PhotometricInterpretation')

# It tells of every oddity; what matters here is raised.
logging.getLogger('pydicom').setLevel(logging.ERROR)


def read_header(path: pathlib.Path) -> pydicom.Dataset:
    """The data elements of a DICOM file before its pixels.

    Raises:
      UserError: not a DICOM file, cut off, or compressed as a whole.
    """
    return _open(path, stop_before_pixels=True)


def is_deflated(path: pathlib.Path) -> bool:
    """Whether all of a DICOM file after its first group is one deflated stream, which nothing would bound.

    Raises:
      OSError: it cannot be read; any other error: its first group is damaged.
    """
    with path.open('rb') as file:
        file.seek(132 if file.read(132)[128:] == b'DICM' else 0)
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    return meta.get('TransferSyntaxUID') == pydicom.uid.DeflatedExplicitVRLittleEndian


def decode(slices: list[Slice]) -> list[np.ndarray]:
    """[H, W, C] of each slice: float32 where it is rescaled, else as stored, by the rules of the module docstring.

    Raises:
      UserError: truncated or damaged, or compressed in a way that needs more software; names the file.
    """
    values, of_file = [None] * len(slices), {}
    for place, piece in enumerate(slices):
        of_file.setdefault(piece.file, {})[piece.frame] = place
    for path, places in of_file.items():  # a file of many frames is opened once
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                header = _open_pixels(slices[next(iter(places.values()))])
                for frame, stored in _stored(header, places):
                    values[places[frame]] = _values(slices[places[frame]], header, stored)
        except (UserError, MemoryError):
            raise
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            if not re.search('missing dep', str(error)):
                raise UserError(f'{path}: its pixels cannot be decoded ({_line(error)}); export it again') from error
            raise UserError(
                f'{path}: compressed ({header.file_meta.TransferSyntaxUID.name}); what decodes it is installed by '
                'pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg'
            ) from error
        except Exception as error:  # every decoder fails in its own way on damage
            raise UserError(f'{path}: truncated or damaged ({_line(error)}); copy or export it again') from error
        for lost in [frame for frame, place in places.items() if values[place] is None]:
            raise UserError(f'{path}: truncated, it lacks its frame {lost}; copy or export it again')
    return values


def _open(path, stop_before_pixels):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # values that bend the standard; what matters is checked
            if is_deflated(path):
                raise UserError(f'{path}: {DEFLATED}')
            header = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, force=True)
            for name in _IDENTITY:  # values are parsed on first use: here, so that damage is told here
                header.get(name)
            if 'SOPClassUID' not in header and 'MediaStorageSOPClassUID' in header.file_meta:
                header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID
            if not isinstance(header.get('SOPClassUID'), pydicom.uid.UID):
                raise UserError(f'{path}: not a DICOM file, or cut off in its header; copy or export it again')
            if 'TransferSyntaxUID' not in header.file_meta:
                header.file_meta.TransferSyntaxUID = _guessed_syntax(header)
            return header
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from error
    except Exception as error:  # pydicom names no type of damage
        raise UserError(f'{path}: not a whole DICOM file ({_line(error)}); copy or export it again') from error


def _open_pixels(piece):
    """The opened file, its pixels as long as claimed and of the claimed size, but not decoded."""
    header = _open(piece.file, stop_before_pixels=False)
    if 'PixelData' not in header:
        raise UserError(f'{piece.file}: truncated, it has no pixels; copy or export it again')
    if not header.file_meta.TransferSyntaxUID.is_compressed:
        _check_length(piece.file, len(header.PixelData), get_expected_length(header))
        return header
    try:
        frames = generate_frames(header.PixelData, number_of_frames=int(header.get('NumberOfFrames') or 1))
        sizes = {_stream_size(frame) for frame in frames} - {None}
    except Exception as error:  # pydicom names no type of damage
        raise UserError(f'{piece.file}: truncated or damaged ({_line(error)}); copy or export it again') from error
    for size in sizes - {piece.shape[:2]}:
        raise UserError(
            f'{piece.file}: its compressed pixels claim {size[0]}x{size[1]}, its header '
            f'{piece.shape[0]}x{piece.shape[1]}; export it again'
        )
    return header


def _check_length(path, size, claimed):
    if size < claimed:
        raise UserError(
            f'{path}: truncated, {size} bytes where its header claims {claimed} of pixels; copy or export it again'
        )


def _stored(header, frames):
    """(number, stored values [H, W, C] as they are in the file) of each of some frames."""
    if len(frames) > 1 and header.file_meta.TransferSyntaxUID.is_compressed:
        # In turn, since to find one frame of many takes a walk through those before it.
        found = zip(range(max(frames) + 1), iter_pixels(header, correct_unused_bits=False), strict=False)
    else:
        found = ((frame, pixel_array(header, index=frame, correct_unused_bits=False)) for frame in sorted(frames))
    for frame, stored in found:
        if frame in frames:
            if header.PhotometricInterpretation == 'PALETTE COLOR':
                stored = apply_color_lut(stored, header)
            yield frame, stored[..., None] if stored.ndim == 2 else stored


def _values(piece, header, stored):
    """Stored values by padding, unused bits, rescale and MONOCHROME1."""
    if stored.shape != piece.shape:
        raise UserError(f'{piece.file}: decodes to {stored.shape}, its header claims {piece.shape}; export it again')
    padding = _padding(piece, stored) if piece.padding and piece.shape[2] == 1 else None
    values, ends = _used_bits(header, stored), _stored_range(header)
    if piece.slope is not None:
        scale = lambda x: np.float32(piece.slope) * np.asarray(x, np.float32) + np.float32(piece.intercept)
        values, ends = scale(values), scale(ends)
    elif items(header, 'ModalityLUTSequence'):
        values = apply_modality_lut(values, header).astype(np.float32)
        ends = (values.min(), values.max())
    if header.PhotometricInterpretation == 'MONOCHROME1' and piece.units != 'HU':
        values = (ends[0] + (ends[1] - values)).astype(values.dtype)
    if padding is not None and padding.any():
        inside = values[~padding]
        fill = AIR if piece.units == 'HU' else inside.min() if inside.size else ends[0]
        values = np.where(padding, np.asarray(fill, values.dtype), values)
    return values


def _used_bits(header, stored):
    """Stored values without what lies in the bits that none of them uses: overlays, or a missing sign."""
    allocated, (low, high) = 8 * stored.itemsize, _stored_range(header)
    all_used = int(header.BitsStored) == allocated or int(header.BitsAllocated) != allocated
    if (
        all_used
        or header.PhotometricInterpretation == 'PALETTE COLOR'
        or (low <= stored.min() and stored.max() <= high)
    ):
        return stored
    return np.right_shift(np.left_shift(stored, allocated - int(header.BitsStored)), allocated - int(header.BitsStored))


def _stored_range(header):
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _padding(piece, stored):
    """Where the scanner wrote nothing, [H, W, 1] bool."""

    def as_stored(value):  # it may be written with the other sign: 63536 for -2000
        return int(np.asarray(value & ((1 << 8 * stored.itemsize) - 1)).astype(stored.dtype))

    ends = sorted(map(as_stored, piece.padding))
    return (stored >= ends[0]) & (stored <= ends[1])


def _guessed_syntax(header):
    """How a file without its first group is stored, which tells it."""
    implicit, little = header.original_encoding
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian


def _stream_size(stream):
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream claims; None for another kind."""
    number = lambda start, count: int.from_bytes(stream[start : start + count], 'big')
    if stream[4:8] == b'jP  ':  # JPEG 2000 in a file of its own, which decoders take as well
        stream = stream[max(stream.find(b'\xff\x4f\xff\x51'), 0) :]
    if stream[:4] == b'\xff\x4f\xff\x51':  # JPEG 2000: the size segment, less the image's offset
        return number(12, 4) - number(20, 4), number(8, 4) - number(16, 4)
    if stream[:2] != b'\xff\xd8':
        return None
    place = 2
    while place + 9 < len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            return number(place + 5, 2), number(place + 7, 2)
        place += 1 if marker == 0xFF else 2 + number(place + 2, 2)
    return None


def _line(error):
    return ' '.join(str(error).split())[:160]
