"""One DICOM file: its header as slices, and the decoding of their pixels.

Values are stored value x RescaleSlope + RescaleIntercept, slice by slice, and HU for CT with both. Outside CT,
MONOCHROME1 (the smallest value is white) is turned round within the range of the stored bits, so that larger is
brighter; HU keep their meaning whatever the display. Pixels of PixelPaddingValue (outside the scanner's field) become
-1000 HU, air, else the smallest value of their slice.

Several frames in one file (enhanced CT and MR, ultrasound loops) are so many slices. What a header claims is checked,
also within a compressed stream, before anything is decoded.
"""

import dataclasses
import logging
import pathlib
import re
import warnings

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.pixels.utils import get_expected_length

from ambdiff.data.files.volume import check_size
from ambdiff.errors import UserError

AIR = -1000.0  # HU
DEFLATED = 'deflated as a whole, which is not read; store it uncompressed'
_HU_TYPES = ('', 'HU', 'US')  # RescaleType of CT: absent, HU, or 'unspecified', as some scanners write
_NOT_IMAGES = re.compile(
    'Segmentation|Structure Set| SR|Presentation State|Key Object|Registration|Document|RT Dose|Parametric', re.I
)
_READ = (
    *('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID', 'SeriesNumber', 'SeriesDescription'),
    *('PatientID', 'Modality', 'ImageType', 'NumberOfFrames', 'ImagePositionPatient', 'ImageOrientationPatient'),
    *('PixelSpacing', 'ImagerPixelSpacing', 'SliceThickness', 'PhotometricInterpretation', 'PixelPaddingValue'),
    *('PixelPaddingRangeLimit', 'RescaleSlope', 'RescaleIntercept', 'RescaleType', 'SpecificCharacterSet'),
)
_NEEDED = ('Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated', 'BitsStored', 'PixelRepresentation')

# It tells of every oddity; what matters here is raised.
logging.getLogger('pydicom').setLevel(logging.ERROR)


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One frame of one file: where it lies and what its values mean, with nothing decoded.

    Attributes:
      file: where it is.
      frame: its number in the file, 0 where the file has one.
      uid: SOPInstanceUID.
      series: SeriesInstanceUID.
      shape: (rows, columns, channels).
      spacing: (row, column) distance in mm, NaN where unknown.
      thickness: of the slice in mm, NaN where unknown.
      position: [3], centre of the first pixel in mm, (left, posterior, superior); None where unknown.
      directions: [2, 3], unit vectors that the column index and the row index grow along, the same axes; None where
        unknown.
      slope, intercept: of the rescale; None where there is none.
      units: 'HU' or 'arbitrary'.
      notes: what is unusual.
    """

    file: pathlib.Path
    frame: int
    uid: str
    series: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float]
    thickness: float
    position: np.ndarray | None
    directions: np.ndarray | None
    slope: float | None
    intercept: float | None
    units: str
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> float:
        """Signed distance in mm of the slice's plane along its normal."""
        return float(np.cross(*self.directions) @ self.position)


def read_header(path: pathlib.Path) -> pydicom.Dataset:
    """The data elements of a DICOM file before its pixels.

    Raises:
      UserError: not a DICOM file, cut off, or compressed as a whole.
    """
    return _open(path, stop_before_pixels=True)


def is_deflated(path: pathlib.Path) -> bool:
    """Whether all of a DICOM file after its first group is one deflated stream, which nothing would bound."""
    meta = pydicom.filereader.read_file_meta_info(path)
    return meta.get('TransferSyntaxUID') == pydicom.uid.DeflatedExplicitVRLittleEndian


def not_an_image(header: pydicom.Dataset) -> str:
    """Why a file is no part of a volume; '' where it is."""
    name = _line(header.SOPClassUID.name)
    if _NOT_IMAGES.search(name):
        return name
    if 'LOCALIZER' in [str(part).upper() for part in header.get('ImageType') or ()]:
        return 'localizer'
    return '' if 'Rows' in header or 'Image' in name else f'{name} without pixels'


