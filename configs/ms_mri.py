"""Multiple sclerosis lesions in four MRI sequences, two raters (`ambdiff/config.py` explains every field).

  python -m ambdiff.main --config=configs/ms_mri.py --config.data.path=FOLDER

FOLDER is the training part of the ISBI-2015 longitudinal challenge (docs/data/ms_mri.md). `data.fold` (0 .. 4) names
the subject that is tested.

Variants, as --config=configs/ms_mri.py:VARIANT
  (none)     CIMD as in the paper: 128x128, four channels, eps-prediction, 85.6 M parameters, 1000 steps a mask
  small      64x64 pixels of 2 mm, level sets of one map and a share of "nothing there" (docs/method.md), an eighth of a
             network evaluation a mask: about 20 minutes on one CPU core. weights/ms_mri_small.safetensors is this on
             simulated data
  simulated  the same kind of model for minutes, on simulated images with simulated raters; needs no data. Expected with
             80 test images and N = 16: GED16 0.293 +- 0.014 (before the noise after a level set was stratified); fresh
             answers of the simulated raters, which a perfect model would give, 0.142; the stored ones resampled 0.017;
             masks of other patients 0.752
"""

from ambdiff import methods
from ambdiff.config import default, demo, small, use_method


def get_config(variant: str = ''):
    config = default()
    config.data.builder = 'ms_mri'
    config.data.channels = 4
    config.data.num_raters = 2
    config.data.intensity = 'percentile'
    config.data.upright = True
    if variant == 'small':
        methods.recommend(use_method(small(config), 'level_sets'))
        config.data.image_size = 64
        config.data.spacing = 2.0
        config.train.batch_size = 16
        config.train.num_steps = 3000
    elif variant == 'simulated':
        demo(config)
        config.data.builder = 'ms_mri_simulated'
    elif variant:
        raise ValueError(f"configs/ms_mri.py has no variant '{variant}'; it has small and simulated")
    return config
