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
        with path.open('rb') as file:
            if file.read(132)[128:] != b'DICM':
                if path.suffix.lower() == '.dcm':
                    return {'fault': 'not a DICOM file, or damaged at its start'}
                return {}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            if dicom_file.is_deflated(path):
                return {'fault': dicom_file.DEFLATED}
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        position = header.get('ImagePositionPatient')
        if not header.get('SeriesInstanceUID') or not position:
            return {}  # a radiograph, a DICOMDIR
        spacing = header.get('PixelSpacing') or [np.nan]
        values = [
            str(header.SeriesInstanceUID),
            str(header.get('PatientID', '')),
            float(position[2]),
            float(header.get('InstanceNumber') or 0),
            float(header.get('SliceThickness') or np.nan),
            float(spacing[0]),
        ]
    except Exception as error:  # pydicom names no type of damage
        return {'fault': f'truncated or damaged ({" ".join(str(error).split())[:100]})'}
    return {'slice': values}


def _load(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _save(path, entries):
    files.write_whole(path, json.dumps(entries))
