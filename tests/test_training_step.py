"""benchmarks/training_step.py: an operation counts as what most of it is."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

from ambdiff.models import layers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'benchmarks'))
import training_step


@pytest.fixture(scope='module')
def where():
    """Paths of the operations of a layer's gradients."""
    conv = layers.Conv(3)
    x = jnp.ones((2, 8, 8, 3))
    params = conv.init(jax.random.key(0), x)
    loss = lambda params, x: jnp.sin(conv.apply(params, x)).sum()
    return training_step.paths(jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, x).compile().as_text())


def test_the_three_passes_of_a_convolution_are_told_apart(where):
    parts = training_step.shares(dict.fromkeys(where, 1.0), where)
    for name in ('forward', 'gradient of the inputs', 'gradient of the kernels'):
        assert parts[f'convolutions: {name}'] >= 1
    assert sum(parts.values()) == len(where)


def test_shares_are_summed_by_part_with_the_longest_first():
    where = {'a': 'jit(step)/UNet/input_blocks_1_0/in_norm/add', 'b': 'jit(step)/adam', 'c': 'jit(step)/mul', 'd': ''}
    parts = training_step.shares({'a': 1.0, 'b': 2.0, 'c': 3.0, 'd': 0.5, 'unknown': 0.25}, where)
    assert list(parts.items()) == [
        ('augmentation, optimiser, averaged weights', 5.0),
        ('norms and SiLU', 1.0),
        ('copies into other layouts', 0.75),
    ]
