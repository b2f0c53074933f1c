"""A file's values in the range that the weights were trained in; what the file does not say is guessed, and noted."""

from collections.abc import Callable, Collection

import numpy as np

from ambdiff.data.files.intensity import to_unit
from ambdiff.data.files.volume import SCALED, Volume

_DEPTHS = (8, 10, 12, 14, 16)  # bits of a pixel that pictures come with

Window = tuple[float, float, str]  # what 0 and 1 stand for, and the unit


def in_unit_range(
    volume: Volume, data, slices: Collection[int]
) -> tuple[dict[int, np.ndarray], Window, tuple[str, ...]]:
    """({slice: [H, W, C] float32 in [0, 1]} of these slices, what 0 and 1 stand for, notes).

    data: the data group of the weights' config.
    """
    kind = data.intensity
    low, high = data.hu_window if kind == 'hu_window' else (0.0, 1.0)
    hu, notes = are_hu(volume, data), []
    if hu and volume.units != 'HU':
        notes.append('the file does not say that it holds HU; values below -500 are taken as such')
    if volume.units == SCALED:
        return {z: volume.values[z] for z in slices}, (low, high, 'HU' if kind == 'hu_window' else ''), ()
    if kind == 'percentile':  # of the whole volume
        unit = to_unit(volume.values, kind)
        # Copies, so that the whole is not kept for the sake of a few.
        every = len(slices) == len(unit)
        return {z: unit[z] if every else unit[z].copy() for z in slices}, (low, high, ''), ()
    if kind == 'b_mode' or (kind == 'hu_window' and hu):
        convert = lambda values: to_unit(values, kind, data.hu_window)
        window = (low, high, 'HU' if kind == 'hu_window' else '')
    else:
        convert, guess, sure = _by_range(volume.values, kind)
        if not sure and kind == 'full_range':
            notes.append(f'no unsigned integers: {guess} is taken as black to white')
        if kind == 'hu_window':
            notes.append(f'no HU: {guess} is taken as {low:g} to {high:g} HU, the range the weights were trained on')
        window = (low, high, 'HU assumed' if kind == 'hu_window' else '')
    return {z: convert(volume.values[z : z + 1])[0] for z in slices}, window, tuple(notes)


def are_hu(volume: Volume, data) -> bool:
    """Whether an image holds HU, as far as its file and the weights tell."""
    if volume.units in ('HU', SCALED):
        return volume.units == 'HU'
    return data.intensity == 'hu_window' and volume.kind != 'dicom' and bool(volume.values.min() < -500)


def _by_range(values: np.ndarray, kind: str) -> tuple[Callable[[np.ndarray], np.ndarray], str, bool]:
    """(conversion to [0, 1], the range it takes as black to white, whether that is the range of the type)."""
    if np.issubdtype(values.dtype, np.unsignedinteger):
        bits = next(b for b in (*_DEPTHS, 64) if values.max() < 2**b)
        if kind == 'full_range' and bits < 8 * values.dtype.itemsize and values.dtype != np.uint8:
            bits = 8 * values.dtype.itemsize
        return lambda v: np.clip(v.astype(np.float32) / (2.0**bits - 1), 0, 1), f'its {bits}-bit range', True
    least, most = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.floating) and least >= 0 and most <= 1:
        return lambda v: v.astype(np.float32), 'its range 0 to 1', True
    span = max(most - least, 1e-6)
    return lambda v: (v.astype(np.float32) - least) / span, f'the range of its values, {least:g} to {most:g},', False
