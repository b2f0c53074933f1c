"""Faults: bad steps, damaged checkpoints, full disks, records that cannot be read."""

import json
import logging
import resource
import shutil

import jax
import numpy as np
import pytest
import tiny

from ambdiff import train
from ambdiff.data import pipeline
from ambdiff.errors import UserError
from ambdiff.runtime import checkpoint, checkpointer, faults, integrity


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_hdf5(tmp_path_factory.mktemp('data') / 'tiny.hdf5')


@pytest.fixture(scope='module')
def config(data, mean_method):
    """Of every run here: a constant learning rate, so that a longer run takes the same compiled step."""
    return tiny.config(data, 'mean', **{'train.keep_checkpoints': 3, 'optim.schedule': 'constant'})


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
    """A finished run of 12 steps with checkpoints 4, 8 and 12."""
    workdir = tmp_path_factory.mktemp('run') / 'work'
    assert train.train(config, workdir)
    return config, workdir


@pytest.fixture(scope='module')
def told(config, tmp_path_factory):
    """A run that leaves batch 6 out because it is told so from its start."""
    workdir = tmp_path_factory.mktemp('told') / 'work'
    original = faults.Rollbacks.restore
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults.Rollbacks, 'restore', lambda self, _: original(self, {'skipped': [6]}))
        assert train.train(config, workdir)
    return workdir


def arrays(workdir, config):
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights, step = checkpoint.load_weights(str(workdir), config, where)
    return step, [np.asarray(x) for x in jax.tree.leaves(weights)]


def largest(folder):
    return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def cut(folder):
    path = largest(folder / 'state')
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(folder):
    path = largest(folder / 'state')
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    'a file cut short': cut,
    'a bit flipped': flip,
    'a file gone': lambda folder: largest(folder / 'ema').unlink(),
    'an item gone': lambda folder: shutil.rmtree(folder / 'ema'),
    'only half copied': lambda folder: [shutil.rmtree(folder / n) for n in ('ema', 'config', 'record')],
    'empty': lambda folder: [shutil.rmtree(folder), folder.mkdir()],
}


@pytest.mark.parametrize('kind', DAMAGES)
def test_damaged_checkpoint_is_put_aside_and_the_one_before_it_taken(trained, tmp_path, caplog, kind):
    _, workdir = trained
    again = shutil.copytree(workdir, tmp_path / 'again')
    DAMAGES[kind](again / 'checkpoints' / '12')
    (again / 'checkpoints' / '16.orbax-checkpoint-tmp').mkdir()
    with caplog.at_level(logging.INFO, 'ambdiff'), checkpointer.Checkpointer(again) as saved:
        assert saved.tidy() == saved.latest_step == 8
    assert 'checkpoint 12 is skipped and put aside' in caplog.text
    assert (again / 'damaged' / '12').is_dir()
    assert sorted(p.name for p in (again / 'checkpoints').iterdir()) == ['4', '8']


def test_run_goes_on_from_the_newest_good_checkpoint_to_the_same_end(trained, tmp_path, caplog):
    config, workdir = trained
    again = shutil.copytree(workdir, tmp_path / 'again')
    cut(again / 'checkpoints' / '12')
    (again / 'checkpoints' / '16.orbax-checkpoint-tmp').mkdir()
    with caplog.at_level(logging.INFO, 'ambdiff'):
        assert train.train(config, again)
    assert 'checkpoint 12 is skipped and put aside' in caplog.text and 'going on from step 8' in caplog.text
    step, mine = arrays(again, config)
    assert step == 12
    jax.tree.map(np.testing.assert_array_equal, mine, arrays(workdir, config)[1])


def test_checkpoint_of_an_earlier_version_is_used_and_its_damage_found(trained, tmp_path, caplog):
    config, workdir = trained
    again = shutil.copytree(workdir, tmp_path / 'again')
    for step in (4, 8, 12):
        (again / 'checkpoints' / str(step) / 'manifest.json').unlink()
        shutil.rmtree(again / 'checkpoints' / str(step) / 'record')
        path = again / 'checkpoints' / str(step) / 'config' / 'metadata'
        saved = json.loads(path.read_text())
        for name in ('spike_factor', 'max_rollbacks'):
            del saved['train'][name]
        saved['mesh'] = {'data': -1}
        path.write_text(json.dumps(saved))
    for path in (again / 'checkpoints' / '12' / 'state').rglob('d/*'):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.INFO, 'ambdiff'):
        assert train.train(config, again)
    assert 'checkpoint 12 is skipped' in caplog.text and 'going on from step 8' in caplog.text
    jax.tree.map(np.testing.assert_array_equal, arrays(again, config), arrays(workdir, config))


