"""Who is told how far images are, crop by crop; and the one who shows it: a bar, and a forecast for large images.

The forecast of an image of more crops than are sampled at once is made of the first of them that are measured, without
what compiling takes. Images of few crops are not spoken of.
"""

from collections.abc import Callable

from ambdiff.prediction.inputs import Input


class Watch:
    """Is told how far images are; this one keeps it to itself."""

    def begun(self, item: Input, slices: int, crops: int) -> None:
        """An image is about to be sampled: so many crops that are left, on so many slices."""

    def screened(self, item: Input, crops: int, left_empty: int, seconds: float) -> None:
        """So many of its crops were screened, in so many seconds; some are not sampled after that."""

    def sampled(self, item: Input, crops: int, seconds: float) -> None:
        """So many of its crops were sampled, in so many seconds."""

    def ended(self, item: Input) -> None:
        """It is done, or has failed."""


class Forecast(Watch):
    """A bar over the crops of all cases with the time left, and what large cases will take.

    What is left of cases not yet read counts as much as the mean of those that were.
    """

    def __init__(self, bar, say: Callable[[str], None], cases: int, chunk: int, dearer: float = 0):
        """bar: as of tqdm; cases: how many; chunk: crops sampled at once; dearer: than screening is sampling a crop."""
        self._bar, self._say, self._cases, self._chunk = bar, say, cases, chunk
        self._dearer = dearer
        self._left: dict[str, int] = {}  # crops of cases under way
        self._unmeasured: dict[str, int] = {}  # crops of large cases of which none is measured
        self._begun, self._all, self._ended = 0, 0, 0
        self._show()

    def begun(self, item: Input, slices: int, crops: int) -> None:
        """Adds its crops to the bar; of a large one says how many."""
        self._left[item.name] = crops
        self._begun, self._all = self._begun + 1, self._all + crops
        if crops > self._chunk:
            self._unmeasured[item.name] = crops
            self._say(f'ambdiff: {item.title}: {crops:,} crops on {slices:,} slice{"s" if slices > 1 else ""}')
        self._show()

    def screened(self, item: Input, crops: int, left_empty: int, seconds: float) -> None:
        """Moves the bar by what is not sampled; of a large case says what all will take at least and at most."""
        self._left[item.name] -= left_empty
        self._bar.update(left_empty)
        if item.name in self._unmeasured:
            least = self._unmeasured.pop(item.name) * seconds / crops
            self._forecast(item, least, least * (1 + self._dearer))

    def sampled(self, item: Input, crops: int, seconds: float) -> None:
        """Moves the bar; of a large case says after its first crops what all will take."""
        self._left[item.name] -= crops
        self._bar.update(crops)
        if item.name in self._unmeasured:
            about = self._unmeasured.pop(item.name) * seconds / crops
            self._forecast(item, about, about)

    def ended(self, item: Input) -> None:
        """Counts the case, and its crops that were not sampled."""
        self._unmeasured.pop(item.name, None)
        if left := self._left.pop(item.name, 0):  # it failed
            self._bar.update(left)
        self._ended += 1
        self._show()

    def _forecast(self, item: Input, least: float, most: float) -> None:
        if most >= 60:
            told = duration(least) if least == most else f'{duration(least)} to {duration(most)}'
            screen = '' if self._dearer else ', a first cheap pass (--screen)'
            self._say(
                f'ambdiff: {item.title}: about {told}; cheaper: points (--at){screen}, or fewer evaluations where the '
                'weights make some for each mask (--num_samples, --num_steps)'
            )

    def _show(self) -> None:
        unread = self._cases - self._ended - len(self._left)
        self._bar.total = self._all + round(unread * self._all / max(self._begun, 1))
        self._bar.set_postfix_str(f'{self._ended}/{self._cases} cases')


def duration(seconds: float) -> str:
    """'50 s', '12 min' or '3.5 h'."""
    if seconds < 60:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 90 * 60 else f'{seconds / 3600:.1f} h'
