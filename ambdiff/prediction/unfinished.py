"""What is done of a case that is not: its finished slices, kept beside the results so that a killed run goes on there.

  .unfinished/<digest of the case's name>/00007.npz ..   slices finished within some seconds of each other

Masks are held as bits, as in memory, and compressed: at most N bits a pixel and class, mostly far less. Each file tells
what its samples follow from; one that differs from what is asked for is removed.
"""

import contextlib
import json
import pathlib
import shutil
import time
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from ambdiff import files
from ambdiff.prediction.merge import Merge, Slice
from ambdiff.text import short_digest
from ambdiff.version import __version__

_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
FOLDER = '.unfinished'
_SECONDS = 30.0  # between two files: what a kill costs at most, beside the slice that is under way


class Unfinished:
    """The finished slices of one case, on disk."""

    def __init__(self, output: pathlib.Path, name: str, follows_from: Mapping):
        """output: of all results; name: of the case; follows_from: what its samples follow from."""
        self._folder = output / FOLDER / short_digest(name)
        self._key = json.dumps({'version': __version__, **follows_from}, sort_keys=True)
        self._wrote = time.monotonic()

    def read(self) -> dict[int, Slice]:
        """{slice: its masks} of what an earlier run finished with the same settings; what is of others is removed."""
        found: dict[int, Slice] = {}
        for path in sorted(self._folder.glob('*.npz')):
            slices = None
            with contextlib.suppress(*_DAMAGED), np.load(path, allow_pickle=False) as held:
                if str(held['key']) == self._key:
                    each = zip(held['slices'], held['bits'], held['left_empty'], strict=True)
                    slices = {int(z): Slice(bits, int(empty)) for z, bits, empty in each}
            if slices is None:
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                found |= slices
        return found

    def keep(self, merge: Merge) -> None:
        """Writes the slices finished since the last time, where that was some time ago.

        What cannot be written is not: the case itself will tell of a full disk.
        """
        if time.monotonic() - self._wrote < _SECONDS or not merge.finished:
            return
        slices = [merge.slice(z) for z in merge.finished]
        with contextlib.suppress(OSError), files.whole_file(self._folder / f'{merge.finished[0]:05}.npz') as stream:
            np.savez_compressed(
                stream,
                key=np.array(self._key),
                slices=np.array(merge.finished),
                bits=np.stack([one.bits for one in slices]),
                left_empty=np.array([one.left_empty for one in slices]),
            )
        merge.finished.clear()
        self._wrote = time.monotonic()

    def remove(self) -> None:
        """Forgets them: the case is done."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are kept there
            self._folder.parent.rmdir()