def test_run_without_any_good_checkpoint_is_refused_not_started_from_zero(trained, tmp_path):
    config, workdir = trained
    again = shutil.copytree(workdir, tmp_path / 'again')
    for step in (4, 8, 12):
        cut(again / 'checkpoints' / str(step))
    with pytest.raises(UserError, match=r'no checkpoint in .* can be read \(12: .*8: .*4: .* start from step 0'):
        train.train(config, again)
    assert integrity.damage(again / 'checkpoints' / '12', ('ema', 'config')) is None
    assert sorted(p.name for p in (again / 'checkpoints').iterdir()) == ['12', '4', '8']


def test_evaluation_takes_the_newest_good_averages(trained, tmp_path, caplog):
    config, workdir = trained
    again = shutil.copytree(workdir, tmp_path / 'again')
    largest(again / 'checkpoints' / '12' / 'ema').unlink()
    with caplog.at_level(logging.WARNING, 'ambdiff'):
        assert arrays(again, config)[0] == 8
    assert 'checkpoint 12' in caplog.text


def test_every_differing_field_is_listed_and_free_ones_may_differ(trained, tmp_path):
    config, workdir = trained
    other = config.copy_and_resolve_references()
    other.train.num_steps, other.train.log_every, other.sample.num_steps = 12, 3, 1
    other.evaluate.max_images, other.train.max_rollbacks, other.mesh.fsdp = 2, 0, True
    assert train.train(other, workdir)
    fields = {'seed': 5, 'data.augment': False, 'model.dropout': 0.1, 'optim.b2': 0.9, 'train.batch_size': 16}
    fields |= {'method.decay': 0.25, 'diffusion.schedule': 'linear'}
    for name, value in fields.items():
        group, _, field = name.rpartition('.')
        (other[group] if group else other)[field] = value
    with pytest.raises(UserError) as error:
        train.train(other, workdir)
    for name in fields:
        assert f'{name}: ' in str(error.value)
    assert 'model.dropout: 0.0 -> 0.1' in str(error.value)


