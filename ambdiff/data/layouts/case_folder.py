"""Reader of the `folder` layout, your own data: a folder a case, image.* and mask_*.* (`ambdiff.data.files.cases`).

  [train/ validation/ test/] CASE/image.*  CASE/mask_*.*
  patients.csv      optional, beside the cases: columns case (its path below the folder, or its name), patient and,
                    if you like, split

2-D images are one example each. Of an image with several slices, the slices that at least one rater marked are
examples, named CASE_z000 by their place; the others are dropped, since nearly all would be empty. Cases may differ in
their number of raters: slots up to config.data.num_raters are padded and marked missing.

Splits, in this order: the table's, where it has them; the folders train/, validation/ and test/ (a missing one is cut
from train/); else 80, 10 and 10 % of the patients by a hash of their names. Without a table every case counts as a
patient of its own, and leaks between splits cannot be seen. `split_table` tells what came of it, in the table's form.
"""

import collections
import logging
import pathlib

import ml_collections
import numpy as np
from tqdm import tqdm

from ambdiff.data import example, source, splits
from ambdiff.data.files import cases as case_files
from ambdiff.data.files.cases import Case
from ambdiff.errors import UserError

_log = logging.getLogger(__name__)
TABLE = 'patients.csv'
_SHOWN = 5  # files that are not read


def matches(path: pathlib.Path) -> bool:
    """Whether one of the first folders below a folder holds a file of this layout."""
    return path.is_dir() and case_files.looks_like_cases(path)


def open_split(root: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool = False) -> 'Source':
    """The examples of a split of the folder `root`; see `ambdiff.data.source.Layout`.

    Raises:
      UserError: no case, a faulty case or table, or one patient in two splits; the message names the place and the
        cure.
    """
    cases, table = checked(root, data.num_raters, walk)
    chosen = [case for case in cases if table[case.name][1] == split]
    if not chosen:
        raise UserError(
            f"{root}: the split '{split}' has no case ({len(cases)} in all); add cases, or give splits in {TABLE}"
        )
    return Source(root, split, chosen, [table[case.name][0] for case in chosen], data, walk)


def checked(root: pathlib.Path, num_raters: int, walk: bool = False) -> tuple[list[Case], dict[str, tuple[str, str]]]:
    """The cases below a folder and {case: (patient, split)}, their files found but not read.

    Raises:
      UserError: as `open_split`.
    """
    cases = _cases(root)
    if fault := next((case.fault for case in cases if case.fault and not walk), ''):
        raise UserError(fault)
    most = max((case for case in cases if not case.fault), key=lambda case: len(case.masks))
    if len(most.masks) > num_raters:
        raise UserError(
            f'{root}: the case {most.name} has {len(most.masks)} masks, but config.data.num_raters is '
            f'{num_raters}; set --config.data.num_raters={len(most.masks)}'
        )
    table = _table(root, cases)
    shared = splits.shared_patients(table)
    if shared and not walk:
        patient, where = next(iter(shared.items()))
        raise UserError(f"{root}: the patient '{patient}' is in {' and '.join(where)}; keep each patient in one split")
    return cases, table


def split_table(root: pathlib.Path, data: ml_collections.ConfigDict) -> dict[str, tuple[str, str]]:
    """{case: (patient, split)} of every case; patient is '' where no table names it.

    Raises:
      UserError: a fault of the table or of the folders of splits.
    """
    del data
    return _table(root, _cases(root))


def _table(root, cases):
    names = [case.name for case in cases if not case.fault]
    path = root / TABLE
    rows = _by_case(path, cases, splits.read_table(path)) if path.is_file() else dict.fromkeys(names, ('', ''))
    patients = {name: rows[name][0] for name in names}
    given = {name: rows[name][1] for name in names}
    table = _assigned(root, names, patients, given)
    # Where a faulty case belongs cannot matter, but it must be told of once.
    return table | {case.name: ('', 'train') for case in cases if case.fault}


