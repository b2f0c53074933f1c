"""Several processes, on one host or many, that share one output: each case is made by one of them, and none is lost.

  .claims/<digest of the name>.0      made by who takes the case; in it its host and a number of its own
  .claims/<digest of the name>.0.lock held as long as that process lives
  .claims/<digest of the name>.failed why a case cannot be predicted, so that the others do not try

A claim is a file that is made only where none is (O_EXCL), so one process has it. What a dead one claimed is taken
over with a file of the next number, again by one alone. On the same host a process is dead when its lock is free, which
is at once; on another when its claim has not been touched for two minutes, by the clock of the file system: each
process touches its own every fifteen seconds. One that stops for longer and then goes on writes the same masks again.

Each process has such a file for itself as well: so the first knows to clear what killed ones left, and the last what
only the last may clear. Coming and leaving are guarded by a lock of the file system, which NFS 4 and Lustre pass from
host to host.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Iterator

import filelock

from ambdiff import files
from ambdiff.text import short_digest

FOLDER = '.claims'
PAUSE = 2.0  # seconds before cases of others are looked at again
_BEAT, _DEAD = 15.0, 120.0  # seconds between touches of a claim, and without one
_PROCESS = 'process'


class Claims:
    """What this process has taken of an output that it shares."""

    def __init__(self, output: pathlib.Path, host: str = ''):
        """host: by which claims of this host are told; that of the machine if not given."""
        self.folder = output / FOLDER
        self._host = host or socket.gethostname()
        self._mine: dict[str, tuple[pathlib.Path, filelock.FileLock]] = {}
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._touch, daemon=True)

    def take(self, name: str) -> bool:
        """Takes a case, if nobody has it."""
        return self._take(short_digest(name))

    def release(self, name: str) -> None:
        """Lets a case go that is done, or that somebody else is to make."""
        self._release(short_digest(name))

    def fail(self, name: str, reason: str) -> None:
        """Tells the others that a case cannot be predicted, and lets it go."""
        files.write_whole(self.folder / f'{short_digest(name)}.failed', reason)
        self.release(name)

    def failed(self, name: str) -> str:
        """Why a case cannot be predicted, as another process found; '' where none did."""
        with contextlib.suppress(OSError):
            return (self.folder / f'{short_digest(name)}.failed').read_text('utf-8')
        return ''

    def _take(self, key: str) -> bool:
        there = self._numbers(key)
        if there and not self._dead(self.folder / f'{key}.{there[-1]}'):
            return False
        path = self.folder / f'{key}.{there[-1] + 1 if there else 0}'
        lock = filelock.FileLock(f'{path}.lock', thread_local=False)
        with contextlib.suppress(filelock.Timeout, FileExistsError):
            lock.acquire(timeout=0)
            try:
                with path.open('x') as file:
                    json.dump({'host': self._host, 'pid': os.getpid()}, file)
            except FileExistsError:
                lock.release()
                raise
            with self._guard:
                self._mine[key] = path, lock
            return True
        return False

    def _release(self, key: str) -> None:
        with self._guard:
            path, lock = self._mine.pop(key, (None, None))
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()
            with contextlib.suppress(OSError):
                pathlib.Path(lock.lock_file).unlink(missing_ok=True)

    def _numbers(self, key: str) -> list[int]:
        found = (path.name.split('.') for path in self.folder.glob(f'{key}.*'))
        return sorted(int(parts[1]) for parts in found if len(parts) == 2 and parts[1].isdecimal())

    def _dead(self, path: pathlib.Path) -> bool:
        """Whether the process that has a claim is dead; one that is gone was let go, and can be taken next time."""
        try:
            host = json.loads(path.read_text('utf-8'))['host']
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError):  # half written
            host = None
        if host == self._host:
            lock = filelock.FileLock(f'{path}.lock', thread_local=False)
            with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
                return True
            return False
        with contextlib.suppress(OSError):
            return self._now() - path.stat().st_mtime > _DEAD
        return False

    def _now(self) -> float:
        """The time as the file system has it, whose clock may differ from this host's."""
        probe = self.folder / f'.{secrets.token_hex(6)}'
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._over.wait(_BEAT):
            with self._guard:
                paths = [path for path, _ in self._mine.values()]
            for path in paths:
                with contextlib.suppress(OSError):
                    os.utime(path)

    def _others(self) -> bool:
        """Whether other processes that share the output live."""
        paths = [path for path in self.folder.glob(f'{_PROCESS}-*.0') if path.name[:-2] not in self._mine]
        return any(not self._dead(path) for path in paths)

    def _come(self) -> None:
        if not self._others():
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take(f'{_PROCESS}-{secrets.token_hex(6)}')
        self._beat.start()

    def _leave(self) -> bool:
        """Lets all go; returns whether no other process is left."""
        self._over.set()
        for key in list(self._mine):
            self._release(key)
        if last := not self._others():
            shutil.rmtree(self.folder, ignore_errors=True)
        return last


def shared(output: pathlib.Path) -> bool:
    """Whether processes that share an output are at work in it."""
    return Claims(output)._others()


def busy(output: pathlib.Path) -> str:
    """What is said where another process has an output, or shares it."""
    return f'--output={output} is being written by another run; wait or name another, or run all of them with --shared'


@contextlib.contextmanager
def sharing(output: pathlib.Path, names: Iterable[str]) -> Iterator[Claims]:
    """Shares an output with other processes; the last to leave clears what killed ones left beside results of `names`.

    Raises:
      UserError: a process has the output for itself.
      OSError: it cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    door = output / f'{FOLDER}.lock'
    claims = Claims(output)
    with files.locked(door), files.locked(output / '.lock', busy(output)):
        claims._come()
    try:
        yield claims
    finally:
        with files.locked(door):
            if claims._leave():
                for parent in {(output / name).parent for name in names}:
                    files.tidy(parent)


def wait() -> None:
    """Waits a moment for other processes."""
    time.sleep(PAUSE)
