"""The input pipeline: the batch of step t is a pure function of (seed, t).

Rows step * B .. step * B + B - 1 of the shuffled, repeated source: any host reads only its own rows, a resumed run
needs no saved position, and the order does not depend on the number of hosts or devices.
"""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from ambdiff.data.shuffle import Shuffled

Example = dict[str, np.ndarray]


def shuffled(source: Sequence[Example], seed: int) -> Shuffled:
    """The endless shuffled source; every epoch has an order of its own."""
    return Shuffled(source, seed)


def batch(examples: Sequence[Example], rows: range) -> Example:
    """The given rows stacked: image [R, H, W, C] float32, masks [R, M, H, W] uint8, present [R, M] bool."""
    chosen = [examples[row] for row in rows]
    return {name: np.stack([example[name] for example in chosen]) for name in ('image', 'masks', 'present')}


def prefetch(load: Callable[[int], Example], start: int, stop: int) -> Iterator[Example]:
    """load(start), .., load(stop - 1), each read while the one before is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(load, start) if start < stop else None
        for index in range(start, stop):
            ready = pending.result()
            if index + 1 < stop:
                pending = pool.submit(load, index + 1)
            yield ready


def local_rows(batch_size: int) -> range:
    """The rows of a batch that this process reads."""
    share = batch_size // jax.process_count()
    return range(jax.process_index() * share, (jax.process_index() + 1) * share)
