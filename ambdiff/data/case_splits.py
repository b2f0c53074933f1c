"""Splits of cases that lie in folders: by a table, by the names of the folders, else by a hash of the patients' names.

In this order: `patients.csv` beside the cases (columns case, its path below the folder or its last name, patient and,
if you like, split), where it gives splits; folders that are called after splits, a missing split being cut from train;
else 80, 10 and 10 % of the patients.
"""

import collections
import pathlib
from collections.abc import Callable, Sequence

from ambdiff.data import splits
from ambdiff.data.case_source import Case
from ambdiff.errors import UserError

TABLE = 'patients.csv'

Splits = dict[str, tuple[str, str]]  # case -> (patient, split)


def of_cases(
    root: pathlib.Path,
    cases: Sequence[Case],
    folder_of: Callable[[str], str],
    patient_of: Callable[[str], str] = lambda name: '',
) -> Splits:
    """The patient and the split of every case.

    Args:
      root: the folder that the cases are named below.
      cases: all of them.
      folder_of: case's name -> the split that its folders are called after, '' for none.
      patient_of: case's name -> its patient where no table says so, '' for unknown: then the case counts as one.

    Raises:
      UserError: a fault of the table, or a case outside the folders of splits.
    """
    names = [case.name for case in cases if not case.fault]
    path = root / TABLE
    rows = _by_case(path, cases, splits.read_table(path)) if path.is_file() else {}
    patients = {name: rows[name][0] if rows else patient_of(name) for name in names}
    given = {name: rows[name][1] if rows else '' for name in names}
    table = _assigned(root, names, patients, given, {name: folder_of(name) for name in names})
    # Where a faulty case belongs cannot matter, but it must be told of once.
    return table | {case.name: ('', 'train') for case in cases if case.fault}


def most_raters(root: pathlib.Path, cases: Sequence[Case], num_raters: int) -> None:
    """Refuses cases of more raters than `num_raters`.

    Raises:
      UserError: naming the case with the most of them, and the field.
    """
    most = max((case for case in cases if not case.fault), key=lambda case: case.raters)
    if most.raters > num_raters:
        raise UserError(
            f'{root}: the case {most.name} has {most.raters} masks, but config.data.num_raters is '
            f'{num_raters}; set --config.data.num_raters={most.raters}'
        )


def no_patient_twice(root: pathlib.Path, table: Splits) -> None:
    """Refuses a patient in two splits.

    Raises:
      UserError: naming the patient.
    """
    if shared := splits.shared_patients(table):
        patient, where = next(iter(shared.items()))
        raise UserError(f"{root}: the patient '{patient}' is in {' and '.join(where)}; keep each patient in one split")


def _assigned(root, names, patients, given, folders):
    """{case: (patient, split)} by the first of the rules of the module docstring that applies."""
    if any(given.values()):
        unset = next((name for name in names if not given[name]), None)
        if unset:
            raise UserError(f"{root / TABLE}: gives splits, but none for the case '{unset}'; give one in every line")
        return {name: (patients[name], given[name]) for name in names}
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
