"""Which files below a folder are slices of which CT series, told by their headers and never by names.

Reading the headers of all of LIDC-IDRI takes minutes, so what was read is kept in a file and read again only where a
file is new or has changed. Folders reached by a link are not entered.
"""

import dataclasses
import json
import os
import pathlib
import stat
import sys
import warnings
from collections.abc import Sequence

import numpy as np
import pydicom
from tqdm import tqdm

from ambdiff import files
from ambdiff.data.files import dicom_file
from ambdiff.data.files.dicom_header import element, numbers
from ambdiff.data.files.signature import is_dicom
from ambdiff.data.files.volume import MAX_MM, length
from ambdiff.errors import UserError

_TAGS = [
    'SeriesInstanceUID',
    'PatientID',
    'ImagePositionPatient',
    'InstanceNumber',
    'SliceThickness',
    'PixelSpacing',
]


@dataclasses.dataclass(frozen=True)
class File:
    """A slice: z in mm of ImagePositionPatient; thickness and spacing (a row) in mm, NaN where unknown."""

    path: pathlib.Path
    series: str
    patient: str
    z: float
    number: float
    thickness: float
    spacing: float


def index(root: pathlib.Path, kept: pathlib.Path) -> tuple[dict[str, list[File]], list[str]]:
    """({series: its slices by ascending z}, one line a faulty file) of all below `root`.

    Of slices at one z the one of the least InstanceNumber is taken, as pylidc does.

    Args:
      root: the folder.
      kept: where what was read is kept; written when all is read or the reading is interrupted.

    Raises:
      UserError: root is not a folder, or holds no DICOM.
    """
    if not root.is_dir():
        raise UserError(f'{root}: no such folder (config.data.path); it should hold the DICOM files of LIDC-IDRI')
    known, found = _load(kept), {}
    paths = [pathlib.Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    wait = 0.5 if sys.stderr.isatty() else 10
    try:
        for path in tqdm(sorted(paths), 'lidc: reading headers', unit=' files', mininterval=wait, leave=False):
            key = str(path.relative_to(root))
            try:
                status = path.stat()
            except OSError:
                continue  # a link to nothing
            if not stat.S_ISREG(status.st_mode):
                continue  # reading a pipe may never end
            state = [status.st_size, status.st_mtime_ns]
            old = known.get(key)
            found[key] = old if old and old['state'] == state else {'state': state, **_header(path)}
    finally:
        _save(kept, known | found)
    series, faults = {}, []
    for key, entry in found.items():
        if 'fault' in entry:
            faults.append(f'{root / key}: {entry["fault"]}')
        elif 'slice' in entry:
            piece = File(root / key, *entry['slice'])
            series.setdefault(piece.series, []).append(piece)
    if not series:
        raise UserError(
            f'{root}: holds no DICOM slice among {len(paths)} files; data.path names the folder of the scans'
        )
    return {uid: _sorted(files) for uid, files in series.items()}, faults


def spacing_between(files: Sequence[File]) -> float:
    """The usual distance of slices in mm; the thickness where there is one slice."""
    gaps = np.diff([piece.z for piece in files])
    return float(np.median(gaps)) if len(gaps) else files[0].thickness


def _sorted(files):
    first = {}
    for piece in sorted(files, key=lambda f: (f.number, str(f.path))):
        first.setdefault(piece.z, piece)
    return [first[z] for z in sorted(first)]


def _header(path):
    """{'slice': fields of File after the path}, {'fault': why}, or {} for a file that is no slice."""
    try:
        if not is_dicom(path):
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            if dicom_file.is_deflated(path):
                return {'fault': dicom_file.DEFLATED}
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
            if not header and not header.file_meta:
                return {'fault': 'not a DICOM file, or damaged at its start'}
            series, patient, position, number, thickness, spacing = (element(header, name) for name in _TAGS)
    except Exception as error:  # pydicom names no type of damage
        return {'fault': f'truncated or damaged ({" ".join(str(error).split())[:100]})'}
    if series is None or position is None:
        return {}  # a radiograph, a DICOMDIR
    place = numbers(position, 3)
    if not place or max(map(abs, place)) >= MAX_MM:
        return {'fault': 'its ImagePositionPatient is no position in mm'}
    first = lambda value, count: (numbers(value, count) or [np.nan])[0]  # of so many
    number = (numbers(number, 1) or [0.0])[0]
    return {
        'slice': [
            str(series),
            str(patient or ''),
            place[2],
            number,
            length(first(thickness, 1)),
            length(first(spacing, 2)),
        ]
    }


def _load(path):
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: entry for key, entry in known.items() if _is_entry(entry)} if isinstance(known, dict) else {}


def _is_entry(entry):
    """Whether what was kept is as `_header` gives it today."""
    if not isinstance(entry, dict) or not isinstance(entry.get('state'), list):
        return False
    if 'slice' not in entry:
        return isinstance(entry.get('fault', ''), str)
    values = entry['slice']
    kinds = [str, str, float, float, float, float]
    if not isinstance(values, list) or [type(value) for value in values] != kinds:
        return False
    z, number, *lengths = values[2:]
    return np.isfinite([z, number]).all() and all(np.isnan(step) or step == length(step) for step in lengths)


def _save(path, entries):
    files.write_whole(path, json.dumps(entries))
