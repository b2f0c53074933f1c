"""The notebook runs from its first cell to its last on a machine without a network, and is kept without outputs."""

import os
import pathlib
import re
import resource

import pytest

import ambdiff

nbformat = pytest.importorskip('nbformat', reason="the notebook extra is not installed: pip install '.[notebook]'")

ROOT = pathlib.Path(__file__).parents[1]
PATH = ROOT / 'notebooks' / 'sampling.ipynb'
CPU_SECONDS = 300  # under three minutes on two quiet cores; other work on the machine does not count


@pytest.fixture(scope='module')
def stored():
    """The notebook as it is in the repository."""
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
    """(the notebook after a run in an empty folder, seconds of CPU it took)."""
    nbclient = pytest.importorskip('nbclient', reason='nbclient is not installed')
    pytest.importorskip('ipykernel', reason='ipykernel is not installed')
    pytest.importorskip('matplotlib', reason='matplotlib is not installed')
    # The settings of the tests (simulated devices, no optimiser) are not a user's.
    env = {name: value for name, value in os.environ.items() if not name.startswith(('JAX_', 'XLA_'))}
    # HOME: the compilation cache of whoever runs the tests would hide what a first run takes.
    folder = tmp_path_factory.mktemp('notebook')
    env |= {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), 'XDG_CACHE_HOME': str(folder / 'cache')}
    notebook = nbformat.read(PATH, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=1200, resources={'metadata': {'path': str(folder)}})
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before = used()
    client.execute(env=env)
    return notebook, used() - before


def printed(cell):
    return ''.join(output.get('text', '') for output in cell.outputs)


def find(notebook, words):
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == 'code' and words in cell.source]
    return cell


def pictures(cell):
    return [output['data']['image/png'] for output in cell.outputs if 'image/png' in output.get('data', {})]


def test_only_the_main_figure_is_kept_and_it_is_small(stored):
    for cell in stored.cells:
        if cell.cell_type != 'code':
            continue
        assert cell.execution_count is None
        if 'main-figure' in cell.metadata.get('tags', []):
            (output,) = cell.outputs
            assert len(output['data']['image/png']) < 150_000
        else:
            assert not cell.outputs
    assert len(find(stored, 'show(cases, predictions[').outputs) == 1


def test_it_installs_the_version_of_this_repository(stored):
    text = find(stored, 'REPOSITORY = ').source
    assert re.search(r"^REVISION = '(.+?)'", text, re.MULTILINE)[1] == f'v{ambdiff.__version__}'
    address = re.search(r'^repository-code: "?([^"\n]+)', (ROOT / 'CITATION.cff').read_text('utf-8'), re.MULTILINE)
    address = address[1] if address else ''
    assert re.search(r"^REPOSITORY = '(.*?)'", text, re.MULTILINE)[1] == address
    # Without an address the badge leads to Colab's list of a repository's notebooks, where a reader enters it.
    place = f'{address.removeprefix("https://github.com/")}/blob/main/notebooks/sampling.ipynb' if address else ''
    assert f'(https://colab.research.google.com/github/{place})' in stored.cells[0].source


def test_it_runs_unedited_in_time(executed):
    notebook, seconds = executed
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == 'code')
    assert seconds < CPU_SECONDS


def test_it_measures_what_it_says(executed):
    notebook, _ = executed
    table = printed(find(notebook, 'scores.compute('))
    ged = {name: float(value) for name, value in re.findall(r'^(\w+) +ged ([\d.]+)', table, re.MULTILINE)}
    assert set(ged) == {'model', 'empty', 'other_patients', 'rater_vs_rest', 'raters_resampled'}
    assert ged['raters_resampled'] < ged['model'] < ged['empty']
    assert 'Simulated' in table
    sampled = printed(find(notebook, 'predictions = [sample('))
    assert len(re.findall(r'^<ambdiff.Prediction image: 64 masks of 64x64; \d+%: ', sampled, re.MULTILINE)) == 2
    study = printed(find(notebook, 'for steps in STUDY_STEPS'))
    assert re.findall(r'^ *(\d+) steps: GED16', study, re.MULTILINE) == ['1', '4', '16']
    assert 'ideal level: ' in study


def test_figures_are_drawn_pages_are_shown_and_a_file_is_predicted(executed):
    notebook, _ = executed
    assert [len(pictures(find(notebook, words))) for words in ('show(cases, predictions[', 'axis.errorbar')] == [1, 1]
    for source in ('predictions[0]', 'prediction'):
        (cell,) = [cell for cell in notebook.cells if cell.source == source]
        (shown,) = [output['data']['text/html'] for output in cell.outputs if 'text/html' in output.get('data', {})]
        assert shown.startswith('<iframe')
    text = printed(find(notebook, 'model.predict(MY_FILE'))
    assert 'simulated.png: 64 masks' in text and 'note: no HU' in text and 'index.html' in text
