"""LIDC-IDRI: a faulty series, hostile XML and mistakes in the config are named, and the rest is read."""

import logging
import os
import shutil

import pydicom
import pytest
from dicom_files import deflated_bomb
from lidc_files import SmallLidc, records, settings

from ambdiff.data import sources
from ambdiff.data.lidc import scans
from ambdiff.data.lidc import xml as lidc_xml
from ambdiff.errors import UserError


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return SmallLidc(tmp_path_factory.mktemp('lidc'))


def faulty(small, tmp_path, damage):
    """The tree with one file of a series damaged; (its data, the series, the file)."""
    copy = tmp_path / 'scans'
    shutil.copytree(small.root, copy)
    series = sorted(small.patient)[0]
    z = small.readings[series][0][0][1]
    file = copy / small.path[series, z].relative_to(small.root)
    damage(file)
    return settings(small, tmp_path / 'built', path=str(copy)), series, file


def cut(file):
    file.write_bytes(file.read_bytes()[:-1000])


def no_rescale(file):
    slice_ = pydicom.dcmread(file)
    del slice_.RescaleSlope, slice_.RescaleIntercept
    slice_.save_as(file)


def no_rescale_in_any(file):
    for other in file.parents[1].rglob('*.dcm'):
        no_rescale(other)


def oblong(file):
    slice_ = pydicom.dcmread(file)
    slice_.PixelSpacing = [0.7, 0.9]
    slice_.save_as(file)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (cut, 'truncated'),
        (lambda file: file.write_bytes(file.read_bytes()[:300]), 'no slice at z'),
        (lambda file: file.write_bytes(b'not DICOM'), 'no slice at z'),
        (lambda file: file.unlink(), 'no slice at z'),
        (no_rescale, 'unit'),
        (no_rescale_in_any, 'RescaleSlope'),
        (oblong, 'spacing'),
    ],
)
def test_a_faulty_series_is_named_left_out_and_counted(small, tmp_path, capsys, caplog, damage, message):
    data, series, file = faulty(small, tmp_path, damage)
    with caplog.at_level(logging.INFO):
        found = {record['series'].decode() for _, record, _ in records(data)}
    assert found == set(small.patient) - {series}
    error = capsys.readouterr().err
    assert f'series {series} is left out' in error and message in error
    assert str(file.parent)[:-1] in error
    assert 'faults: ' in caplog.text and 'faults: 0' not in caplog.text
    assert 'literature: 15,096' in caplog.text


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa">'
    + ''.join(f'<!ENTITY {y} "{f"&{x};" * 10}">' for x, y in zip('abcdefgh', 'bcdefghi', strict=True))
    + ']><LidcReadMessage>&i;</LidcReadMessage>'
)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (BOMB, 'declares a document type or entities'),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><LidcReadMessage>&e;</LidcReadMessage>', 'entities'),
        ('<a>' * 100_000, 'nested 50 deep'),
        ('<LidcReadMessage><ResponseHeader>', 'not whole XML'),
        ('<LidcReadMessage></LidcReadMessage>', 'names 0 series'),
    ],
)
def test_xml_that_would_grow_or_is_cut_off_is_refused_and_the_rest_is_read(small, tmp_path, content, message, caplog):
    folder = tmp_path / 'xml'
    shutil.copytree(small.xml, folder)
    bad = folder / 'bad.xml'
    bad.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        lidc_xml.read(bad)
    assert '\n' not in str(caught.value) and 'bad.xml' in str(caught.value)
    if content is BOMB:
        with caplog.at_level(logging.INFO):
            source = sources.open_source(settings(small, tmp_path / 'b', outlines=str(folder)), 'train')
        assert len(source) > 10 and 'faults: 1' in caplog.text


def test_other_xml_is_passed_over(tmp_path):
    (tmp_path / 'x.xml').write_text('<IdriReadMessage><a/></IdriReadMessage>')
    assert lidc_xml.read(tmp_path / 'x.xml') == ('', [])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'path': ''}, 'config.data.path is empty'),
        ({'path': '/nowhere'}, 'no such folder'),
        ({'lidc_split': 'slices'}, "config.data.lidc_split is 'slices'; choose patient, mose, phiseg"),
        ({'num_raters': 3}, 'config.data.num_raters is 3'),
        ({'num_classes': 2}, 'config.data.num_classes 2'),
        ({'spacing': -1.0}, r'config\.data\.spacing -1'),
        ({'outlines': '/nowhere.sqlite'}, 'no such file'),
    ],
)
def test_mistakes_are_one_line(small, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        sources.open_source(settings(small, tmp_path, **changes), 'train')
    assert '\n' not in str(caught.value)


def test_a_folder_without_scans_is_told(small, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty' / 'loop').symlink_to(tmp_path / 'empty')
    with pytest.raises(UserError, match='holds no DICOM slice among 0 files'):
        sources.open_source(settings(small, tmp_path / 'b', path=str(tmp_path / 'empty')), 'train')


def test_a_deflated_file_and_a_pipe_in_the_tree_are_no_slices_and_told_by_the_source(small, tmp_path):
    data, _, file = faulty(small, tmp_path, lambda file: None)
    deflated_bomb(file.with_name('bomb.dcm'), file)
    os.mkfifo(file.with_name('pipe.dcm'))
    for _ in range(2):  # when it is built, and when it is read again
        source = scans.open_split(data, 'train')
        assert len(source.findings().faults) == 1 and 'bomb.dcm: deflated as a whole' in source.findings().faults[0]
