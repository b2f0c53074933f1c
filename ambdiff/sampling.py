"""Sampling: N masks for any number of images, in chunks of one compiled shape, on this process's devices."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import ml_collections
import numpy as np
import tqdm

from ambdiff import finite, garbage
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Method, Weights
from ambdiff.runtime import sharding


def image_keys(key: jax.Array, rows: Sequence[int]) -> jax.Array:
    """The key of each image, from its row in the split: [n]."""
    return _folded(key, np.asarray(rows))


@jax.jit
def _folded(key: jax.Array, rows: jax.Array) -> jax.Array:
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


@jax.jit
def seeded_keys(seed: np.uint32, rows: np.ndarray) -> jax.Array:
    """`image_keys` of jax.random.key(seed): one small program instead of several, of which each is compiled."""
    return _folded(jax.random.key(seed), rows)


@contextlib.contextmanager
def _beside(work: Callable[[], object] | None) -> Iterator[None]:
    """Does the work in a thread of its own during the block, which ends when both have.

    Two threads must not import the same package at once: each may see the other's modules half made.
    """
    thread = threading.Thread(target=work)  # of no work: it ends at once
    thread.start()
    try:
        yield
    finally:
        thread.join()


class Sampler:
    """Makes N masks for any number of images, in chunks of a fixed shape that fit the memory given.

    An image's masks depend on its key alone: not on the chunk, its neighbours or the number of devices.
    """

    def __init__(self, config: ml_collections.ConfigDict, method: Method, mesh: jax.sharding.Mesh):
        self._num_samples = config.sample.num_samples
        # How the N masks of an image relate to each other; a single one has nothing to depend on.
        self.draws = 'independent' if self._num_samples == 1 else method.draws
        self.evaluations = method.evaluations  # of the network, a mask
        self._devices = mesh.shape['data']
        budget = config.sample.memory_mib * 2**20
        rows = int(budget // method.bytes_per_mask(config.data.image_size))
        if rows < 1:
            raise UserError(
                f'config.sample.memory_mib={config.sample.memory_mib} is too small for one mask '
                f'({method.bytes_per_mask(config.data.image_size) / 2**20:.0f} MiB)'
            )
        # Whole images if they fit, else one image a device in equal parts of its N masks.
        self.chunk = self._devices * max(1, rows // self._num_samples)
        parts = next(
            p for p in range(1, self._num_samples + 1) if self._num_samples % p == 0 and self._num_samples // p <= rows
        )
        split = sharding.batch_sharding(mesh)
        self._split = split

        def sample(weights: Weights, images: jax.Array, of_keys: jax.Array) -> jax.Array:
            # Keys come as their bits, which NumPy can index: JAX would compile a program for it.
            keys = jax.random.wrap_key_data(of_keys)
            return method.sample(*weights, images, keys, self._num_samples, parts)

        self._sample = jax.jit(
            finite.seen(sample),
            in_shardings=(sharding.replicated(mesh), split, split),
            out_shardings=(None, split),
        )
        self._compiled = {}
        self.seconds = 0.0

    def __call__(
        self,
        weights: Weights,
        images: np.ndarray,
        keys: jax.Array,
        progress: bool = False,
        names: Sequence[str] | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> np.ndarray:
        """Images [n, H, W, C], each with its key of keys [n] (`image_keys`) -> [n, N, H, W]; adds to `seconds`.

        meanwhile: called in a thread of its own while a program is compiled, which needs no Python; it has ended when
        the first masks are sampled.

        Raises:
          NotFinite: the network's output for an image is not finite; it says which, by `names` [n] if given.
        """
        size = min(self.chunk, -(-len(images) // self._devices) * self._devices)
        # Rather some idle rows than compile again.
        there = [made for made in self._compiled if size <= made <= 2 * size]
        size = self.chunk if self.chunk in self._compiled else min(there, default=size)
        samples, of_keys = [], np.asarray(jax.random.key_data(keys))
        bar = tqdm.tqdm(total=len(images), unit='image', desc='sampling', disable=not progress)
        for first in range(0, len(images), size):
            index = np.minimum(np.arange(first, first + size), len(images) - 1)  # ragged end
            chunk = jax.device_put((images[index], of_keys[index]), self._split)
            if size not in self._compiled:
                with garbage.waits():
                    lowered = self._sample.lower(weights, *chunk)
                    with _beside(meanwhile):
                        self._compiled[size] = lowered.compile()
            began = time.perf_counter()
            seen, masks = self._compiled[size](weights, *chunk)
            samples.append(np.asarray(masks))
            if seen.get():
                row = self._first_bad(weights, images, of_keys, index)
                raise finite.NotFinite(row, names[row] if names else f'image {row}')
            self.seconds += time.perf_counter() - began
            bar.update(min(size, len(images) - first))
        bar.close()
        return np.concatenate(samples)[: len(images)]

    def _first_bad(self, weights: Weights, images, of_keys, rows: np.ndarray) -> int:
        """The first of these rows for which the output is not finite: each alone fills the shape that is compiled."""
        for row in rows:
            alone = np.full(len(rows), row)
            seen, _ = self._compiled[len(rows)](weights, *jax.device_put((images[alone], of_keys[alone]), self._split))
            if seen.get():
                return int(row)
        return int(rows[0])
