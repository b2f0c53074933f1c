"""The images under evaluation with their raters, as arrays."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ambdiff.data.files import neighbours
from ambdiff.runtime import hosts


def evenly_spaced(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` items, spread over all of them; count 0 = all."""
    if not 0 < count < total:
        return list(range(total))
    return [i * total // count for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Cases:
    """Examples stacked.

    Attributes:
      images: [n, H, W, C] float32 in [0, 1].
      raters: [n, M, H, W] uint8, labels.
      present: [n, M] bool, the slots that a rater filled.
      names: n names, each its own.
      patients: n names, '' where unknown.
      spacing: [n, 2] mm a row and a column, NaN where unknown; None where masks alone were given.
    """

    images: np.ndarray
    raters: np.ndarray
    present: np.ndarray
    names: list[str]
    patients: list[str]
    spacing: np.ndarray | None = None

    def empty_share(self) -> float:
        """The share of empty masks among those that raters gave."""
        return float((~self.raters.any((2, 3)))[self.present].mean())


def load(source: Sequence[dict], indices: Sequence[int]) -> Cases:
    """These examples of a source."""
    examples = [source[int(i)] for i in indices]
    stack = lambda name: np.stack([e[name] for e in examples])
    texts = lambda name: [str(e[name]) for e in examples]
    return Cases(stack('image'), stack('masks'), stack('present'), texts('case'), texts('patient'), stack('spacing'))


def shown(cases: Cases, k: int) -> Cases:
    """The cases with the images themselves, without the k slices on either side that a network sees beside them."""
    return dataclasses.replace(cases, images=neighbours.own(cases.images, k))


def gather(cases: Cases, samples: np.ndarray, total: int) -> tuple[Cases, np.ndarray]:
    """The cases and samples of all processes, `total` of them, from each one's shard (`hosts.shard`)."""
    arrays = hosts.gather((cases.images, cases.raters, cases.present, samples, cases.spacing), total)
    names, patients = (hosts.gather_texts(texts, total) for texts in (cases.names, cases.patients))
    return Cases(*arrays[:3], names, patients, arrays[4]), arrays[3]
