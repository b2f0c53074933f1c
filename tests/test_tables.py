"""CSV files of users: what is read alike however a spreadsheet wrote it, and one line for what is not."""

import pytest

from ambdiff.data import splits
from ambdiff.data.files import tables
from ambdiff.errors import UserError


def table(tmp_path, content, encoding='utf-8'):
    path = tmp_path / 'points.csv'
    path.write_bytes(content.encode(encoding))
    return path


def points(path):
    rows = tables.read(path, ('x', 'y'), ('file', 'z'))
    return [(row.cells.get('file'), row.number('x'), row.number('y')) for row in rows]


@pytest.mark.parametrize(
    ('content', 'encoding'),
    [
        ('file,x,y\na.png,12.5,3\n"b, c.png",1e1,-4\n', 'utf-8'),
        ('file,x,y\r\na.png,12.5,3\r\n"b, c.png",1e1,-4\r\n', 'utf-8-sig'),
        ('file,x,y\ra.png,12.5,3\r"b, c.png",1e1,-4', 'utf-8'),
        ('file;x;y\na.png;12,5;3\nb, c.png;1e1;-4\n', 'utf-8'),
        ('sep=;\nfile;x;y\na.png;12,5;3\nb, c.png;10;-4\n', 'utf-8-sig'),
        ('File\tX\tY\na.png\t12,5\t3\nb, c.png\t10\t-4\n', 'utf-16'),
        (' FILE , note, X , Y \n\n a.png ,n, 12.50 , 3 \n,,,\n"b, c.png",,+10.,-4\n\n', 'utf-8'),
        ('y,x,file,,\n3,12.5,a.png,,\n-4,10,"b, c.png",,\n', 'utf-8'),
    ],
)
def test_a_table_reads_alike_however_a_spreadsheet_wrote_it(tmp_path, content, encoding):
    assert points(table(tmp_path, content, encoding)) == [('a.png', 12.5, 3.0), ('b, c.png', 10.0, -4.0)]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('x,y,z\n1,2,3\n,4,5\n', r'line 3 has no number in the column x'),
        ('x,y\n1\n', r'line 2 has no number in the column y'),
        ('x,y\n1,5,2,0\n', r'line 2 has 4 cells, but the first line names 2; a decimal comma needs ";"'),
        ('x,y\n"1,5",2\n', r"line 2: the column x holds '1,5', which is no number"),
        ('x;y\n1.234,5;2\n', r"'1\.234,5', which is no number"),
        ('x,y\nnan,2\n', r"'nan', which is no number"),
        ('x,y\n1e999,2\n', r"'1e999', which is no number"),
        ('x,y\n1_0,2\n', r"'1_0', which is no number"),
        ('x,y\n\u0661,2\n', r'which is no number'),
        ('x,x,y\n1,2,3\n', r'has the column x twice'),
        ('a,b\n1,2\n', r'has no column x and y in its first line'),
        ('', r'has no column x and y'),
        ('x,y\n"1,2\n', r'line 2: not a CSV file'),
        ('x,y\n1,2\0\n', r'not a text file'),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_by_line(tmp_path, content, message):
    with pytest.raises(UserError, match=rf'points\.csv: {message}|points\.csv.*{message}') as caught:
        points(table(tmp_path, content))
    assert '\n' not in str(caught.value)


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'points\.csv: cannot be read as UTF-8'):
        points(table(tmp_path, 'file,x,y\nM\u00fcller,1,2\n', 'latin-1'))


def test_a_mistake_is_told_in_one_line_whatever_it_quotes():
    assert str(UserError('a\nb\r\nc\u2028d')) == 'a b c d'
    assert str(UserError(KeyError('x'))) == "'x'"


def test_patients_are_read_by_the_same_rule(tmp_path):
    path = table(tmp_path, 'sep=;\r\nPatient;CASE;Split\r\nAnn;a\\b;Val\r\nBen;c;;\r\n', 'utf-8-sig')
    assert splits.read_table(path) == {'a/b': ('Ann', 'validation'), 'c': ('Ben', '')}
