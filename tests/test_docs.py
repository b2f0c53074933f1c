"""What the documentation names exists: links, config fields, modules, configs, scripts and flags."""

import importlib.util
import pathlib
import re

import pytest
from test_configs import get_config

from ambdiff import methods, predict
from ambdiff.config import default

ROOT = pathlib.Path(__file__).parents[1]
ELSEWHERE = ('README.md', 'CONTRIBUTING.md', 'launch/README.md')
PAGES = [*sorted(ROOT.glob('docs/**/*.md')), *sorted(ROOT.glob('weights/*.md')), *(ROOT / name for name in ELSEWHERE)]
NOTEBOOK = ROOT / 'notebooks' / 'sampling.ipynb'
each_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
each_text = pytest.mark.parametrize('page', [*PAGES, NOTEBOOK], ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page):
    """The names that headings get: lower case, no punctuation, dashes for blanks."""
    headings = re.findall(r'^#+ (.+)$', page.read_text('utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@each_page
def test_relative_links_lead_to_files_and_headings(page):
    text = re.sub(r'^```.*?^```', '', page.read_text('utf-8'), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r'\]\(([^)\s]+)\)', text) if '://' not in link]
    for link in links:
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_text
def test_config_fields_exist(page):
    text = page.read_text('utf-8')
    config = default().to_dict()
    # Each method has fields of its own, also one that stands on the page.
    config['method'] = {field for name in methods.known() for field in methods.group(name)}
    for fields in re.findall(r'^class Fields:$(.*?)\n\n\n', text, re.MULTILINE | re.DOTALL):
        config['method'] |= set(re.findall(r'^    (\w+): ', fields, re.MULTILINE))
    for name in re.findall(r'config\.((?!py\b)[a-z_]\w*(?:\.[a-z_]\w*)?)', text):
        if page == NOTEBOOK and name.startswith('copy_'):
            continue
        node = config
        for part in name.split('.'):
            assert part in node, f'{page.name}: config.{name}'
            node = node[part] if isinstance(node, dict) else None


@each_text
def test_modules_scripts_and_configs_exist(page):
    text = page.read_text('utf-8')
    for module in re.findall(r'python -m (ambdiff[\w.]*\w)', text):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r'\b((?:benchmarks|launch|tests)/\w+\.\w+)', text):
        assert (ROOT / script).is_file(), script
    for name, variant in re.findall(r'\bconfigs/(\w+)\.py(?::([a-z_][a-z_0-9]*))?', text):
        get_config(name, variant)


def test_the_flags_of_predict_are_all_described_and_no_others(capsys):
    with pytest.raises(SystemExit):
        predict.parse_flags(['--help'])
    real = set(re.findall(r'(?<![\w-])--\w+', capsys.readouterr().out)) - {'--help'}
    described = re.findall(r'^\| `(--\w+)` \|', (ROOT / 'docs/predict.md').read_text('utf-8'), re.MULTILINE)
    assert set(described) == real and len(described) == len(real)


def test_the_index_has_a_line_for_every_page():
    index = (ROOT / 'docs/README.md').read_text('utf-8')
    linked = re.findall(r'^- \[[^]]+\]\(([^)]+)\):', index, re.MULTILINE)
    pages = {page.relative_to(ROOT / 'docs').as_posix() for page in ROOT.glob('docs/**/*.md')} - {'README.md'}
    assert pages <= set(linked)
