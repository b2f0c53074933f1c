"""The ultrasound phantom: physics that shows in the image, raters whose distribution is as stated."""

import numpy as np
import pytest

from ambdiff.data.bone_us import phantom


@pytest.fixture(scope='module')
def scenes():
    return [phantom.scene(f'case{number}') for number in range(40)]


@pytest.fixture(scope='module')
def images(scenes):
    return [phantom.image(scene, 64) for scene in scenes]


def test_a_case_gives_the_same_scene_image_and_answers_again(scenes, images):
    again = phantom.scene('case3')
    np.testing.assert_array_equal(phantom.image(again, 64), images[3])
    one, other = (phantom.answers(s, 64, np.arange(4), np.random.default_rng(5)) for s in (again, scenes[3]))
    np.testing.assert_array_equal(one, other)
    assert (images[3] != images[4]).any()


def test_every_size_shows_the_same_scene(scenes, images):
    for scene, image in list(zip(scenes, images, strict=True))[:8]:
        fine = phantom.image(scene, 128).reshape(64, 2, 64, 2).mean((1, 3))
        assert np.corrcoef(fine.ravel(), image.ravel())[0, 1] > 0.3
        truth = phantom.answers(scene, 128, np.zeros(20, int), np.random.default_rng(0)).mean(0)
        coarse = phantom.answers(scene, 64, np.zeros(20, int), np.random.default_rng(0)).mean(0)
        assert np.abs(truth.reshape(64, 2, 64, 2).mean((1, 3)) - coarse).mean() < 0.02


def test_the_bone_is_brighter_than_tissue_and_casts_a_shadow(scenes, images):
    bright, dark = [], []
    grid = (np.arange(64) + 0.5) * phantom.FIELD / 64
    for scene, image in zip(scenes, images, strict=True):
        inside = (grid > scene.ends[0] + 2) & (grid < scene.ends[1] - 2)
        below = grid[:, None] - scene.surface(grid)
        tissue = image[(below < -3) & (below > -8) & inside].mean()
        bright.append(image[(np.abs(below) < 0.7) & inside].mean() - tissue)
        dark.append(image[(below > 5) & (below < 9) & inside].mean() - tissue)
    assert np.median(bright) > 25
    assert np.median(dark) < -35
    # Bright bones stand out more than faint ones: what the raters' empty answers depend on can be seen.
    assert np.corrcoef(bright, [scene.visibility for scene in scenes])[0, 1] > 0.4


def test_speckle_of_even_tissue_is_rayleigh_and_of_clumped_tissue_is_k_distributed():
    rng = np.random.default_rng(0)
    scatter = rng.standard_normal((2, 256, 256)) / np.sqrt(2)
    envelope = np.hypot(*phantom._point_spread(scatter, 0.16, focus=20))
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.08)  # the ratio of every Rayleigh law
    assert np.mean(envelope**2) == pytest.approx(1, abs=0.15)
    power = phantom._gamma_field(rng, 256, shape=2.0, sigma=8)
    assert power.mean() == pytest.approx(1, abs=0.1)
    assert power.var() == pytest.approx(0.5, abs=0.15)  # 1 / shape
    clumped = np.hypot(*phantom._point_spread(scatter * np.sqrt(power), 0.16, focus=20))
    assert clumped.mean() / clumped.std() < 1.75


def test_raters_leave_images_empty_as_often_as_stated(scenes):
    rng = np.random.default_rng(0)
    for scene in scenes[:4]:
        marked = phantom.answers(scene, 32, np.repeat(np.arange(4), 2000), rng).any((1, 2)).reshape(4, -1)
        np.testing.assert_allclose(1 - marked.mean(1), phantom.empty_probability(scene.visibility), atol=0.03)
    over_scenes = [phantom.empty_probability(phantom.scene(str(i)).visibility) for i in range(3000)]
    np.testing.assert_allclose(np.mean(over_scenes, 0), [0.026, 0.078, 0.15, 0.30], atol=0.01)


def test_raters_differ_in_depth_thickness_and_ends_as_their_skill_says(scenes):
    rng, size = np.random.default_rng(1), 128
    pixel = phantom.FIELD / size
    depth, thick, wide = np.zeros((3, 4))
    grid = (np.arange(size) + 0.5) * pixel
    for scene in scenes:
        masks = phantom.answers(scene, size, np.repeat(np.arange(4), 16), rng).reshape(4, 16, size, size).astype(bool)
        for rater in range(4):
            kept = masks[rater][masks[rater].any((1, 2))]
            columns = kept.any(1)
            middle = (kept * grid[:, None]).sum(1)[columns] / kept.sum(1)[columns]
            depth[rater] += (middle - np.broadcast_to(scene.surface(grid), columns.shape)[columns]).mean() / len(scenes)
            thick[rater] += kept.sum(1)[columns].mean() * pixel / scene.thickness / len(scenes)
            wide[rater] += columns.sum(1).mean() * pixel / np.ptp(scene.ends) / len(scenes)
    np.testing.assert_allclose(depth, [r.bias for r in phantom.RATERS], atol=0.12)
    np.testing.assert_allclose(thick, [r.thickness for r in phantom.RATERS], rtol=0.06)
    assert (np.diff(wide) < 0).all()  # the ends are missed more, the less the skill