# Of Orbax's writers each one that is cut off complains to its event loop, which is gone.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_full_disk_ends_in_one_line_and_the_last_checkpoint_stays(trained, tmp_path, monkeypatch):
    config, workdir = trained
    again = shutil.copytree(workdir, tmp_path / 'again')
    longer = config.copy_and_resolve_references()
    longer.train.num_steps = 16
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    original = checkpointer.Checkpointer.save

    def save(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # no file can grow beyond a page
        original(*arguments)

    monkeypatch.setattr(checkpointer.Checkpointer, 'save', save)
    try:
        with pytest.raises(UserError, match='checkpoint 16 could not be written'):
            train.train(longer, again)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        monkeypatch.undo()
    assert arrays(again, config)[0] == 12
    assert train.train(longer, again)
    assert arrays(again, config)[0] == 16


def with_nan(rows, numbers, original=pipeline.batch):
    """pipeline.batch whose seventh batch is not finite."""
    batch = original(rows, numbers)
    if numbers[0] // 8 == 6:
        batch['image'] = batch['image'] * np.float32(np.nan)
    return batch


def with_leap(self, step, values, original=faults.Rollbacks.check):
    """Rollbacks.check of a run whose loss is a hundred times as large in the seventh step."""
    original(self, step, values | {'loss': values['loss'] * (100 if step == 7 else 1)})


@pytest.mark.parametrize(
    ('patched', 'fault', 'said'),
    [
        ((pipeline, 'batch'), with_nan, 'is not finite'),
        ((faults.Rollbacks, 'check'), with_leap, 'the loss leaps'),
    ],
)
def test_bad_batch_is_skipped_and_the_run_ends_as_if_it_had_been_left_out(
    config, told, tmp_path, monkeypatch, caplog, patched, fault, said
):
    monkeypatch.setattr(faults, '_NEEDED', 3)
    monkeypatch.setattr(*patched, fault)
    with caplog.at_level(logging.INFO, 'ambdiff'):
        assert train.train(config, tmp_path / 'run')
    assert said in caplog.text
    assert 'at step 7: back to step 4; batches 6 are skipped (rollback 1 of at most 5)' in caplog.text
    with checkpointer.Checkpointer(tmp_path / 'run') as saved:
        record = saved.record(12)
    assert record['skipped'] == [6] and record['count'] == 1 and len(record['losses']) == 11
    # The same list known from the start, without any fault: the same end, so resuming is exact.
    jax.tree.map(np.testing.assert_array_equal, arrays(tmp_path / 'run', config), arrays(told, config))


def rollbacks(**fields):
    config = tiny.config('')
    for name, value in fields.items():
        config.train[name] = value
    return faults.Rollbacks(config.train)


def test_repeated_faults_widen_what_is_skipped_and_reach_further_back_until_the_limit():
    policy = rollbacks(max_rollbacks=4)
    bad = lambda step: faults.BadStep(step, 'the loss is bad')
    assert policy.go_back(bad(37), [20, 34]) == 34 and policy.skipped == {36}
    assert policy.go_back(bad(38), [20, 34]) == 34 and policy.skipped == {36, 37}
    assert policy.go_back(bad(39), [20, 34]) == 34 and policy.skipped == {35, 36, 37, 38}
    assert policy.go_back(bad(40), [20, 34]) == 20 and policy.skipped == set(range(32, 40))
    with pytest.raises(UserError, match=r'after 4 rollbacks .* step 34 is kept'):
        policy.go_back(bad(90), [20, 34])


def test_faults_far_apart_are_separate_and_the_oldest_checkpoint_is_the_limit():
    policy = rollbacks(updates_per_batch=2)
    assert policy.go_back(faults.BadStep(37, 'bad'), []) is None and policy.skipped == {18}
    assert policy.skips(36) and policy.skips(37) and not policy.skips(38)
    assert policy.go_back(faults.BadStep(101, 'bad'), [100]) == 100 and policy.skipped == {18, 50}
    copy = rollbacks(updates_per_batch=2)
    copy.restore(json.loads(json.dumps(policy.record())))
    assert copy.record() == policy.record()


def test_loss_leaps_only_against_enough_losses_and_not_when_switched_off():
    values = lambda loss: {'loss': loss, 'grad_norm': 1.0}
    policy, deaf = rollbacks(spike_factor=10.0), rollbacks(spike_factor=0.0)
    for step in range(1, 20):
        policy.check(step, values(0.1 if step > 1 else 1.0))
        deaf.check(step, values(0.1))
    policy.check(20, values(50.0))  # nineteen are known: not enough
    for step in range(21, 130):
        policy.check(step, values(0.1))
        deaf.check(step, values(0.1))
    policy.check(130, values(0.99))
    with pytest.raises(faults.BadStep, match=r'leaps from at most 0.99 to 10 at step 131'):
        policy.check(131, values(10.0))
    deaf.check(131, values(1e9))


class Flaky:
    """A source with records that cannot be read."""

    def __init__(self, total, broken):
        self.total, self.broken = total, broken
        self.patients = [''] * total

    def __len__(self):
        return self.total

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError(f'record {index} is no picture')
        masks = np.zeros((1, 2, 2), np.uint8)
        return {'image': np.full((2, 2, 1), index, np.float32), 'masks': masks, 'case': str(index)}


def test_corrupt_records_are_replaced_counted_and_named_and_the_others_stay(caplog):
    whole, broken = pipeline.Rows(Flaky(10, ()), 0), pipeline.Rows(Flaky(10, (3, 4, 9)), 0)
    cases = lambda rows: [rows[row]['case'] for row in range(40)]
    stands_for = {'3': '5', '4': '5', '9': '0'}
    with caplog.at_level(logging.WARNING, 'ambdiff'):
        assert cases(broken) == [stands_for.get(case, case) for case in cases(whole)]
        assert cases(broken) == cases(pipeline.Rows(Flaky(10, (3, 4, 9)), 0))
    assert sorted(broken.corrupt) == [3, 4, 9]
    assert 'record 3 of the training data cannot be read and is skipped (record 3 is no picture)' in caplog.text
    assert caplog.text.count('record 3 of') == 2, 'told more than once by each of the two'


def test_data_that_cannot_be_read_at_all_is_told():
    with pytest.raises(UserError, match='16 records of the training data in a row cannot be read'):
        pipeline.Rows(Flaky(40, range(40)), 0)[0]
