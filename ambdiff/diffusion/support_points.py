"""N of an image's candidate masks that stand for all of them.

Support points (Mak and Joseph 2018, Annals of Statistics 46:2562): the set S of N out of M candidates C with the least

    energy(S) = 2 E d(S, C) - E d(S, S'),     d = 1 - IoU, 1 - the mean of the classes' IoU if there are several,

which is GED (`ambdiff.metrics`, equation 1) between S and C less a constant. N chance draws show the shares of the
answers with an error of the order 1 / sqrt(N), N support points with one of the order 1 / N; each of them is a mask
that the model drew.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def distances(masks: Array, num_classes: int) -> Array:
    """d [M, M] between masks [M, H, W] of labels 0 .. K, K = num_classes; two empty masks are the same, d = 0."""
    flat = masks.reshape(masks.shape[0], -1)
    total = 0.0
    for label in range(1, num_classes + 1):
        is_label = (flat == label).astype(jnp.float32)
        shared = jnp.einsum('ip,jp->ij', is_label, is_label, precision='highest')
        area = jnp.diagonal(shared)
        union = area[:, None] + area[None] - shared
        total += jnp.where(union > 0, shared / jnp.maximum(union, 1), 1.0)
    return 1 - total / num_classes


def choose(distance: Array, num_points: int) -> Array:
    """Indices [N], ascending, of support points among M >= N candidates of distances [M, M].

    One after the other by what each adds, then up to 2 N exchanges of one chosen for one left out, always that which
    lowers the energy most, while there is one. A local minimum: no guarantee that it is the least.
    """
    distance = jnp.asarray(distance)
    number = distance.shape[0]
    to_all = distance.mean(1)

    def add(k, state):
        chosen, to_chosen = state
        cost = jnp.where(chosen, jnp.inf, to_all - to_chosen / (k + 1))
        new = jnp.argmin(cost)
        return chosen.at[new].set(True), to_chosen + distance[new]

    def exchange(_, state):
        chosen, to_chosen = state
        # N^2 / 2 times the change of energy when `leaves` (rows) makes room for `enters` (columns).
        nearness = num_points * (to_all[None, :] - to_all[:, None])
        spread = to_chosen[None, :] - to_chosen[:, None] - distance
        change = jnp.where(chosen[:, None] & ~chosen[None, :], nearness - spread, jnp.inf)
        leaves, enters = jnp.divmod(jnp.argmin(change), number)
        better = change[leaves, enters] < -1e-4
        swapped = chosen.at[leaves].set(False).at[enters].set(True)
        moved = to_chosen + distance[enters] - distance[leaves]
        return jnp.where(better, swapped, chosen), jnp.where(better, moved, to_chosen)

    state = (jnp.zeros(number, bool), jnp.zeros(number, distance.dtype))
    state = jax.lax.fori_loop(0, num_points, add, state)
    chosen, _ = jax.lax.fori_loop(0, 2 * num_points, exchange, state)
    return jnp.nonzero(chosen, size=num_points)[0]
