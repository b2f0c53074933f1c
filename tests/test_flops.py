"""FLOPs of a function: the compiler's count, and loops as often as they run."""

import jax
import jax.numpy as jnp
import pytest

from ambdiff.runtime import flops

X, W = jax.ShapeDtypeStruct((4, 8), jnp.float32), jax.ShapeDtypeStruct((8, 8), jnp.float32)
PRODUCT = 2 * 4 * 8 * 8  # of X and W


def power(x, w, length, unroll=1):
    """x w .. w, `length` times."""
    return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=length, unroll=unroll)[0]


def test_a_product_and_a_convolution_count_two_for_each_multiplication():
    assert flops.of_function(jnp.matmul, X, W) == PRODUCT
    image, kernel = jax.ShapeDtypeStruct((2, 9, 9, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)
    convolve = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    assert flops.of_function(convolve, image, kernel) == 2 * (2 * 7 * 7 * 5) * (3 * 3 * 3)


@pytest.mark.parametrize(
    ('function', 'times'),
    [
        (lambda x, w: power(x, w, 7), 7),
        (lambda x, w: power(x, w, 7, unroll=3), 7),
        (lambda x, w: power(x, w, 2, unroll=5), 2),
        (lambda x, w: jax.lax.fori_loop(0, 5, lambda _, x: x @ w, x), 5),
        (lambda x, w: jax.lax.map(lambda row: row @ w, x[:, None]), 1),  # four rows of a quarter each
        (lambda x, w: jax.lax.scan(lambda x, _: (power(x, w, 3), None), x, None, length=4)[0], 12),
        (lambda x, w: jax.jit(jax.checkpoint(lambda x: power(x, w, 6)))(x) @ w, 7),
        (lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: power(x, w, 9), lambda: x @ w), 9),
        # Forward once, backward twice: for x and for w.
        (lambda x, w: jax.grad(lambda w: power(x, w, 5).sum())(w), 15),
    ],
    ids=['scan', 'unrolled', 'inlined', 'fori_loop', 'map', 'nested', 'jit_and_remat', 'cond', 'gradient'],
)
def test_a_loop_counts_as_often_as_it_runs(function, times):
    # Beside the products there are counters, and sums of derivatives.
    assert flops.of_function(function, X, W) == pytest.approx(times * PRODUCT, rel=0.12)
