"""The method's loss and samples: each choice of the paper and of the released code."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ambdiff import methods
from ambdiff.config import default
from ambdiff.diffusion import gaussian, starts
from ambdiff.models import gaussian_encoder

BATCH = {
    'image': np.random.default_rng(0).random((4, 16, 16, 1), np.float32),
    'masks': (np.random.default_rng(1).random((4, 3, 16, 16)) > 0.7).astype(np.uint8),
    'present': np.ones((4, 3), bool),
}


def method_of(**fields):
    """The paper's loss on the tiny U-Net; fields as group__field=value."""
    config = tiny.config('unused')
    paper = default()
    config.diffusion, config.method = paper.diffusion, paper.method
    config.sample.start = 'noise'
    for name, value in fields.items():
        group, field = name.split('__')
        config[group][field] = value
    return methods.create(config)


@pytest.fixture(scope='module', autouse=True)
def narrow_encoders():
    """AMN and ACN of two levels: how deep they are is nothing to the loss, and most of its compiling."""
    with pytest.MonkeyPatch.context() as patch:
        narrow = functools.partial(gaussian_encoder.GaussianEncoder, filters=(4, 8))
        patch.setattr(gaussian_encoder, 'GaussianEncoder', narrow)
        yield


@pytest.fixture(scope='module')
def paper_loss(narrow_encoders):
    """(method, params away from their zero-initialised output, loss and gradient)."""
    method = method_of()
    params = tiny.params(method, BATCH['image'])

    def mean(params):
        loss, parts, _ = method.loss(params, {}, BATCH, jax.random.key(7))
        return loss.mean(), (loss, parts)

    (_, (loss, parts)), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(params)
    return method, params, loss, parts, gradient


def test_loss_is_the_sum_of_its_parts_and_trains_every_network(paper_loss):
    _, _, loss, parts, gradient = paper_loss
    assert set(parts) == {'mse', 'vlb', 'kl'} and loss.shape == (4,)
    np.testing.assert_allclose(loss, sum(parts.values()), rtol=1e-6)
    assert (parts['kl'] > 0).all()
    for network in ('unet', 'amn', 'acn'):
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient[network])) > 0


def test_frozen_encoders_are_constants_of_their_seed_and_take_part_in_the_loss(paper_loss):
    _, params, _, parts, _ = paper_loss
    kl = []
    for seed in (0, 0, 1):
        method = method_of(method__encoders='frozen', method__encoder_seed=seed)
        assert set(jax.eval_shape(method.init, jax.random.key(0), BATCH)[0]) == {'unet'}
        kl.append(jax.jit(method.loss)({'unet': params['unet']}, {}, BATCH, jax.random.key(7))[1]['kl'])
    np.testing.assert_array_equal(kl[0], kl[1])
    assert not np.allclose(kl[0], kl[2], rtol=1e-3) and not np.allclose(kl[0], parts['kl'], rtol=1e-3)


def test_every_rater_is_drawn_and_the_mask_reaches_the_loss():
    """With a zero-initialised output the logit is 0: cross-entropy is log 2 whatever the mask; with eps it is not."""
    method = methods.create(tiny.config('unused', **{'method.target': 'rater'}))
    params, _ = jax.jit(method.init)(jax.random.key(0), BATCH)
    call = jax.jit(method.loss)
    loss, *_ = call(params, {}, BATCH, jax.random.key(0))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-5)
    biased = jax.tree.map(lambda p: p, params)
    biased['unet']['out_2']['bias'] = jnp.full_like(params['unet']['out_2']['bias'], 2.0)
    shares = BATCH['masks'].mean((2, 3))
    # With logit 2 everywhere the loss of a mask of share s is log(1 + e^-2) + 2 (1 - s).
    expected = np.log1p(np.exp(-2)) + 2 * (1 - shares)
    seen = [set() for _ in range(4)]
    for key in range(24):
        loss, *_ = call(biased, {}, BATCH, jax.random.key(key))
        for row in range(4):
            rater = int(np.abs(expected[row] - float(loss[row])).argmin())
            np.testing.assert_allclose(float(loss[row]), expected[row, rater], rtol=1e-5)
            seen[row].add(rater)
    assert seen == [{0, 1, 2}] * 4


def test_level_sets_have_the_shares_of_the_pixels_and_are_nested():
    """share_fn ramps from 0 to 1 over the columns: a column of share p is marked in p N of N masks."""
    share = jnp.broadcast_to(jnp.linspace(0.05, 0.95, 10)[None, None, :, None], (20, 3, 10, 1))
    levels = starts.stratified_levels(jax.random.key(2), 20)
    masks = np.asarray(starts.level_set(jnp.broadcast_to(share, (20, 3, 10, 1)), levels))
    np.testing.assert_allclose(masks.mean((0, 1)), np.linspace(0.05, 0.95, 10), atol=0.051)
    order = np.argsort(masks.sum((1, 2)))
    assert all((masks[a] <= masks[b]).all() for a, b in itertools.pairwise(order))


