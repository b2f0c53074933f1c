"""Files of PyTorch weights: read exactly, and refused when they are anything else."""

import os
import pathlib
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from ambdiff.config import default
from ambdiff.errors import UserError
from ambdiff.released import files
from ambdiff.runtime import weights_file


@pytest.fixture(scope='module')
def state_dict():
    rng = np.random.default_rng(0)
    shapes = {'out.2.weight': (2, 64, 3, 3), 'out.2.bias': (2,), 'middle_block.1.qkv.weight': (192, 64, 1)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype == np.float32
        np.testing.assert_array_equal(a[name], b[name])


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / 'diverged.safetensors'
    safetensors.numpy.save_file({'a.weight': np.full((2, 2), np.nan, np.float32)}, path)
    with pytest.raises(UserError, match=r'a\.weight holds values that are not finite'):
        files.read_state_dict(path)


def test_a_file_of_ours_is_told_from_a_released_one(tmp_path):
    path = tmp_path / 'ours.safetensors'
    weights_file.save_safetensors(path, {'unet': {'a': np.ones(1)}}, default(), step=3)
    with pytest.raises(UserError, match='is an ambdiff file already'):
        files.read_state_dict(path)


@pytest.mark.parametrize('name', ['weights.pt', 'weights.safetensors'])
@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (b'\n<!DOCTYPE html><html>', 'is a web page, not weights'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\n', 'run git lfs pull'),
    ],
)
def test_a_web_page_or_pointer_in_the_place_of_weights_is_told(tmp_path, monkeypatch, name, content, said):
    monkeypatch.setitem(sys.modules, 'torch', None)
    (tmp_path / name).write_bytes(content)
    for read in (files.read_state_dict, weights_file.load_safetensors):
        with pytest.raises(UserError, match=said):
            read(tmp_path / name)


def test_names_of_a_compiled_network_in_safetensors_are_read(tmp_path):
    path = tmp_path / 'compiled.safetensors'
    safetensors.numpy.save_file({'module._orig_mod.a.weight': np.ones((2, 2), np.float32)}, path)
    assert list(files.read_state_dict(path)) == ['a.weight']


def test_without_torch_a_pt_file_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    path = tmp_path / 'savedmodel.pt'
    path.write_bytes(b'\x80\2')
    with pytest.raises(UserError, match='pip install torch'):
        files.read_state_dict(path)
    with pytest.raises(UserError, match='pip install torch'):
        files.write_state_dict(tmp_path / 'out.pt', {'a': np.ones(1, np.float32)})
    assert os.listdir(tmp_path) == ['savedmodel.pt']


@pytest.fixture(scope='module')
def torch():
    return pytest.importorskip('torch')


@pytest.fixture
def pt(torch, tmp_path, state_dict):
    path = tmp_path / 'savedmodel.pt'
    torch.save({name: torch.tensor(array) for name, array in state_dict.items()}, path)
    return path


def test_a_pt_file_is_read_and_written_exactly(pt, tmp_path, state_dict):
    _same(files.read_state_dict(pt), state_dict)
    back = tmp_path / 'emasavedmodel_0.9999.pt'
    files.write_state_dict(back, state_dict)
    _same(files.read_state_dict(back), state_dict)


prefixed = lambda prefix: lambda tensors: {f'{prefix}{name}': tensor for name, tensor in tensors.items()}
WRAPPED = {
    'of DistributedDataParallel': prefixed('module.'),
    'of torch.compile': prefixed('_orig_mod.'),
    'of both': prefixed('module._orig_mod.'),
    'with the epoch': lambda tensors: {'epoch': 3, 'state_dict': tensors, 'optimizer': {'state': {}}},
    'with the epoch, of torch.compile': lambda tensors: {'model': prefixed('_orig_mod.')(tensors), 'loss': 0.1},
}


@pytest.mark.parametrize('kind', ['old format', 'bfloat16', *WRAPPED])
def test_other_ways_of_saving_the_weights_are_read(torch, tmp_path, state_dict, kind):
    path = tmp_path / 'savedmodel.pt'
    tensors = {name: torch.tensor(array) for name, array in state_dict.items()}
    if kind == 'old format':
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif kind == 'bfloat16':
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        torch.save(tensors, path)
        state_dict = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    else:
        torch.save(WRAPPED[kind](tensors), path)
    _same(files.read_state_dict(path), state_dict)


class _Runs:
    """What, unpickled, would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize('how', ['torch.save', 'pickle'])
def test_pickled_objects_are_refused_and_not_run(torch, tmp_path, how):
    path, left = tmp_path / 'savedmodel.pt', tmp_path / 'was here'
    if how == 'pickle':
        path.write_bytes(pickle.dumps({'a': _Runs(left)}))
    else:
        torch.save({'a': _Runs(left)}, path)
    with pytest.raises(UserError, match='nothing in it was run'):
        files.read_state_dict(path)
    assert not left.exists()
    pickle.loads(pickle.dumps(_Runs(left)))
    assert left.exists()  # so the trap works


@pytest.mark.parametrize('share', [0.0, 1e-5, 0.01, 0.5, 0.999])
def test_a_cut_pt_file_is_refused(pt, share):
    content = pt.read_bytes()
    pt.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r'cut short or damaged|not a PyTorch file'):
        files.read_state_dict(pt)


def test_files_of_other_kinds_are_refused(torch, tmp_path):
    path = tmp_path / 'savedmodel.pt'
    path.write_text('epoch,loss\n0,1.0\n')
    with pytest.raises(UserError, match='is not a PyTorch file'):
        files.read_state_dict(path)
    for content, message in (
        ([torch.ones(2)], 'holds no state_dict but list'),
        ({'net': {'a': torch.ones(2)}, 'ema': {'a': torch.ones(2)}}, "several state_dicts ('net', 'ema')"),
        ({'model': {'a': 3}}, 'model is not a tensor of floats but dict'),
        ({'a': torch.ones(2, dtype=torch.int64)}, 'a is not a tensor of floats'),
        ({'a': torch.ones(2).to_sparse()}, 'a is not a tensor of floats'),
        ({3: torch.ones(2)}, 'its key 3 is not a name'),
        ({'a': torch.ones(1).expand(1000)}, 'larger than what the file stores'),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=re.escape(message)):
            files.read_state_dict(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(pt, tmp_path):
    packed = tmp_path / 'packed.pt'
    with zipfile.ZipFile(pt) as source, zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
    with pytest.raises(UserError, match='compressed archive'):
        files.read_state_dict(packed)