def _assigned(root, names, patients, given):
    """{case: (patient, split)} by the first of the rules of the module docstring that applies."""
    if any(given.values()):
        unset = next((name for name in names if not given[name]), None)
        if unset:
            raise UserError(f"{root / TABLE}: gives splits, but none for the case '{unset}'; give one in every line")
        return {name: (patients[name], given[name]) for name in names}
    folders = {name: splits.NAMES.get(name.partition('/')[0].lower() if '/' in name else '') for name in names}
    if not any(folders.values()):
        return _cut(names, patients, ('validation', 'test'))
    if stray := next((name for name in names if not folders[name]), None):
        raise UserError(f'{root / stray}: lies in no split, while others are in train/, validation/ or test/; move it')
    missing = [name for name in ('validation', 'test') if name not in folders.values()]
    train = _cut([name for name in names if folders[name] == 'train'], patients, missing)
    return {name: train.get(name, (patients[name], folders[name])) for name in names}


def _cut(names, patients, missing):
    """Splits by patient of some cases; a case without a patient is one."""
    split = splits.by_patient((patients[name] or name for name in names), missing)
    return {name: (patients[name], split[patients[name] or name]) for name in names}


def _by_case(path, cases, table):
    """The table's rows by the names of the cases; it may call them by their last name alone."""
    names = [case.name for case in cases]
    short = collections.defaultdict(list)
    for name in names:
        short[name.rpartition('/')[2]].append(name)
    rows = {}
    for entry, row in table.items():
        found = [entry] if entry in names else short.get(entry, [])
        if len(found) != 1:
            what = f'{len(found)} folders are called so' if found else 'no such folder'
            raise UserError(f"{path}: the case '{entry}': {what} below {path.parent}; name its path, or drop the line")
        if found[0] in rows:
            raise UserError(f"{path}: the case '{found[0]}' is there twice; keep one line a case")
        rows[found[0]] = row
    if lost := next((case.name for case in cases if case.name not in rows and not case.fault), None):
        raise UserError(f"{path}: has no line for the case '{lost}'; add one, so that splits can be by patient")
    return rows


def _cases(root):
    cases = list(case_files.find(root))
    if all(case.fault for case in cases):
        faults = f' ({cases[0].fault})' if cases else ''
        raise UserError(f'{root}: no case; expected folders with image.png, mask_1.png, mask_2.png ..{faults}')
    return cases


class Source(source.Source):
    """Random access to the examples of one split.

    A split below example.MEMORY_LIMIT is read once and kept; a larger one, and one that is walked through, is read case
    by case, the last one kept.
    """

    def __init__(self, root, split, cases, patients, data, walk):
        unread = [f'{path}: neither image.* nor mask_*.*, not read' for case in cases for path in case.unread]
        self._found = found = source.Findings(unread=unread)
        self._root, self._data, self._walk, self._cases = root, data, walk, cases
        self._last, self._kept = (None, None), None
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
        """Images, masks and the table."""
        table = self._root / TABLE
        return [path for case in self._cases for path in case.files()] + [table] * table.is_file()

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

    def _marked(self, case):
        """The slices of a case that are examples; None for a single one, or for a fault that reading it will tell."""
        if case.fault or not case.may_have_slices:
            return [None]
        try:
            marked = case_files.marked(case, self._data.num_classes)
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
                read = case_files.read(case, self._data)
            except UserError as error:
                read = error
            self._last = (case.name, read)
        if isinstance(read, UserError):
            raise read
        return read

    def _make(self, index):
        case, patient, z = self._entries[index]
        read = self._read(case)
        name = case.name if z is None else f'{case.name}_z{z:03d}'
        image, masks = (part[z or 0] for part in (read.image, read.masks))
        where = str(self._root / case.name)
        slots, present = example.padded(where, masks, self._data.num_raters)
        made = example.make(
            image,
            slots,
            case=name,
            patient=patient,
            index=index,
            size=self._data.image_size,
            fit=self._data.fit,
            spacing=read.spacing,
            present=present,
        )
        self._found.notes.update(read.notes)
        self._found.stored_sizes[image.shape[:2]] += 1
        if self._data.fit == 'crop' and np.count_nonzero(made['masks']) < np.count_nonzero(masks):
            self._found.notes['marked pixels outside the centre crop, lost (config.data.fit=resize keeps them)'] += 1
        return made
