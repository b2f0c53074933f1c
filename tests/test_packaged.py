"""Weights and configs by name, from a checkout and from an installed wheel."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from ambdiff import packaged
from ambdiff.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel of this checkout, built without a network."""
    pytest.importorskip('setuptools', '77', reason="setuptools is missing or old: pip install '.[dev]'")
    # A copy: what an earlier build left in build/ would get into the wheel.
    source, made = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    skip = shutil.ignore_patterns('__pycache__')
    for name in ('ambdiff', 'configs', 'weights'):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '--no-index']
    subprocess.run([*build, f'--wheel-dir={made}', str(source)], check=True, capture_output=True)
    (path,) = made.glob('*.whl')
    return path


def test_the_wheel_holds_all_that_the_program_needs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if '.dist-info/' not in name}
    files = [p for name in ('ambdiff', 'configs', 'weights') for p in (ROOT / name).rglob('*') if p.is_file()]
    files = [path.relative_to(ROOT).as_posix() for path in files if '__pycache__' not in path.parts]
    assert held == {name if name.startswith('ambdiff/') else f'ambdiff/{name}' for name in files}


def test_names_are_found_in_an_installed_wheel_from_any_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / 'installed')
    code = (
        'from ambdiff import packaged as p; '
        "print(p.weights('lidc_small'), p.config('lidc:small'), p.config_names(), sep='\\n')"
    )
    empty = tmp_path / 'empty'
    empty.mkdir()
    env = {**os.environ, 'PYTHONPATH': str(tmp_path / 'installed')}
    run = subprocess.run([sys.executable, '-S', '-c', code], cwd=empty, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    weights, config, names = run.stdout.splitlines()
    package = tmp_path / 'installed' / 'ambdiff'
    assert weights == str(package / 'weights' / 'lidc_small.safetensors')
    assert pathlib.Path(weights).read_bytes() == (ROOT / 'weights' / 'lidc_small.safetensors').read_bytes()
    assert config == f'{package / "configs" / "lidc.py"}:small'
    assert names == repr(tuple(sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))))


def test_names_are_found_in_a_checkout():
    assert packaged.weights('lidc_small') == ROOT / 'weights' / 'lidc_small.safetensors'
    assert packaged.weights(packaged.DEFAULT_WEIGHTS).is_file()
    assert packaged.config('lidc') == str(ROOT / 'configs' / 'lidc.py')
    assert packaged.config('ms_mri:simulated') == f'{ROOT / "configs" / "ms_mri.py"}:simulated'


def test_a_path_that_is_there_is_taken_and_a_name_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'lidc_small').mkdir()
    (tmp_path / 'mine.py').write_text('')
    assert packaged.weights('run') == pathlib.Path('run')
    assert packaged.weights(pathlib.Path('run')) == pathlib.Path('run')
    assert packaged.weights('lidc_small').is_file()
    assert packaged.weights('./lidc_small').is_dir()
    assert packaged.config('mine.py:any') == 'mine.py:any'


@pytest.mark.parametrize(
    ('find', 'given', 'said'),
    [
        (packaged.weights, 'lidc_smal', "no weights 'lidc_smal' here: did you mean lidc_small?"),
        (packaged.weights, 'weights/lidc_small.safetensors', 'did you mean lidc_small?'),
        (packaged.weights, 'runs/zebra', r'give a \.safetensors file, .* a name that comes along \(bone_us_small'),
        (packaged.weights, 'a\x00b', "no weights 'a"),
        (packaged.weights, '', 'not an empty text'),
        (packaged.weights, None, 'not NoneType'),
        (packaged.config, 'configs/lidc.py:small', 'did you mean lidc:small?'),
        (packaged.config, 'ldic:small', 'did you mean lidc:small?'),
        (packaged.config, 'zebra', r'give a \.py file with get_config, or a name that comes along \(bone_us, demo'),
        (packaged.config, '.', 'is no config'),
        (packaged.config, 3, 'not int'),
    ],
)
def test_what_is_not_there_is_told_with_what_was_meant(find, given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as raised:
        find(given)
    assert '\n' not in str(raised.value) and '\x00' not in str(raised.value)


def test_the_image_takes_extras_that_are_there_and_runs_the_command():
    text = (ROOT / 'launch' / 'Dockerfile').read_text('utf-8')
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    named = set(re.findall(r'EXTRA=(\w+)', text))
    assert named == {'cuda', 'tpu'} and named <= set(setup['options.extras_require'])
    assert 'ENTRYPOINT ["ambdiff"]' in text and 'ambdiff = ' in setup['options.entry_points']['console_scripts']
