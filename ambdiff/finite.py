"""A network's output while sampling, watched for values that are not finite.

A mask says nothing of the output it came from: NaN is below every threshold, so it would read as "nothing there". What
a method's `sample` takes from its network goes through `watched`; `ambdiff.sampling` asks for what was seen. Elsewhere,
in training or where `sample` is called by itself, it is the identity and costs nothing.
"""

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from ambdiff.errors import UserError


class NotFinite(UserError):
    """The network's output for an image is not finite; `row` is its place among the images given."""

    def __init__(self, row: int, name: str):
        super().__init__(
            f'{name}: the network gives values for it that are not finite, so no masks are sampled: compare its values '
            'with those of the training images, and take other weights if all images end so'
        )
        self.row = row


def watched(output: jax.Array) -> jax.Array:
    """The same array; that all of it is finite is noted for `seen`."""
    checkify.debug_check(jnp.isfinite(output).all(), 'not finite')
    return output


def seen(function):
    """(arguments) -> (error, result) of a function that uses `watched`; error.get() is None where all was finite."""
    return checkify.checkify(function, errors=checkify.user_checks)


def all_finite(error) -> jax.Array:
    """Whether an error of `seen` stands for finite output, as an array: in a program, where get() cannot be asked."""
    return ~jnp.any(jnp.stack([leaf for leaf in jax.tree.leaves(error) if leaf.dtype == bool]))
