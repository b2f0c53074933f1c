"""LIDC-IDRI lung nodules, four radiologists (`ambdiff/config.py` explains every field).

  python -m ambdiff.main --config=configs/lidc.py --config.data.path=data_lidc.hdf5

Variants, as --config=configs/lidc.py:VARIANT
  (none)    CIMD as in the paper: 128x128, eps-prediction, 85.6 M parameters, 1000 steps a mask
  released  CIMD as its released code runs it (docs/parity.md lists the differences)
  small     64x64, level sets of one map and a share of "nothing there", learned on GED itself (docs/method.md): half a
            network evaluation a mask. It goes on from a trained denoiser,
              --config.checkpoint=weights/lidc_small_cimd.safetensors
            in about an hour on one CPU core; expected result in weights/lidc_small.md
  small_cimd
            64x64, CIMD with x0-prediction and cross-entropy, 8 network evaluations a mask:
            about an hour on two CPU cores; expected result in weights/lidc_small_cimd.md
  simulated the same kind of model for minutes, real outlines on simulated images; needs no data (configs/demo.py)
  pod       the paper's setting in bfloat16 on as many accelerators as there are
"""

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
        use_method(small(config), 'level_sets')
        config.data.image_size = 64
        config.data.warp = 0.25
        config.data.rewindow = 0.3
        config.optim.learning_rate = 1e-3
        config.optim.warmup_steps = 100
        config.optim.b2 = 0.99
        config.optim.ema_decay = 0.998
        config.train.num_steps = 2500
        config.train.batch_size = 32
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
            f"configs/lidc.py has no variant '{variant}'; it has released, small, small_cimd, simulated and pod"
        )
    return config
