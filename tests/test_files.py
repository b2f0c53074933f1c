"""Files and folders are there whole or not at all, whatever comes between; nobody writes them otherwise."""

import ast
import errno
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from ambdiff import files
from ambdiff.errors import UserError

PACKAGE = pathlib.Path(files.__file__).parent
ROOT = PACKAGE.parent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('content', [b'caf\xc3\xa9', 'café', ['ca', 'fé']])
def test_bytes_text_and_pieces_are_written_and_replace_what_was_there(tmp_path, content):
    path = tmp_path / 'new' / 'file'
    files.write_whole(path, content)
    files.write_whole(path, content)
    assert path.read_bytes() == 'café'.encode() and names(path.parent) == ['file']


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    files.write_whole(tmp_path / ('n' * 255), 'x')
    with files.whole_folder(tmp_path / ('f' * 255)):
        pass
    with files.whole_folder(tmp_path / ('f' * 255)) as partial:
        (partial / 'a').touch()
    assert names(tmp_path) == ['f' * 255, 'n' * 255] and names(tmp_path / ('f' * 255)) == ['a']


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_whole(tmp_path / 'file', 'x')
        with files.whole_folder(tmp_path / 'folder'):
            pass
    finally:
        os.umask(before)
    mode = lambda name: stat.S_IMODE((tmp_path / name).stat().st_mode)
    assert (mode('file'), mode('folder')) == (0o640, 0o750)


class FullDisk:
    """os.fsync of a disk that is full."""

    def __call__(self, handle):
        raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError('x'), OSError(errno.ENOSPC, 'full')])
def test_an_error_leaves_the_old_and_nothing_else(tmp_path, error):
    files.write_whole(tmp_path / 'file', 'old')
    with files.whole_folder(tmp_path / 'folder') as partial:
        (partial / 'old').touch()
    raised = error if isinstance(error, type) else type(error)
    with pytest.raises(raised), files.whole_files(tmp_path / 'file', tmp_path / 'other') as (first, _):
        first.write(b'new')
        raise error
    with pytest.raises(raised), files.whole_folder(tmp_path / 'folder') as partial:
        (partial / 'new').touch()
        raise error
    assert names(tmp_path) == ['file', 'folder'] and (tmp_path / 'file').read_text() == 'old'
    assert names(tmp_path / 'folder') == ['old']


def test_a_disk_that_is_full_at_the_end_leaves_the_old_and_nothing_else(tmp_path, monkeypatch):
    files.write_whole(tmp_path / 'file', 'old')
    monkeypatch.setattr(os, 'fsync', FullDisk())
    with pytest.raises(OSError, match='No space'):
        files.write_whole(tmp_path / 'file', 'new')
    with pytest.raises(OSError, match='No space'), files.whole_folder(tmp_path / 'folder') as partial:
        (partial / 'a').write_text('new')
    assert names(tmp_path) == ['file'] and (tmp_path / 'file').read_text() == 'old'


def test_files_that_belong_together_appear_together(tmp_path):
    paths = [tmp_path / 'a', tmp_path / 'b']
    with files.whole_files(*paths) as streams:
        for number, stream in enumerate(streams):
            stream.write(b'%d' % number)
        assert not any(path.exists() for path in paths)
    assert [path.read_text() for path in paths] == ['0', '1'] and names(tmp_path) == ['a', 'b']


def test_a_folder_replaces_the_one_before_or_leaves_it(tmp_path, monkeypatch):
    folder = tmp_path / 'folder'
    for name in ('old', 'new'):
        with files.whole_folder(folder) as partial:
            (partial / name).touch()
    assert names(tmp_path) == ['folder'] and names(folder) == ['new']
    original, calls = os.replace, []

    def second_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(os, 'replace', second_fails)
    with pytest.raises(KeyboardInterrupt), files.whole_folder(folder) as partial:
        (partial / 'newer').touch()
    assert names(tmp_path) == ['folder'] and names(folder) == ['new']


def test_who_holds_a_folder_clears_what_a_killed_one_left(tmp_path):
    aside = tmp_path / '.old-1'
    (aside / 'case').mkdir(parents=True)  # killed before the new one took the place: the old one comes back
    (tmp_path / '.old-2' / 'other').mkdir(parents=True)
    (tmp_path / 'other').mkdir()
    (tmp_path / '.partial-1').write_text('half')
    (tmp_path / '.partial-2').mkdir()
    (tmp_path / '.partial-2' / 'half').touch()
    with files.held(tmp_path, 'busy'):
        assert names(tmp_path) == ['.lock', 'case', 'other']


def test_a_folder_is_held_by_one_process_until_it_ends_in_any_way(tmp_path):
    hold = (
        'import pathlib, sys; from ambdiff import files\n'
        'with files.held(pathlib.Path(sys.argv[1]), "busy"): print("held", flush=True); sys.stdin.read()'
    )
    command = [sys.executable, '-c', hold, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'held\n'
        with pytest.raises(UserError, match=r'^busy, wait$'), files.held(tmp_path, 'busy, wait'):
            pass
        other.kill()
    with files.held(tmp_path, 'busy'):
        pass


def test_a_link_stays_a_link_and_what_is_no_file_is_refused(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    files.write_whole(tmp_path / 'link', 'x')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real').read_text() == 'x'
    os.mkfifo(tmp_path / 'pipe')
    for name in ('pipe', '.'):
        with pytest.raises(UserError, match='is there and is no file'):
            files.write_whole(tmp_path / name, 'x')


# Who renames, or makes temporary files, on its own, and why.
REASONS = {
    'files.py': 'the helper',
    'runtime/checkpointer.py': 'puts the folder of a damaged step aside, whole',
    'predict.py': 'fills the folder of a case by hand',
    'prediction/output.py': 'fills the folder of a case by hand',
    'data/built.py': 'an empty folder for the downloads that tensorflow-datasets never makes',
}


def test_nobody_else_in_the_package_renames_or_makes_partial_files():
    calls = {'replace', 'rename', 'renames', 'mkstemp', 'mkdtemp', 'NamedTemporaryFile', 'TemporaryDirectory', 'move'}
    found = {}
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            attribute = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            renames = attribute and node.value.id in ('os', 'shutil', 'tempfile') and node.attr in calls
            named = isinstance(node, ast.Constant) and isinstance(node.value, str) and '.partial' in node.value
            if renames or named:
                found.setdefault(path.relative_to(PACKAGE).as_posix(), node.lineno)
    assert set(found) <= set(REASONS), found


def test_nobody_in_the_package_imports_a_command_line():
    # The command `ambdiff` stands above them all: it calls what the modules' own command lines do.
    below = (path for path in PACKAGE.rglob('*.py') if PACKAGE / 'cli' not in path.parents)
    for path in below:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                full = {f'{node.module}.{alias.name}' for alias in node.names} | {node.module}
                assert 'ambdiff.main' not in full, path
