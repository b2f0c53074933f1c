"""The input pipeline: the batch of step t is a pure function of (seed, t).

Rows step * B .. step * B + B - 1 of the shuffled, repeated source: any host reads only its own rows, a resumed run
needs no saved position, and the order does not depend on the number of hosts or devices.
"""

import concurrent.futures
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from ambdiff.data.shuffle import Shuffled
from ambdiff.data.source import Findings, Source
from ambdiff.errors import UserError

logger = logging.getLogger(__name__)

Example = dict[str, np.ndarray]
# So many records in a row that cannot be read are no accident.
_MOST_IN_A_ROW = 16


class Readable(Source):
    """A source without its records that cannot be read: in the place of each stands the next one that can.

    Which one that is depends on the source alone, so that every host and every later run takes the same.
    """

    def __init__(self, source: Source):
        self._source = source
        self.corrupt: dict[int, str] = {}  # record: why

    def __len__(self) -> int:
        """Records, the unreadable ones among them."""
        return len(self._source)

    @property
    def patients(self) -> Sequence[str]:
        """Of the source."""
        return self._source.patients

    def files(self) -> Sequence[pathlib.Path]:
        """Of the source."""
        return self._source.files()

    def findings(self) -> Findings:
        """Of the source."""
        return self._source.findings()

    def _read(self, place: int) -> Example:
        try:
            return self._source[place]
        except OSError:  # a network's file system may stumble once
            time.sleep(0.5)
            return self._source[place]

    def __getitem__(self, index: int) -> Example:
        """The record `index`, or the one that stands for it.

        Raises:
          UserError: none of 16 records in a row can be read.
        """
        index = range(len(self))[index]
        for place in range(index, index + min(_MOST_IN_A_ROW, len(self))):
            place %= len(self)
            if place in self.corrupt:
                continue
            try:
                return self._read(place)
            except Exception as error:  # every reader has its own; what is wrong is told, and counted
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                self.corrupt[place] = reason
                logger.warning(
                    'record %d of the training data cannot be read and is skipped (%s); the next one takes its place; '
                    '%d so far',
                    place,
                    reason,
                    len(self.corrupt),
                )
        raise UserError(
            f'{min(_MOST_IN_A_ROW, len(self))} records of the training data in a row cannot be read; record {place}: '
            f'{self.corrupt[place]}'
        )


class Rows:
    """The rows of all batches, one after the other: the shuffled, repeated source; rows[r] is an example."""

    def __init__(self, source: Source, seed: int):
        self.source = Readable(source)
        self._shuffled = Shuffled(self.source, seed)

    @property
    def corrupt(self) -> dict[int, str]:
        """The records that could not be read, and why."""
        return self.source.corrupt

    def __getitem__(self, row: int) -> Example:
        """Row r; any number is one."""
        return self._shuffled[row]


def batch(examples: Sequence[Example], rows: Sequence[int]) -> Example:
    """The given rows stacked: image [R, H, W, C] float32, masks [R, M, H, W] uint8, present [R, M] bool."""
    chosen = [examples[row] for row in rows]
    return {name: np.stack([example[name] for example in chosen]) for name in ('image', 'masks', 'present')}


def prefetch(load: Callable[[int], Example], start: int, stop: int) -> Iterator[Example]:
    """load(start), .., load(stop - 1), each read while the one before is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(load, start) if start < stop else None
        for index in range(start, stop):
            ready = pending.result()
            if index + 1 < stop:
                pending = pool.submit(load, index + 1)
            yield ready


def local_rows(batch_sharding: jax.sharding.Sharding, batch_size: int) -> list[int]:
    """The rows of a batch that this process's devices hold, and so the ones that it reads."""
    slices = batch_sharding.addressable_devices_indices_map((batch_size,)).values()
    return sorted({row for (rows,) in slices for row in range(batch_size)[rows]})
