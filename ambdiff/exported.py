"""Weights as one file that runs without ambdiff: a compiled method's StableHLO, by jax.export, beside what it expects.

A file is a ZIP archive of two members, stored as they are:

  program.jax    what jax.export.deserialize takes: (images [b, S, S, C] float32 in [0, 1], seed [] uint32,
                 numbers [b] uint32) -> (masks [b, N, S, S] bool or uint8 labels, finite [] bool), any b
  ambdiff.json   what it was made from, the input it expects, N (docs/deploy.md)

The masks of image i follow from seed and numbers[i] alone, as those of `ambdiff.sampling` do. `finite` is False where
the network's output for any of the images was not finite: then no mask of the call means anything.
"""

import json
import os
import pathlib
import zipfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jax import export as jax_export

from ambdiff import files, finite, methods, packaged
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.methods.kit.contract import Weights
from ambdiff.runtime import checkpoint, sharding
from ambdiff.version import __version__

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
PROGRAM, FACTS = 'program.jax', 'ambdiff.json'
# As jax.export's own: programs are read by this version and by later ones for half a year at least.
_WHEN = (1980, 1, 1, 0, 0, 0)  # of the members: the same weights give the same bytes


def program(
    config: ml_collections.ConfigDict, weights: Weights, platforms: Sequence[str] = ('cpu',)
) -> jax_export.Exported:
    """The sampler of these weights with config.sample.num_samples masks an image, for any number of images."""
    method = methods.create(config)
    size, channels, number = config.data.image_size, config.data.channels, config.sample.num_samples

    def sample(images, seed, numbers):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
        # Image by image: a method asks for the number of images, which a program for any number does not know.
        one = lambda image, key: method.sample(*weights, image[None], key[None], number)[0]
        seen, masks = finite.seen(jax.vmap(one))(images, keys)
        return masks, finite.all_finite(seen)

    batch = jax_export.symbolic_shape('b')[0]
    given = (
        jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.uint32),
        jax.ShapeDtypeStruct((batch,), jnp.uint32),
    )
    return jax_export.export(jax.jit(sample), platforms=tuple(platforms))(*given)


def facts(config: ml_collections.ConfigDict, name: str, step: int, platforms: Sequence[str]) -> dict:
    """What a file says of itself, JSON."""
    data = config.data
    stored = {'intensity': data.intensity}
    if data.intensity == 'hu_window':
        low, high = data.hu_window
        stored |= {'units': 'HU', 'of_0': low, 'of_1': high}
    return {
        'format': 'ambdiff exported sampler',
        'ambdiff': __version__,
        'jax': jax.__version__,
        'weights': name,
        'step': step,
        'method': config.method.name,
        'notice': sources.notice(data),
        'image_size': data.image_size,
        'channels': data.channels,
        'neighbours': data.neighbours,
        'num_classes': data.num_classes,
        'num_samples': config.sample.num_samples,
        'spacing_mm': data.spacing or None,
        'input': stored,
        'platforms': list(platforms),
    }


def write(
    weights: str | os.PathLike,
    output: str | os.PathLike,
    platforms: Sequence[str] = ('cpu',),
    num_samples: int | None = None,
    independent: bool = False,
) -> pathlib.Path:
    """Writes weights as a file that runs with jax alone, whole or not at all.

    Args:
      weights: a name of weights that come along, a .safetensors file, the folder of a run or of one of its steps.
      output: the file.
      platforms: where it will run, of PLATFORMS.
      num_samples: masks an image, N; the weights' own where not given.
      independent: N independent draws, instead of what the weights' config says.

    Raises:
      UserError: no such weights or platform, or the output cannot be written.
    """
    output = pathlib.Path(output)
    if strange := [name for name in platforms if name not in PLATFORMS]:
        raise UserError(f'--platforms={strange[0]} is not known; choose of {",".join(PLATFORMS)}')
    if not platforms or len(set(platforms)) < len(platforms):
        raise UserError(f'--platforms={",".join(platforms)}: name each platform once, of {",".join(PLATFORMS)}')
    if output.is_dir():
        raise UserError(f'--output={output} is a folder; name a file, as {output / "sampler.zip"}')
    files.check_place(output.parent, 'output')
    path = str(packaged.weights(weights))
    config = checkpoint.load_config(path).copy_and_resolve_references()
    if num_samples is not None:
        config.sample.num_samples = num_samples
    if independent:
        config.sample.noise = 'independent'
    loaded, step = checkpoint.load_weights(path, config, sharding.replicated(sharding.local_mesh()))
    made = program(config, loaded, platforms)
    said = json.dumps(facts(config, pathlib.Path(path).name, step, platforms), indent=2)
    with files.whole_file(output) as file, zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(FACTS, _WHEN), said)
        archive.writestr(zipfile.ZipInfo(PROGRAM, _WHEN), bytes(made.serialize()))
    return output
