"""When Python looks for garbage: not while next to nothing of what is made is garbage."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def waits() -> Iterator[None]:
    """Garbage is not looked for during the block.

    An import, or the trace of a network, makes some 100,000 objects that stay; to go through them again and again takes
    a tenth of its time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