@pytest.mark.parametrize('steps', [1, 2, 1000])
def test_any_number_of_steps_is_taken_from_a_level_set(steps):
    config = tiny.config('unused', **{'sample.num_steps': steps})
    method = methods.create(config)
    params, _ = jax.eval_shape(method.init, jax.random.key(0), BATCH)
    keys = jax.random.split(jax.random.key(0), 4)
    assert jax.eval_shape(lambda p: method.sample(p, {}, BATCH['image'], keys, 4), params).shape == (4, 4, 16, 16)


def test_stratified_starts_are_normal_and_cover_each_low_frequency_evenly():
    keys = jax.random.split(jax.random.key(3), 200)
    drawn = jax.jit(jax.vmap(lambda k: starts.stratified_noise(k, 8, (4, 4, 1))))(keys)
    drawn = np.asarray(drawn)[..., 0]
    flat = drawn.reshape(-1, 16)
    np.testing.assert_allclose(flat.mean(0), 0, atol=4 / np.sqrt(len(flat)))
    np.testing.assert_allclose(np.cov(flat.T), np.eye(16), atol=0.15)
    # The mean over pixels times 4 is the lowest cosine coefficient: one start in each eighth.
    from scipy.stats import norm

    strata = np.sort(np.floor(norm.cdf(drawn.mean((2, 3)) * 4) * 8), axis=1)
    np.testing.assert_array_equal(strata, np.tile(np.arange(8), (200, 1)))


class Copying:
    """In place of the U-Net: its answer is x_t."""

    @staticmethod
    def apply(variables, x, t, **_):
        return x[..., -1:]


def test_the_noise_that_a_level_set_goes_on_from_covers_every_direction_evenly(monkeypatch):
    from scipy.stats import norm

    seen = []
    q_sample = gaussian.GaussianDiffusion.q_sample
    note = lambda process, x0, t, noise: seen.append(noise) or q_sample(process, x0, t, noise)
    monkeypatch.setattr(gaussian.GaussianDiffusion, 'q_sample', note)
    keys = jax.random.split(jax.random.key(5), 2)
    even = {}
    for noise in ('stratified', 'independent'):
        method = methods.create(tiny.config('unused', **{'sample.noise': noise}))
        method = dataclasses.replace(method, unet=Copying)
        sample = lambda k, m=method: (m.sample({'unet': {}}, {}, BATCH['image'][:2], k, 8), seen.pop())[1]
        noised = jax.jit(sample)(keys)
        lowest = np.asarray(noised).reshape(2, 8, -1).mean(-1) * 16
        strata = np.sort(np.floor(norm.cdf(lowest) * 8), axis=1)
        even[noise] = bool((strata == np.arange(8)).all())
    assert not seen
    assert even == {'stratified': True, 'independent': False}


def test_posterior_target_changes_the_loss_only_where_raters_differ():
    """With equal raters every weighting is the mask itself; with others the target is a mean of the raters."""
    fields = {
        'method__loss': 'cross_entropy',
        'method__vlb_weight': 0.0,
        'method__encoders': 'none',
        'diffusion__prediction': 'x0',
        'diffusion__learned_variance': False,
        'diffusion__mask_range': (-1.0, 1.0),
    }
    plain, posterior = method_of(**fields), method_of(**fields, method__target='posterior')
    params = tiny.params(plain, BATCH['image'])
    equal = {**BATCH, 'masks': np.repeat(BATCH['masks'][:, :1], 3, 1)}
    losses = {
        name: [jax.jit(m.loss)(params, {}, batch, jax.random.key(3))[0] for m in (plain, posterior)]
        for name, batch in (('equal', equal), ('differ', BATCH))
    }
    np.testing.assert_allclose(*losses['equal'], rtol=1e-5)
    assert np.abs(losses['differ'][0] - losses['differ'][1]).max() > 1e-3


def test_a_missing_rater_is_never_the_target(paper_loss):
    method, params, *_ = paper_loss
    present = BATCH['present'] & [True, False, True]
    loss = jax.jit(method.loss)
    other = BATCH['masks'].copy()
    other[:, 1] = 1 - other[:, 1]
    for key in jax.random.split(jax.random.key(1), 8):
        losses = [loss(params, {}, {**BATCH, 'masks': m, 'present': present}, key)[0] for m in (BATCH['masks'], other)]
        np.testing.assert_array_equal(*losses)


