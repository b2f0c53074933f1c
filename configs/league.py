"""The league: every method on the same data by the same rules (docs/league.md; `ambdiff/config.py` explains fields).

  python -m ambdiff.league --config=configs/league.py --config.data.path=data_lidc.hdf5

trains and measures them all; one of them alone is a run as any other:

  python -m ambdiff.main --config=configs/league.py:prob_unet --config.data.path=data_lidc.hdf5

Variants, as --config=configs/league.py:VARIANT; NAME is any file of ambdiff/methods, also one of your own
  NAME            64x64 and 12,000 images for everybody
  NAME_published  128x128, and as long as its authors trained; `published` alone gives the league these of all

The same for everybody: data and their order, flips and quarter turns, split, N = 16 independent masks an image.
Each method's own: network and optimiser. A rival has what its authors published (`recommend` in its file). level_sets
is configs/lidc.py:small, from a random start and on the common augmentation; cimd is configs/lidc.py:small_cimd, as
published configs/lidc.py. A method that recommends nothing has the optimiser of small_cimd.
"""

from ambdiff import methods
from ambdiff.config import default, small
from ambdiff.league import budget

IMAGES = 12_000
FIRST = 'level_sets'  # where no method is named


def get_config(variant: str = ''):
    name, published = variant or FIRST, False
    if name not in methods.known():
        name, published = _without('published', name), True
    size = 128 if published else 64
    config = _level_sets() if name == 'level_sets' else _recommended(name, published, size)
    config.data.image_size = size
    config.data.warp = config.data.rewindow = 0.0
    config.sample.noise = 'independent'
    config.sample.num_samples = 16
    if not published:
        budget.for_images(config, IMAGES)
    return config


def _without(ending, variant):
    """The method of 'NAME_published', of 'published' alone the first."""
    name = variant.removesuffix(ending).removesuffix('_') or FIRST
    if name == variant or name not in methods.known():
        known = ', '.join(methods.known())
        raise ValueError(
            f"configs/league.py has no variant '{variant}'; it has published, and NAME or NAME_published of {known}"
        )
    return name


def _level_sets():
    config = small(default('level_sets'))
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 100
    config.optim.b2 = 0.99
    config.optim.ema_decay = 0.998
    config.train.num_steps = 2500
    config.train.batch_size = 32
    return config


def _recommended(name, published, size):
    """What the method's file recommends, on the paper's optimiser; else `small`, as published the paper's setting."""
    config = default(name)
    if not published:
        config = small(config)
        config.optim.update(default(name).optim)
    config.data.image_size = size  # a method may recommend a network by it
    before = config.to_json()
    config = methods.recommend(config)
    unsaid = config.to_json() == before
    return small(config) if unsaid and not published else config
