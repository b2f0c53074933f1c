"""What the header of a DICOM file says of its image, frame by frame, checked here once.

Lengths are finite and positive, positions and directions finite, or they are unknown and `Slice.notes` says so; a
rescale is finite and not zero, or the file is refused. Where two elements state one length and differ by more than 1 %,
a note names both. Enhanced objects (CT, MR) keep all of these in functional groups, of a frame or shared by all.
"""

import dataclasses
import pathlib
import re
import warnings

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.pixels.utils import get_expected_length

from ambdiff.data.files.volume import MAX_MM, check_size, length, same_length
from ambdiff.errors import UserError

_MAX_FRAMES = 1 << 16
_FRAME_BYTES = 16  # a compressed frame has more
_FREE_BYTES, _MAX_EXPANSION = 64 << 20, 1000  # what is decoded may be so large, or so many times the file
_HU_TYPES = ('', 'HU', 'US')  # RescaleType of CT: absent, HU, or 'unspecified', as some scanners write
_MAX_HU_SLOPE, _MAX_HU_INTERCEPT = 100, 1e5  # no CT has more
_MAX_RESCALE = 1e18
_NOT_IMAGES = re.compile(
    'Segmentation|Structure Set| SR|Presentation State|Key Object|Registration|Document|RT Dose|Parametric|Directory',
    re.IGNORECASE,
)
_NEEDED = ('Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated', 'BitsStored', 'PixelRepresentation')
_SPACINGS = (  # by name, and what is to be known of it
    ('PixelSpacing', ''),
    ('ImagerPixelSpacing', 'spacing is that of the detector: the body is magnified'),
    ('NominalScannedPixelSpacing', 'spacing is that of the film that was scanned'),
)


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
      between: SpacingBetweenSlices in mm, NaN where unknown; the positions of slices count more.
      position: [3], centre of the first pixel in mm, (left, posterior, superior); None where unknown.
      directions: [2, 3], unit vectors that the column index and the row index grow along, the same axes; None where
        unknown.
      slope, intercept: of the rescale; None where there is none.
      padding: (least, largest) stored value where the scanner wrote nothing; None where there is none.
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
    between: float
    position: np.ndarray | None
    directions: np.ndarray | None
    slope: float | None
    intercept: float | None
    padding: tuple[int, int] | None
    units: str
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> float:
        """Signed distance in mm of the slice's plane along its normal."""
        return float(np.cross(*self.directions) @ self.position)


def not_an_image(header: pydicom.Dataset) -> str:
    """Why a file is no part of a volume; '' where it is."""
    name = _line(header.SOPClassUID.name)
    if _NOT_IMAGES.search(name):
        return name
    if 'LOCALIZER' in [str(part).upper().strip() for part in _parts(element(header, 'ImageType'))]:
        return 'localizer'
    return '' if 'Rows' in header or 'Image' in name else f'{name} without pixels'