def test_level_sets_of_classes_keep_the_share_of_each():
    share = jnp.asarray([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0], [0.0, 0.1, 0.9]]).reshape(1, 1, 3, 3)
    levels = (jnp.arange(100) + 0.5) / 100
    labels = starts.level_set(jnp.broadcast_to(share, (100, 1, 3, 3)), levels)
    counts = np.stack([(labels[:, 0] == label).mean(0) for label in range(3)], -1)
    np.testing.assert_allclose(counts, share[0, 0], atol=0.011)


def test_classes_become_channels_of_the_process_and_labels_of_the_samples():
    fields = {'method__encoders': 'none', 'data__num_classes': 2, 'method__vlb_weight': 0.0}
    fields |= {
        'diffusion__learned_variance': False,
        'diffusion__mask_range': (-1.0, 1.0),
        'diffusion__prediction': 'x0',
    }
    labels = np.random.default_rng(2).integers(0, 3, (4, 3, 16, 16)).astype(np.uint8)
    batch = {**BATCH, 'masks': labels}
    method = method_of(**fields, method__loss='cross_entropy', method__target='posterior')
    params, _ = jax.jit(method.init)(jax.random.key(0), batch)
    loss, *_ = jax.jit(method.loss)(params, {}, batch, jax.random.key(1))
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-5)  # the last layer starts at zero: three equal classes
    keys = jax.random.split(jax.random.key(2), 2)
    drawn = jax.jit(lambda p, x, k: method.sample(p, {}, x, k, 4))(params, BATCH['image'][:2], keys)
    assert drawn.dtype == jnp.uint8 and drawn.shape == (2, 4, 16, 16) and set(np.unique(drawn)) <= {0, 1, 2}


@pytest.fixture(scope='module')
def independent():
    """(method, parameters away from zero) with symmetries and independent noise, in one evaluation and in two."""
    made = {}
    for steps in (1, 2):
        fields = {'sample.num_steps': steps, 'sample.num_samples': 4, 'sample.noise': 'independent'}
        method = methods.create(tiny.config('unused', **fields))
        params, _ = jax.jit(method.init)(jax.random.key(0), BATCH)
        params = jax.tree.map(lambda p: p + 0.3 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), params)
        made[steps] = method, params
    return made


def test_an_independent_mask_is_the_same_however_many_are_drawn_in_whatever_parts(independent):
    method, params = independent[2]
    assert method.draws == 'independent' and method.evaluations == 1 + 8 / 4
    keys = jax.random.split(jax.random.key(6), 4)
    draw = jax.jit(lambda n, parts: method.sample(params, {}, BATCH['image'], keys, n, parts), static_argnums=(0, 1))
    masks = np.asarray(draw(12, 1))
    assert len({mask.tobytes() for mask in masks[0]}) > 1
    np.testing.assert_array_equal(masks, draw(12, 6))
    np.testing.assert_array_equal(masks[:, :3], draw(3, 1))


def test_independent_masks_of_an_image_are_alike_in_distribution_and_tell_nothing_of_each_other(independent):
    method, params = independent[1]
    keys = jax.random.split(jax.random.key(7), 1000)
    image = jnp.repeat(BATCH['image'][:1], len(keys), axis=0)
    areas = np.asarray(jax.jit(lambda i, k: method.sample(params, {}, i, k, 4))(image, keys)).mean((2, 3))
    error = areas.std() / np.sqrt(len(keys))
    assert error > 0.003 and np.abs(areas.mean(0) - areas.mean()).max() < 3.5 * error
    assert np.abs(np.corrcoef(areas.T) - np.eye(4)).max() < 0.11


def test_with_symmetries_the_level_sets_of_an_image_come_from_one_share():
    """Sets of one map are nested; a network away from zero gives each orientation a map of its own otherwise."""
    fields = {'sample.num_steps': 1, 'sample.num_samples': 8}
    keys = jax.random.split(jax.random.key(4), 4)
    nested = {}
    for symmetric in (False, True):
        method = methods.create(tiny.config('unused', **fields, **{'sample.symmetries': symmetric}))
        params = tiny.params(method, BATCH['image'], away=0.3)
        draw = lambda parts, m=method, p=params: jax.jit(lambda x: m.sample(p, {}, x, keys, 8, parts))(BATCH['image'])
        masks = np.asarray(draw(1))
        np.testing.assert_array_equal(masks, draw(4))
        order = np.argsort(masks.sum((2, 3)), axis=1)
        masks = np.take_along_axis(masks, order[..., None, None], axis=1)
        nested[symmetric] = bool((masks[:, :-1] <= masks[:, 1:]).all())
    assert nested == {False: False, True: True}
