"""Charts of several runs: places on the axes, names that do not cover each other, and text from outside."""

import itertools
import re

import pytest

from ambdiff.pages import charts

AXES = ('FLOP a mask', 'excess')


def circles(svg):
    return [tuple(map(float, place)) for place in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_each_decade_is_as_wide_as_the_next_and_what_has_no_place_is_left_out():
    points = [('a', 1e6, 0.1, 0.01), ('b', 1e7, 0.1, float('nan')), ('c', 1e9, 0.3, 0.02)]
    colours = dict.fromkeys('abcde', '#000000')
    svg = charts.points_svg([*points, ('d', 0.0, 0.1, 0.1), ('e', 1e8, float('nan'), 0.1)], AXES, 'plot', colours)
    (a, level), (b, same), (c, high) = circles(svg)
    assert c - b == pytest.approx(2 * (b - a), abs=0.2) and level == same > high
    assert all(text in svg for text in ('>1\xa0M<', '>1\xa0G<', '>0.2<'))
    assert charts.points_svg(points[:0], AXES, 'plot', colours) == ''


def test_names_of_neighbours_stand_below_each_other():
    points = [(name, 1e6, 0.1, 0.0) for name in ('one', 'two', 'three')]
    svg = charts.points_svg(points, AXES, 'plot', dict.fromkeys(('one', 'two', 'three'), '#000000'))
    lines = sorted(float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)" style', svg))
    assert all(after - before >= 15 for before, after in itertools.pairwise(lines))


def test_curves_of_one_name_share_a_colour_and_a_name_and_text_is_escaped():
    curves = [('<b>', [1, 2], [0.5, 0.4]), ('<b>', [1, 2], [0.6, 0.3]), ('other', [], [])]
    svg = charts.curves_svg(curves, ('images & more', 'GED'), '"plot"', {'<b>': '#123456'})
    assert svg.count('stroke:#123456') == 2 and svg.count('font-weight="600">&lt;b&gt;</text>') == 1
    assert '<b>' not in svg and 'images &amp; more' in svg and 'aria-label="&quot;plot&quot;"' in svg


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0, '0'),
        (750, '750'),
        (999.6, '1 k'),
        (12e3, '12 k'),
        (4.33e6, '4.33 M'),
        (2.22e12, '2.22 T'),
        (0.5, '0.5'),
    ],
)
def test_numbers_have_three_digits_and_a_prefix(value, text):
    assert charts.si(value) == text.replace(' ', '\xa0')
