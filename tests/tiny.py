"""A model, a data set and a config small enough to compile in seconds, shared by the tests."""

import json

import h5py
import jax
import numpy as np

from ambdiff import methods, predict, train
from ambdiff.config import default, small
from ambdiff.runtime import weights_file

SIZE = 16  # pixels of the model's images


def write_hdf5(path, counts=None, size=20, seed=0, num_classes=1):
    """Discs that four raters outline at different radii, in the PHiSeg layout; further classes are rims around them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    with h5py.File(path, 'w') as file:
        for number, (split, count) in enumerate((counts or {'train': 24, 'val': 8, 'test': 8}).items()):
            centre = rng.uniform(0.35, 0.65, (count, 2, 1, 1)) * size
            distance = np.hypot(rows - centre[:, 0], columns - centre[:, 1])
            radius = rng.uniform(1.5, 4, (count, 4)) * (rng.random((count, 4)) > 0.3)
            depth = np.ceil(radius[:, None, None] - distance[..., None] + num_classes - 1)
            labels = np.where(radius[:, None, None] > 0, np.clip(depth, 0, num_classes), 0)
            images = np.exp(-((distance / 4) ** 2)) - 0.5 + rng.normal(0, 0.02, distance.shape)
            group = file.create_group(split)
            group['images'] = np.clip(images, -0.5, 0.5).astype(np.float32)
            group['labels'] = labels.astype(np.uint8)
            group['uids'] = np.arange(count) // 2 + 1000 * number
    return path


def config(path, method='cimd', **fields):
    """The small config of a method on a very small U-Net; fields as 'group.field': value."""
    tiny = small(default(method))
    tiny.data.path = str(path)
    tiny.data.image_size = SIZE
    tiny.model.channels = 8
    tiny.model.channel_mult = (1,)
    tiny.model.attention_resolutions = ()
    tiny.model.num_res_blocks = 1
    tiny.model.num_heads = 2
    tiny.model.num_groups = 4
    tiny.optim.warmup_steps = 2
    tiny.train.num_steps = 12
    tiny.train.batch_size = 8
    tiny.train.log_every = 2
    tiny.train.checkpoint_every = 4
    tiny.train.sample_every = 0
    tiny.train.sample_images = 8  # as many as are evaluated: one compiled sampler for both
    tiny.sample.num_steps = 2
    tiny.sample.num_samples = 4
    tiny.mesh.data = -1
    for name, value in fields.items():
        group, field = name.split('.')
        tiny[group][field] = value
    return tiny


def flags(path, workdir, **fields):
    """The command line of `config`, as arguments of python -m ambdiff.main with configs/lidc.py:small_cimd."""
    tiny = config(path, **fields)
    names = ['data.path', 'data.image_size', 'optim.warmup_steps']
    names += [f'model.{n}' for n in ('channels', 'num_res_blocks', 'num_heads', 'num_groups')]
    names += [f'train.{n}' for n in tiny.train]
    names += [f'sample.{n}' for n in ('num_steps', 'num_samples')]
    given = [f'--config.{n}={tiny[n.split(".")[0]][n.split(".")[1]]}' for n in names]
    given += ['--config.model.channel_mult=(1,)', '--config.model.attention_resolutions=()']
    return ['--config=configs/lidc.py:small_cimd', f'--workdir={workdir}', *given]


def disc(shape, centre, radius=3.2):
    """A filled circle [H, W] bool; centre is (row, column)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def params(method, image, away=0.1, seed=0):
    """Parameters as after some training, for which nothing is compiled: no layer is zero.

    Args:
      method: whose they are.
      image: [B, H, W, C], only its shape is used.
      away: standard deviation of what is added to every number of an untrained network.
      seed: of the values.
    """
    rng = np.random.default_rng(seed)

    def draw(path, x):
        name = path[-1].key
        start = rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape) if name == 'kernel' else name == 'scale'
        return np.asarray(start + rng.normal(0, away, x.shape), np.float32)

    abstract, _ = jax.eval_shape(method.init, jax.random.key(0), {'image': image})
    return jax.tree_util.tree_map_with_path(draw, abstract)


def state(config, method, optimiser):
    """A training state at step 0 with such parameters; what the method carries beside them is zero."""
    image = np.zeros((1, SIZE, SIZE, config.data.channels), np.float32)
    abstract = jax.eval_shape(lambda k: train.create_state(config, method, optimiser, k), jax.random.key(0))
    zero = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    return zero.replace(params=params(method, image), ema=params(method, image))


def write_weights(path):
    """An untrained model as a file of weights."""
    tiny = config('')
    drawn = params(methods.create(tiny), np.zeros((1, SIZE, SIZE, 1), np.float32), away=0.3)
    weights_file.save_safetensors(path, drawn, tiny, step=7, dtype='float32')
    return path


def run_predict(weights, source, output, *more):
    """The exit status of python -m ambdiff.predict with few samples and steps."""
    flags = (f'--checkpoint={weights}', f'--input={source}', f'--output={output}', '--num_samples=4', '--num_steps=2')
    return predict.main([*flags, *more])


def sample_bright(model, settings, crops, numbers, names):
    """In place of CropSampler.sample_crops: marks what is brighter than the middle, and leaves sample 0 empty."""
    masks = np.repeat(crops[:, None, ..., 0] > 0.5, settings.num_samples, 1)
    masks[:, 0] = False
    return masks


def summary(output, name):
    """What predict says of a case."""
    return json.loads((output / name / 'summary.json').read_text())
