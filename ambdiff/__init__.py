"""Diffusion models for ambiguous medical image segmentation in JAX and Flax.

  model = ambdiff.load('lidc_small')                            # weights by name, a file, a workdir
  prediction = model.sample(image, num_samples=16, at=(210, 143))
  ambdiff.score(raters, prediction.masks)['ged']

Light to import: JAX and all else are imported when a name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ambdiff.version import __version__ as __version__

if TYPE_CHECKING:
    from ambdiff.api.model import Model as Model
    from ambdiff.api.model import load as load
    from ambdiff.api.prediction import Prediction as Prediction
    from ambdiff.errors import UserError as UserError
    from ambdiff.scoring import ged as ged
    from ambdiff.scoring import hm_iou as hm_iou
    from ambdiff.scoring import score as score

# Where each public name is defined.
_HOMES = {
    'Model': 'ambdiff.api.model',
    'Prediction': 'ambdiff.api.prediction',
    'UserError': 'ambdiff.errors',
    'ged': 'ambdiff.scoring',
    'hm_iou': 'ambdiff.scoring',
    'load': 'ambdiff.api.model',
    'score': 'ambdiff.scoring',
}

__all__ = ['Model', 'Prediction', 'UserError', '__version__', 'ged', 'hm_iou', 'load', 'score']


if not TYPE_CHECKING:  # to a type checker it would give any name that is asked for

    def __getattr__(name: str) -> Any:
        """A public name, imported when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
