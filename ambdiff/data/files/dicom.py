"""Reads DICOM: one file, or the files of one series as a volume in the order of space.

Rows, columns and slices are as stored and displayed, slices sorted along the cross product of the directions of
columns and rows: an axial series runs to the head. DICOM's world is (left, posterior, superior); the affine is in
(right, anterior, superior). Localizers, segmentations, reports and other objects without an image of their own are
skipped, and named in `notes`; so is what lies in another direction than more than half of a series, or nowhere, as a
scout that is not marked. What values mean is told in `ambdiff.data.files.dicom_file`.
"""

import os
import pathlib
from collections.abc import Iterable

import numpy as np

from ambdiff.data.files.dicom_file import decode, read_header
from ambdiff.data.files.dicom_header import Slice, not_an_image, slices_of
from ambdiff.data.files.signature import is_dicom
from ambdiff.data.files.volume import Volume, check_size, same_length
from ambdiff.errors import UserError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SAME_DIRECTION = 2e-3  # of the components of unit vectors
_UPRIGHT = np.cos(np.radians(0.5))


def read_slice(path: str | os.PathLike) -> Volume:
    """The image of one DICOM file, [1, H, W, C], or [F, H, W, C] of its F frames.

    Raises:
      UserError: not a DICOM image, truncated, damaged, or compressed in a way that needs more software.
    """
    return read_series([path])


def read_series(source: str | os.PathLike | Iterable[str | os.PathLike], *, mend: bool = False) -> Volume:
    """The volume of one series.

    Args:
      source: the folder of a series, or its files.
      mend: missing slices and repeated positions are noted, and of a repeated position the first file by name kept,
        instead of refused: for use slice by slice. The affine is then that of evenly spaced slices, None after a gap.

    Raises:
      UserError: names the file and what is wrong: no image, several series, slices of other size, spacing or
        direction, a slice missing, a position twice, and what `read_slice` raises.
    """
    slices, notes = sort_slices(source, mend=mend)
    values = decode(slices)
    first = slices[0]
    affine, gap = _affine(slices, notes)
    return Volume(
        np.stack(values),
        'dicom',
        units=first.units,
        spacing=(gap, *first.spacing),
        affine=affine,
        files=tuple(str(piece.file) for piece in slices),
        frames=tuple(piece.frame for piece in slices),
        notes=tuple(dict.fromkeys((*notes, *(note for piece in slices for note in piece.notes)))),
    )


def sort_slices(
    source: str | os.PathLike | Iterable[str | os.PathLike], *, mend: bool = False
) -> tuple[list[Slice], list[str]]:
    """The slices of a series in the order of space, checked against each other, and notes on what was left out.

    Args and errors as `read_series`; only headers are read. `dicom_file.decode` gives the values of some of them.
    """
    folder = isinstance(source, str | os.PathLike)
    files = _files_of(pathlib.Path(source)) if folder else [pathlib.Path(file) for file in source]
    where = str(source) if folder else ', '.join(map(str, files[:1]))
    slices, notes = [], []
    for file in sorted(files):
        header = read_header(file)
        if reason := not_an_image(header):
            notes.append(f'{file.name}: {reason}, skipped')
        else:
            slices += slices_of(file, header)
    if not slices:
        raise UserError(f'{where}: holds no DICOM image{f" ({notes[0]})" if notes else ""}; name a series of images')
    placed = any(piece.position is not None and piece.directions is not None for piece in slices)
    in_order = not placed and len({piece.file for piece in slices}) == 1  # frames of one file, or a single slice
    slices = slices if in_order else _parallel(slices, notes)
    _check_alike(slices)
    check_size(where, (len(slices), *slices[0].shape))
    if not in_order:
        slices = _without_repeats(sorted(slices, key=lambda piece: piece.place), notes, mend)
        _check_gaps(slices, notes, mend)
    return slices, notes


