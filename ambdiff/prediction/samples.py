"""The N masks that a model made of one image, held as bits.

400 masks of a CT of 200 slices of 512 x 512 would take 20 GiB with a byte a pixel. Here a pixel takes one bit (two or
more for masks of several classes), and only slices that were looked at are held: with a few points, those few.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np


class Samples:
    """N masks of a volume; masks hold 0 and 1, or labels 0 .. K.

    Attributes:
      shape: (N, slices, height, width).
      num_classes: K.
      slices: those that are held, rising; on all others every mask is empty.
    """

    def __init__(self, num_samples: int, shape: tuple[int, int, int], slices: Iterable[int], num_classes: int = 1):
        self.shape = (num_samples, *shape)
        self.num_classes = num_classes
        self.slices = tuple(sorted(set(slices)))
        self._place = {z: index for index, z in enumerate(self.slices)}
        planes = num_classes.bit_length()
        self._bits = np.zeros((planes, num_samples, len(self.slices), shape[1], -(-shape[2] // 8)), np.uint8)

    @classmethod
    def of(cls, masks: np.ndarray, num_classes: int = 1) -> 'Samples':
        """Masks [N, Z, H, W], bool or labels."""
        samples = cls(len(masks), masks.shape[1:], range(masks.shape[1]), num_classes)
        for z in samples.slices:
            samples.put(z, slice(None), masks[:, z])
        return samples

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> np.ndarray:
        """One mask on the slices held, [len(slices), H, W] uint8."""
        return self._labels(self._bits[:, number])

    def put(self, z: int, numbers: int | slice, masks: np.ndarray) -> None:
        """Sets masks [.., H, W] of a slice that is held."""
        for plane, bits in enumerate(self._bits):
            bits[numbers, self._place[z]] = np.packbits(masks.astype(np.uint8) >> plane & 1, axis=-1)

    def bits(self, z: int) -> np.ndarray:
        """All masks on a slice that is held, [planes, N, H, W / 8] uint8: planes of the labels' bits, rows packed."""
        return self._bits[:, :, self._place[z]]

    def put_bits(self, z: int, bits: np.ndarray) -> None:
        """Sets all masks of a slice that is held, as `bits` gave them."""
        self._bits[:, :, self._place[z]] = bits

    def on_slice(self, z: int) -> np.ndarray:
        """All masks on a slice, [N, H, W] uint8."""
        if z not in self._place:
            return np.zeros((self.shape[0], *self.shape[2:]), np.uint8)
        return self._labels(self._bits[:, :, self._place[z]])

    def plane(self, number: int, z: int) -> np.ndarray | None:
        """One mask on a slice, [H, W] uint8; None where the slice is not held, so that the mask is empty there."""
        return self._labels(self._bits[:, number, self._place[z]]) if z in self._place else None

    def on_slices(self) -> Iterator[np.ndarray]:
        """`on_slice` of every slice held, one after the other."""
        return (self.on_slice(z) for z in self.slices)

    def whole(self, number: int) -> np.ndarray:
        """One mask on all slices, [Z, H, W] uint8."""
        mask = np.zeros(self.shape[1:], np.uint8)
        mask[list(self.slices)] = self[number]
        return mask

    def cut(self, slices: range, box: tuple[int, int, int, int]) -> 'Samples':
        """The masks inside (top, left, bottom, right) of slices one after the other, as those of an image so large."""
        top, left, bottom, right = box
        piece = Samples(self.shape[0], (len(slices), bottom - top, right - left), range(len(slices)), self.num_classes)
        for place, z in enumerate(slices):
            piece.put(place, slice(None), self.on_slice(z)[:, top:bottom, left:right])
        return piece

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> 'Samples':
        """Samples with a function applied to all masks [N, H, W] of each slice held."""
        result = Samples(self.shape[0], self.shape[1:], self.slices, self.num_classes)
        for z in self.slices:
            result.put(z, slice(None), change(self.on_slice(z)))
        return result

    def pixels(self) -> np.ndarray:
        """How many pixels each mask marks, with any label, on each slice held: [N, len(slices)] int64."""
        counts = [np.bitwise_count(self._any(index)).sum((1, 2), dtype=np.int64) for index in range(len(self.slices))]
        return np.stack(counts, 1) if counts else np.zeros((self.shape[0], 0), np.int64)

    def marked(self, z: int) -> np.ndarray:
        """Where any of the masks marks a slice, [H, W] bool."""
        if z not in self._place:
            return np.zeros(self.shape[2:], bool)
        together = np.bitwise_or.reduce(self._any(self._place[z]), axis=0)
        return np.unpackbits(together, axis=-1, count=self.shape[3]).astype(bool)

    def _any(self, index: int) -> np.ndarray:
        """Bits [N, H, W / 8] of the pixels with any label."""
        return np.bitwise_or.reduce(self._bits[:, :, index], axis=0)

    def _labels(self, bits: np.ndarray) -> np.ndarray:
        """Bits [planes, .., W / 8] -> labels [.., W]."""
        labels = np.unpackbits(bits[0], axis=-1, count=self.shape[3])
        for plane in range(1, len(bits)):
            labels |= np.unpackbits(bits[plane], axis=-1, count=self.shape[3]) << plane
        return labels


def size(num_samples: int, shape: tuple[int, int, int], num_slices: int, num_classes: int) -> int:
    """Bytes that `Samples` of so many masks of an image [Z, H, W], on so many slices, take."""
    return num_classes.bit_length() * num_samples * num_slices * shape[1] * -(-shape[2] // 8)