def slices_of(path: pathlib.Path, header: pydicom.Dataset) -> list[Slice]:
    """A file's slices, one a frame; what the header claims is checked here, nothing is decoded.

    Raises:
      UserError: the header lacks something, contradicts itself or the file's length.
    """
    try:
        missing = [name for name in (*_NEEDED, 'PhotometricInterpretation') if header.get(name) is None]
        if missing:
            raise UserError(f'{path}: truncated or damaged, it lacks {", ".join(missing)}; copy or export it again')
        frames = int(header.get('NumberOfFrames') or 1)
        palette = header.PhotometricInterpretation == 'PALETTE COLOR'
        shape = (int(header.Rows), int(header.Columns), 3 if palette else int(header.SamplesPerPixel))
        check_size(str(path), (frames, *shape))
        if not header.file_meta.TransferSyntaxUID.is_compressed:
            _check_length(path, path.stat().st_size, get_expected_length(header))
        return [_slice(path, header, frame, shape) for frame in range(frames)]
    except UserError:
        raise
    except Exception as error:  # pydicom names no type of damage
        raise UserError(f'{path}: its header is damaged ({_line(error)}); export it again') from error


def decode(slices: list[Slice]) -> list[np.ndarray]:
    """[H, W, C] of each slice: float32 where it is rescaled, else as stored, by the rules of the module docstring.

    Raises:
      UserError: truncated or damaged, or compressed in a way that needs more software; names the file.
    """
    values, path, header = [], None, None
    for piece in slices:
        if piece.file != path:  # a file of many frames is opened once
            path, header = piece.file, _open_pixels(piece)
        values.append(_values(piece, header, _stored(piece, header)))
    return values


def _open(path, stop_before_pixels):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # values that bend the standard; what matters is checked
            with path.open('rb') as file:
                head = file.read(132)
            plain = head[128:] != b'DICM'
            if plain and head[:2] == b'\2\0':  # it may say that the rest is deflated
                raise UserError(f'{path}: its first 132 bytes, before the first group, are lost; export it again')
            if not plain and is_deflated(path):
                raise UserError(f'{path}: {DEFLATED}')
            header = pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, force=plain)
            for name in _READ:  # values are parsed on first use: here, so that damage is told here
                header.get(name)
            if not isinstance(header.get('SOPClassUID'), pydicom.uid.UID):
                raise UserError(f'{path}: not a DICOM file, or cut off in its header; copy or export it again')
            if 'TransferSyntaxUID' not in header.file_meta:
                header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            return header
    except UserError:
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


