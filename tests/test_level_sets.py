"""The method level_sets: its loss and draws against their equations, and the start from another method's weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ambdiff import dihedral, methods, sampling, train
from ambdiff.data import augment
from ambdiff.errors import UserError
from ambdiff.methods.kit import energy

BATCH = {
    'image': np.random.default_rng(0).random((4, 16, 16, 1), np.float32),
    'masks': (np.random.default_rng(1).random((4, 3, 16, 16)) > 0.7).astype(np.uint8),
    'present': np.array([[True, True, True], [True, True, False], [True, True, True], [True, False, True]]),
}
BATCH['masks'][:, 0] = 0


@pytest.fixture(scope='module')
def built():
    """(method, params away from their start, loss compiled)."""
    method = methods.create(tiny.config('unused', 'level_sets', **{'sample.noise': 'independent'}))
    params, state = jax.jit(method.init)(jax.random.key(0), BATCH)
    assert state == {}
    params = jax.tree.map(lambda p: p + 0.2 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), params)
    return method, params, jax.jit(method.loss)


@pytest.fixture(scope='module')
def drawn(built):
    """(p, q, 400 masks of each image)."""
    method, params, _ = built
    p, q = jax.jit(method.shares)(params, BATCH['image'])
    draw = jax.jit(lambda x, k: method.sample(params, {}, x, k, 400))
    masks = draw(BATCH['image'], sampling.image_keys(jax.random.key(1), range(4)))
    return np.asarray(p), np.asarray(q), np.asarray(masks), draw


def test_loss_is_equation_2(built):
    method, params, loss = built
    key = jax.random.key(3)
    value, parts, _ = loss(params, {}, BATCH, key)
    network_key, level_key = jax.random.split(key)
    z, empty = map(np.float64, method._outputs(params, BATCH['image'], network_key))
    q, p = 1 / (1 + np.exp(-empty)), 1 / (1 + np.exp(-z[..., 0]))
    count = method.fields.levels
    levels = (np.arange(count) + np.asarray(jax.random.uniform(level_key, (4, count)))) / count
    for b in range(4):
        raters = BATCH['masks'][b][BATCH['present'][b]]
        true_q, mean = np.mean(~raters.any((1, 2))), raters.mean(0)
        sets = [np.zeros((16, 16)), *(p[b] > v * p[b].max() for v in levels[b])]
        weights = np.array([q[b], *[(1 - q[b]) / count] * count])
        flat = lambda x: np.float32(x).reshape(1, len(x), -1)
        score = energy.energy_score(weights[None], flat(sets), flat(raters), np.ones((1, len(raters)), bool))[0]
        cross_entropy = lambda target, guess: -(target * np.log(guess) + (1 - target) * np.log(1 - guess))
        expected = [score, 0.2 * cross_entropy(true_q, q[b]), 2.0 * cross_entropy(mean, p[b]).mean()]
        got = [float(parts[name][b]) for name in ('energy', 'emptiness', 'share')]
        np.testing.assert_allclose(got, expected, rtol=2e-3)
    np.testing.assert_allclose(value, sum(parts.values()), rtol=1e-6)


def test_an_absent_raters_mask_does_not_reach_the_loss(built):
    _, params, loss = built
    changed = {**BATCH, 'masks': np.where(BATCH['present'][..., None, None], BATCH['masks'], 1 - BATCH['masks'])}
    before, after = (loss(params, {}, batch, jax.random.key(0))[0] for batch in (BATCH, changed))
    np.testing.assert_array_equal(before, after)


def test_every_network_learns(built):
    method, params, _ = built
    gradient = jax.jit(jax.grad(lambda params: method.loss(params, {}, BATCH, jax.random.key(0))[0].mean()))(params)
    for network in ('unet', 'head'):
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient[network])) > 0


def test_masks_are_empty_with_probability_q_and_else_mark_a_pixel_as_often_as_its_share_of_the_maximum(drawn):
    p, q, masks, _ = drawn
    filled = masks.any((2, 3))
    np.testing.assert_allclose((~filled).mean(1), q, atol=4 * np.sqrt(0.25 / 400))
    assert q.min() > 0.02 and q.max() < 0.98
    for b in range(4):
        share = masks[b][filled[b]].mean(0)
        np.testing.assert_allclose(share, p[b] / p[b].max(), atol=4 * np.sqrt(0.25 / filled[b].sum()))


def test_the_masks_of_an_image_are_nested(drawn):
    _, _, masks, _ = drawn
    for image in masks:
        ordered = image[np.argsort(image.sum((1, 2)))]
        assert (ordered[:-1] <= ordered[1:]).all()


def test_masks_follow_from_the_images_key_alone_and_turn_with_the_image(drawn):
    _, _, masks, draw = drawn
    keys, order = sampling.image_keys(jax.random.key(1), range(4)), np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(masks[order], draw(BATCH['image'][order], keys[order]))
    k = jnp.array([1, 4, 6, 3])
    turned = np.asarray(draw(dihedral.turn(jnp.asarray(BATCH['image']), k), keys))
    # The mean over the orientations is summed in another order: pixels at a level may differ.
    assert (turned != np.asarray(dihedral.turn(masks, k, (2, 3)))).mean() < 1e-3


def test_strata_give_each_image_its_number_of_empty_masks():
    method = methods.create(tiny.config('unused', 'level_sets'))
    assert method.draws == 'dependent'
    params, _ = jax.jit(method.init)(jax.random.key(0), BATCH)
    params['head']['Dense_1']['bias'] = jnp.full(1, -0.5)
    masks = jax.jit(lambda x, k: method.sample(params, {}, x, k, 16))(
        BATCH['image'], jax.random.split(jax.random.key(2), 4)
    )
    empty = (~np.asarray(masks).any((2, 3))).sum(1)
    share = 16 / (1 + np.exp(0.5))
    assert set(empty) <= {int(np.floor(share)), int(np.ceil(share))}


def test_evaluations_are_shared_by_the_masks_of_an_image():
    of = lambda **fields: methods.create(tiny.config('unused', 'level_sets', **fields)).evaluations
    assert of(**{'sample.num_samples': 16}) == 0.5
    assert of(**{'sample.num_samples': 16, 'sample.symmetries': False}) == 1 / 16
    assert of(**{'sample.num_samples': 16, 'data.upright': True}) == 2 / 16
    assert of(**{'sample.num_samples': 16, 'method.orientations': 4}) == 4 / 16
    assert of(**{'sample.num_samples': 16, 'data.upright': True, 'method.orientations': 4}) == 2 / 16


def test_images_that_have_a_top_are_mirrored_and_never_turned():
    of = lambda upright: methods.create(tiny.config('unused', 'level_sets', **{'data.upright': upright})).orientations
    assert of(True) == (0, 2) and of(False) == tuple(range(8))


def test_several_classes_are_refused():
    with pytest.raises(UserError, match='level_sets draws one class'):
        methods.create(tiny.config('unused', 'level_sets', **{'data.num_classes': 2}))


def test_a_run_starts_from_the_network_of_another_method(weights, tmp_path):
    config = tiny.config(tiny.write_hdf5(tmp_path / 'data.hdf5'), 'level_sets')
    fresh = train._Setup(config).start().params
    config.checkpoint = str(weights)
    started = train._Setup(config).start().params
    same = lambda a, b: all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))
    assert same(started['head'], fresh['head']) and not same(started['unet'], fresh['unet'])
    config.model.channels = 16
    with pytest.raises(UserError, match='of the method cimd and has no network that fits level_sets'):
        train._Setup(config).start()


def test_rewindow_shows_images_as_another_window_would():
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1).repeat(200, 0)
    changed = np.asarray(augment.rewindow({'image': image}, jax.random.key(0), 0.5, (-1000.0, 400.0))['image'])
    same = (changed == image).all((1, 2, 3))
    assert 70 < same.sum() < 130
    flat = changed[~same].reshape(-1, 64)
    assert (np.diff(flat, axis=1) >= 0).all() and flat.min() >= 0 and flat.max() <= 1
    # Of the windows 1/4 begin at -1000 HU or above, and leave it darkest; 7/17 end at 400 HU or below: white.
    assert abs((flat[:, 0] < 1e-4).mean() - 1 / 4) < 0.15 and abs((flat[:, -1] == 1).mean() - 7 / 17) < 0.15
