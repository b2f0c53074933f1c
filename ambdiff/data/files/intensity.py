"""Stored values to the [0, 1] that the networks are trained on, by one of the ways a config may name.

hu_window    (HU - low) / (high - low), clipped: calibrated CT
percentile   (v - p1) / (p99 - p1), clipped, percentiles of each volume and channel where v > 0: MRI
b_mode       (v - p1) / (p99.9 - p1), clipped, percentiles of each image where v > 0: ultrasound. B-mode values are the
             envelope's logarithm, in which speckle adds a noise of the same strength everywhere, gain is an offset
             and dynamic range a scale; both go. Bone is the brightest percent of an image, so p99 would cut it off
full_range   v / the largest value of the stored integer type: 8- and 16-bit pictures
"""

import numpy as np

from ambdiff.errors import UserError

KINDS = ('hu_window', 'percentile', 'b_mode', 'full_range')


def to_unit(values: np.ndarray, kind: str, hu_window: tuple[float, float] = (-1000.0, 400.0)) -> np.ndarray:
    """Values [Z, H, W, C] as stored -> float32 in [0, 1].

    Args:
      values: HU for 'hu_window'; of an unsigned integer type, or already in [0, 1], for 'full_range'.
      kind: one of KINDS.
      hu_window: (low, high) in HU.

    Raises:
      UserError: unknown kind, or a window that is not low < high.
    """
    if kind == 'hu_window':
        low, high = hu_window
        if not low < high:
            raise UserError(f'config.data.hu_window={tuple(hu_window)} must be (low, high) in HU with low < high')
        return np.clip((values.astype(np.float32) - low) / (high - low), 0, 1)
    if kind == 'percentile':
        return np.stack([_percentile(values[..., c], 99) for c in range(values.shape[-1])], axis=-1)
    if kind == 'b_mode':
        return np.stack([_percentile(picture, 99.9) for picture in values])
    if kind == 'full_range':
        most = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else 1.0
        return np.clip(values.astype(np.float32) / most, 0, 1)
    raise UserError(f'config.data.intensity={kind!r} is not known; use one of {", ".join(KINDS)}')


def _percentile(channel: np.ndarray, upper: float) -> np.ndarray:
    channel = channel.astype(np.float32)
    inside = channel[channel > 0]
    low, high = np.percentile(inside, (1, upper)) if inside.size else (0.0, 0.0)
    # A constant image has no contrast to bring out.
    return np.clip((channel - low) / max(high - low, 1e-6), 0, 1)
