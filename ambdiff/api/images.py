"""An image that a caller gives as an array -> the Volume that prediction takes.

Values come as they are stored (HU where the weights were trained on them), or scaled to the [0, 1] that the network
takes. What cannot be meant is refused with the cure, for any values give samples that look plausible.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike

from ambdiff import arrays
from ambdiff.data.example import check_side
from ambdiff.data.files.volume import SCALED, Volume
from ambdiff.errors import UserError

_AIR = -1000  # HU
_LARGEST_HU = 1 << 15
_STANDARDISED = 10  # standard deviations: no CT slice spans so few HU, noise alone has more
_ROUNDING = 1e-3  # that resampling may put values beside [0, 1]
_TEXT = 'is text: give an array, and files to model.predict(PATH)'


def volume(given: ArrayLike, name: str, data, scaled: bool, spacing: tuple[float, float] | None) -> Volume:
    """The image as one slice.

    Args:
      given: [H, W] or [H, W, C]; of weights with config.data.neighbours = k the 2 k + 1 slices along C.
      name: the caller's name for it, for what is told.
      data: the data group of the weights' config.
      scaled: whether the values are in [0, 1], else as stored.
      spacing: (row, column) distance in mm; None where unknown.

    Raises:
      UserError: another shape, or values that cannot be meant.
    """
    image = arrays.numeric(given, name, _TEXT)
    image = _shaped(image, name, data.channels)
    arrays.finite(image, name, f'give a value, for instance numpy.nan_to_num({name}, nan={_empty(data, scaled):g})')
    if image.dtype == bool:
        raise UserError(f'{name} is bool: give the image, not a mask')
    if scaled:
        _check_scaled(image, name, data)
    else:
        _check_stored(image, name, data)
    if scaled:
        image = np.clip(image.astype(np.float32), 0, 1)
    elif image.dtype.kind != 'u':
        image = image.astype(np.float32)
    units = SCALED if scaled else 'HU' if data.intensity == 'hu_window' else 'arbitrary'
    return Volume(image[None], units=units, spacing=(np.nan, *(spacing or (np.nan, np.nan))))


def sha256(image: Volume) -> str:
    """SHA-256 of the values, whatever type they came in."""
    values = np.ascontiguousarray(image.values, np.float32)
    return hashlib.sha256(f'{image.units} {values.shape} '.encode() + values.tobytes()).hexdigest()


def stored(data) -> str:
    """What values the weights take as stored, in words; data: the data group of their config."""
    return {
        'hu_window': f'HU ({data.hu_window[0]:g} to {data.hu_window[1]:g} matter)',
        'full_range': 'uint8 or uint16 as stored',
        'percentile': 'intensities as stored, 0 outside the body',
        'b_mode': 'B-mode grey values as stored',
    }[data.intensity]


def _shaped(image: np.ndarray, name: str, channels: int) -> np.ndarray:
    """[H, W] or [H, W, C] -> [H, W, C]."""
    meant = f'[H, W] or [H, W, {channels}]' if channels == 1 else f'[H, W, {channels}]'
    shape = 'x'.join(map(str, image.shape)) or 'no axis'
    if image.ndim == 2 and channels == 1:
        image = image[..., None]
    if image.ndim == 3 and image.shape[-1] == channels:
        check_side(name, *image.shape[:2])
        return image
    if image.ndim == 3 and image.shape[0] == channels:
        cure = f'channels come last, numpy.moveaxis({name}, 0, -1)'
    elif image.ndim == 3 and channels == 1 and image.shape[-1] in (3, 4):
        cure = 'of a colour picture give one grey channel'
    elif image.ndim == 3 and channels == 1:
        cure = 'of several images or slices give batched=True'
    elif image.ndim == 2:
        cure = f'give its {channels} channels along the last axis'
    elif image.ndim == 4:
        cure = 'of several images give batched=True'
    else:
        cure = 'of one image leave out batched=True' if name.endswith(']') else 'give one image'
    raise UserError(f'{name} has shape {shape}, and {meant} is meant: {cure}')


def _check_scaled(image: np.ndarray, name: str, data) -> None:
    low, high = float(image.min()), float(image.max())
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return
    if low >= -1 - _ROUNDING and high <= 1 + _ROUNDING:
        cure = f'give ({name} + 1) / 2'
    elif low >= 0 and high <= 255:
        cure = f'give {name} / 255'
    elif data.intensity == 'hu_window' and low < -100:
        cure = 'they look like HU, which are taken as they are: leave scaled=True out'
    else:
        cure = f'leave scaled=True out for values as stored, which are {stored(data)}'
    raise UserError(f'{name} has values {low:g} to {high:g} with scaled=True, which means 0 to 1: {cure}')


def _check_stored(image: np.ndarray, name: str, data) -> None:
    if data.neighbours and data.intensity in ('percentile', 'b_mode'):
        raise UserError(
            f'{name} is one slice and those beside it, and the weights scale by percentiles of what they are from: '
            'give the file to model.predict, or values in 0 to 1 with scaled=True'
        )
    low, high = float(image.min()), float(image.max())
    cure = ''
    if data.intensity == 'hu_window':
        cure = _no_hu(image, name, low, high, data.hu_window)
    elif low >= -1 and high <= 1 and low < -0.5:
        cure = f'give ({name} + 1) / 2 with scaled=True'
    elif data.intensity == 'full_range':
        if image.dtype.kind != 'u' and (low < 0 or high > 1):
            kind = 'uint8' if high <= 255 else 'uint16'
            small = low >= 0 and high < 1 << 16
            cure = f'give {name}.astype(numpy.{kind})' if small else 'give values in 0 to 1 with scaled=True'
    elif low < -max(high, 0) / 2:
        cure = 'stored values are not negative; give what was stored, or values in 0 to 1 with scaled=True'
    if cure:
        kind = '' if image.dtype.kind == 'f' else f'{image.dtype} '
        raise UserError(f'{name} has {kind}values {low:g} to {high:g}, and {stored(data)} are meant: {cure}')


def _no_hu(image: np.ndarray, name: str, low: float, high: float, window: tuple[float, float]) -> str:
    """The cure where values are no HU; '' where they can be."""
    if image.dtype == np.uint8:
        return f'give HU, or {name} / 255 with scaled=True where black to white is {window[0]:g} to {window[1]:g} HU'
    if image.dtype.kind == 'u':
        return 'unsigned numbers lack the rescale of the file; give values * slope + intercept'
    if low == high:
        return ''  # one value says nothing
    if low >= 0 and high <= 1:
        return 'give scaled=True where they are scaled'
    if low >= -1 and high <= 1:
        return f'give ({name} + 1) / 2 with scaled=True where they are scaled'
    if low < 0 and max(-low, high) <= _STANDARDISED and (image != np.rint(image)).any():
        return f'they look standardised; undo that, {name} * std + mean'
    if low >= 0 and high <= 255:
        scale = f'({name} - {window[0]:g}) / {window[1] - window[0]:g}'
        return (
            f'give {name} / 255 with scaled=True where they are grey values, {scale} with scaled=True where they are HU'
        )
    if low < -_LARGEST_HU or high > _LARGEST_HU:
        return 'give values * slope + intercept of the file'
    return ''


def _empty(data, scaled: bool) -> float:
    """The value of nothing: air, or black."""
    return _AIR if data.intensity == 'hu_window' and not scaled else 0.0
