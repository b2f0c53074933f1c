"""The sampler shared by training, evaluation and prediction."""

import threading
import time

import jax
import numpy as np
import pytest
import tiny

from ambdiff import finite, methods, sampling
from ambdiff.runtime import checkpoint, sharding


def test_an_output_that_is_not_finite_is_an_error_that_names_the_image_and_others_are_as_drawn_alone(weights):
    config = checkpoint.load_config(weights).copy_and_resolve_references()
    config.sample.num_samples, config.sample.num_steps = 2, 2
    mesh, method = sharding.local_mesh(), methods.create(config)
    drawn_from, _ = checkpoint.load_weights(str(weights), config, sharding.replicated(mesh))
    images = np.random.default_rng(0).random((8, tiny.SIZE, tiny.SIZE, 1)).astype(np.float32)
    keys = sampling.image_keys(jax.random.key(0), range(8))
    sampler = sampling.Sampler(config, method, mesh)
    drawn = sampler(drawn_from, images, keys)
    assert 0 < drawn.mean() < 1
    # Not watched, `sample` is the same function.
    np.testing.assert_array_equal(
        drawn[:1], jax.jit(method.sample, static_argnums=(4, 5))(*drawn_from, images[:1], keys[:1], 2, 1)
    )
    images[5, 3, 3] = np.inf
    for names, said in ((None, 'image 5: the network'), ([f'case{n}' for n in range(8)], 'case5: the network')):
        with pytest.raises(finite.NotFinite, match=said) as error:
            sampler(drawn_from, images, keys, names=names)
        assert error.value.row == 5


def test_what_is_done_while_a_program_is_compiled_has_ended_before_masks_are_given_back(weights):
    config = checkpoint.load_config(weights).copy_and_resolve_references()
    config.sample.num_samples, config.sample.num_steps = 1, 1
    mesh, method = sharding.local_mesh(), methods.create(config)
    drawn_from, _ = checkpoint.load_weights(str(weights), config, sharding.replicated(mesh))
    images, done = np.zeros((1, tiny.SIZE, tiny.SIZE, 1), np.float32), []

    def slow():
        time.sleep(2)  # longer than a program this small takes to be compiled
        done.append(threading.current_thread())

    sampling.Sampler(config, method, mesh)(
        drawn_from, images, sampling.image_keys(jax.random.key(0), range(1)), meanwhile=slow
    )
    assert len(done) == 1 and done[0] is not threading.main_thread()
