"""The worked example of docs/add_a_reader.md, as a reader would save it: checked, trained on, and strict."""

import json
import pathlib
import re

import numpy as np
import pytest
import tiny

from ambdiff import train
from ambdiff.data import check, example, fingerprint, layouts, sources, splits
from ambdiff.errors import UserError

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'add_a_reader.md'
SIZE = tiny.SIZE


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Puts the page's code where layouts are found and its line into the table; a config's group and its folder."""
    (code,) = re.findall(r'^```python\n(.*?)^```', PAGE.read_text('utf-8'), re.MULTILINE | re.DOTALL)
    (tmp_path / 'layouts').mkdir()
    (tmp_path / 'layouts' / 'npz_folder.py').write_text(code, 'utf-8')
    monkeypatch.setattr(layouts, '__path__', [*layouts.__path__, str(tmp_path / 'layouts')])
    monkeypatch.setattr(sources, 'LAYOUTS', (*sources.LAYOUTS, 'npz_folder'))
    rng, folder = np.random.default_rng(0), tmp_path / 'data'
    folder.mkdir()
    for number in range(20):
        masks = rng.integers(0, 2, (4 - number % 2, SIZE, SIZE))
        image = rng.random((SIZE, SIZE))
        np.savez_compressed(folder / f'case{number}.npz', image=image, masks=masks, patient=f'p{number // 2}')
    config = tiny.config(folder)
    return config.data, folder


def test_its_examples_are_those_of_the_files_and_no_patient_is_in_two_splits(data):
    data, folder = data
    opened = {split: sources.open_source(data, split) for split in example.SPLITS}
    assert [len(source) for source in opened.values()] == [16, 2, 2]
    assert not splits.shared_patients({p: (p, s) for s, source in opened.items() for p in source.patients})
    for source in opened.values():
        for item in source:
            with np.load(folder / f'{item["case"]}.npz') as stored:
                np.testing.assert_allclose(item['image'][..., 0], stored['image'], atol=1e-6)
                marked = item['masks'][item['present']]
                assert sorted(mask.tobytes() for mask in marked) == sorted(
                    mask.astype(np.uint8).tobytes() for mask in stored['masks']
                )
    assert fingerprint.of(opened['train'], data)['files'] == 16


def test_every_fault_is_told_and_the_rest_is_surveyed(data):
    data, folder = data
    np.savez(folder / 'case3.npz', image=np.zeros((SIZE, SIZE)), masks=np.full((1, SIZE, SIZE), 7), patient='p1')
    np.savez(folder / 'case8.npz', image=np.full((SIZE, SIZE), 2.0), masks=np.zeros((1, SIZE, SIZE)), patient='p4')
    (folder / 'case5.npz').write_bytes(b'PK')
    surveys, _, faults = check.examine(data)
    assert sum(found.count for found in surveys.values()) == 17 and len(faults) == 3
    assert any('case3.npz: needs an image' in line for line in faults)
    assert any('case8.npz: its image has values' in line for line in faults)
    assert any('case5.npz: no archive' in line for line in faults)
    with pytest.raises(UserError, match=r'case[358]\.npz: '):
        sources.open_source(data, 'train')


def test_it_trains_with_no_edit_elsewhere(data, mean_method, tmp_path):
    config = tiny.config(data[1], 'mean', **{'train.num_steps': 1, 'train.log_every': 1, 'optim.warmup_steps': 0})
    assert train.train(config, tmp_path / 'run')
    (line,) = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert np.isfinite(json.loads(line)['loss'])
