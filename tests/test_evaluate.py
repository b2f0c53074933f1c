"""Evaluation: the files of the contract, what masks depend on, and the baselines beside them."""

import csv
import json

import archives
import devices
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ambdiff import evaluate, methods, metrics, sampling, train
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.evaluation import cases
from ambdiff.runtime import sharding
from ambdiff.runtime.checkpoint import load_weights
from ambdiff.runtime.weights_file import load_safetensors, save_safetensors


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A short run, trained and evaluated: (config, workdir, what evaluate returned)."""
    folder = tmp_path_factory.mktemp('run')
    data = tiny.write_hdf5(folder / 'tiny.hdf5', {'train': 24, 'val': 8, 'test': 7})
    config = tiny.config(data, **{'train.sample_every': 6, 'train.sample_images': 7})
    assert train.train(config, folder / 'work')
    return config, folder / 'work', evaluate.evaluate(config, folder / 'work')


def test_evaluation_writes_the_files_of_the_contract(run):
    config, workdir, result = run
    folder = workdir / 'evaluation'
    assert sorted(p.name for p in folder.iterdir()) == ['masks.npz', 'metrics.json', 'per_image.csv', 'report.html']
    written = json.loads((folder / 'metrics.json').read_text())
    assert set(written['metrics']) == set(written['stderr']) == set(metrics.ALL_KEYS)
    assert {k: v for k, v in written['metrics'].items() if v is not None} == pytest.approx(
        {k: v for k, v in result['metrics'].items() if np.isfinite(v)}
    )
    # The demo's sampler stratifies: what rests on independent masks is not there, and the reason is.
    assert written['draws'] == 'dependent'
    absent = {key for key, value in written['metrics'].items() if value is None}
    assert absent == set(written['undefined']) >= {'ged_unbiased', 'emptiness_error', 'ged_shape'}
    assert (written['stderr_clustered_by'], written['num_patients']) == ('patient', 4)
    assert set(written['baselines']) == {'empty', 'other_patients', 'rater_vs_rest', 'raters_resampled'}
    assert written['checkpoint_step'] == config.train.num_steps
    assert (written['split'], written['num_images'], written['samples_per_image']) == ('test', 7, 4)
    assert written['network_evaluations_per_mask'] == 2
    assert written['seconds_per_mask'] > 0
    assert written['config']['data']['image_size'] == 16
    head, *lines = csv.reader((folder / 'per_image.csv').read_text().splitlines())
    assert head == ['case', 'patient', *metrics.ALL_KEYS] and len(lines) == 7
    assert [line[1] for line in lines] == ['2000', '2000', '2001', '2001', '2002', '2002', '2003']
    assert [line[head.index('ged_unbiased')] for line in lines] == [''] * 7
    saved = archives.read(folder / 'masks.npz')
    assert saved['samples'].shape == (7, 4, 16, 2) and saved['raters'].shape == (7, 4, 16, 2)
    assert saved['patient'].tolist() == [line[1] for line in lines]
    again = metrics.per_image(*(np.unpackbits(saved[n], axis=-1).astype(bool) for n in ('raters', 'samples')))
    assert np.mean(again['ged']) == pytest.approx(written['metrics']['ged'])


def test_training_leaves_scalars_events_and_pictures_of_samples(run):
    _, workdir, _ = run
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    last = {name for line in lines if line['step'] == 12 for name in line}
    assert {'loss', 'images_per_second', 'teraflops', 'validation/ged', 'validation/empty_share'} <= last
    assert list((workdir / 'tensorboard').iterdir())
    pictures = sorted((workdir / 'samples').glob('*.png'))
    assert [p.name for p in pictures] == ['step_00000006.png', 'step_00000012.png']
    assert pictures[0].read_bytes().startswith(b'\x89PNG')


def draw(run, over=1, number=4, **fields):
    config = run[0].copy_and_resolve_references()
    for name, value in fields.items():
        config.sample[name] = value
    method = methods.create(config)
    with devices.visible(over):
        mesh = sharding.local_mesh()
    weights, _ = load_weights(str(run[1]), config, sharding.replicated(mesh))
    # Far from trained: masks that hold something, and differ.
    weights = jax.tree.map(lambda p: p + 0.3 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), weights)
    source = sources.open_source(config.data, 'test')
    images = cases.load(source, range(number)).images
    keys = sampling.image_keys(jax.random.key(5), range(number))
    return sampling.Sampler(config, method, mesh)(weights, images, keys)


def test_a_mask_depends_on_its_key_alone_not_on_devices_or_chunks(run):
    reference = draw(run)
    assert reference.any() and not reference.all()
    assert len({m.tobytes() for m in reference[0]}) > 1, 'samples of an image do not differ'
    per_mask = methods.create(run[0]).bytes_per_mask(16) / 2**20
    np.testing.assert_array_equal(draw(run, over=8), reference)
    np.testing.assert_array_equal(draw(run, over=2, memory_mib=per_mask * 2.5), reference)
    np.testing.assert_array_equal(draw(run, number=2), reference[:2])


def test_too_little_memory_for_one_mask_is_said(run):
    with pytest.raises(UserError, match='memory_mib'):
        draw(run, memory_mib=0.001)


def test_safetensors_file_draws_the_same_masks_and_carries_its_config(run, tmp_path):
    config, workdir, result = run
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights, step = load_weights(str(workdir), config, where)
    path = tmp_path / 'weights.safetensors'
    save_safetensors(path, weights.params, config, step, 'float32')
    assert load_safetensors(path)[2] == 12
    other = config.copy_and_resolve_references()
    other.checkpoint = str(path)
    again = evaluate.evaluate(other, tmp_path / 'elsewhere')
    assert again['metrics'] == pytest.approx(result['metrics'], nan_ok=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['elsewhere', 'weights.safetensors']


@pytest.mark.parametrize(
    ('field', 'value', 'named'),
    [
        ('channels', 12, 'model.channels: 8 -> 12'),
        ('channel_mult', (1, 1), 'model.channel_mult'),
        ('patch_size', 2, 'model.patch_size'),
    ],
)
def test_checkpoint_of_another_architecture_is_refused_by_field(run, field, value, named):
    config = run[0].copy_and_resolve_references()
    config.model[field] = value
    with pytest.raises(UserError, match=f'another architecture .*{named}'):
        evaluate.evaluate(config, run[1])


@pytest.mark.parametrize(
    ('content', 'said'),
    [(None, 'no weights'), (b'x' * 100, 'not a whole .safetensors'), ('folder', 'neither')],
)
def test_checkpoint_that_cannot_be_read_is_named(run, tmp_path, content, said):
    path = tmp_path / 'weights.safetensors'
    if content == 'folder':
        path.mkdir()
    elif content:
        path.write_bytes(content)
    config = run[0].copy_and_resolve_references()
    config.checkpoint = str(path)
    with pytest.raises(UserError, match=said):
        evaluate.evaluate(config, tmp_path / 'new')


def test_workdir_without_checkpoint_is_said(run, tmp_path):
    with pytest.raises(UserError, match='holds no checkpoint'):
        evaluate.evaluate(run[0], tmp_path)


def test_data_with_a_test_split_alone_is_evaluated(run, tmp_path):
    data = tiny.write_hdf5(tmp_path / 'held_out.hdf5', {'test': 5}, seed=4)
    config = run[0].copy_and_resolve_references()
    config.data.path = str(data)
    config.checkpoint = str(run[1])
    config.evaluate.max_images = 3
    result = evaluate.evaluate(config, tmp_path / 'work')
    assert result['num_images'] == 3
    assert 0 < result['baselines']['other_patients']['ged'] < 2


def test_scores_at_several_numbers_come_from_one_set_of_masks(run, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.checkpoint = str(run[1])
    config.evaluate.sample_counts = (2, 6)
    with pytest.raises(UserError, match=r'sample_counts .* independent'):
        evaluate.evaluate(config, tmp_path / 'work')
    config.sample.noise, config.sample.symmetries = 'independent', False
    result = evaluate.evaluate(config, tmp_path / 'work')
    assert np.isfinite([result['metrics'][key] for key in ('ged_unbiased', 'emptiness_error')]).all()
    assert result['draws'] == 'independent' and result['samples_per_image'] == 4
    saved = archives.read(tmp_path / 'work/evaluation/masks.npz')
    raters, samples = (np.unpackbits(saved[n], axis=-1).astype(bool) for n in ('raters', 'samples'))
    assert samples.shape[1] == 4
    two = metrics.per_image(raters, samples[:, :2])
    row = result['by_num_samples']['2']['metrics']
    assert [row['ged'], row['hm_iou']] == pytest.approx([two['ged'].mean(), two['hm_iou'].mean()])
    assert set(result['by_num_samples']) == {'2', '6'}
    assert 'N = 6' in (tmp_path / 'work/evaluation/report.html').read_text()


def test_evenly_spaced_covers_the_whole_range():
    assert cases.evenly_spaced(5, 0) == cases.evenly_spaced(5, 9) == [0, 1, 2, 3, 4]
    assert cases.evenly_spaced(100, 4) == [0, 25, 50, 75]


def test_several_classes_go_from_file_to_report(tmp_path):
    data = tiny.write_hdf5(tmp_path / 'classes.hdf5', num_classes=2)
    config = tiny.config(data, **{'data.num_classes': 2, 'train.num_steps': 4, 'train.sample_every': 4})
    assert train.train(config, tmp_path / 'work')
    result = evaluate.evaluate(config, tmp_path / 'work')
    assert set(result['per_class']) == {'1', '2'}
    for key in {*metrics.ALL_KEYS} - {*result['undefined'], 'ged_shape', 'calibration'}:
        classes = [means[key] for means in result['per_class'].values()]
        assert result['metrics'][key] == pytest.approx(np.mean(classes), abs=1e-9)
    saved = archives.read(tmp_path / 'work/evaluation/masks.npz')
    assert saved['samples'].shape == (8, 4, 16, 16) and saved['raters'].max() == 2
    assert 'means over classes' in (tmp_path / 'work/evaluation/report.html').read_text()
