"""Examples of cases that are files: the pictures, and the slices that somebody marked, of one split.

2-D images are one example each. Of an image with several slices, the slices that at least one rater marked are
examples, named CASE_z000 by their place; the others are dropped, since nearly all would be empty. Cases may differ in
their number of raters: slots up to config.data.num_raters are padded and marked missing.
"""

import logging
import pathlib
from collections.abc import Sequence
from typing import Protocol

import ml_collections
import numpy as np
from tqdm import tqdm

from ambdiff.data import example, source
from ambdiff.data.files import neighbours
from ambdiff.data.files.values import Read
from ambdiff.errors import UserError

_log = logging.getLogger(__name__)
_SHOWN = 5  # lines of a kind


class Case(Protocol):
    """The files of a case, found and not yet read (`ambdiff.data.files.cases.Case`, `ambdiff.data.pattern.case.Case`).

    Attributes:
      name: its own among all cases.
      fault: what is wrong with it, one line; '' where nothing is.
      raters: how many raters outlined it.
      may_have_slices: whether its kind of file can hold more than one slice.
    """

    name: str
    fault: str
    raters: int
    may_have_slices: bool

    def files(self) -> list[pathlib.Path]:
        """What it is read from."""
        ...

    def read(self, data: ml_collections.ConfigDict) -> Read:
        """Image and masks; a UserError names the case's fault or a file's."""
        ...

    def marked(self, data: ml_collections.ConfigDict) -> np.ndarray:
        """Whether any rater marked a pixel of each slice, bool [Z]; a UserError as of `read`."""
        ...


class Source(source.Source):
    """Random access to the examples of one split.

    A split below example.MEMORY_LIMIT is read once and kept; a larger one, and one that is walked through, is read case
    by case, the last one kept.

    Args:
      root: the folder that the cases are named below.
      split: 'train', 'validation' or 'test', for messages.
      cases: those of the split.
      patients: of each of them, '' where unknown.
      data: the config's data group.
      walk: as of `ambdiff.data.source.Layout.open_split`.
      unread: what lies there and is not read, a line each.
      beside: further files that the examples follow from.

    Raises:
      UserError: a fault of a case, or nobody marked anything.
    """

    def __init__(
        self,
        root: pathlib.Path,
        split: str,
        cases: Sequence[Case],
        patients: Sequence[str],
        data: ml_collections.ConfigDict,
        walk: bool,
        unread: Sequence[str] = (),
        beside: Sequence[pathlib.Path] = (),
    ):
        self._found = found = source.Findings(unread=unread)
        self._root, self._data, self._walk, self._cases, self._beside = root, data, walk, cases, beside
        self._last, self._kept = (None, None), None
        self._thickness = {}  # case -> mm, of those read so far
        self._entries = []
        progress = tqdm(cases, desc=f'{split}: masks', unit=' cases', delay=2, leave=False)
        for case, patient in zip(progress, patients, strict=True):
            self._entries += [(case, patient, z) for z in self._marked(case)]
        if not self._entries:
            raise UserError(f"{root}: no rater marked any slice of the split '{split}'; nothing can be learnt from it")
        self.patients = [patient for _, patient, _ in self._entries]
        size = len(self) * data.image_size**2 * (4 * data.channels + data.num_raters)
        if walk:
            return
        if size < example.MEMORY_LIMIT:
            rows = tqdm(range(len(self)), desc=f'{split}: images', unit=' examples', delay=2, leave=False)
            self._kept = [self._make(row) for row in rows]
            self._last = (None, None)
            if found.dropped_slices:
                _log.info('%s: %s: %d slices that no rater marked are left out', root, split, found.dropped_slices)
            for line in unread[:_SHOWN]:
                _log.warning('%s', line)
            if len(unread) > _SHOWN:
                _log.warning('%s: %d more files are not read', root, len(unread) - _SHOWN)
            for note, count in list(found.notes.items())[:_SHOWN]:
                _log.warning('%s: %s: %s in %d of %d examples', root, split, note, count, len(self))
            if len(found.notes) > _SHOWN:
                _log.warning('%s: %s: %d more notes; data.check lists them', root, split, len(found.notes) - _SHOWN)
        else:
            _log.warning(
                '%s: %s needs %d MiB, so cases are read again in every epoch; this is slow for volumes',
                root,
                split,
                size >> 20,
            )

    def files(self) -> list[pathlib.Path]:
        """Images, masks and what lies beside them."""
        return [path for case in self._cases for path in case.files()] + [*self._beside]

    def findings(self) -> source.Findings:
        """What was converted, lost and left out in reading so far."""
        return self._found

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._entries)

    def __getitem__(self, index: int) -> example.Example:
        """The example dict of a slice or picture; see `ambdiff.data.example`.

        Raises:
          UserError: a fault of the case, in one line that names its file.
        """
        index = range(len(self))[index]
        return self._kept[index] if self._kept else self._make(index)

    def place(self, row: int) -> source.Place:
        """Where an example lies in its case; a picture is a case of one slice."""
        whole, _, z = self._entries[row]
        if whole.name not in self._thickness:
            self._read(whole)
        raters = tuple(example.slots(row, self._data.num_raters).tolist())
        return source.Place(whole.name, z or 0, self._thickness[whole.name], raters)

    def _marked(self, case):
        """The slices of a case that are examples; None for a single one, or for a fault that reading it will tell."""
        if case.fault or not case.may_have_slices:
            return [None]
        try:
            marked = case.marked(self._data)
        except UserError:
            if not self._walk:
                raise
            return [None]
        if len(marked) == 1:
            return [None]
        self._found.dropped_slices += int(np.count_nonzero(~marked))
        return np.flatnonzero(marked).tolist()

    def _read(self, case):
        name, read = self._last  # at once, since several threads may read
        if name != case.name:
            try:
                read = case.read(self._data)
            except UserError as error:
                read = error
            else:
                self._thickness[case.name] = read.spacing[0]
            self._last = (case.name, read)
        if isinstance(read, UserError):
            raise read
        return read

    def _make(self, index):
        case, patient, z = self._entries[index]
        read = self._read(case)
        name = case.name if z is None else f'{case.name}_z{z:03d}'
        where, masks = str(self._root / case.name), read.masks[z or 0]
        if len(read.image) == 1:
            neighbours.none(where, self._data)
        image = neighbours.stacked(read.image, z or 0, self._data.neighbours, len(read.image))
        slots, present = example.padded(where, masks, self._data.num_raters)
        made = example.make(
            image,
            slots,
            case=name,
            patient=patient,
            index=index,
            size=self._data.image_size,
            fit=self._data.fit,
            spacing=read.spacing[1:],
            present=present,
        )
        self._found.notes.update(read.notes)
        self._found.stored_sizes[image.shape[:2]] += 1
        if self._data.fit == 'crop' and np.count_nonzero(made['masks']) < np.count_nonzero(masks):
            self._found.notes['marked pixels outside the centre crop, lost (config.data.fit=resize keeps them)'] += 1
        return made
