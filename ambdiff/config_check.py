"""What the fields of a config may hold, told before anything is computed."""

import ml_collections

from ambdiff.errors import UserError

_CHOICES = {
    'method.loss': ('mse', 'cross_entropy'),
    'method.target': ('rater', 'posterior'),
    'method.time_sampling': ('uniform', 'stratified'),
    'method.encoders': ('none', 'frozen', 'trained'),
    'method.amn_input': ('xt', 'x0'),
    'method.acn_input': ('reverse_step', 'eps'),
    'sample.sampler': ('ancestral', 'ddim'),
    'sample.noise': ('independent', 'stratified'),
    'sample.start': ('noise', 'level_set'),
    'model.dtype': ('float32', 'bfloat16'),
}

_MANY = 10**9
# Sizes are bounded far above what anybody trains, since configs that come with weights are anybody's.
_RANGES = {
    'model.channels': (1, 8192),
    'model.channel_mult': (1e-3, 1024),
    'model.num_res_blocks': (1, 32),
    'model.num_heads': (1, 1024),
    'model.num_groups': (1, 8192),
    'model.patch_size': (1, 256),
    'model.dropout': (0, 0.99),
    'data.image_size': (1, 16384),
    'data.channels': (1, 1024),
    'data.num_raters': (1, 10_000),
    'data.num_classes': (1, 254),
    'data.hu_window': (-1e6, 1e6),
    'data.spacing': (0, 1000),
    'diffusion.num_steps': (1, 10**6),
    'diffusion.mask_range': (-1, 1),  # x0 is clipped to [-1, 1]
    'method.image_repeats': (1, 64),
    'method.latent_dim': (1, 4096),
    'method.vlb_weight': (0, _MANY),
    'method.kl_weight': (0, _MANY),
    'train.updates_per_batch': (1, _MANY),
    'train.log_every': (1, _MANY),
    'train.checkpoint_every': (1, _MANY),
    'train.keep_checkpoints': (1, _MANY),
    'train.sample_images': (1, _MANY),
    'train.spike_factor': (0, _MANY),
    'train.max_rollbacks': (0, _MANY),
    'sample.eta': (0, 1),
    'sample.num_samples': (1, _MANY),
    'sample.level_time': (0.01, 1),
    'sample.memory_mib': (0, _MANY),
    'evaluate.max_images': (0, _MANY),
    'evaluate.sample_counts': (1, _MANY),
}


def check(config: ml_collections.ConfigDict) -> None:
    """Checks every field that has a range or contradicts another.

    Raises:
      UserError: naming the field, what it may be, or the two that contradict each other.
    """
    for field, known in _CHOICES.items():
        group, name = field.split('.')
        if config[group][name] not in known:
            raise UserError(f'config.{field}={config[group][name]!r} is not known; use one of {", ".join(known)}')
    for field, (least, most) in _RANGES.items():
        group, name = field.split('.')
        values = config[group][name]
        for value in values if isinstance(values, tuple | list) else [values]:
            if not least <= value <= most:
                raise UserError(f'config.{field}={values} is out of range: {least} to {most}')
    if not 0 <= config.seed < 2**32:
        raise UserError(f'config.seed={config.seed} is out of range: 0 to {2**32 - 1}')
    diffusion, method = config.diffusion, config.method
    if len(method.image_range) != 2 or len(diffusion.mask_range) != 2:
        raise UserError('config.method.image_range and config.diffusion.mask_range are pairs (low, high)')
    if not 1 <= len(config.model.channel_mult) <= 10:
        raise UserError('config.model.channel_mult needs one number a level, for 1 to 10 levels')
    window = config.data.hu_window
    if len(window) != 2 or window[0] >= window[1]:
        raise UserError(f'config.data.hu_window={tuple(window)} must be a pair (low, high), low below high')
    if method.loss == 'cross_entropy' and diffusion.prediction != 'x0':
        raise UserError("config.method.loss='cross_entropy' needs config.diffusion.prediction='x0'")
    if method.target == 'posterior' and method.loss != 'cross_entropy':
        raise UserError("config.method.target='posterior' needs config.method.loss='cross_entropy'")
    if bool(method.vlb_weight) != diffusion.learned_variance:
        raise UserError(
            'config.method.vlb_weight trains the learned variance: set it above 0 together with '
            'config.diffusion.learned_variance=True, or to 0 with False'
        )
    if config.sample.start == 'level_set' and diffusion.prediction != 'x0':
        raise UserError("config.sample.start='level_set' needs config.diffusion.prediction='x0'")
    if not 1 <= config.sample.num_steps <= diffusion.num_steps:
        raise UserError(
            f'config.sample.num_steps={config.sample.num_steps} must lie in 1 .. '
            f'{diffusion.num_steps} (config.diffusion.num_steps)'
        )