def _files_of(folder):
    """The DICOM files directly in a folder; others, and hidden ones, are no part of a series."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith('.'))
    files = [path for path in found if is_dicom(path)]
    if not files:
        inside = next((path.parent for path in sorted(folder.glob('*/**/*.dcm'))), None)
        hint = f'; did you mean {inside}?' if inside else '; name the folder of a series'
        raise UserError(f'{folder}: holds no DICOM file{hint}')
    return [path for path in files if path.name.upper() != 'DICOMDIR']


def _parallel(slices, notes):
    """The slices in the direction that more than half of them have; the others are noted as left out.

    Raises:
      UserError: no direction is that of more than half.
    """
    known = [piece for piece in slices if piece.position is not None and piece.directions is not None]
    lost = [piece for piece in slices if piece.position is None or piece.directions is None]
    if len(slices) >= 2 * len(known):
        raise UserError(
            f'{lost[0].file}: has no ImagePositionPatient and ImageOrientationPatient, so the {len(slices)} slices of '
            'the series cannot be put in order; give one file at a time'
        )
    directions = np.stack([piece.directions for piece in known])
    distance = lambda other: np.abs(directions - other).max((1, 2))
    inside = distance(np.median(directions, axis=0)) < _SAME_DIRECTION  # the median, by component, is a majority's
    kept = [piece for piece, is_inside in zip(known, inside, strict=True) if is_inside]
    if len(slices) >= 2 * len(kept):
        far = known[int(distance(directions[0]).argmax())]
        raise UserError(f'{far.file}: lies in another direction than {known[0].file.name}; keep one series a folder')
    across = [piece for piece, is_inside in zip(known, inside, strict=True) if not is_inside]
    for odd, why in ((across, f'in another direction than the other {len(kept)} slices'), (lost, 'without a position')):
        if odd:
            names = sorted({piece.file.name for piece in odd})
            notes.append(f'{names[0]}{f" and {len(names) - 1} more" if len(names) > 1 else ""}: {why}, left out')
    return kept


def _check_alike(slices):
    """Refuses slices that cannot be one volume, naming the first that differs."""
    first = slices[0]
    for piece in slices[1:]:
        for what, ours, theirs, cure in (
            ('series', first.series, piece.series, 'keep one series a folder'),
            ('size', first.shape, piece.shape, 'keep one series a folder'),
            ('pixel spacing in mm', first.spacing, piece.spacing, 'resample it, or keep it apart'),
            ('unit', first.units, piece.units, 'keep one series a folder'),
        ):
            same = np.allclose(ours, theirs, rtol=1e-3, equal_nan=True) if 'spacing' in what else ours == theirs
            if not same:
                raise UserError(f'{piece.file}: {what} {theirs}, but {first.file.name} has {ours}; {cure}')


def _without_repeats(slices, notes, mend):
    kept = slices[:1]
    for piece in slices[1:]:
        if piece.place - kept[-1].place > 1e-3:
            kept.append(piece)
            continue
        message = f'{piece.file}: at the same position as {kept[-1].file.name} ({piece.place:g} mm along the series)'
        cure = 'keep one of them'
        if piece.file == kept[-1].file:  # phases, echoes
            message = f'{piece.file}: its frames {kept[-1].frame} and {piece.frame} lie at the same position'
            cure = 'store the frames of each phase in a file of their own'
        if not mend:
            raise UserError(f'{message}; {cure}')
        notes.append(f'{message}, left out')
    return kept


def _uneven(slices):
    """(places before which the distance is not the usual one, distances in mm, the usual one)."""
    if len(slices) < 3:
        return [], [], np.nan
    gaps = np.diff([piece.place for piece in slices])
    usual = float(np.median(gaps))
    # Positions are often rounded to 0.1 mm.
    return np.flatnonzero(np.abs(gaps - usual) > min(max(0.2 * usual, 0.11), 0.5 * usual)) + 1, gaps, usual


def _check_gaps(slices, notes, mend):
    places, gaps, usual = _uneven(slices)
    for place in places:
        gap = gaps[place - 1]
        lost = round(gap / usual) - 1
        what = f'{lost} missing' if lost > 0 else 'unevenly spaced, one missing or moved'
        message = (
            f'{slices[place].file}: slices {what} between it and {slices[place - 1].file.name} '
            f'({gap:.4g} mm apart, the others {usual:.4g} mm)'
        )
        if not mend:
            raise UserError(f'{message}; complete the series')
        notes.append(message)


def _affine(slices, notes):
    """([4, 4] (slice, row, column, 1) -> RAS mm or None, distance of slices in mm); after a gap it is the usual one."""
    first = slices[0]
    gap = first.thickness if len(slices) == 1 or np.isnan(first.between) else first.between
    if first.position is None or first.directions is None:
        return None, gap
    normal, even = np.cross(*first.directions), True
    step = normal * (gap if np.isfinite(gap) else 1.0)
    if len(slices) > 1:
        steps = np.diff([piece.position for piece in slices], axis=0)
        even, step = not len(_uneven(slices)[0]), steps.mean(axis=0)
        gap = float(np.linalg.norm(step) if even else np.median(np.linalg.norm(steps, axis=1)))
        along = abs(float(normal @ step)) / float(np.linalg.norm(step))
        if even and along < _UPRIGHT:
            notes.append(f'its slices are shifted by {np.degrees(np.arccos(along)):.3g} degrees (a tilted gantry)')
        if even and not (same_length(gap, first.between) or same_length(gap * along, first.between)):
            notes.append(
                f'its slices lie {gap:.4g} mm apart, which counts, and SpacingBetweenSlices is {first.between:.4g} mm'
            )
    if not even or not np.isfinite(first.spacing).all():
        return None, gap
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.directions[1] * first.spacing[0]
    affine[:3, 2] = first.directions[0] * first.spacing[1]
    affine[:3, 3] = first.position
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    return affine, gap
