"""A plan: an image as crops of the network's size, in the pixels it was trained on.

Where points are given, one crop is cut around each, moved inside the image where it would stick out, on the point's
slice and those around it (follow.py). Else every slice is covered by tiles that overlap by a quarter; of a CT those
that show nothing of the body are left out.

Sample i of an image has the same start and level in all its crops, as if one reader had looked at all of them: that
keeps crops that overlap, and slices that follow each other, in agreement.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from ambdiff.data.files import neighbours
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.prediction import body, follow, samples, unlike, values
from ambdiff.prediction.points import Point, to_volume

_OBLONG = 1.01  # pixels longer than wide by more than this are resampled to squares
_WORKING = 1 << 28  # bytes that merging and writing take beside what grows with the image and with N


class Plan:
    """An image as crops.

    Attributes:
      shape: (slices, height, width) of the image.
      grid: (height, width) of a slice in the pixels that the weights were trained on.
      crop_size: height and width of a crop.
      images: {slice: [H, W, C] float32 in [0, 1]} of the slices with crops, before resampling; the network sees the
        slices on either side beside them where the weights were trained so (config.data.neighbours).
      crops: (slice, top, left) of each in the resampled slice, in the order of slices.
      regions: for each point where is looked around it.
      window: what 0 and 1 of `images` stand for, and the unit.
      notes: what had to be guessed or changed, a phrase each.
    """

    def __init__(self, volume: Volume, data, points: Sequence[Point], slices: int, everywhere: bool = False):
        """Cuts the image.

        Args:
          volume: the image.
          data: the data group of the weights' config.
          points: to look at; none for tiles.
          slices: to look at around a point, as `Settings` has them.
          everywhere: no tile is left out.

        Raises:
          UserError: a point lies outside the image, or the image cannot be resampled.
        """
        self.shape = volume.values.shape[:3]
        self.crop_size = data.image_size
        self._k = _neighbours(volume, data)
        self.notes = list(volume.notes)
        self.grid = self._resampled(volume, data)
        self.crops: list[tuple[int, int, int]] = []
        self.regions: list[follow.Region] = []
        for point in points:
            z, row, column = to_volume(point, volume)
            self._add(z, row, column, follow.slices(z, self.shape[0], slices, volume.spacing[0]))
        if not points:
            starts = [_starts(length, self.crop_size) for length in self.grid]
            self.crops = [(z, y, x) for z in range(self.shape[0]) for y in starts[0] for x in starts[1]]
            if not everywhere and values.are_hu(volume, data):
                self._leave_out_air(volume)
        self.crops = sorted(set(self.crops))  # a crop that two points share is sampled once
        looked = sorted({z for z, *_ in self.crops})
        beside = {near for z in looked for near in neighbours.places(z, self._k, self.shape[0])}
        self._slices, self.window, notes = values.in_unit_range(volume, data, sorted(beside))
        given_beside = data.neighbours - self._k  # as channels of an array
        self.images = {z: neighbours.own(self._slices[z], given_beside) for z in looked}
        self.notes += notes
        self.notes += unlike.notes(data, volume.spacing[1:], self.cut(), len(self.crops))

    def _add(self, z: int, row: float, column: float, around: range) -> None:
        """The crops around a point of slice z, on the slices around it."""
        size = self.shape[1:]
        place = []
        for index, length, resampled in zip((row, column), size, self.grid, strict=True):
            middle = (index + 0.5) * resampled / length
            place.append(int(np.clip(round(middle - self.crop_size / 2), 0, max(resampled - self.crop_size, 0))))
        self.crops += [(each, *place) for each in around]
        scale = np.array(self.grid) / size
        low = np.floor(np.array(place) / scale).astype(int)
        high = np.ceil((np.array(place) + self.crop_size) / scale).astype(int)
        high = np.minimum(high, size)
        self.regions.append(follow.Region(z, *low.tolist(), *high.tolist(), around.start, around.stop))

    def _leave_out_air(self, volume: Volume) -> None:
        """Of the tiles those that show the body remain; of an image in which it is not found, all."""
        if (found := body.find(volume)) is None:
            return
        (height, width), size = self.grid, self.crop_size
        share = lambda y, x: (y / height, x / width)
        inside = [
            (z, y, x) for z, y, x in self.crops if body.touches(found[z], *share(y, x), *share(y + size, x + size))
        ]
        if left_out := len(self.crops) - len(inside):
            self.notes.append(
                f'{left_out} of {len(self.crops)} tiles show nothing of the body and were not sampled; '
                '--everywhere samples them'
            )
            self.crops = inside

    def _resampled(self, volume: Volume, data) -> tuple[int, int]:
        """Height and width of a slice in the pixels the weights were trained on."""
        size, spacing = np.array(volume.values.shape[1:3]), np.array(volume.spacing[1:])
        if not np.isfinite(spacing).all():
            if data.spacing:
                self.notes.append(
                    f'pixel spacing unknown: its pixels are taken as {data.spacing:g} mm, the spacing of the weights'
                )
            return tuple(size.tolist())
        if (spacing <= 0).any():
            raise UserError(f'pixel spacing {spacing[0]:g}x{spacing[1]:g} mm cannot be; mend it, or remove it')
        target = data.spacing or spacing.min()
        if not data.spacing and spacing.max() / spacing.min() < _OBLONG:
            return tuple(size.tolist())
        wanted = np.maximum(np.rint(size * spacing / target), 1)
        if (wanted > 8 * 4096).any() or wanted.prod() > 1 << 26:
            raise UserError(
                f'a slice of {size[0]}x{size[1]} pixels of {spacing[0]:g}x{spacing[1]:g} mm would have '
                f'{wanted[0]:.0f}x{wanted[1]:.0f} at {target:g} mm, the spacing of the weights; is its spacing right?'
            )
        grid = wanted.astype(int)
        if (grid != size).any():
            self.notes.append(
                f'resampled from {spacing[0]:.3g}x{spacing[1]:.3g} mm to {target:.3g} mm a pixel, and back'
            )
        return tuple(grid.tolist())

    def cut(self, numbers: Iterable[int] | None = None) -> Iterator[np.ndarray]:
        """The crops [S, S, C] float32, all or those of rising numbers, in order; beyond the image it is reflected."""
        at, image = None, None
        for z, top, left in self.crops if numbers is None else (self.crops[number] for number in numbers):
            if z != at:
                seen = neighbours.stacked(self._slices, z, self._k, self.shape[0])
                at, image = z, resize(seen, self.grid)
            crop = image[top : top + self.crop_size, left : left + self.crop_size]
            short = [self.crop_size - side for side in crop.shape[:2]]
            yield np.pad(crop, [(0, short[0]), (0, short[1]), (0, 0)], mode='reflect')

    def memory(self, num_samples: int, num_classes: int) -> int:
        """Bytes that merging, writing and showing N masks of this image take, from above."""
        pixels, plane = int(np.prod(self.shape)), int(np.prod(self.shape[1:]))
        held = samples.size(num_samples, self.shape, len(self.images), num_classes)
        crops = samples.size(num_samples, (1, self.crop_size, self.crop_size), 1, num_classes)
        crops *= max(np.unique([z for z, *_ in self.crops], return_counts=True)[1])
        one_slice = 4 * num_samples * plane  # its masks with a byte a pixel, and what is worked out from them
        if self.regions:
            held *= 2  # as sampled, and what hangs together
        return held + int(crops) + one_slice + 12 * pixels + _WORKING


def _neighbours(volume: Volume, data) -> int:
    """How many slices on either side a crop is given; 0 also where the caller's array holds them as channels."""
    if not data.neighbours or volume.values.shape[-1] == data.channels:
        return 0
    if len(volume.values) == 1:
        slices = 'slice' if data.neighbours == 1 else 'slices'
        raise UserError(
            f'a single slice, and the weights look at {data.neighbours} {slices} on either side too '
            '(config.data.neighbours): give the volume it is from, or take weights of single slices'
        )
    return data.neighbours


def _starts(length: int, size: int) -> list[int]:
    """First pixels of tiles of `size` that cover `length` evenly and overlap by at least a quarter."""
    if length <= size:
        return [0]
    count = -(-(length - size) // (size - size // 4)) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, C] float32 to another height and width, linear, averaged where it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    channels = np.moveaxis(image, -1, 0)
    shrink = lambda x: np.asarray(Image.fromarray(x).resize(size[::-1], Image.Resampling.BILINEAR))
    return np.stack([shrink(np.ascontiguousarray(channel, np.float32)) for channel in channels], -1)
