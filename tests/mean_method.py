"""A method in a file of its own that compiles in a moment, for what any method shows and what one may have."""

import pytest

from ambdiff import methods

# The share of each pixel by one number a gray level; beside it a network that sampling leaves out, and a state: steps
# counted, and the images' running mean, from which it samples. The helper is larger than a page of a file system.
METHOD = """
import dataclasses

import jax
import jax.numpy as jnp

from ambdiff.methods.kit import fields, masks
from ambdiff.methods.kit.contract import Method


@dataclasses.dataclass(frozen=True)
class Fields:
    decay: float = 0.5  # of the running mean
    rank: int = 3  # of nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Mean(Method):
    decay: float

    architecture = ('method.rank',)

    def init(self, key, batch):
        params = {'share': {'scale': jax.random.normal(key, ())}, 'helper': {'bias': jax.random.normal(key, (2000,))}}
        return params, {'steps': jnp.zeros((), jnp.int32), 'mean': jnp.zeros(batch['image'].shape[1:3])}

    def for_sampling(self, params):
        return {'share': params['share']}

    def loss(self, params, state, batch, key):
        target = masks.of_rater(batch['masks'], masks.draw_rater(key, batch['present']))
        image = batch['image'][..., 0]
        loss = ((params['share']['scale'] * image - target) ** 2).mean((1, 2)) + (params['helper']['bias'] ** 2).mean()
        mean = self.decay * state['mean'] + (1 - self.decay) * image.mean(0)
        return loss, {'square': loss}, {'steps': state['steps'] + 1, 'mean': mean}

    def bytes_per_mask(self, image_size):
        return 4 * image_size**2

    def sample(self, params, state, images, keys, num_samples, parts=1):
        def draw(image, rows):
            noise = jax.vmap(lambda key: jax.random.uniform(key, image.shape[1:3]))(rows)
            return params['share']['scale'] * image[..., 0] - state['mean'][None] + noise > 0.5

        return masks.by_parts(draw, parts, images, masks.mask_keys(keys, num_samples))


def create(config, place=None):
    return Mean(fields.read(Fields, config.method).decay)
"""


@pytest.fixture(scope='module')
def mean_method(tmp_path_factory):
    """METHOD as a file where methods are found, for as long as a module runs."""
    folder = tmp_path_factory.mktemp('methods')
    (folder / 'mean.py').write_text(METHOD, 'utf-8')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, '__path__', [*methods.__path__, str(folder)])
        yield
