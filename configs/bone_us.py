"""Bone surfaces in ultrasound, four raters (`ambdiff/config.py` explains every field).

  python -m ambdiff.main --config=configs/bone_us.py --config.data.path=FOLDER

FOLDER holds a folder a case with image.* and mask_*.* (docs/data/bone_us.md): the paper's own set is not public.

Variants, as --config=configs/bone_us.py:VARIANT
  (none)     CIMD as in the paper: 128x128, eps-prediction, 85.6 M parameters, 1000 steps a mask
  small      64x64, level sets of one map and a share of "nothing there" (docs/method.md), an eighth of a network
             evaluation a mask: about 20 minutes on one CPU core. weights/bone_us_small.safetensors is this on simulated
             data
  simulated  the same kind of model for minutes, on simulated images with simulated raters; needs no data. Expected with
             80 test images and N = 16: GED16 0.174 +- 0.008 (before the noise after a level set was stratified); fresh
             answers of the simulated raters, which a perfect model would give, 0.140; the stored ones resampled 0.025;
             masks of other patients 0.537
"""

from ambdiff import methods
from ambdiff.config import default, demo, small, use_method


def get_config(variant: str = ''):
    config = default()
    config.data.builder = 'bone_us'
    config.data.intensity = 'b_mode'
    config.data.fit = 'resize'
    config.data.upright = True
    if variant == 'small':
        methods.recommend(use_method(small(config), 'level_sets'))
        config.data.image_size = 64
        config.train.batch_size = 16
        config.train.num_steps = 3000
    elif variant == 'simulated':
        demo(config)
        config.data.builder = 'bone_us_simulated'
    elif variant:
        raise ValueError(f"configs/bone_us.py has no variant '{variant}'; it has small and simulated")
    return config
