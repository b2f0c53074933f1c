"""Public data sets with several raters, as they are downloaded (docs/data/pattern.md): the small model, 64x64.

  python -m ambdiff.main --config=configs/multi_rater.py:curvas --config.data.path=FOLDER

Variants, as --config=configs/multi_rater.py:VARIANT
  (none)    for a pattern of your own: --config.data.pattern=image=..,mask=..
  qubiq, curvas, mbhseg, msseg, wmh, refuge, npc170, scgm, kits21, riga
            presets (ambdiff/data/pattern/presets.py): how the files are named, and how many channels, labels and raters

About an hour on two CPU cores. What to expect of it is not known: no result was computed on these data.
"""

from ambdiff.config import default, small
from ambdiff.data.pattern.presets import PRESETS


def get_config(variant: str = ''):
    config = small(default())
    config.data.image_size = 64
    if variant and variant not in PRESETS:
        raise ValueError(f"configs/multi_rater.py has no variant '{variant}'; it has {', '.join(PRESETS)}")
    config.data.pattern = variant
    if variant:
        config.data.update(PRESETS[variant].fields)
    return config
