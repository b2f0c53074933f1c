"""One rater an image, from the check of the data to the evaluation: what needs two raters is null, and says so."""

import json

import pytest
import tiny
from case_files import write_case

from ambdiff import evaluate, metrics, train
from ambdiff.data import check


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """(config, what metrics.json holds) of two steps on images that one rater outlined."""
    folder = tmp_path_factory.mktemp('one')
    for number in range(12):
        write_case(folder / 'data' / f'case{number}', raters=1, value=10 * number)
    fields = {'data.num_raters': 1, 'data.intensity': 'full_range', 'train.num_steps': 2, 'train.batch_size': 4}
    config = tiny.config(folder / 'data', 'level_sets', **fields)
    assert train.train(config, folder / 'run')
    evaluate.evaluate(config, folder / 'run')
    assert (folder / 'run' / 'evaluation' / 'report.html').is_file()
    return config, json.loads((folder / 'run' / 'evaluation' / 'metrics.json').read_text())


def test_what_needs_two_raters_is_null_with_the_reason_and_the_rest_is_there(run):
    _, found = run
    for key in ('ged_ideal', 'ged_excess', 'diversity_raters', 'emptiness_error', 'ged_shape'):
        assert found['metrics'][key] is None and found['undefined'][key].startswith('needs two raters of an image')
    for key in ('ged', 'hm_iou', 'd_max', 'diversity_samples'):
        assert found['metrics'][key] is not None
    assert set(found['baselines']['rater_vs_rest'].values()) == {None}
    assert found['baselines']['raters_resampled']['ged'] == 0


def test_the_check_says_what_one_rater_cannot_teach(run):
    surveys, _, faults = check.examine(run[0].data)
    assert not faults
    assert all(any('one rater a case' in line for line in survey.remarks()) for survey in surveys.values())


def test_all_reasons_are_told_where_a_figure_lacks_several_things():
    reasons = metrics.undefined(1, 1, 'dependent')
    assert reasons['emptiness_error'] == (
        'needs two raters of an image at least, and two samples an image at least, and independent samples; these '
        'depend on each other'
    )
    assert reasons['diversity_raters'] == 'needs two raters of an image at least'
    assert metrics.undefined(2, 2, 'independent') == {}
