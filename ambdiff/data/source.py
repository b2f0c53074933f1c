"""What every reader gives: random access to the examples of one split, and what is known of them beside."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol

import ml_collections
import numpy as np

from ambdiff.data.example import Example
from ambdiff.data.files import neighbours
from ambdiff.errors import UserError


@dataclasses.dataclass
class Findings:
    """What reading has met so far; it grows with the examples that are read.

    Attributes:
      notes: what was converted or lost, and in how many examples.
      stored_sizes: height and width before cropping or resizing, and of how many examples.
      dropped_slices: slices that are no examples, since no rater marked a pixel of them.
      unread: files that lie among the data and are not read, a line each.
      faults: what was left out from the start and why, a line each.
    """

    notes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    stored_sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    dropped_slices: int = 0
    unread: Sequence[str] = ()
    faults: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an example lies in a volume.

    Attributes:
      volume: name of the whole.
      slice: its place, counted from 0 in the file.
      thickness: mm from one slice to the next, NaN where unknown.
      raters: whose mask each slot holds: the same numbers in all slices of a volume.
    """

    volume: str
    slice: int
    thickness: float
    raters: tuple[int, ...]


class Source(Protocol):
    """The examples of one split: `len(source)`, and `source[i]`, a dict as `ambdiff.data.example` describes it.

    A reader's class inherits from it and so gets what it need not say. Reading an example twice gives the same arrays;
    several threads may read at once.

    Attributes:
      patients: the patients of the split, each at least once; '' where one is unknown.
      fresh_answers: for simulated raters, (row, count, rng) -> uint8 [count, H, W]: fresh answers to the row's image,
        each by a rater chosen uniformly; None where the raters are people.
    """

    patients: Sequence[str]
    fresh_answers: Callable[[int, int, np.random.Generator], np.ndarray] | None = None

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, row: int) -> Example:
        """The example of a row.

        Raises:
          IndexError: no such row, so that a loop over the source ends.
          UserError: the example cannot be read, in one line that names its file.
        """
        ...

    def place(self, row: int) -> Place | None:
        """Where the example of a row lies in its volume; None where examples are of no volumes."""
        del row
        return None

    def files(self) -> Sequence[pathlib.Path]:
        """The files that the examples are read from; none where they are computed. For `ambdiff.data.fingerprint`."""
        return ()

    def findings(self) -> Findings:
        """What reading has met so far."""
        return Findings()


class Layout(Protocol):
    """What a reader of a layout is: a module of `ambdiff.data.layouts` with these functions (docs/add_a_reader.md)."""

    def matches(self, path: pathlib.Path) -> bool:
        """Whether the file or folder at `path`, which exists, is of this layout; told by its content, in a glance."""
        ...

    def open_split(self, path: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool) -> Source:
        """The examples of a split.

        Args:
          path: the file or folder.
          split: 'train', 'validation' or 'test'.
          data: the config's data group.
          walk: for who goes through all examples once and wants every fault: nothing is kept in memory, and the fault
            of a case is told when it is read. Without it whatever can be checked is checked now.

        Raises:
          UserError: it cannot be read as it is; one line that names the place and the cure.
        """
        ...

    def split_table(self, path: pathlib.Path, data: ml_collections.ConfigDict) -> dict[str, tuple[str, str]]:
        """{case: (patient, split)} where this reader decides on the splits; {} where the files themselves do."""
        ...


class Faulty(UserError):
    """Several faults that keep data from being opened; the message is the first."""

    def __init__(self, faults: Sequence[str]):
        super().__init__(faults[0])
        self.faults = tuple(faults)


def require_one(path: pathlib.Path, data: ml_collections.ConfigDict, *, classes: bool = True) -> None:
    """Refuses neighbours, more channels, and with `classes` more classes, than the one that a layout has.

    Raises:
      UserError: naming the field.
    """
    neighbours.none(path, data)
    if data.channels != 1:
        raise UserError(f'config.data.channels is {data.channels}; {path} has 1 channel')
    if classes and data.num_classes != 1:
        raise UserError(f'{path}: this layout has one class; set --config.data.num_classes=1')
