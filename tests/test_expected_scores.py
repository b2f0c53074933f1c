"""benchmarks/expected_scores.py: its means over the draws are those of many draws."""

import pathlib
import sys

import numpy as np
import pytest

from ambdiff import metrics

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'benchmarks'))
import expected_scores


def test_expected_scores_are_the_mean_of_many_draws():
    random, number, repeats, q = np.random.default_rng(0), 4, 3000, 0.3
    rows, columns = np.mgrid[:8, :8]
    p = np.exp(-((rows - 3) ** 2 + (columns - 4) ** 2) / 9.0)
    raters = np.stack([p > 0.8, p > 0.5, p > 0.2, p > 2])
    u = random.random((repeats, number))
    level = ((u - q) / (1 - q))[..., None, None]
    masks = (u[..., None, None] >= q) & (p > level * p.max())
    scores = metrics.per_image(np.broadcast_to(raters, (repeats, *raters.shape)), masks)
    found = expected_scores.expected(p, q, raters, number)
    error = scores['ged'].std() / repeats**0.5
    assert found['ged'] == pytest.approx(scores['ged'].mean(), abs=4 * error)
    ideal = found['ged'] - found['ged_excess']
    assert ideal == pytest.approx(metrics.measure(raters[None], masks[:1], 'independent')['ged_ideal'][0], rel=1e-5)
    # The raters' share is a quarter, of four: its own variance over their number is taken away.
    assert found['emptiness'] == pytest.approx(2 * ((0.3 - 0.25) ** 2 - 0.25 * 0.75 / 3))
