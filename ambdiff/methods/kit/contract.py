"""The contract between a method and the rest of the program.

Training, checkpoints, EMA, evaluation and prediction use what `Method` lists and know nothing else of a method. Two
trees are carried from step to step:

  params  what is learned: a dict, whole networks below its top-level names. Gradients, EMA and the optimiser are of it.
  state   what is carried but not learned (statistics of batches, a multiplier, a counter of steps): a dict of arrays,
          {} for most methods. Checkpoints and files of weights hold it beside params.

Masks are sampled from the averaged params and the newest state.
"""

from typing import Any, Literal, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any
State = Any


class Weights(NamedTuple):
    """What masks are sampled from: averaged parameters, and the state ({} where there is none)."""

    params: Params
    state: State


class Method(Protocol):
    """A method; each inherits from this and defines what has no default here.

    Everything random follows from the key given, and the masks of an image from that image's key alone: so results
    depend neither on the rest of the batch nor on the number of devices.

    Attributes:
      draws: 'independent' if the N masks of an image are independent draws from one distribution; 'dependent' if they
        are not (stratified, say): then no unbiased estimate can be made from their distances to each other.
      evaluations: network evaluations a mask, as metrics.json and the report state them.
      architecture: groups of the config and fields ('model', 'method.rank') in which weights must agree with the config
        that uses them; the method's name and the image's size and channels always are.
    """

    draws: Literal['independent', 'dependent'] = 'independent'
    evaluations: float = 1
    architecture: tuple[str, ...] = ('model', 'method')

    def init(self, key: Array, batch: dict[str, Array]) -> tuple[Params, State]:
        """Parameters and state of step 0, from a key and a batch of which only `image` [B, H, W, C] is there."""
        ...

    def loss(
        self, params: Params, state: State, batch: dict[str, Array], key: Array
    ) -> tuple[Array, dict[str, Array], State]:
        """The loss of every example, and the state of the next step.

        Under jit over several devices the batch is the whole one: a mean over its first axis is over all of them. With
        train.accumulation_steps every part of a batch is given the same state, and the means of the parts' states go
        on (integers must not depend on the part): a counter counts steps, not parts.

        Args:
          params: the newest, not the averaged ones.
          state: as from `init` or the step before.
          batch: image [B, H, W, C] float32 in [0, 1]; masks [B, M, H, W] uint8, of 0 and 1 or labels 0 .. K;
            present [B, M] bool, at least one a row: a mask that is not present is no answer and must not be learned.
          key: of this step.

        Returns:
          (loss [B], its parts by name, each [B], state)
        """
        ...

    def sample(
        self, params: Params, state: State, images: Array, keys: Array, num_samples: int, parts: int = 1
    ) -> Array:
        """Samples N masks for each image.

        Args:
          params: the averaged ones, whole or `for_sampling`.
          state: the newest.
          images: [B, H, W, C] in [0, 1].
          keys: [B], one an image.
          num_samples: N.
          parts: divides N; each image's masks are taken in so many parts, one after the other, to save memory.

        Returns:
          [B, N, H, W] bool, or uint8 labels where data.num_classes > 1.
        """
        ...

    def bytes_per_mask(self, image_size: int) -> int:
        """Device memory that sampling one mask takes, from above: N masks are taken in parts that fit."""
        ...

    def for_sampling(self, params: Params) -> Params:
        """The part of params that `sample` reads: files of weights leave out the rest."""
        return params
