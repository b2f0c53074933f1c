"""Splits by patient: no patient is on two sides, and a split depends on the patients' names alone."""

import csv
import hashlib
import io
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ambdiff import files
from ambdiff.data.example import SPLITS
from ambdiff.data.files import tables
from ambdiff.errors import UserError

NAMES = {  # what a split's folder or its entry in a table may be called
    'train': 'train',
    'training': 'train',
    'validation': 'validation',
    'val': 'validation',
    'test': 'test',
    'testing': 'test',
}
_FOLDER = re.compile(rf'({"|".join(NAMES)})([-_ ].*)?', re.IGNORECASE)  # Training-400, validation_set
_TENTHS = {'validation': 0.1, 'test': 0.1}


def of_folder(name: str) -> str:
    """The split that a folder is called after: train, Training-400, validation_set, test 2; '' for none."""
    found = _FOLDER.fullmatch(name)
    return NAMES[found[1].lower()] if found else ''


def by_patient(patients: Iterable[str], cut: Sequence[str] = ('validation', 'test')) -> dict[str, str]:
    """The split of each patient, in an order fixed by a hash of the name.

    Each split in `cut` gets a tenth of the patients, at least one where there are enough; the others train.
    """
    ranked = sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    shares = [1 - sum(_TENTHS[name] for name in cut), *(_TENTHS[name] for name in cut)]
    ends = np.rint(np.cumsum(shares) * len(ranked)).astype(int)
    for place in range(len(cut), 0, -1):  # at least one patient each, and one that trains
        ends[place - 1] = max(min(ends[place - 1], ends[place] - 1), 1)
    names = ('train', *cut)
    return {patient: names[int(np.searchsorted(ends, rank, 'right'))] for rank, patient in enumerate(ranked)}


def shared_patients(split_of: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """{case: (patient, split)} -> {patient: splits} of the named patients that are in two splits or more."""
    found: dict[str, set[str]] = {}
    for patient, split in split_of.values():
        if patient:
            found.setdefault(patient, set()).add(split)
    return {patient: sorted(here, key=SPLITS.index) for patient, here in found.items() if len(here) > 1}


def read_table(path: pathlib.Path) -> dict[str, tuple[str, str]]:
    """A CSV file with the columns case, patient and, in any or no row, split -> {case: (patient, split or '')}.

    What a CSV file may look like stands in `ambdiff.data.files.tables`.

    Raises:
      UserError: naming the file and the line: a column or entry missing, an unknown split, a case twice.
    """
    table: dict[str, tuple[str, str]] = {}
    for row in tables.read(path, ('case', 'patient'), ('split',)):
        case = row.text('case').replace('\\', '/').strip('/')
        patient, split = row.text('patient'), row.cells.get('split', '')
        if split and split.lower() not in NAMES:
            raise UserError(f"{row.where}: split '{split}' does not exist; choose {', '.join(SPLITS)}")
        if case in table:
            raise UserError(f"{row.where}: the case '{case}' is there twice; keep one line a case")
        table[case] = (patient, NAMES.get(split.lower(), ''))
    return table


def write_table(path: pathlib.Path, split_of: Mapping[str, tuple[str, str]]) -> None:
    """Writes {case: (patient, split)} as a table that `read_table` reads, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('case', 'patient', 'split'))
    writer.writerows((case, patient or case, split) for case, (patient, split) in split_of.items())
    files.write_whole(path, text.getvalue())
