"""How long a method trains: images seen, or minutes on this machine, whatever its batch is."""

import math

import ml_collections

LOOKS = 5  # at validation, while a run trains
LOOKED_AT = 16  # images of it


def for_images(config: ml_collections.ConfigDict, images: int) -> ml_collections.ConfigDict:
    """Changes a config to see at least so many images in training, and to tell of it often enough; returns it."""
    return for_steps(config, math.ceil(images * config.train.updates_per_batch / config.train.batch_size))


def for_steps(config: ml_collections.ConfigDict, steps: int) -> ml_collections.ConfigDict:
    """Changes a config to this many steps, a checkpoint at each tenth and a look at validation at each fifth."""
    train = config.train
    train.num_steps = steps
    train.log_every = max(steps // 40, 1)
    train.checkpoint_every = math.ceil(steps / 10)
    train.sample_every = math.ceil(steps / LOOKS)
    train.sample_images = LOOKED_AT
    return config


def images_seen(config: ml_collections.ConfigDict) -> int:
    """How many images a whole run sees, repeated ones counted again."""
    return math.ceil(config.train.num_steps / config.train.updates_per_batch) * config.train.batch_size
