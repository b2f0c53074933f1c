"""Files and folders that are there whole or not at all, and folders that one process holds at a time.

Each is written under a name of its own beside its place, `.partial-` and a random part, and takes its place by a
rename: whoever looks sees what was there before or all that is new, and two that write one place do not mix. An error,
an interruption or a full disk leaves nothing. A process that is killed leaves its partial name, which the next one to
hold the folder removes (`held`).
"""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import filelock

from ambdiff.errors import UserError

PARTIAL = '.partial-'  # what starts the name of a file or folder that is being written
_ASIDE = '.old-'  # what starts the name of a folder that holds another one while that is replaced


def write_whole(path: str | os.PathLike, content: bytes | str | Iterable[str]) -> None:
    """Writes bytes, or text as UTF-8 (a string or pieces of one), in a file that is there whole or not at all.

    Raises:
      UserError: the place is taken by something that is no file.
      OSError: it cannot be written; what was there before is still there.
    """
    pieces = [content] if isinstance(content, bytes | str) else content
    with whole_file(path) as stream:
        for piece in pieces:
            stream.write(piece.encode() if isinstance(piece, str) else piece)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A stream to write bytes to, and to seek and read in; its file takes its place when the block ends without error.

    Raises:
      UserError: the place is taken by something that is no file.
      OSError: it cannot be written; what was there before is still there.
    """
    with whole_files(path) as (stream,):
        yield stream


@contextlib.contextmanager
def whole_files(*paths: str | os.PathLike) -> Iterator[tuple[BinaryIO, ...]]:
    """As `whole_file`, for files that belong together: none takes its place before all are written."""
    # A link stays one: what it points at is replaced.
    targets = [pathlib.Path(os.path.realpath(path)) for path in paths]
    for path, target in zip(paths, targets, strict=True):
        if target.exists() and not target.is_file():  # a folder; or /dev/null, which must never be replaced
            raise UserError(f'{path} is there and is no file: name another place')
    with contextlib.ExitStack() as stack:
        partials, streams = [], []
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial, handle = _new(target.parent, lambda p: os.open(p, _NEW, 0o666))
            stack.callback(partial.unlink, missing_ok=True)
            partials.append(partial)
            streams.append(stack.enter_context(open(handle, 'w+b')))
        yield tuple(streams)
        for stream in streams:
            stream.flush()
            _to_disk(stream.fileno())
            stream.close()
        for partial, target in zip(partials, targets, strict=True):
            os.replace(partial, target)


def check_place(folder: str | os.PathLike, flag: str) -> None:
    """Tells a place at which no folder can be written, before anything is worked out for it; leaves nothing there.

    flag: what named it.

    Raises:
      UserError: a file is in the way, or nothing can be written there.
    """
    place = pathlib.Path(folder).absolute()
    there = place
    try:
        there = next(path for path in (place, *place.parents) if os.path.lexists(path))
        if not there.is_dir():
            here = folder if there == place else f'{folder}: {there}'
            raise UserError(f'{here} is a file; name a folder to write to ({flag})')
        _new(there, os.mkdir)[0].rmdir()
    except OSError as error:
        raise UserError(
            f'{folder}: nothing can be written in {there} ({error.strerror}); name another place ({flag})'
        ) from error


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A folder to fill, which takes the place of `folder` when the block ends without error.

    Raises:
      OSError: it cannot be written; what was there before is still there.
    """
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, _ = _new(folder.parent, os.mkdir)
    try:
        yield partial
        for path in partial.rglob('*'):
            if path.is_file():
                with path.open('rb') as stream:
                    _to_disk(stream.fileno())
        if folder.exists():
            _replace_folder(partial, folder)
        else:
            os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _replace_folder(partial: pathlib.Path, folder: pathlib.Path) -> None:
    # A folder that is not empty cannot be replaced in one step. Killed between the two, `tidy` takes the old one back.
    aside, _ = _new(folder.parent, os.mkdir, _ASIDE)
    try:
        os.replace(folder, aside / folder.name)
        os.replace(partial, folder)
    except BaseException:
        _take_back(aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _take_back(aside: pathlib.Path) -> None:
    """Empties what `_replace_folder` put aside: the old folder returns where no new one took its place."""
    for old in aside.iterdir():
        if not (aside.parent / old.name).exists():
            os.replace(old, aside.parent / old.name)
    shutil.rmtree(aside, ignore_errors=True)


def tidy(folder: pathlib.Path) -> None:
    """Removes what a killed process left half written in a folder; only for who holds it."""
    for left in folder.glob(f'{PARTIAL}*'):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    for aside in folder.glob(f'{_ASIDE}*'):
        if aside.is_dir() and not aside.is_symlink():
            _take_back(aside)


@contextlib.contextmanager
def held(folder: pathlib.Path, busy: str, lock: str = '.lock') -> Iterator[None]:
    """Holds a folder for this process, and removes what a killed one left half written in it.

    Args:
      folder: is made where it is not there.
      busy: what the user is told where another process holds it.
      lock: the file that says so, seen from the folder.

    Raises:
      UserError: another process holds it.
      OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / lock, busy):
        tidy(folder)
        yield


@contextlib.contextmanager
def locked(path: pathlib.Path, busy: str = '') -> Iterator[None]:
    """Holds a lock file, which a process that ends in any way lets go.

    Args:
      path: the file, which stays.
      busy: what the user is told where another process holds it; '' waits for it.

    Raises:
      UserError: another process holds it, and `busy` says so.
      OSError: it cannot be written.
    """
    try:
        lock = filelock.FileLock(path, timeout=0 if busy else -1)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()


# O_BINARY: Windows would write line ends of its own.
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0)


def _new(folder: pathlib.Path, make: Callable, start: str = PARTIAL):
    """(path, make(path)) under a name that nobody has, with the permissions of any new file.

    Not the target's name with something added, which may be longer than a name can be.
    """
    while True:
        path = folder / f'{start}{secrets.token_hex(6)}'
        with contextlib.suppress(FileExistsError):
            return path, make(path)


def _to_disk(handle: int) -> None:
    """Waits until a file is on the disk, so that after a loss of power it is not empty under its name."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):  # some have no such call
            raise
