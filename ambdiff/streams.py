"""Randomness: the streams of a key. Everything random is fold_in(key, stream).

Steps, images and masks count their streams up from 0; what is random once has one of its own, counted down from the
largest, so that the two never meet.
"""

_LAST = 2**31 - 1

# Of the run's key, jax.random.key(config.seed); step s of the training has stream s.
EVALUATION = _LAST  # then one key an image, by its row in the split
VALIDATION = _LAST - 1
PARAMETERS = _LAST - 2

# Of an image's key in sampling; mask n has stream n.
STARTS = _LAST
LEVELS = _LAST - 1
RESTARTS = _LAST - 2

# The seed of noise that is the same for every image and run.
SHARE = 0
