"""A case as crops of the network's size, and the way back from their masks to the image.

Where points are given, one crop is drawn around each, moved inside the image where it would stick out. Else every
slice is covered by tiles that overlap by a quarter. Crops are merged into the whole slice by a weight that falls off
smoothly from a crop's centre:

    share(pixel) = sum_c w_c(pixel) mask_c(pixel) / sum_c w_c(pixel),     sample = share > 1/2

Sample i of a case has the same start and level in all its crops, as if one reader had looked at all of them: that keeps
crops that overlap, and slices that follow each other, in agreement. Pixels that no crop covers are background.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ambdiff.data.files.intensity import to_unit
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.prediction.cases import Point

_DEPTHS = (8, 10, 12, 14, 16)  # bits of a pixel that pictures come with
_OBLONG = 1.01  # pixels longer than wide by more than this are resampled to squares


class Plan:
    """A case as crops, and the way back from their masks to the image.

    Attributes:
      shape: (slices, height, width) of the image.
      images: {slice: [H, W, C] float32 in [0, 1]} of the slices with crops, as the network is to see them, before
        resampling.
      crops: (slice, top, left) of each in the resampled slice, in the order of slices.
      boxes: for each point (slice, top, left, bottom, right) of its crop in the image.
      window: what 0 and 1 of `images` stand for, and the unit.
      notes: what had to be guessed or changed, a phrase each.
    """

    def __init__(self, volume: Volume, data, points: Sequence[Point]):
        self.notes = list(volume.notes)
        unit, self.window = self._unit(volume, data)
        self.shape = unit.shape[:3]
        height, width = self.shape[1:]
        self._size = data.image_size
        self._grid = self._resampled(volume, data)
        self.crops: list[tuple[int, int, int]] = []
        self.boxes = []
        if points:
            for z, row, column in (to_volume(point, volume) for point in points):
                place = []
                for index, length, resampled in zip((row, column), (height, width), self._grid, strict=True):
                    middle = (index + 0.5) * resampled / length
                    place.append(int(np.clip(round(middle - self._size / 2), 0, max(resampled - self._size, 0))))
                self.crops.append((z, *place))
                scale = np.array(self._grid) / (height, width)
                low = np.floor(np.array(place) / scale).astype(int)
                high = np.ceil((np.array(place) + self._size) / scale).astype(int)
                self.boxes.append((z, *low.tolist(), *np.minimum(high, (height, width)).tolist()))
        else:
            starts = [_starts(length, self._size) for length in self._grid]
            self.crops = [(z, y, x) for z in range(self.shape[0]) for y in starts[0] for x in starts[1]]
        self.crops.sort()
        # Of a volume with a few points only these are held while other cases are read.
        chosen = {z for z, *_ in self.crops}
        self.images = {z: unit[z].copy() if len(chosen) < len(unit) else unit[z] for z in chosen}

    def _unit(self, volume: Volume, data) -> tuple[np.ndarray, tuple[float, float, str]]:
        """The image in [0, 1] by the rule of the weights; what cannot follow it is guessed, and noted."""
        values, kind = volume.values, data.intensity
        low, high = data.hu_window if kind == 'hu_window' else (0.0, 1.0)
        hu = volume.units == 'HU'
        if kind == 'hu_window' and not hu and not volume.files and values.min() < -500:
            self.notes.append('the file does not say that it holds HU; values below -500 are taken as such')
            hu = True
        if kind in ('percentile', 'b_mode') or (kind == 'hu_window' and hu):
            unit = to_unit(values, kind, data.hu_window)
            return unit, (low, high, 'HU' if kind == 'hu_window' else '')
        if np.issubdtype(values.dtype, np.unsignedinteger):
            bits = next(b for b in (*_DEPTHS, 64) if values.max() < 2**b)
            if kind == 'full_range' and bits < 8 * values.dtype.itemsize and values.dtype != np.uint8:
                bits = 8 * values.dtype.itemsize
            unit, guess = np.clip(values.astype(np.float32) / (2.0**bits - 1), 0, 1), f'its {bits}-bit range'
        elif np.issubdtype(values.dtype, np.floating) and values.min() >= 0 and values.max() <= 1:
            unit, guess = values.astype(np.float32), 'its range 0 to 1'
        else:
            least, most = float(values.min()), float(values.max())
            unit = (values.astype(np.float32) - least) / max(most - least, 1e-6)
            guess = f'the range of its values, {least:g} to {most:g},'
            if kind == 'full_range':
                self.notes.append(f'no unsigned integers: {guess} is taken as black to white')
        if kind == 'hu_window':
            self.notes.append(
                f'no HU: {guess} is taken as {low:g} to {high:g} HU, the range the weights were trained on'
            )
        return unit, (low, high, 'HU?' if kind == 'hu_window' else '')

    def _resampled(self, volume: Volume, data) -> tuple[int, int]:
        """Height and width of a slice in the pixels the weights were trained on."""
        size, spacing = np.array(volume.values.shape[1:3]), np.array(volume.spacing[1:])
        if not np.isfinite(spacing).all():
            if data.spacing:
                self.notes.append(
                    f'pixel spacing unknown: its pixels are taken as {data.spacing:g} mm, the spacing of the weights'
                )
            return tuple(size.tolist())
        target = data.spacing or spacing.min()
        if not data.spacing and spacing.max() / spacing.min() < _OBLONG:
            return tuple(size.tolist())
        grid = np.maximum(np.rint(size * spacing / target), 1).astype(int)
        if (grid > 8 * 4096).any() or grid.prod() > 1 << 26:
            raise UserError(
                f'a slice of {size[0]}x{size[1]} pixels of {spacing[0]:g}x{spacing[1]:g} mm would have '
                f'{grid[0]}x{grid[1]} at {target:g} mm, the spacing of the weights; is its spacing right?'
            )
        if (grid != size).any():
            self.notes.append(
                f'resampled from {spacing[0]:.3g}x{spacing[1]:.3g} mm to {target:.3g} mm a pixel, and back'
            )
        return tuple(grid.tolist())

    def draw(self) -> Iterator[np.ndarray]:
        """The crops [S, S, C] float32, in order; beyond the image it is reflected."""
        at, image = None, None
        for z, top, left in self.crops:
            if z != at:
                at, image = z, _resize(self.images[z], self._grid)
            crop = image[top : top + self._size, left : left + self._size]
            short = [self._size - side for side in crop.shape[:2]]
            yield np.pad(crop, [(0, short[0]), (0, short[1]), (0, 0)], mode='reflect')

    def merge(self, masks: Iterator[np.ndarray], num_samples: int, num_classes: int = 1) -> np.ndarray:
        """Masks [N, S, S] of the crops, in their order -> samples uint8 [N, Z, H, W], labels where K > 1."""
        samples = np.zeros((num_samples, *self.shape), np.uint8)
        weight = _weight(self._size)
        total = shares = None
        for index, mask in enumerate(masks):
            z, top, left = self.crops[index]
            if index == 0 or z != self.crops[index - 1][0]:
                total = np.zeros(self._grid, np.float32)
                shares = np.zeros((num_classes, num_samples, *self._grid), np.float32)
            inside = (slice(top, top + self._size), slice(left, left + self._size))
            tall, wide = total[inside].shape
            part = weight[:tall, :wide]
            total[inside] += part
            for label in range(num_classes):
                shares[label][:, *inside] += part * (mask[:, :tall, :wide] == label + 1)
            if index + 1 == len(self.crops) or self.crops[index + 1][0] != z:
                samples[:, z] = self._labels(shares, total)
        return samples

    def _labels(self, shares: np.ndarray, total: np.ndarray) -> np.ndarray:
        """Weighted sums [K, N, h, w] of a slice -> labels [N, H, W] in the image's own pixels."""
        size = self.shape[1:]
        result = np.zeros((shares.shape[1], *size), np.uint8)
        for number in range(shares.shape[1]):
            share = np.divide(shares[:, number], total, out=np.zeros_like(shares[:, number]), where=total > 0)
            share = np.moveaxis(_resize(np.moveaxis(share, 0, -1), size), -1, 0)
            background = 1 - share.sum(0)
            result[number] = np.where(share.max(0) > background, share.argmax(0) + 1, 0)
        return result