def slices_of(path: pathlib.Path, header: pydicom.Dataset) -> list[Slice]:
    """A file's slices, one a frame; what the header claims is checked here, nothing is decoded.

    Raises:
      UserError: the header lacks something, contradicts itself or the file's length.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # values that bend the standard; what matters is checked
        return _checked_slices(path, header)


def _checked_slices(path, header):
    try:
        frames, shape = _claims(path, header)
        per_frame = items(header, 'PerFrameFunctionalGroupsSequence')
        if len(per_frame) not in (0, frames):
            raise UserError(
                f'{path}: has functional groups for {len(per_frame)} frames, but NumberOfFrames is {frames}; '
                'export it again'
            )
        shared = items(header, 'SharedFunctionalGroupsSequence')[:1]
        return [
            _slice(path, header, frame, shape, [*per_frame[frame : frame + 1], *shared], frames > 1 and not per_frame)
            for frame in range(frames)
        ]
    except (UserError, MemoryError):
        raise
    except Exception as error:  # pydicom names no type of damage
        raise UserError(f'{path}: its header is damaged ({_line(error)}); export it again') from error


def element(dataset: pydicom.Dataset, name: str):
    """The value of an element; None where it is absent or empty, and a text that no number reads as where damaged."""
    try:
        value = dataset.get(name)
    except Exception:  # values are parsed on first use, and pydicom names no type of damage
        return 'damaged'
    return None if hasattr(value, '__len__') and not len(value) else value


def items(dataset: pydicom.Dataset, name: str):
    """The items of a sequence; none where it is absent or something else than a sequence."""
    found = element(dataset, name)
    return found if isinstance(found, pydicom.Sequence) else []


def numbers(value, count: int) -> list[float] | None:
    """The finite numbers of an element that has `count` of them, else None."""
    try:
        found = [float(part) for part in _parts(value)]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def _claims(path, header):
    """(number of frames, (rows, columns, channels)), refused where the file cannot hold them."""
    missing = [name for name in (*_NEEDED, 'PhotometricInterpretation') if element(header, name) is None]
    if missing:
        raise UserError(f'{path}: truncated or damaged, it lacks {", ".join(missing)}; copy or export it again')
    rows, columns, samples, allocated, stored, signed = (_count(path, header, name) for name in _NEEDED)
    frames = _count(path, header, 'NumberOfFrames') if element(header, 'NumberOfFrames') is not None else 1
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated or signed not in (0, 1):
        raise UserError(
            f'{path}: BitsAllocated {allocated}, BitsStored {stored} and PixelRepresentation {signed} cannot be; '
            'export it again'
        )
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise UserError(f'{path}: stored in a way of its own (transfer syntax {syntax}); export it uncompressed')
    high = element(header, 'HighBit')
    if high is not None and not syntax.is_compressed and _count(path, header, 'HighBit') != stored - 1:
        raise UserError(f'{path}: HighBit {high} does not go with BitsStored {stored}; export it again')
    palette = header.PhotometricInterpretation == 'PALETTE COLOR'
    shape = (rows, columns, 3 if palette else samples)
    check_size(str(path), (frames or 1, *shape))
    frames, size = frames or 1, path.stat().st_size
    claimed = rows * columns * samples * frames * -(-allocated // 8)
    if syntax.is_compressed:
        enough = frames * _FRAME_BYTES <= size and (claimed <= _FREE_BYTES or claimed <= _MAX_EXPANSION * size)
    else:
        claimed = get_expected_length(header)
        enough = size >= claimed
    if not enough:
        raise UserError(
            f'{path}: truncated, {size} bytes where its header claims {claimed} of pixels; copy or export it again'
        )
    if frames > _MAX_FRAMES:
        raise UserError(f'{path}: claims {frames} frames; up to {_MAX_FRAMES} are read, so split it')
    return frames, shape


def _count(path, header, name):
    value = element(header, name)
    number = numbers(value, 1)
    if not number or not number[0].is_integer() or number[0] < 0:
        raise UserError(f'{path}: its {name} is {_shown(value)}, which is no count; export it again')
    return int(number[0])


def _slice(path, header, frame, shape, groups, in_order):
    """groups: the functional groups of the frame and those of all frames; in_order: no frame tells its position."""

    def value(group, name):
        for place in groups:
            inner = items(place, group)
            if inner and (found := element(inner[0], name)) is not None:
                return found
        return element(header, name)

    spacing, notes = _spacing(header, value)
    thickness, between = (
        _length(name, value('PixelMeasuresSequence', name), notes)
        for name in ('SliceThickness', 'SpacingBetweenSlices')
    )
    position, directions = None, _directions(value('PlaneOrientationSequence', 'ImageOrientationPatient'), notes)
    stated = None if in_order else value('PlanePositionSequence', 'ImagePositionPatient')
    if stated is not None:
        place = numbers(stated, 3)
        if place and max(map(abs, place)) < MAX_MM:
            position = np.array(place)
        else:
            notes.append('ImagePositionPatient is no position in mm, ignored')
    elif in_order and header.get('Modality') in ('CT', 'MR', 'PT'):
        notes.append('its frames tell no positions, and are taken in their order')
    slope, intercept = _rescale(path, value, notes)
    kind = str(value('PixelValueTransformationSequence', 'RescaleType') or '').upper().strip()
    is_hu = element(header, 'Modality') == 'CT' and slope is not None and kind in _HU_TYPES
    if is_hu and (abs(slope) > _MAX_HU_SLOPE or abs(intercept) > _MAX_HU_INTERCEPT):
        is_hu = False
        notes.append(f'RescaleSlope {slope:g} and RescaleIntercept {intercept:g} give no Hounsfield units')
    return Slice(
        file=path,
        frame=frame,
        uid=str(element(header, 'SOPInstanceUID') or ''),
        series=str(element(header, 'SeriesInstanceUID') or ''),
        shape=shape,
        spacing=spacing,
        thickness=thickness,
        between=between,
        position=position,
        directions=directions,
        slope=slope,
        intercept=intercept,
        padding=_padding(header, notes),
        units='HU' if is_hu else 'arbitrary',
        notes=tuple(notes),
    )


def _spacing(header, value):
    """((row, column) in mm, notes)."""
    notes, ratio = [], numbers(element(header, 'PixelAspectRatio'), 2)
    ratio = ratio[0] / ratio[1] if ratio and min(ratio) > 0 else np.nan
    for name, note in _SPACINGS:
        stated = value('PixelMeasuresSequence', name)
        if stated is None:
            continue
        pair = [length(step) for step in numbers(stated, 2) or (np.nan, np.nan)]
        if not np.isfinite(pair).all():
            notes.append(f'{name} {_shown(stated)} is no spacing in mm, ignored')
            continue
        other = [length(step) for step in numbers(element(header, name), 2) or pair]
        if not all(map(same_length, pair, other)):
            inside, outside = _shown(pair), _shown(other)
            notes.append(f'{name} is {inside} mm in its functional groups, which count, and {outside} mm outside')
        if not same_length(pair[0] / pair[1], ratio):
            notes.append(f'{name} {_shown(pair)} mm counts, against a PixelAspectRatio of {ratio:g}')
        return tuple(pair), [*notes, *([note] if note else [])]
    regions = items(header, 'SequenceOfUltrasoundRegions')
    if len(regions) == 1:
        units = [numbers(element(regions[0], f'PhysicalUnits{axis}Direction'), 1) for axis in 'XY']
        steps = [numbers(element(regions[0], f'PhysicalDelta{axis}'), 1) for axis in 'YX']
        if units == [[3], [3]]:  # centimetres
            pair = [length(10 * abs(step[0])) if step else np.nan for step in steps]
            if np.isfinite(pair).all():
                return tuple(pair), notes
            notes.append('PhysicalDeltaX and PhysicalDeltaY are no spacing, ignored')
    if not same_length(1.0, ratio):
        notes.append(f'pixels are not square (PixelAspectRatio {ratio:g}), and their spacing is unknown')
    return (np.nan, np.nan), notes


def _length(name, stated, notes):
    """One length in mm, NaN where it is absent or none."""
    if stated is None:
        return np.nan
    found = length((numbers(stated, 1) or [np.nan])[0])
    if np.isnan(found):
        notes.append(f'{name} {_shown(stated)} is no length in mm, ignored')
    return found


def _directions(stated, notes):
    """[2, 3] unit vectors at right angles; None where they are absent or none."""
    if stated is None:
        return None
    directions = np.reshape(numbers(stated, 6) or np.zeros(6), (2, 3))
    if np.abs(directions).max() < 2 and np.allclose(directions @ directions.T, np.eye(2), atol=0.01):
        return directions / np.linalg.norm(directions, axis=1, keepdims=True)
    notes.append('ImageOrientationPatient is not two directions at right angles, ignored')
    return None


def _rescale(path, value, notes):
    """(slope, intercept), both None where there is no rescale."""
    stated = [value('PixelValueTransformationSequence', f'Rescale{name}') for name in ('Slope', 'Intercept')]
    if None in stated:
        if stated != [None, None]:
            notes.append('one of RescaleSlope and RescaleIntercept is missing, so values are as stored')
        return None, None
    slope, intercept = ((numbers(part, 1) or [np.nan])[0] for part in stated)
    if not (1 / _MAX_RESCALE < abs(slope) < _MAX_RESCALE and abs(intercept) < _MAX_RESCALE):
        raise UserError(
            f'{path}: RescaleSlope {_shown(stated[0])} and RescaleIntercept {_shown(stated[1])} are no rescale; '
            'export it again'
        )
    return slope, intercept


def _padding(header, notes):
    """(least, largest) of PixelPaddingValue and PixelPaddingRangeLimit; None where there is none."""
    ends = []
    for name in ('PixelPaddingValue', 'PixelPaddingRangeLimit'):
        stated = element(header, name)
        number = numbers(stated, 1)
        if number and number[0].is_integer() and abs(number[0]) < 2**32:
            ends.append(int(number[0]))
        elif stated is not None:
            notes.append(f'{name} {_shown(stated)} is no stored value, ignored')
        if not ends:
            return None
    return min(ends), max(ends)


def _parts(value):
    return list(value) if isinstance(value, MultiValue | list | tuple) else [] if value is None else [value]


def _shown(value):
    return _line('\\'.join(str(part) for part in _parts(value)))[:60]


def _line(error):
    return ' '.join(str(error).split())[:160]
