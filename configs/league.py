"""The league: every method on the same data by the same rules (docs/league.md; `ambdiff/config.py` explains fields).

  python -m ambdiff.league --config=configs/league.py --config.data.path=data_lidc.hdf5

trains and measures them all; one of them alone is a run as any other:

  python -m ambdiff.main --config=configs/league.py:prob_unet --config.data.path=data_lidc.hdf5

Variants, as --config=configs/league.py:VARIANT; NAME is any file of ambdiff/methods, also one of your own
  NAME            64x64 and 12,000 images for everybody
  NAME_published  128x128, and about as long as its authors trained; `published` alone gives the league these of all

The same for everybody: data and their order, flips and quarter turns, split, N = 16 independent masks an image.
Each method's own: network and optimiser, as its authors published them (`recommend` in its file). level_sets is
configs/lidc.py:small, from a random start and on the common augmentation; cimd is configs/lidc.py:small_cimd, and as
published configs/lidc.py. A method that recommends nothing has the optimiser of small_cimd.
"""

from ambdiff import methods
from ambdiff.config import default, small
from ambdiff.league import budget

FIRST = 'level_sets'  # where no method is named
IMAGES = 12_000
# As long as the authors trained, as far as their code says (PHiSeg's is stopped by hand: SSN's length, of its fork).
EPOCH = 10_000  # slices, about two thirds of LIDC-IDRI's 15,096
PUBLISHED_IMAGES = {
    'level_sets': 2500 * 32,
    'prob_unet': 10 * EPOCH,
    'phiseg': 500_000 * 12,
    'ssn': 500_000 * 12,
    'mose': 200 * EPOCH,
    'ccdm': 2000 * EPOCH,
    'flow_ssn': 1001 * EPOCH,
}


def get_config(variant: str = ''):
    name, published = variant or FIRST, False
    if name not in methods.known():
        name, published = _published(name), True
    config = _settings(name, published, 128 if published else 64)
    config.sample.noise = 'independent'
    config.sample.num_samples = 16
    if not published:
        budget.for_images(config, IMAGES)
    elif name in PUBLISHED_IMAGES:
        config.train.num_steps = PUBLISHED_IMAGES[name] // config.train.batch_size
    return config


def _published(variant):
    """The method of 'NAME_published', of 'published' alone the first."""
    name = variant.removesuffix('published').removesuffix('_') or FIRST
    if name == variant or name not in methods.known():
        known = ', '.join(methods.known())
        raise ValueError(
            f"configs/league.py has no variant '{variant}'; it has published, and NAME or NAME_published of {known}"
        )
    return name


def _settings(name, published, size):
    """What the method's file recommends, over the paper's optimiser and, unless published, the network of `small`.

    Where it recommends nothing: all of `small`, or as published the paper's setting. level_sets is `small` at any size.
    """
    config = default(name)
    if not published or name == 'level_sets':
        small(config)
    config.data.image_size = size  # a method may recommend a network by it
    if name == 'cimd':
        return config
    config.optim.update(default(name).optim)
    before = config.to_json()
    said = methods.recommend(config).to_json() != before
    return config if said or published else small(config)
