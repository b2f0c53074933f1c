"""Crops unlike any that lung weights were trained on: told, not refused.

The limits are those of the 1823 training crops of LIDC-IDRI (64x64 pixels, -1000 to 400 HU as 0 to 1, PHiSeg's HDF5
file), each with some room beyond the most extreme one:

  contrast  95th less 5th percentile: .102 and more there, below .10 is unlike
  clipped   share of pixels at 0 or 1: .668 and less there, above .70 is unlike
  mean      .044 to .744 there; below .03 or above .78 is unlike
  spacing   .46 to .98 mm in LIDC-IDRI; below .4 or above 1.1 is unlike

So they speak of weights for such crops alone: others get no such warning.
"""

from collections.abc import Iterable

import numpy as np

from ambdiff.data.files import neighbours

_SIZE, _WINDOW = 64, (-1000.0, 400.0)
_CONTRAST, _CLIPPED, _MEAN, _SPACING = 0.10, 0.70, (0.03, 0.78), (0.4, 1.1)
_MOST = 256  # crops looked at


def notes(data, spacing: tuple[float, float], crops: Iterable[np.ndarray], count: int) -> list[str]:
    """What of an image is unlike the training crops, a phrase each; none for weights of other crops.

    Args:
      data: the data group of the weights' config.
      spacing: (row, column) mm a pixel of the image; NaN where unknown.
      crops: [S, S, C] float32 in [0, 1].
      count: how many crops there are.
    """
    lung = data.intensity == 'hu_window' and tuple(data.hu_window) == _WINDOW and data.image_size == _SIZE
    if not lung or neighbours.own_channels(data) != 1:
        return []
    found = []
    if not data.spacing and np.isfinite(spacing).all() and not _SPACING[0] <= min(spacing) <= _SPACING[1]:
        found.append(f'pixels of {min(spacing):.3g} mm are unlike those the weights were trained on, 0.46 to 0.98 mm')
    looked, unlike = 0, []
    for crop in crops:
        if looked == _MOST:
            break
        looked += 1
        crop = neighbours.own(crop, data.neighbours)
        low, high = np.quantile(crop, (0.05, 0.95))
        clipped, mean = np.mean((crop <= 0) | (crop >= 1)), crop.mean()
        if high - low < _CONTRAST:
            reason = f'hardly any contrast ({high - low:.2f} of the window)'
        elif clipped > _CLIPPED:
            reason = f'{clipped:.0%} of the pixels at the ends of the window'
        elif not _MEAN[0] <= mean <= _MEAN[1]:
            reason = f'a mean of {mean:.2f} of the window'
        else:
            continue
        unlike.append(reason)
    if unlike:
        of = 'the crop is' if count == 1 else f'{len(unlike)} of {looked} crops are'
        found.append(f'{of} unlike those the weights were trained on ({unlike[0]}): do not rely on the samples')
    return found
