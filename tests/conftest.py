"""Strict test settings: silent broadcasting and warnings are errors; compiles are cached on disk."""

# ruff: noqa: E402  what is set here must be set before JAX is imported

import gc
import importlib.metadata
import logging
import os
import pathlib
import sys

CACHE = pathlib.Path(__file__).parents[1] / '.cache'
if sys.dont_write_bytecode:
    # Half of a short process's time is compiling libraries that another one compiled: kept, but not beside the sources.
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(CACHE / 'python')
    os.environ |= {'PYTHONDONTWRITEBYTECODE': '', 'PYTHONPYCACHEPREFIX': sys.pycache_prefix}
# Eight simulated devices let one process test that results do not depend on the topology (devices.py).
os.environ.setdefault('JAX_NUM_CPU_DEVICES', '8')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE / 'jax'))
# Most of a test's time is compiling: four times faster without the optimiser, equal to rounding.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # a flag that XLA does not know ends the process
    # The compiler's older way to write loops: compiled in half the time, equal to rounding.
    os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1')

import devices
import jax
import pytest
import tiny
from absl import flags

from ambdiff.prediction.crop_sampler import CropSampler

pytest_plugins = ['browser', 'mean_method']  # fixtures of the pages in a browser; a method that compiles in a moment

jax.config.update('jax_numpy_rank_promotion', 'raise')
flags.FLAGS.mark_as_parsed()
# Tracing makes many objects and few circles: looking for these as often as Python does takes a tenth of the time.
gc.set_threshold(50_000, 20, 20)

SHARED = pathlib.Path(__file__).parents[2] / 'shared'


@pytest.fixture(scope='module', autouse=True)
def one_device():
    """A test that is about several devices says so: `with devices.visible(8)`."""
    with devices.visible(1):
        yield


@pytest.fixture(autouse=True)
def log_as_at_first():
    """A command that a test runs in this process sets how much is told: no test inherits it."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger('ambdiff').setLevel(logging.NOTSET)


@pytest.fixture(scope='session')
def shared():
    """The folder of real samples and reference numbers; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip('the shared folder of real samples is not here')
    return SHARED


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """An untrained tiny model as a file of weights."""
    return tiny.write_weights(tmp_path_factory.mktemp('weights') / 'tiny.safetensors')


@pytest.fixture
def bright(monkeypatch):
    """A network that marks what is brighter than the middle, and leaves sample 0 empty; the crops it was given."""
    seen = []

    def sample(model, settings, crops, numbers, names):
        seen.extend(crops)
        return tiny.sample_bright(model, settings, crops, numbers, names)

    monkeypatch.setattr(CropSampler, 'sample_crops', sample)
    return seen


def pytest_collection_modifyitems(items):
    """The files that take minutes come first, so that no worker is left with one while the others are idle."""
    names = 'hosts notebook train sharding evaluate faults cimd channels add_a_method convert'
    slow = [f'test_{name}' for name in names.split()]
    items.sort(key=lambda item: slow.index(item.path.stem) if item.path.stem in slow else len(slow))


def pytest_collection_finish():
    """What all modules hold stays to the end: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
