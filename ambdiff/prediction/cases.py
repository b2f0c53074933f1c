"""The cases of predict's input, and the points to look at.

A case is a picture, a NIfTI or a DICOM series; where masks lie beside it as in the `folder` layout (image.* with
mask_*.*), they are its raters' and no cases of their own. Names become names of folders: nothing in them leads out of
the output.
"""

import csv
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from ambdiff.data.files import cases as case_files
from ambdiff.data.files import images as image_files
from ambdiff.data.files.signature import DICOM_SUFFIXES, is_dicom
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.nii', '.nii.gz', *DICOM_SUFFIXES)
_RESERVED = ('index.html', 'predictions.csv')

Point = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """One image to predict: its name among the results, its place in the input, its files, and its raters' masks."""

    name: str
    source: str
    files: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path, ...] = ()

    def sha256(self) -> str:
        """Of the content of its files, whatever their names and order."""
        return hashlib.sha256(b''.join(sorted(map(_content, self.files)))).hexdigest()

    def masks_sha256(self) -> str:
        """Of the content of its raters' masks, in their order."""
        return hashlib.sha256(b''.join(map(_content, self.masks))).hexdigest()

    def read(self, channels: int) -> Volume:
        """The image.

        Raises:
          UserError: it cannot be read; names the file.
        """
        if len(self.files) == 1:
            return image_files.read(self.files[0], channels=channels)
        from ambdiff.data.files import dicom

        volume = dicom.read_series(self.files, mend=True)
        if volume.values.shape[-1] != channels:
            raise UserError(f'{self.source}: has {volume.values.shape[-1]} channels, the weights take {channels}')
        return volume

    def raters(self, volume: Volume, num_classes: int) -> np.ndarray:
        """What its raters drew, bool [M, Z, H, W] with the bits of a row packed; M may be 0.

        Raises:
          UserError: a mask cannot be read or does not fit the image; names the file.
        """
        read = (case_files.read_mask(path, self.files[0], volume, num_classes) for path in self.masks)
        packed = [np.packbits(mask > 0, axis=-1) for mask in read]
        slices, height, width = volume.values.shape[:3]
        return np.stack(packed) if packed else np.zeros((0, slices, height, -(-width // 8)), np.uint8)


def find_cases(path: pathlib.Path, leave_out: pathlib.Path) -> tuple[list[Case], list[str]]:
    """(cases, what was skipped and why) of a file, or of a folder and all below it.

    `leave_out`, hidden folders and the shadow files of macOS (._NAME) are not looked at.

    Each picture and NIfTI is a case, and each DICOM series.

    Raises:
      UserError: nothing there.
    """
    path = pathlib.Path(os.path.abspath(path))  # '.' and '..' have no name
    if path.is_file():
        return [Case(safe_name(path.name), path.name, (path,), _raters(path, sorted(path.parent.iterdir())))], []
    if not path.is_dir():
        raise UserError(f'--input={path}: no such file or folder')
    found: dict[tuple[str, str], list[pathlib.Path]] = {}
    masks_of: dict[pathlib.Path, tuple[pathlib.Path, ...]] = {}
    skipped, others = [], 0
    for folder, folders, files in os.walk(path):
        here = pathlib.Path(folder)
        folders[:] = sorted(
            f for f in folders if not f.startswith('.') and os.path.abspath(here / f) != os.path.abspath(leave_out)
        )
        for file in sorted(here / name for name in files if not name.startswith('._')):
            if not file.is_file():  # a pipe would wait for ever
                continue
            where = file.relative_to(path).as_posix()
            if not _is_dicom(file):
                if file.name.lower().endswith(_SUFFIXES):
                    found[where, ''] = [file]
                else:
                    others += 1
                continue
            series, reason = _series(file)
            if reason:
                skipped.append(f'{where}: {reason}, skipped')
            elif series:
                found.setdefault((here.relative_to(path).as_posix(), series), []).append(file)
            else:
                found[where, ''] = [file]
    images = [files[0] for files in found.values() if case_files.IMAGE.fullmatch(files[0].name)]
    for image in images:
        beside = sorted(image.parent.iterdir())
        masks_of[image] = tuple(
            mask for mask in _raters(image, beside) if (mask.relative_to(path).as_posix(), '') in found
        )
    for mask in {mask for masks in masks_of.values() for mask in masks}:
        del found[mask.relative_to(path).as_posix(), '']
    if others:
        skipped.append(f'{others} other file{"s" if others > 1 else ""} skipped')
    sources = []
    for (place, series), files in found.items():
        shared = sum(key[0] == place and len(group) > 1 for key, group in found.items() if key[1])
        if series and len(files) > 1:
            tail = f' series {hashlib.sha256(series.encode()).hexdigest()[:8]}' if shared > 1 else ''
            sources.append((f'{path.name if place == "." else place}{tail}', files))
        else:
            sources.append((files[0].relative_to(path).as_posix(), files))
    if not sources:
        raise UserError(f'--input={path}: holds no PNG, JPEG, TIFF, NIfTI or DICOM file')
    names = [safe_name(source) for source, _ in sources]
    lower = [name.lower() for name in names]
    cases = [
        Case(
            name if lower.count(name.lower()) == 1 else f'{name}-{_digest(source)}',
            source,
            tuple(files),
            masks_of.get(files[0], ()),
        )
        for name, (source, files) in zip(names, sources, strict=True)
    ]
    return sorted(cases, key=lambda case: case.source), skipped


def _raters(image: pathlib.Path, beside: Sequence[pathlib.Path]) -> tuple[pathlib.Path, ...]:
    """The masks among the files beside an image, if it is named as in the `folder` layout."""
    if not case_files.IMAGE.fullmatch(image.name):
        return ()
    return tuple(path for path in beside if case_files.MASK.fullmatch(path.name) and path.is_file())


def _content(path: pathlib.Path) -> bytes:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').digest()


def safe_name(source: str) -> str:
    """A folder's name for what lies at `source`: letters, digits, dot, dash and underline.

    What loses something in the change gets a digest, so that no two sources share a name.
    """
    name = re.sub(r'[^A-Za-z0-9._-]+', '_', source).lstrip('.-')[:80]
    return name if name == source and name not in _RESERVED else f'{name}-{_digest(source)}'


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode('utf-8', 'surrogateescape')).hexdigest()[:8]


def _is_dicom(path: pathlib.Path) -> bool:
    try:
        return path.name.upper() != 'DICOMDIR' and is_dicom(path)
    except OSError:  # told when the file is read as a case of its own
        return False


def _series(path: pathlib.Path) -> tuple[str, str]:
    """(SeriesInstanceUID, why it is no image) of a DICOM file; both '' where it cannot be read."""
    from ambdiff.data.files import dicom_file

    try:
        header = dicom_file.read_header(path)
        reason = dicom_file.not_an_image(header)
        return ('', reason) if reason else (str(header.get('SeriesInstanceUID') or ''), '')
    except Exception:  # told when the file is read as a case of its own
        return '', ''


def parse_points(text: str, cases: Sequence[Case]) -> dict[str, list[Point]]:
    """--at= as {case's source: points}: 'x,y[,z]' separated by ';' for every case, or a CSV.

    A CSV has the columns x, y, z (where there are slices) and file (where points differ by file): then the cases that
    it names are predicted, and no others.

    Raises:
      UserError: not so, or the CSV names a file that is not in the input.
    """
    if not text:
        return {case.source: [] for case in cases}
    path = pathlib.Path(text)
    if not path.is_file():
        points = [_numbers(part.split(','), f'--at={text}') for part in text.split(';') if part.strip()]
        if not points:
            raise UserError(f'--at={text}: give x,y or x,y,z in pixels, several separated by ";", or a CSV file')
        return {case.source: points for case in cases}
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'--at={path}: not a CSV file ({error})') from error
    if not rows or not {'x', 'y'} <= set(rows[0]):
        raise UserError(f'--at={path}: needs a first line with the columns x, y, z where there are slices, and file')
    chosen: dict[str, list[Point]] = {}
    sources = [case.source for case in cases]
    for line, row in enumerate(rows, 2):
        values = [row[axis] for axis in 'xyz' if row.get(axis) not in (None, '')]
        point = _numbers(values, f'--at={path}, line {line}')
        name = row.get('file')
        if 'file' in row and name not in sources:
            raise UserError(f'--at={path}, line {line}: the input holds no file {name!r}')
        for source in [name] if 'file' in row else sources:
            chosen.setdefault(source, []).append(point)
    return chosen


def _numbers(parts: Sequence[str], where: str) -> Point:
    try:
        point = tuple(float(part) for part in parts)
    except ValueError:
        point = ()
    if len(point) not in (2, 3) or not np.isfinite(point).all():
        raise UserError(f'{where}: {",".join(parts)!r} is no point; give x,y or x,y,z in pixels')
    return point
