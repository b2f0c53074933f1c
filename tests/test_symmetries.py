"""The symmetries of the square: eight, each undone by its inverse."""

import jax
import jax.numpy as jnp
import numpy as np

from ambdiff import dihedral


def test_eight_different_symmetries_each_undone_by_its_inverse():
    k = jnp.arange(8)
    image = jnp.broadcast_to(jnp.arange(9.0).reshape(1, 3, 3, 1), (8, 3, 3, 1))
    turned = dihedral.turn(image, k)
    assert len({np.asarray(one).tobytes() for one in turned}) == 8
    np.testing.assert_array_equal(turned[0], image[0])
    np.testing.assert_array_equal(dihedral.turn_back(turned, k), image)
    masks = dihedral.turn(jnp.moveaxis(image, 3, 1), k, (2, 3))
    np.testing.assert_array_equal(masks[:, 0], turned[..., 0])


def test_drawn_symmetries_are_equally_likely_and_upright_images_only_mirrored():
    keys = jax.random.split(jax.random.key(0), (2000, 4))
    for upright, known in ((False, range(8)), (True, (0, 2))):
        drawn = np.asarray(jax.jit(dihedral.draw, static_argnums=1)(keys, upright))
        shares = [(drawn == k).mean() for k in known]
        np.testing.assert_allclose(shares, 1 / len(known), atol=4 * np.sqrt(1 / len(known) / drawn.size))
        assert set(np.asarray(dihedral.cycle(16, upright)).tolist()) == set(known)
