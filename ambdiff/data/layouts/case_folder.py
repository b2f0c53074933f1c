"""Reader of the `folder` layout, your own data: a folder a case, image.* and mask_*.* (`ambdiff.data.files.cases`).

  [train/ validation/ test/] CASE/image.*  CASE/mask_*.*
  patients.csv      optional, beside the cases: columns case (its path below the folder, or its name), patient and,
                    if you like, split

What of a case is an example stands in `ambdiff.data.case_source`, how cases are split in `ambdiff.data.case_splits`:
without a table every case counts as a patient of its own, and leaks between splits cannot be seen. `split_table` tells
what came of it, in the table's form.
"""

import pathlib

import ml_collections

from ambdiff.data import case_source, case_splits, splits
from ambdiff.data.case_splits import TABLE, Splits
from ambdiff.data.files import cases as case_files
from ambdiff.data.files.cases import Case
from ambdiff.errors import UserError


def matches(path: pathlib.Path) -> bool:
    """Whether one of the first folders below a folder holds a file of this layout."""
    return path.is_dir() and case_files.looks_like_cases(path)


def open_split(
    root: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool = False
) -> case_source.Source:
    """The examples of a split of the folder `root`; see `ambdiff.data.source.Layout`.

    Raises:
      UserError: no case, a faulty case or table, or one patient in two splits; the message names the place and the
        cure.
    """
    cases, table = checked(root, data, walk)
    chosen = [case for case in cases if table[case.name][1] == split]
    if not chosen:
        raise UserError(
            f"{root}: the split '{split}' has no case ({len(cases)} in all); add cases, or give splits in {TABLE}"
        )
    unread = [f'{path}: neither image.* nor mask_*.*, not read' for case in chosen for path in case.unread]
    patients = [table[case.name][0] for case in chosen]
    beside = [root / TABLE] * (root / TABLE).is_file()
    return case_source.Source(root, split, chosen, patients, data, walk, unread, beside)


def checked(root: pathlib.Path, data: ml_collections.ConfigDict, walk: bool = False) -> tuple[list[Case], Splits]:
    """The cases below a folder and {case: (patient, split)}, their files found but not read.

    Raises:
      UserError: as `open_split`.
    """
    cases = _cases(root)
    if fault := next((case.fault for case in cases if case.fault and not walk), ''):
        raise UserError(fault)
    case_splits.most_raters(root, cases, data.num_raters)
    table = _table(root, cases)
    if not walk:
        case_splits.no_patient_twice(root, table)
    return cases, table


def split_table(root: pathlib.Path, data: ml_collections.ConfigDict) -> Splits:
    """{case: (patient, split)} of every case; patient is '' where no table names it.

    Raises:
      UserError: a fault of the table or of the folders of splits.
    """
    del data
    return _table(root, _cases(root))


def _table(root, cases):
    return case_splits.of_cases(
        root, cases, lambda name: splits.NAMES.get(name.partition('/')[0].lower() if '/' in name else '', '')
    )


def _cases(root):
    cases = list(case_files.find(root))
    if all(case.fault for case in cases):
        faults = f' ({cases[0].fault})' if cases else ''
        raise UserError(f'{root}: no case; expected folders with image.png, mask_1.png, mask_2.png ..{faults}')
    return cases
