"""benchmarks/against_torch.py compares one network with itself in PyTorch."""

import importlib.util
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

from ambdiff.models import unet
from ambdiff.released import layout

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'


@pytest.mark.skipif(importlib.util.find_spec('torch') is not None, reason='PyTorch is installed')
@pytest.mark.parametrize('name', ['against_torch.py'])
def test_without_pytorch_one_line_says_what_to_install(name):
    run = subprocess.run([sys.executable, BENCHMARKS / name], capture_output=True, text=True)
    assert run.returncode == 2
    assert 'pip install torch' in run.stderr and run.stderr.count('\n') == 1


def test_the_network_in_pytorch_takes_our_weights_and_says_what_ours_says(monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import torch_unet

    model = tiny.config('unused').model
    network = unet.from_config(model, tiny.SIZE, 1)
    random = np.random.default_rng(0)
    x, t = random.normal(size=(2, tiny.SIZE, tiny.SIZE, 2)).astype(np.float32), np.array([3, 900])
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, t)['params']
    params = jax.tree.map(lambda p: random.normal(size=p.shape).astype(np.float32) / 3, shapes)
    theirs = torch_unet.UNet(model, 2, 1)
    state = layout.state_dict(layout.unet_name, {'params': params})
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    with torch.no_grad():
        output = theirs(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(t)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(output, jax.jit(network.apply)({'params': params}, x, t), rtol=2e-3, atol=2e-3)
