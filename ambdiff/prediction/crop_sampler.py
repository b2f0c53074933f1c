"""Samples crops: weights with what they were trained for, on this process's devices."""

import hashlib
import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from ambdiff import methods, modes, sampling
from ambdiff.config import default
from ambdiff.errors import UserError
from ambdiff.prediction.result import Settings
from ambdiff.runtime import checkpoint, sharding
from ambdiff.text import printable

# Masks of the first, cheap pass of --screen; each is made in one step, and for one orientation of the image.
SCREEN_SAMPLES = 16
# Groups of the config that masks depend on.
_MATTERS = ('model', 'diffusion', 'method', 'sample')
_DATA = ('image_size', 'channels', 'neighbours', 'num_classes', 'intensity', 'hu_window', 'spacing')


class CropSampler:
    """What samples crops in `flow`: `config`, `weights` (what is told of them) and `sampler` beside `sample_crops`."""

    def __init__(self, path: str):
        """path: a .safetensors file, a workdir or the folder of a step.

        Raises:
          UserError: no such weights, or they are damaged.
        """
        self.config = checkpoint.load_config(path).copy_and_resolve_references()
        self.config.mesh = default().mesh
        self._mesh = sharding.local_mesh()
        self._weights, step = checkpoint.load_weights(path, self.config, sharding.replicated(self._mesh))
        digest = _digest(self._weights, self.config)
        self.weights = {'name': printable(pathlib.Path(path).name), 'step': step, 'sha256': digest}
        self._samplers: dict[tuple[int, int, bool], sampling.Sampler] = {}

    def sampler(self, settings: Settings) -> sampling.Sampler:
        """What makes so many samples in so many steps; compiled on first use, and kept.

        Raises:
          UserError: more steps than the weights have, or too little memory for one sample.
        """
        most = self.config.diffusion.num_steps
        if settings.num_steps > most:
            raise UserError(f'--num_steps={settings.num_steps} is more than the {most} steps of the weights')
        return self._sampler(settings.num_samples, settings.num_steps, self.config.sample.symmetries)

    def screener(self) -> sampling.Sampler:
        """What makes the first, cheap pass of `screen`; compiled on first use, and kept."""
        return self._sampler(SCREEN_SAMPLES, 1, False)

    def _sampler(self, *key) -> sampling.Sampler:
        if key not in self._samplers:
            config = self.config.copy_and_resolve_references()
            config.sample.num_samples, config.sample.num_steps, config.sample.symmetries = key
            self._samplers[key] = sampling.Sampler(config, methods.create(config), self._mesh)
        return self._samplers[key]

    def screen(self, settings: Settings, crops: np.ndarray, numbers: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """A first, cheap pass: the share of its SCREEN_SAMPLES masks of each crop that mark anything, [n].

        Arguments and errors as of `sample_crops`; of the settings only the seed counts.
        """
        keys = sampling.image_keys(jax.random.key(settings.seed), numbers)
        return self.screener()(self._weights, crops, keys, names=names).any((2, 3)).mean(1)

    def sample_crops(
        self, settings: Settings, crops: np.ndarray, numbers: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """Crops [n, S, S, C] in [0, 1], uint32 numbers [n] folded into the seed -> masks [n, N, S, S].

        names [n]: what each crop is of.

        Raises:
          UserError: the network's output for a crop is not finite.
        """
        keys = sampling.seeded_keys(np.uint32(settings.seed), numbers)
        return self.sampler(settings)(self._weights, crops, keys, names=names, meanwhile=modes.get_ready)


def _digest(weights, config) -> str:
    """SHA-256 of weights and of what else masks depend on."""
    saved = json.loads(config.to_json())
    groups = {name: saved[name] for name in _MATTERS}
    groups['data'] = {name: saved['data'][name] for name in _DATA}
    for name in ('num_samples', 'num_steps', 'memory_mib'):
        del groups['sample'][name]
    digest = hashlib.sha256(json.dumps(groups, sort_keys=True).encode())
    for tree in weights:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