def to_volume(point: Point, volume: Volume) -> tuple[int, float, float]:
    """(slice, row, column) of a point (x, y[, z]), counted from 0 along the file's own axes.

    Pictures and DICOM: x is the column, y the row, z the slice. NIfTI: the first, second and third index of the file.

    Raises:
      UserError: outside the image, or z is missing where there are slices.
    """
    slices, height, width = volume.values.shape[:3]
    # Pictures and DICOM are stored as (slice, row, column), counted the other way round.
    axes = volume.file_axes
    order = list(axes) if volume.kind == 'nifti' else [2 - axis for axis in axes]
    if len(point) == 2:
        missing = order.index(2)
        if volume.values.shape[missing] > 1:
            raise UserError(f'has {volume.values.shape[missing]} slices: give points as x,y,z')
        point = (*point, 0.0)
    place = [point[axis] for axis in order]
    for axis, flip in enumerate(volume.file_flips):
        if flip:
            place[axis] = volume.values.shape[axis] - 1 - place[axis]
    if not all(-0.5 <= value <= size - 0.5 for value, size in zip(place, (slices, height, width), strict=True)):
        sides = 'x'.join(str(volume.values.shape[order.index(axis)]) for axis in range(3))
        raise UserError(f'the point {",".join(f"{v:g}" for v in point)} lies outside its {sides} pixels (x, y, slices)')
    return min(max(round(place[0]), 0), slices - 1), place[1], place[2]


def _starts(length: int, size: int) -> list[int]:
    """First pixels of tiles of `size` that cover `length` evenly and overlap by at least a quarter."""
    if length <= size:
        return [0]
    count = -(-(length - size) // (size - size // 4)) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def _weight(size: int) -> np.ndarray:
    """[S, S] float32 above 0: a squared sine each way."""
    side = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    return np.outer(side, side).astype(np.float32)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, C] float32 to another height and width, linear, averaged where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    channels = np.moveaxis(image, -1, 0)
    resize = lambda x: np.asarray(Image.fromarray(x).resize(size[::-1], Image.Resampling.BILINEAR))
    return np.stack([resize(np.ascontiguousarray(channel, np.float32)) for channel in channels], -1)
