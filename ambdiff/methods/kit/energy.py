"""The energy score of a few weighted masks against the raters', with d = 1 - IoU, and masks that can learn from it.

    ES(S; y_1 .. y_M) = 2 E d(S, Y) - E d(S, S')                                                          (1)

with S, S' two independent draws from the weighted masks and Y a rater of y_1 .. y_M. It is GED without the term
E d(Y, Y'), which no model changes. d (0 for two empty masks) is of negative type, so the expected score is least where
the masks' distribution is the raters' (Gneiting & Raftery 2007, section 4.3): a proper score of the sampler itself.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def level_sets(z: Array, levels: Array, slope: float) -> Array:
    """The sets {p > v max p}, p = sigmoid(z), none of them empty: z [B, P], levels v [B, K] in (0, 1) -> [B, K, P].

    They are exactly 0 or 1; backward they are sigmoid(slope (z - logit(v max p))), so that pixels near a set's edge
    learn most. A set made soft in both directions does not do: what a threshold empties would count as a faint mask.
    """
    edge = levels * jax.nn.sigmoid(z.max(-1, keepdims=True))
    height = z[:, None] - (jnp.log(edge) - jnp.log1p(-edge))[..., None]
    soft = jax.nn.sigmoid(slope * height)
    return (height > 0).astype(z.dtype) + (soft - jax.lax.stop_gradient(soft))


def distances(a: Array, b: Array) -> Array:
    """1 - IoU of masks a [B, S, P] and b [B, T, P] of 0 and 1: [B, S, T]; 0 for two empty ones.

    The products of (1), exact for masks of 0 and 1, have the derivatives of the sums of minima and maxima there.
    """
    both = jnp.einsum('bsp,btp->bst', a, b)
    either = a.sum(-1)[:, :, None] + b.sum(-1)[:, None] - both
    some = either > 0.5
    return jnp.where(some, 1 - both / jnp.where(some, either, 1.0), 0.0)


def energy_score(weights: Array, sets: Array, raters: Array, present: Array) -> Array:
    """Equation (1) for each image: [B].

    Args:
      weights: [B, S], with sum 1 over S.
      sets: [B, S, P] of 0 and 1.
      raters: [B, M, P] of 0 and 1.
      present: [B, M] bool, at least one a row.
    """
    shares = present / present.sum(1, keepdims=True)
    to_raters = jnp.einsum('bs,bsm,bm->b', weights, distances(sets, raters), shares)
    # A set's distance to itself is 0 whatever it becomes.
    among = distances(sets, sets) * (1 - jnp.eye(sets.shape[1]))[None]
    return 2 * to_raters - jnp.einsum('bs,bst,bt->b', weights, among, weights)
