"""What becomes of a run's cases: results are written, failures named, and all of an output listed at the end."""

import errno
import pathlib
from collections.abc import Callable, Iterable

from ambdiff.prediction import earlier, output, page
from ambdiff.prediction.unfinished import Unfinished

# Where one result meets them, so does every other.
_NO_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Outcome:
    """What a run has made of its cases so far.

    Attributes:
      folder: of all results.
      say: shows a line.
      done: {the folder of a result: its title}.
      failed: {title: reason}.
      broken: what no result can be written with, once that was met.
    """

    def __init__(self, folder: pathlib.Path, say: Callable[[str], None]):
        self.folder, self.say = folder, say
        self.done: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.broken: OSError | None = None

    def write(self, prediction) -> None:
        """Writes a result; what no other result could be written with either is `broken`."""
        try:
            notes = output.save(prediction, self.folder / prediction.name)
        except OSError as error:
            if error.errno in _NO_OUTPUT:
                self.broken = error
            raise
        for note in notes:
            self.say(f'ambdiff: {prediction.title}: {note}')
        Unfinished(self.folder, prediction.name, prediction.settings).remove()

    def fault(self, title: str, reason: str) -> None:
        """Names what could not be predicted; the rest goes on."""
        self.failed[title] = reason
        self.say(f'ambdiff: {reason}')

    def close(self, items: Iterable) -> None:
        """Writes what lists all results, of earlier runs as well; items: all of this run's input."""
        results, doubtful = earlier.below(self.folder)
        place = lambda result: result.folder.relative_to(self.folder).as_posix()
        names, there = {item.title: item.name for item in items}, {place(result) for result in results}
        for name in [name for name in self.done if name not in there]:
            title = self.done.pop(name)
            self.fault(title, f'{title}: its result {name} was removed or changed during the run')
        # An image that got another folder, since a file of its name came beside it, is listed once.
        listed = [result for result in results if names.get(result.summary['input'], place(result)) == place(result)]
        output.write_predictions(self.folder, listed, self.failed)
        page.write_index(self.folder, listed, self.failed)
        if left := [name for name in doubtful if name not in names.values()]:
            some = f'{", ".join(left[:3])}{" .." if len(left) > 3 else ""}'
            self.say(
                f'ambdiff: damaged, changed or of another version, and left out of the page: {some}; predict again or '
                'remove it'
            )
