"""The masks of an image's crops -> its masks, slice by slice.

Crops are merged into the whole slice by a weight that falls off smoothly from a crop's centre:

    share(pixel) = sum_c w_c(pixel) mask_c(pixel) / sum_c w_c(pixel),     sample = share > 1/2

Of several classes the label with the largest share, background included. Pixels that no crop covers are background.
"""

import numpy as np

from ambdiff.prediction.crops import Plan, resize
from ambdiff.prediction.samples import Samples

_BUDGET = 1 << 26  # bytes of shares at a time


class Merge:
    """Takes the masks of a plan's crops in their order; of these only those of the current slice are held, as bits."""

    def __init__(self, plan: Plan, num_samples: int, num_classes: int):
        self.samples = Samples(num_samples, plan.shape, {z for z, *_ in plan.crops}, num_classes)
        self._plan = plan
        self._held: list[Samples] = []
        self._next = 0
        self._weight = _weight(plan.crop_size)

    def add(self, masks: np.ndarray) -> None:
        """Masks [N, S, S] of the next crop, bool or labels."""
        self._held.append(Samples.of(masks[:, None], self.samples.num_classes))
        self._next += 1
        crops = self._plan.crops
        if self.done or crops[self._next][0] != crops[self._next - 1][0]:
            self._merge_slice(crops[self._next - len(self._held) : self._next])
            self._held = []

    @property
    def done(self) -> bool:
        """Whether all crops are in."""
        return self._next == len(self._plan.crops)

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
