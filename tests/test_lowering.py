"""Every method's training step and sampler can be lowered for GPU and TPU: no device is needed to see that."""

import functools
import re

import jax
import numpy as np
import pytest
import tiny

from ambdiff import exported, methods, optim, train
from ambdiff.methods.kit.contract import Weights

NARROW = {'method.filters': (8, 8), 'method.num_groups': 4}
FIELDS = {
    'prob_unet': {'method.filters': (8, 8)},
    'phiseg': {**NARROW, 'method.latent_levels': 2},
    'ssn': NARROW,
    'mose': NARROW,
}
each_method = pytest.mark.parametrize('name', methods.known())


@functools.cache
def made(name):
    """(config, method, state at step 0)"""
    config = tiny.config('', name, **{'model.dtype': 'bfloat16', **FIELDS.get(name, {})})
    method = methods.create(config)
    return config, method, tiny.state(config, method, optim.create(config.optim, config.train.num_steps))


def check(text):
    assert not re.search(r'tensor<[^>]*f64|complex<f64>', text), 'float64'
    assert 'callback' not in text, 'a host callback'


@each_method
def test_the_sampler_runs_on_gpu_and_tpu(name):
    config, method, state = made(name)
    weights = Weights(method.for_sampling(state.params), state.carried)
    check(exported.program(config, weights, ('cuda', 'tpu')).mlir_module())


@each_method
def test_the_training_step_runs_on_gpu_and_tpu(name):
    config, method, state = made(name)
    batch = {
        'image': np.zeros((2, tiny.SIZE, tiny.SIZE, 1), np.float32),
        'masks': np.zeros((2, 4, tiny.SIZE, tiny.SIZE), np.uint8),
        'present': np.ones((2, 4), bool),
    }
    step = jax.jit(train.make_train_step(config, method, optim.create(config.optim, config.train.num_steps)))
    check(jax.export.export(step, platforms=('cuda', 'tpu'))(state, batch).mlir_module())
