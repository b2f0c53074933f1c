"""The worked example of docs/add_a_method.md, as a reader would save it: it trains, evaluates and keeps the rules."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import tiny

from ambdiff import evaluate, methods, sampling, train
from ambdiff.errors import UserError

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'add_a_method.md'


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """Puts the page's code where methods are found; gives the tiny config that names it."""
    (code,) = re.findall(r'^```python\n(.*?)^```', PAGE.read_text('utf-8'), re.MULTILINE | re.DOTALL)
    folder = tmp_path / 'methods'
    folder.mkdir()
    (folder / 'flow.py').write_text(code, 'utf-8')
    monkeypatch.setattr(methods, '__path__', [*methods.__path__, str(folder)])

    def config(**fields):
        return tiny.config(tmp_path / 'data.hdf5', method='flow', **fields)

    return config


def test_it_trains_and_evaluates_with_no_edit_elsewhere(flow, tmp_path):
    tiny.write_hdf5(tmp_path / 'data.hdf5')
    config = flow(**{'train.num_steps': 2, 'optim.warmup_steps': 1, 'train.checkpoint_every': 2, 'train.log_every': 1})
    assert train.train(config, tmp_path / 'run')
    lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [1, 2]
    # At its start the network gives 0: the loss is E (x_1 - x_0)^2 = 1 + 1.
    assert all(np.isfinite(line['loss']) and line['velocity'] == line['loss'] for line in lines)
    np.testing.assert_allclose(lines[0]['loss'], 2, atol=0.2)
    result = evaluate.evaluate(config, tmp_path / 'run')
    assert result['checkpoint_step'] == 2 and 0 <= result['metrics']['ged'] <= 2


def test_masks_follow_from_the_images_key_alone(flow):
    method = methods.create(flow(**{'sample.num_steps': 3}))
    images = np.random.default_rng(0).random((3, tiny.SIZE, tiny.SIZE, 1), np.float32)
    params, state = tiny.params(method, images, away=0.3), {}
    keys = sampling.image_keys(jax.random.key(1), range(3))
    draw = jax.jit(lambda x, k, parts: method.sample(params, state, x, k, 4, parts), static_argnums=2)
    masks = np.asarray(draw(images, keys, 1))
    assert masks.shape == (3, 4, tiny.SIZE, tiny.SIZE) and masks.dtype == bool
    assert 0.05 < masks.mean() < 0.95 and (masks[:, 0] != masks[:, 1]).any()
    np.testing.assert_array_equal(masks, draw(images, keys, 2))
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(masks[order], draw(images[order], keys[order], 1))


def test_what_it_cannot_do_is_told_in_a_line(flow):
    with pytest.raises(UserError, match=r'num_classes=2.*set it to 1'):
        methods.create(flow(**{'data.num_classes': 2}))
