"""SIGINT and SIGTERM end a command in one line: what it was writing is taken back, and the exit status says which.

Light to import: a command asks for it before its imports, which take a moment.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from ambdiff import garbage

_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a scheduler sends before it kills."""


def status(error: KeyboardInterrupt) -> int:
    """The exit status that a shell expects: 130 after SIGINT, 143 after SIGTERM."""
    return _STATUS[signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT]


def at_start() -> None:
    """Ends the process at once at either signal, in one line: for a command that is still being imported.

    There is nothing to undo, and an exception in the middle of a library's import can crash it.
    """
    for number in _STATUS:
        signal.signal(number, _end)


def _end(number, _):
    os.write(2, b'ambdiff: interrupted before it began\n')
    os._exit(_STATUS[number])


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """As `at_start`, for the block alone; not where JAX is here already, as in a notebook."""
    before, first = {}, 'jax' not in sys.modules
    try:
        with contextlib.suppress(ValueError):  # only the main thread may
            before = {number: signal.signal(number, _end) for number in _STATUS} if first else {}
        with garbage.waits():
            yield
        if first:
            gc.freeze()  # what was imported stays as long as the process: no need to go through it for garbage again
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(work: Callable[[], int], how_to_go_on: str) -> int:
    """What work() returns, an exit status; or the one of the signal that ended it, which is said in one line.

    Args:
      work: either signal raises KeyboardInterrupt in it.
      how_to_go_on: the end of the line.
    """
    before, hook = {}, sys.unraisablehook
    try:
        sys.unraisablehook = unraisable
        with contextlib.suppress(ValueError):  # only the main thread may; others are told of neither
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, _terminate)
            before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
        return work()
    except KeyboardInterrupt as error:
        print(f'ambdiff: interrupted: {how_to_go_on}', file=sys.stderr)
        return status(error)
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def unraisable(what) -> None:
    """Sends a signal once more whose exception came where Python drops all, in a destructor for instance."""
    if not isinstance(what.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(what)
        return
    number = signal.SIGTERM if isinstance(what.exc_value, Terminated) else signal.SIGINT
    threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def _terminate(number, frame) -> None:
    raise Terminated