def _stored(piece, header):
    """Stored values [H, W, C] of a slice, decompressed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            stored = pixel_array(header, index=piece.frame)
            if header.PhotometricInterpretation == 'PALETTE COLOR':
                stored = apply_color_lut(stored, header)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        if not re.search('missing dep', str(error)):
            raise UserError(f'{piece.file}: its pixels cannot be decoded ({_line(error)}); export it again') from error
        raise UserError(
            f'{piece.file}: compressed ({header.file_meta.TransferSyntaxUID.name}); what decodes it is installed by '
            'pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg'
        ) from error
    except Exception as error:  # every decoder fails in its own way on damage
        raise UserError(f'{piece.file}: truncated or damaged ({_line(error)}); copy or export it again') from error
    stored = stored[..., None] if stored.ndim == 2 else stored
    if stored.shape != piece.shape:
        raise UserError(f'{piece.file}: decodes to {stored.shape}, its header claims {piece.shape}; export it again')
    return stored


def _values(piece, header, stored):
    """Stored values by rescale, MONOCHROME1 and padding."""
    padding = _padding(header, stored) if piece.shape[2] == 1 else None
    values, ends = stored, _stored_range(header)
    if piece.slope is not None:
        scale = lambda x: np.float32(piece.slope) * np.asarray(x, np.float32) + np.float32(piece.intercept)
        values, ends = scale(stored), scale(ends)
    elif 'ModalityLUTSequence' in header:
        values = apply_modality_lut(stored, header).astype(np.float32)
        ends = (values.min(), values.max())
    if header.PhotometricInterpretation == 'MONOCHROME1' and piece.units != 'HU':
        values = (ends[0] + (ends[1] - values)).astype(values.dtype)
    if padding is not None and padding.any():
        inside = values[~padding]
        fill = AIR if piece.units == 'HU' else inside.min() if inside.size else ends[0]
        values = np.where(padding, np.asarray(fill, values.dtype), values)
    return values


def _stored_range(header):
    bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _padding(header, stored):
    """Where the scanner wrote nothing, [H, W, 1] bool; None where the header names no value for it."""
    if header.get('PixelPaddingValue') is None:
        return None

    def as_stored(value):  # it may be written with the other sign: 63536 for -2000
        return int(np.asarray(int(value) & ((1 << 8 * stored.itemsize) - 1)).astype(stored.dtype))

    ends = sorted(
        map(as_stored, (header.PixelPaddingValue, header.get('PixelPaddingRangeLimit', header.PixelPaddingValue)))
    )
    return (stored >= ends[0]) & (stored <= ends[1])


def _slice(path, header, frame, shape):
    def value(group, name):
        """An element of a frame: enhanced objects keep it in functional groups, of the frame or shared by all."""
        per_frame, shared = header.get('PerFrameFunctionalGroupsSequence'), header.get('SharedFunctionalGroupsSequence')
        for place in ([per_frame[frame]] if per_frame else []) + ([shared[0]] if shared else []):
            if place.get(group) and place[group][0].get(name) is not None:
                return place[group][0].get(name)
        return header.get(name)

    spacing, notes = _spacing(header, value)
    position, directions = value('PlanePositionSequence', 'ImagePositionPatient'), None
    cosines = value('PlaneOrientationSequence', 'ImageOrientationPatient')
    if cosines:
        directions = np.array(cosines, np.float64).reshape(2, 3)
        if not np.allclose(directions @ directions.T, np.eye(2), atol=0.01):
            raise UserError(f'{path}: ImageOrientationPatient {list(cosines)} is not two directions at right angles')
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    slope, intercept = (value('PixelValueTransformationSequence', f'Rescale{name}') for name in ('Slope', 'Intercept'))
    slope, intercept = (float(slope), float(intercept)) if None not in (slope, intercept) else (None, None)
    if slope is not None and not (np.isfinite([slope, intercept]).all() and slope):
        raise UserError(f'{path}: RescaleSlope {slope} and RescaleIntercept {intercept}; export it again')
    kind = str(value('PixelValueTransformationSequence', 'RescaleType') or '').upper()
    is_hu = header.get('Modality') == 'CT' and slope is not None and kind in _HU_TYPES
    return Slice(
        file=path,
        frame=frame,
        uid=str(header.get('SOPInstanceUID', '')),
        series=str(header.get('SeriesInstanceUID', '')),
        shape=shape,
        spacing=spacing,
        thickness=float(value('PixelMeasuresSequence', 'SliceThickness') or np.nan),
        position=None if not position else np.array(position, np.float64).reshape(3),
        directions=directions,
        slope=slope,
        intercept=intercept,
        units='HU' if is_hu else 'arbitrary',
        notes=notes,
    )


def _spacing(header, value):
    """((row, column) in mm, notes)."""
    if found := value('PixelMeasuresSequence', 'PixelSpacing'):
        return (float(found[0]), float(found[1])), ()
    if found := header.get('ImagerPixelSpacing'):
        return (float(found[0]), float(found[1])), ('spacing is that of the detector: the body is magnified',)
    regions = header.get('SequenceOfUltrasoundRegions') or []
    if (
        len(regions) == 1
        and regions[0].get('PhysicalUnitsXDirection') == regions[0].get('PhysicalUnitsYDirection') == 3
    ):
        return (10 * abs(float(regions[0].PhysicalDeltaY)), 10 * abs(float(regions[0].PhysicalDeltaX))), ()
    return (np.nan, np.nan), ()


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
