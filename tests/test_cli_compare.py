"""ambdiff compare: paired differences on the same images, at an equal number of samples, or refused."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from test_cli_score import masks, write_evaluation

import ambdiff
from ambdiff.cli import entry

__all__ = ['masks']  # the fixture


def invoke(*arguments):
    return CliRunner().invoke(entry.ambdiff, [str(a) for a in arguments])


@pytest.fixture(scope='module')
def runs(masks, tmp_path_factory):
    """Folders of runs on the same images: first, second (with another sample set), more (N = 6), dependent (N = 6)."""
    root = tmp_path_factory.mktemp('runs')
    names, patients, raters, samples = masks
    second = np.roll(samples, 2, axis=-1)
    write_evaluation(root / 'first' / 'evaluation', names, patients, raters, samples)
    write_evaluation(root / 'second', names, patients, raters[:, ::-1], second)
    write_evaluation(root / 'more' / 'evaluation', names, patients, raters, np.concatenate([second, samples], 1))
    write_evaluation(root / 'dependent', names, patients, raters, np.concatenate([second, samples], 1), 'dependent')
    write_evaluation(root / 'part', names[:3], patients[:3], raters[:3], second[:3])
    write_evaluation(root / 'other_raters', names, patients, np.roll(raters, 1, axis=-2), samples)
    write_evaluation(root / 'other_cases', [f'{name}x' for name in names], patients, raters, samples)
    (root / 'damaged').mkdir()
    (root / 'damaged' / 'metrics.json').write_text('{"draws": 3')
    (root / 'damaged' / 'masks.npz').write_bytes(b'')
    (root / 'untrained').mkdir()
    (root / 'file').write_text('')
    return root


def compared(runs, tmp_path, *names):
    done = invoke('compare', *(runs / name for name in names), '-o', tmp_path / 'out')
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads((tmp_path / 'out' / 'compare.json').read_text()), done


def test_differences_are_paired_and_their_errors_clustered_by_patient(runs, masks, tmp_path):
    names, _, raters, samples = masks
    told, done = compared(runs, tmp_path, 'first', 'second')
    ged = lambda drawn: np.array([ambdiff.score(r, s)['ged'] for r, s in zip(raters, drawn, strict=True)])
    apart = ged(np.roll(samples, 2, axis=-1)) - ged(samples)
    assert told['difference']['second']['ged'] == pytest.approx(apart.mean(), abs=1e-6)
    off = apart - apart.mean()
    sums = np.array([off[0] + off[1], off[2], off[3]])  # of the patients a, b and c
    assert told['difference_stderr']['second']['ged'] == pytest.approx(np.sqrt((sums**2).sum()) / 4, abs=1e-6)
    assert told['num_patients'] == 3 and told['samples_per_image'] == 3 and told['reference'] == 'first'
    assert told['metrics']['first']['ged'] == pytest.approx(ged(samples).mean(), abs=1e-6)
    assert 'second less first' in done.output
    with (tmp_path / 'out' / 'compare.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['case'] for row in rows] == names
    assert float(rows[1]['second:ged']) - float(rows[1]['first:ged']) == pytest.approx(apart[1], abs=2e-6)
    page = (tmp_path / 'out' / 'compare.html').read_text()
    assert page.count('<article') == 4 and 'second less first' in page
    for name in names:
        assert name in page
    assert page.count('>Raters</h4>') == 4 and page.count('<figure class="tile') == 4 * (2 + 3 + 3)


def test_the_first_of_more_independent_samples_stand_for_fewer_and_it_is_said(runs, tmp_path):
    told, done = compared(runs, tmp_path, 'first', 'second', 'more')
    assert told['metrics']['more']['ged'] == told['metrics']['second']['ged']
    assert 'Of more the first 3 of 6 samples a case are taken.' in done.output


def test_images_of_some_runs_alone_are_left_out_and_it_is_said(runs, tmp_path):
    told, done = compared(runs, tmp_path, 'first', 'part')
    assert told['num_images'] == 3 and '3 images are in every run; up to 1 more' in done.output


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ('', 'RUN .. is missing'),
        ('first', 'one run (first) is nothing to compare'),
        ('first first/evaluation', 'first is given twice'),
        ('first nowhere', 'nowhere: no such run'),
        ('first untrained', 'untrained: holds no metrics.json with masks.npz'),
        ('first file', 'file: holds no metrics.json'),
        ('first damaged', 'metrics.json: damaged'),
        ('first dependent', 'evaluate dependent again with --sample.num_samples=3'),
        ('first other_raters', 'the case scan_0: raters’ masks of other_raters and first differ'),
        ('first other_cases', 'have no case in common'),
        ('first second -o file', 'file is a file'),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line_and_nothing_is_written(given, said, runs, monkeypatch):
    monkeypatch.chdir(runs)
    before = sorted(runs.rglob('*'))
    done = invoke('compare', *given.split())
    assert done.exit_code == 2, (done.output, done.exception)
    (line,) = done.stderr.splitlines()
    assert line.startswith('ambdiff: ') and said in line, line
    assert sorted(runs.rglob('*')) == before
