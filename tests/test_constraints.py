"""The versions that were tested are those that setup.cfg allows, and make installs them where it should."""

import configparser
import pathlib
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith('#')]


def test_every_dependency_is_pinned_to_a_version_that_setup_cfg_allows():
    pins = {
        r.name: str(r.specifier).removeprefix('==')
        for r in map(Requirement, lines((ROOT / 'constraints.txt').read_text()))
    }
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    wanted = lines(setup['options']['install_requires']) + lines(setup['options.extras_require']['dev'])
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize(
    ('target', 'environment', 'pinned'),
    [('test', '.venv', True), ('demo', '.venv', True), ('test-newest', '.venv-newest', False)],
)
def test_make_installs_the_tested_versions_except_where_the_newest_are_asked_for(target, environment, pinned, tmp_path):
    if not shutil.which('make'):
        pytest.skip('make is not here')
    for name in ('Makefile', 'setup.py', 'setup.cfg', 'pyproject.toml', 'constraints.txt'):
        shutil.copy(ROOT / name, tmp_path)
    said = subprocess.run(['make', '-n', target], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (install,) = (line for line in said.splitlines() if 'pip install' in line)
    assert install.startswith(f'{environment}/bin/python') and ('--constraint constraints.txt' in install) is pinned
