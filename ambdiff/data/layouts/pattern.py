"""Reader of any tree of images and masks whose paths config.data.pattern tells (docs/data/pattern.md).

  --config.data.pattern=curvas                                                     a preset of ambdiff/data/pattern/
  --config.data.pattern='image=image.nii.gz,mask=annotation_*.nii.gz,classes=1:2'

What of a case is an example stands in `ambdiff.data.case_source`, how cases are split in `ambdiff.data.case_splits`: by
patients.csv, by folders called after splits anywhere above a case, or by a hash of the patients. A case is a patient
unless the pattern or the table says otherwise.
"""

import pathlib

import ml_collections

from ambdiff.data import case_source, case_splits, splits
from ambdiff.data.case_splits import TABLE, Splits
from ambdiff.data.pattern import find
from ambdiff.data.pattern.case import Case
from ambdiff.data.pattern.grammar import Pattern
from ambdiff.data.pattern.presets import pattern_of
from ambdiff.errors import UserError


def matches(path: pathlib.Path) -> bool:
    """Whether a pattern can be looked for at `path`: a folder."""
    return path.is_dir()


def open_split(
    root: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool = False
) -> case_source.Source:
    """The examples of a split of the folder `root`; see `ambdiff.data.source.Layout`.

    Raises:
      UserError: the pattern, a field that does not suit it, a faulty case or table, or one patient in two splits; the
        message names the place and the cure.
    """
    cases, table, unread = _found(root, data, walk)
    chosen = [case for case in cases if table[case.name][1] == split]
    if not chosen:
        raise UserError(
            f"{root}: the split '{split}' has no case ({len(cases)} in all); add cases, or give splits in {TABLE}"
        )
    patients = [table[case.name][0] for case in chosen]
    beside = [root / TABLE] * (root / TABLE).is_file()
    told = unread if split == 'train' or not walk else []  # once, though it is of all splits
    return case_source.Source(root, split, chosen, patients, data, walk, told, beside)


def checked(root: pathlib.Path, data: ml_collections.ConfigDict, walk: bool = False) -> tuple[list[Case], Splits]:
    """The cases below a folder and {case: (patient, split)}, their files found but not read.

    Raises:
      UserError: as `open_split`.
    """
    return _found(root, data, walk)[:2]


def split_table(root: pathlib.Path, data: ml_collections.ConfigDict) -> Splits:
    """{case: (patient, split)} of every case.

    Raises:
      UserError: a fault of the pattern, of the table or of the folders of splits.
    """
    pattern = pattern_of(data.pattern)
    return _table(root, find.find(root, pattern)[0], pattern)


def _found(root, data, walk):
    pattern = pattern_of(data.pattern)
    cases, unread = find.find(root, pattern)
    fault = next((case.fault for case in cases if case.fault), '')
    if fault and not (walk and any(not case.fault for case in cases)):
        raise UserError(fault)
    _check_fields(root, pattern, cases, data)
    table = _table(root, cases, pattern)
    if not walk:
        case_splits.no_patient_twice(root, table)
    return cases, table, unread


def _check_fields(root: pathlib.Path, pattern: Pattern, cases: list[Case], data) -> None:
    """Refuses fields that do not suit what is there, all of them in one line."""
    raters = max(case.raters for case in cases if not case.fault)
    needed = {
        'channels': len(pattern.images) * (2 * data.neighbours + 1) if len(pattern.images) > 1 else data.channels,
        'num_classes': len(pattern.classes) or data.num_classes,
        'num_raters': max(raters, data.num_raters),
    }
    if wrong := {field: value for field, value in needed.items() if data[field] != value}:
        held = ', '.join(f'config.data.{field} is {data[field]}' for field in wrong)
        cure = ' '.join(f'--config.data.{field}={value}' for field, value in wrong.items())
        raise UserError(f'{root}: does not suit config.data.pattern={data.pattern} ({held}); set {cure}')


def _table(root, cases, pattern) -> Splits:
    def patient_of(name):
        folder, slash, last = name.rpartition('/')
        found = pattern.patient.fullmatch(last) if pattern.patient else None
        return f'{folder}{slash}{found["patient"]}' if found else name

    def folder_of(name):
        named = map(splits.of_folder, name.split('/')[:-1])
        return next(filter(None, named), '')

    return case_splits.of_cases(root, cases, folder_of, patient_of)
