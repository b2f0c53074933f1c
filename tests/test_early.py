"""What needs no data is told before any is read or built; faults of many cases are told as one, with the cure."""

import pathlib
import sys

import pytest
import tiny

from ambdiff import command, files, main, optim, packaged
from ambdiff.data import check, sources
from ambdiff.errors import UserError
from ambdiff.runtime import checkpoint, weights_place


@pytest.fixture
def unread(monkeypatch):
    """Data that must not be looked into."""

    def opened(*_, **__):
        raise AssertionError('the data was read')

    monkeypatch.setattr(sources, 'open_source', opened)
    monkeypatch.setattr(sources, 'write_splits', opened)


@pytest.mark.parametrize(
    ('mode', 'field', 'value', 'said'),
    [
        ('train', 'train.batch_size', 0, 'config.train.batch_size=0 is not a multiple'),
        ('train', 'train.accumulation_steps', 3, 'config.train.accumulation_steps=3'),
        ('train', 'train.num_steps', 0, 'config.train.num_steps=0 is out of range'),
        ('train', 'model.dtype', 'float8', "config.model.dtype='float8' is not known; use one of float32, bfloat16"),
        ('train', 'data.intensity', 'window', "config.data.intensity='window' is not known"),
        ('train', 'mesh.data', 3, 'config.mesh.data=3'),
        ('train', 'optim.learning_rate', -0.1, 'config.optim.learning_rate=-0.1 is out of range'),
        ('train', 'optim.schedule', 'step', "config.optim.schedule='step'"),
        ('train', 'data.path', 'nowhere.hdf5', 'nowhere.hdf5: no such file or folder'),
        ('train_and_evaluate', 'evaluate.split', 'tset', "split 'tset' does not exist"),
        ('train_and_evaluate', 'evaluate.sample_counts', (2, 4), '--config.sample.noise=independent'),
        ('train_and_evaluate', 'sample.memory_mib', 1e-6, 'config.sample.memory_mib=1e-06 is too small for one mask'),
        ('train', 'data.warp', -0.5, 'config.data.warp=-0.5 is out of range: 0 to 10'),
        ('train', 'model.attention_resolutions', (0,), 'config.model.attention_resolutions=(0,) is out of range'),
        ('evaluate', 'sample.num_steps', 2, 'holds no checkpoint: train first'),
        ('evaluate', 'data.builder', 'lidcs', 'holds no checkpoint: train first'),
    ],
)
def test_a_field_that_does_not_suit_is_told_before_data_is_read(
    mode, field, value, said, unread, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys, 'argv', ['ambdiff', 'train'])
    config = tiny.config(tiny.write_hdf5(tmp_path / 'data.hdf5'), **{field: value})
    assert main._work(config, tmp_path / 'run', mode) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('ambdiff: ') and said in line
    assert not (tmp_path / 'run').exists()


def test_weights_that_are_not_there_are_told_before_data_is_read(unread, tmp_path, capsys):
    config = tiny.config(tiny.write_hdf5(tmp_path / 'data.hdf5'))
    config.checkpoint = str(tmp_path / 'nowhere')
    for mode in main.MODES:
        assert main._work(config, tmp_path / 'run', mode) == 2
        assert 'nowhere' in capsys.readouterr().err


def test_weights_that_come_along_are_found_by_name_wherever_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint.load_config('lidc_small').data.image_size == 64
    fields = 'data.channels', 'diffusion.num_steps'
    assert weights_place.said('lidc_small', *fields) == [1, 1000]
    assert weights_place.said('lidc_small', 'data.nothing') is None
    (tmp_path / 'cut.safetensors').write_bytes(packaged.weights('lidc_small').read_bytes()[:99])
    assert weights_place.said('cut.safetensors', *fields) is None


def test_a_place_that_cannot_be_written_is_told_and_nothing_is_left_there(tmp_path):
    files.check_place(tmp_path / 'new' / 'run', '-o')
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'run: \S*file is a file; name a folder to write to \(-o\)'):
        files.check_place(tmp_path / 'file' / 'run', '-o')
    if pathlib.Path('/proc').is_dir():
        with pytest.raises(UserError, match='nothing can be written in /proc'):
            files.check_place('/proc/run', '-o')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_warm_up_longer_than_the_run_shrinks_to_a_tenth_of_it():
    fields = tiny.config('').optim
    fields.warmup_steps = 300
    assert optim.warmup_steps(fields, 4300) == 300 and optim.warmup_steps(fields, 20) == 2
    rate = optim.learning_rate(fields, 20)
    assert float(rate(0)) == 0 and float(rate(2)) == pytest.approx(fields.learning_rate)
    assert float(rate(1)) == pytest.approx(fields.learning_rate / 2)
    assert optim.warmup_steps(fields, 1) == 0 and float(optim.learning_rate(fields, 1)(0)) > 0


def test_data_that_is_read_otherwise_than_in_training_is_told(weights):
    assert checkpoint.unlike_data(str(weights), tiny.config('')) == []
    other = tiny.config('', **{'data.intensity': 'percentile', 'data.spacing': 0.5})
    lines = checkpoint.unlike_data(str(weights), other)
    assert len(lines) == 2
    assert 'config.data.intensity=percentile, but the weights were trained with hu_window' in lines[0]
    assert '--config.data.spacing=0.0' in lines[1]
    window = tiny.config('', **{'data.hu_window': (-160.0, 240.0)})
    (line,) = checkpoint.unlike_data(str(weights), window)
    assert '--config.data.hu_window=(-1000.0,400.0)' in line


def test_equal_faults_are_one_line_and_others_stand_alone():
    faults = [f'data/c{number:02}/image.png: holds no HU (values 0 to {number})' for number in range(24)]
    others = ["leak: 1 patients are in both train and test (first: 'p0')", 'data/c30/mask_1.png: an empty file']
    assert list(check.grouped([*faults, *others])) == [
        '24 cases: holds no HU (values 0 to 0); for instance data/c00/image.png',
        *others,
    ]
    assert list(check.grouped(faults[:2])) == faults[:2]


def test_the_command_line_is_corrected_by_the_one_flag_that_cures(monkeypatch):
    monkeypatch.setitem(sys.modules, '__main__', type(sys)('__main__'))  # as of a console script
    monkeypatch.setattr(sys, 'argv', ['ambdiff', 'check', 'lidc', '--data.path=my data', '--data.num_raters=4'])
    cured = command.corrected('c1 has 5 masks; set --config.data.num_raters=5')
    assert cured == "ambdiff check lidc '--data.path=my data' --config.data.num_raters=5"
    assert command.corrected('set --config.data.path=FILE_OR_FOLDER') == ''
    assert command.corrected('--config.data.fit=crop or --config.data.channels=3') == ''


def test_weights_of_another_architecture_are_told_before_data_is_read(weights, unread, tmp_path, capsys):
    config = tiny.config(tiny.write_hdf5(tmp_path / 'data.hdf5'), **{'model.channels': 16})
    config.checkpoint = str(weights)
    for mode in ('train', 'evaluate'):
        assert main._work(config, tmp_path / 'run', mode) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert 'of another architecture (model.channels: 8 -> 16)' in line
