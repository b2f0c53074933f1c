"""LIDC-IDRI lung nodules, four radiologists (`ambdiff/config.py` explains every field).

  python -m ambdiff.main --config=configs/lidc.py --config.data.path=data_lidc.hdf5

Variants, as --config=configs/lidc.py:VARIANT
  (none)    CIMD as in the paper: 128x128, eps-prediction, 85.6 M parameters, 1000 steps a mask
  released  CIMD as its released code runs it (docs/parity.md lists the differences)
  small     64x64, level sets of one map and a share of "nothing there", learned on GED itself (docs/method.md): an
            eighth of a network evaluation a mask. It goes on from a trained denoiser,
              --config.checkpoint=weights/lidc_small_cimd.safetensors
            in about an hour on one CPU core; expected result in weights/lidc_small.md
  small_cimd
            64x64, CIMD with x0-prediction and cross-entropy, 8 network evaluations a mask:
            about an hour on two CPU cores; expected result in weights/lidc_small_cimd.md
  base      128x128, the protocol of most published figures (independent draws), the design of `small` from a random
            start: 17 M parameters, 4.3 GFLOP an evaluation, .54 a mask at N = 16; 33 PFLOP of training in all, so for
            an accelerator (days on two CPU cores). Not trained to its end yet: no figure of it is known
  simulated the same kind of model for minutes, real outlines on simulated images; needs no data (configs/demo.py)
  pod       the paper's setting in bfloat16 on as many accelerators as there are
"""

from ambdiff import methods
from ambdiff.config import default, demo, small, use_method


def get_config(variant: str = ''):
    config = default()
    if variant == 'released':
        config.method.image_repeats = 4
        config.method.encoders = 'frozen'
        config.method.amn_input = 'x0'
        config.method.acn_input = 'eps'
        config.train.updates_per_batch = 2
        config.train.batch_size = 20
        config.optim.clip_norm = 0.0
        config.optim.ema_warmup = False
    elif variant == 'small_cimd':
        small(config)
        config.data.image_size = 64
    elif variant == 'small':
        methods.recommend(use_method(small(config), 'level_sets'))
        config.data.image_size = 64
        config.method.orientations = 2  # as good as all eight, for a quarter of the cost (docs/method.md)
        config.data.warp = 0.25
        config.data.rewindow = 0.3
        config.train.num_steps = 2500
    elif variant == 'base':
        methods.recommend(use_method(small(config), 'level_sets'))
        config.method.orientations = 2
        config.data.warp = 0.25
        config.data.rewindow = 0.3
        config.model.channel_mult = (1, 2, 4)
        config.model.attention_resolutions = (2, 4)
        config.optim.learning_rate = 5e-4
        config.optim.warmup_steps = 1000
        config.optim.ema_decay = 0.9995
        config.train.batch_size = 64
        config.train.num_steps = 40_000
        config.train.checkpoint_every = 1000
        config.train.sample_every = 5000
        config.sample.noise = 'independent'
        config.sample.memory_mib = 4096.0
    elif variant == 'simulated':
        demo(config)
        config.data.builder = 'lidc_simulated'
    elif variant == 'pod':
        config.model.dtype = 'bfloat16'
        config.train.batch_size = 1024
        config.train.num_steps = 50_000
        config.optim.learning_rate = 3e-4
        config.optim.warmup_steps = 1000
        config.optim.schedule = 'cosine'
    elif variant:
        raise ValueError(
            f"configs/lidc.py has no variant '{variant}'; it has released, small, small_cimd, base, simulated and pod"
        )
    return config
