"""What the fields of a config may hold, told before anything is computed.

A method checks its own (methods/kit/fields.py, and its `create`).
"""

import ml_collections

from ambdiff.data.files import neighbours
from ambdiff.data.files.intensity import KINDS
from ambdiff.data.pattern.presets import pattern_of
from ambdiff.errors import UserError

_CHOICES = {
    'sample.sampler': ('ancestral', 'ddim'),
    'sample.noise': ('independent', 'stratified'),
    'sample.start': ('noise', 'level_set'),
    'model.dtype': ('float32', 'bfloat16'),
    'data.intensity': KINDS,
    'data.lidc_split': ('patient', 'mose', 'phiseg'),
    'optim.schedule': ('constant', 'cosine'),
}

MANY = 10**9
# Sizes are bounded far above what anybody trains, since configs that come with weights are anybody's.
_RANGES = {
    'model.channels': (1, 8192),
    'model.channel_mult': (1e-3, 1024),
    'model.attention_resolutions': (1, 4096),
    'model.num_res_blocks': (1, 32),
    'model.num_heads': (1, 1024),
    'model.num_groups': (1, 8192),
    'model.patch_size': (1, 256),
    'model.dropout': (0, 0.99),
    'data.image_size': (1, 16384),
    'data.channels': (1, 1024),
    'data.neighbours': (0, 100),
    'data.num_raters': (1, 10_000),
    'data.num_classes': (1, 254),
    'data.hu_window': (-1e6, 1e6),
    'data.spacing': (0, 1000),
    'data.fold': (0, 10_000),
    'data.warp': (0, 10),
    'data.rewindow': (0, 1),
    'diffusion.num_steps': (1, 10**6),
    'diffusion.mask_range': (-1, 1),  # x0 is clipped to [-1, 1]
    'optim.learning_rate': (0, 1000),
    'optim.final_fraction': (0, 1),
    'optim.warmup_steps': (0, MANY),
    'optim.weight_decay': (0, 1000),
    'optim.b2': (0, 1),
    'optim.clip_norm': (0, MANY),
    'optim.ema_decay': (0, 1),
    'train.num_steps': (1, MANY),
    'train.batch_size': (1, MANY),
    'train.accumulation_steps': (1, MANY),
    'train.updates_per_batch': (1, MANY),
    'train.log_every': (1, MANY),
    'train.checkpoint_every': (1, MANY),
    'train.keep_checkpoints': (1, MANY),
    'train.sample_images': (1, MANY),
    'train.spike_factor': (0, MANY),
    'train.max_rollbacks': (0, MANY),
    'sample.eta': (0, 1),
    'sample.num_samples': (1, MANY),
    'sample.level_time': (0.01, 1),
    'sample.memory_mib': (0, MANY),
    'evaluate.max_images': (0, MANY),
    'evaluate.sample_counts': (1, MANY),
}


def one_of(field: str, value, known: tuple) -> None:
    """Raises UserError unless the value of config.<field> is one of those known."""
    if value not in known:
        raise UserError(f'config.{field}={value!r} is not known; use one of {", ".join(map(str, known))}')


def between(field: str, value, least: float, most: float = MANY) -> None:
    """Raises UserError unless the value of config.<field>, or each element of a tuple, lies in least .. most."""
    for one in value if isinstance(value, tuple | list) else [value]:
        if not least <= one <= most:
            raise UserError(f'config.{field}={value} is out of range: {least} to {most}')


def check(config: ml_collections.ConfigDict) -> None:
    """Checks every field that all methods share and that has a range.

    Raises:
      UserError: naming the field and what it may be.
    """
    for field, known in _CHOICES.items():
        group, name = field.split('.')
        one_of(field, config[group][name], known)
    for field, (least, most) in _RANGES.items():
        group, name = field.split('.')
        between(field, config[group][name], least, most)
    between('seed', config.seed, 0, 2**32 - 1)
    if len(config.diffusion.mask_range) != 2:
        raise UserError('config.diffusion.mask_range is a pair (low, high)')
    if not 1 <= len(config.model.channel_mult) <= 10:
        raise UserError('config.model.channel_mult needs one number a level, for 1 to 10 levels')
    neighbours.check(config.data)
    if config.data.pattern:
        pattern_of(config.data.pattern)
    window = config.data.hu_window
    if len(window) != 2 or window[0] >= window[1]:
        raise UserError(f'config.data.hu_window={tuple(window)} must be a pair (low, high), low below high')
