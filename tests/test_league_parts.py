"""What a league is made of: the model as one more reader, each method's budget, the command line of the module."""

import jax
import numpy as np
import pytest
from test_configs import get_config

from ambdiff import methods, metrics
from ambdiff.league import __main__ as module
from ambdiff.league import reader


def test_the_module_takes_the_config_as_a_flag():
    given = ['--config=configs/league.py', '--config.data.path=x', '--methods=ssn']
    assert module.arguments(given) == ['league', 'configs/league.py', '--config.data.path=x', '--methods=ssn']
    assert module.arguments(['--seeds=2', '--config', 'mine.py']) == ['league', '--seeds=2', 'mine.py']


def test_the_model_as_one_more_reader_against_geds_own_terms():
    rng = np.random.default_rng(0)
    raters, samples = rng.random((5, 4, 6, 6)) > 0.8, rng.random((5, 3, 6, 6)) > 0.7
    raters[0, :2] = samples[0, 0] = False
    model, others = reader.agreement(list(raters), samples)
    values = metrics.measure(raters, samples, 'independent')
    # 2 E d(S, Y) = GED + E d(S, S') + E d(Y, Y'), the means over all pairs.
    cross = (values['ged'] + values['diversity_samples'] * 2 / 3 + values['diversity_raters'] * 3 / 4) / 2
    np.testing.assert_allclose(model.mean(1), 1 - cross, atol=1e-6)
    np.testing.assert_allclose(others.mean(1), 1 - values['diversity_raters'], atol=1e-6)
    # Fewer raters of an image leave their places undefined.
    fewer, alone = reader.agreement([raters[0][:1], raters[1]], samples[:2])
    assert np.isnan(fewer[0, 1:]).all() and np.isnan(alone[0]).all()
    np.testing.assert_allclose(fewer[1], model[1])


@pytest.mark.parametrize('name', methods.known())
def test_each_method_fits_the_budgets_of_the_league(name):
    config = get_config('league', name)
    method = methods.create(config)
    assert method.draws == 'independent' and config.sample.num_samples == 16
    assert config.data.augment and not config.data.warp and not config.data.rewindow
    seen = config.train.num_steps * config.train.batch_size
    assert 12_000 <= seen < 12_000 + config.train.batch_size and config.data.image_size == 64
    image = jax.ShapeDtypeStruct((1, 64, 64, 1), np.float32)
    assert jax.eval_shape(method.init, jax.random.key(0), {'image': image})
    assert get_config('league', f'{name}_published').data.image_size == 128
