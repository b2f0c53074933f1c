"""The masks of an image's crops -> its masks, slice by slice.

Crops are merged into the whole slice by a weight that falls off smoothly from a crop's centre:

    share(pixel) = sum_c w_c(pixel) mask_c(pixel) / sum_c w_c(pixel),     sample = share > 1/2

Of several classes the label with the largest share, background included. Pixels that no crop covers are background.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ambdiff.prediction.crops import Plan, resize
from ambdiff.prediction.samples import Samples

_BUDGET = 1 << 26  # bytes of shares at a time


@dataclasses.dataclass(frozen=True)
class Slice:
    """The masks of a slice that is done: as `Samples.bits` has them, and how many of its crops were left empty."""

    bits: np.ndarray
    left_empty: int


class Merge:
    """Takes the masks of a plan's crops in their order; of these only those of the current slice are held, as bits.

    Attributes:
      samples: the masks; whole on the slices that are done.
      left: numbers of the plan's crops that are wanted: those of slices that were not done before.
      finished: the slices that were done since this list was last cleared.
    """

    def __init__(self, plan: Plan, num_samples: int, num_classes: int, done: Mapping[int, Slice] | None = None):
        """done: {slice: its masks} of slices that were merged before, from the same plan."""
        self.samples = Samples(num_samples, plan.shape, {z for z, *_ in plan.crops}, num_classes)
        self.finished: list[int] = []
        self._plan = plan
        self._held: list[Samples | None] = []
        self._empty: set[int] = set()
        self._left_empty: dict[int, int] = {}
        self._weight = _weight(plan.crop_size)
        for z in self.samples.slices:
            if done and z in done and done[z].bits.shape == self.samples.bits(z).shape:
                self.samples.put_bits(z, done[z].bits)
                self._left_empty[z] = done[z].left_empty
        self.left = [number for number, (z, *_) in enumerate(plan.crops) if z not in self._left_empty]
        self._at = 0  # place in `left` of the crop that comes next

    def add(self, masks: np.ndarray) -> None:
        """Masks [N, S, S] of the next crop that is not left empty, bool or labels."""
        self._take(Samples.of(masks[:, None], self.samples.num_classes))
        self._take_empty()

    def leave_empty(self, number: int) -> None:
        """Makes all masks of a crop that is not in empty; number: as in `left`."""
        self._empty.add(number)
        self._take_empty()

    @property
    def done(self) -> bool:
        """Whether all crops are in."""
        return self._at == len(self.left)

    @property
    def left_empty(self) -> int:
        """How many crops were left empty."""
        return sum(self._left_empty.values())

    def slice(self, z: int) -> Slice:
        """The masks of a slice that is done."""
        return Slice(self.samples.bits(z), self._left_empty.get(z, 0))

    def _take_empty(self) -> None:
        while not self.done and self.left[self._at] in self._empty:
            self._empty.remove(self.left[self._at])
            self._take(None)

    def _take(self, masks: Samples | None) -> None:
        crops, number = self._plan.crops, self.left[self._at]
        z = crops[number][0]
        self._held.append(masks)
        self._at += 1
        if self.done or crops[self.left[self._at]][0] != z:
            self._left_empty[z] = self._held.count(None)
            if self._left_empty[z] < len(self._held):
                self._merge_slice(crops[number + 1 - len(self._held) : number + 1])
            self._held = []
            self.finished.append(z)

    def _merge_slice(self, crops: list[tuple[int, int, int]]) -> None:
        size, grid, classes = self._plan.crop_size, self._plan.grid, self.samples.num_classes
        places, total = [], np.zeros(grid, np.float32)
        for _, top, left in crops:
            inside = (slice(top, top + size), slice(left, left + size))
            tall, wide = total[inside].shape
            places.append((inside, self._weight[:tall, :wide]))
            total[inside] += places[-1][1]
        step = max(1, _BUDGET // (4 * classes * total.size))
        for first in range(0, len(self.samples), step):
            count = min(step, len(self.samples) - first)
            shares = np.zeros((classes, count, *grid), np.float32)
            for held, (inside, part) in zip(self._held, places, strict=True):
                if held is None:
                    continue
                masks = held.on_slice(0)[first : first + count, : part.shape[0], : part.shape[1]]
                for label in range(classes):
                    shares[label][:, *inside] += part * (masks == label + 1)
            for number in range(count):
                self.samples.put(crops[0][0], first + number, self._labels(shares[:, number], total))

    def _labels(self, shares: np.ndarray, total: np.ndarray) -> np.ndarray:
        """Weighted sums [K, h, w] of a sample -> labels [H, W] in the image's own pixels."""
        share = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
        share = np.moveaxis(resize(np.moveaxis(share, 0, -1), self._plan.shape[1:]), -1, 0)
        return np.where(share.max(0) > 1 - share.sum(0), share.argmax(0) + 1, 0)


def _weight(size: int) -> np.ndarray:
    """[S, S] float32 above 0: a squared sine each way."""
    side = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    return np.outer(side, side).astype(np.float32)
