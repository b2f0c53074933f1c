"""The command `ambdiff`: what it passes on, names from any folder, and mistakes told in one line with status 2."""

import pathlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from ambdiff import convert, main, packaged, predict
from ambdiff.cli import entry
from ambdiff.data import check
from ambdiff.runtime import checkpoint

ROOT = pathlib.Path(__file__).parents[1]


def invoke(*arguments):
    return CliRunner().invoke(entry.ambdiff, [str(a) for a in arguments])


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that holds nothing of this project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """The arguments that reached main.start, which does nothing."""
    seen = {}

    def start(config, workdir, mode, processes=None):
        seen.update(config=config, workdir=workdir, mode=mode, processes=processes)
        return 0

    monkeypatch.setattr(main, 'start', start)
    return seen


def test_train_takes_a_config_by_name_and_fields_with_and_without_their_prefix(elsewhere, started):
    done = invoke('train', 'lidc:small', '--data.path=x.hdf5', '--config.train.num_steps=20', '--train.batch_size', '4')
    assert done.exit_code == 0, done.output
    config = started['config']
    assert (config.data.path, config.train.num_steps, config.train.batch_size) == ('x.hdf5', 20, 4)
    assert config.data.image_size == 64  # of the variant
    assert started['workdir'] == pathlib.Path('runs/lidc_small') and started['mode'] == 'train_and_evaluate'
    assert not started['processes']


def test_options_of_train_reach_the_config_and_the_run(elsewhere, started):
    given = ['--seed=7', '--weights=lidc_small', '-o', 'mine', '--no-evaluate', '--num_processes=2', '--process-id=1']
    assert invoke('train', 'demo', *given).exit_code == 0
    config = started['config']
    assert config.seed == 7 and config.checkpoint == str(packaged.weights('lidc_small'))
    assert started['workdir'] == pathlib.Path('mine') and started['mode'] == 'train'
    assert started['processes'] and started['processes'].number == 1 and started['processes'].count == 2


def test_evaluate_takes_a_file_with_variant_and_the_fields_of_a_method(elsewhere, started):
    file = f'{ROOT / "configs" / "lidc.py"}:small_cimd'
    done = invoke('evaluate', file, '-n', '32', '--num_steps=4', '--split=validation', '--method.target=rater')
    assert done.exit_code == 0, done.output
    config = started['config']
    assert (config.sample.num_samples, config.sample.num_steps, config.evaluate.split) == (32, 4, 'validation')
    assert config.method.target == 'rater' and started['mode'] == 'evaluate'


def test_predict_passes_every_flag_on_and_says_which_weights_are_the_default(elsewhere, monkeypatch):
    seen = []
    monkeypatch.setattr(predict, 'predict', lambda flags: seen.append(flags) or 0)
    done = invoke('predict', 'a.dcm', 'b', '--at', '210,143', '-n', '4', '-o', 'out', '--num-steps=3', '--seed=5')
    assert done.exit_code == 0, done.output
    (flags,) = seen
    assert flags.input == ['a.dcm', 'b'] and flags.at == '210,143' and flags.output == 'out'
    assert (flags.num_samples, flags.num_steps, flags.seed) == (4, 3, 5)
    assert flags.checkpoint == str(packaged.weights('lidc_small')) and 'lidc_small' in done.stderr
    assert flags.smallest_part == 1 and not flags.anonymise
    more = ('--anonymise', '--smallest_part=5', '--screen', '--shared', '--everywhere')
    done = invoke('predict', 'a.dcm', '--checkpoint=lidc_small', *more)
    given = seen[1]
    assert given.anonymise and given.smallest_part == 5 and given.screen == 0 and given.shared and given.everywhere
    assert seen[1].num_steps is None and seen[1].num_samples == 16 and 'default' not in done.stderr


def test_check_and_convert_call_what_their_modules_do(elsewhere, monkeypatch):
    seen = []
    monkeypatch.setattr(check, 'check', lambda config, folder, strict: seen.append((folder, strict)) or 0)
    monkeypatch.setattr(convert, 'convert', lambda config, sources, output: seen.append((sources, output)) or 0)
    assert invoke('check', 'bone_us', '--data.path=x', '--strict').exit_code == 0
    assert invoke('convert', 'lidc', '--from_torch=a.pt', '-o', 'b').exit_code == 0
    assert seen[0] == (pathlib.Path('runs/bone_us/data'), True)
    assert seen[1] == ({'from_torch': 'a.pt', 'to_torch': None, 'to_safetensors': None}, 'b')


@pytest.mark.parametrize(
    ('words', 'offered'),
    [
        ('ambdiff ev', 'plain,evaluate'),
        ('ambdiff train li', 'plain,lidc'),
        ('ambdiff train my_', 'file,my_'),
        ('ambdiff train lidc --data.path=x --wei', 'plain,--weights'),
        ('ambdiff evaluate lidc --weights lidc_small_', 'plain,lidc_small_cimd'),
        ('ambdiff predict scan.dcm --weights runs/', 'file,runs/'),
        ('ambdiff predict sc', 'file,sc'),
        ('ambdiff predict scan.dcm -o ou', 'file,ou'),
    ],
)
def test_the_shell_completes_commands_options_names_and_files(words, offered):
    given = {'COMP_WORDS': words, 'COMP_CWORD': str(len(words.split()) - 1), '_AMBDIFF_COMPLETE': 'bash_complete'}
    done = CliRunner().invoke(entry.ambdiff, env=given, prog_name='ambdiff')
    assert done.output.splitlines() == [offered], done.exception


def test_weights_lists_what_comes_along(elsewhere):
    done = invoke('weights')
    assert done.exit_code == 0
    for name in packaged.weights_names():
        assert name in done.output
    assert (
        'a mask costs  0.125 network evaluations' in done.output
        and 'LIDC-IDRI' in done.output
        and '64 x 64' in done.output
    )


@pytest.mark.parametrize('name', ['', *entry.COMMANDS])
def test_help_starts_with_an_example_that_parses(name):
    done = invoke(*filter(None, [name]), '--help')
    assert done.exit_code == 0, done.output
    assert done.output.startswith('Example')
    first = done.output.splitlines()[1].split()
    assert first[0] == 'ambdiff'
    command = entry.ambdiff.get_command(click.Context(entry.ambdiff), first[1])
    with click.Context(entry.ambdiff) as parent:
        command.make_context(first[1], first[2:], parent)


MISTAKES = [
    (['trian', 'lidc'], 'did you mean train?'),
    (['dance'], 'there are train, evaluate, predict'),
    (['train'], 'CONFIG is missing; for instance: ambdiff train lidc:simulated'),
    (['train', 'ldic:small'], 'did you mean lidc:small?'),
    (['train', 'lidc:smal'], 'it has released, small'),
    (['train', 'nowhere.py'], 'nowhere.py'),
    (['train', './bad.py'], './bad.py does not load: ZeroDivisionError'),
    (['train', 'lidc', 'small'], 'unexpected extra argument (small)'),
    (['train', '--config=lidc', 'lidc'], 'give the config by itself'),
    (['train', 'lidc', '--train.nmu_steps=3'], 'did you mean config.train.num_steps?'),
    (['train', 'lidc', '--train.num_steps=many'], 'train.num_steps'),
    (['train', 'lidc', '--train.num_steps'], '--train.num_steps has no value'),
    (['train', 'lidc', '--wieghts=x'], 'did you mean --weights?'),
    (['train', 'lidc', '--weights=lidc_smal'], 'did you mean lidc_small?'),
    (['train', 'lidc', '--seed=now'], "'now' is not a valid integer"),
    (['train', 'lidc', '-o', 'file'], 'file is a file; name a folder'),
    (['evaluate', 'lidc', '-n', '-3'], '-3 is not in the range'),
    (['evaluate', 'lidc', '--split=tset'], "'tset' is not one of"),
    (['evaluate', 'lidc', '--weights'], 'requires an argument'),
    (['evaluate', 'lidc', '--method.name=cimdd'], 'cimdd'),
    (['predict'], 'INPUT is missing'),
    (['predict', 'nowhere.png'], 'nowhere.png: no such file or folder'),
    (['predict', 'file'], 'file: not a PNG, JPEG, TIFF, NIfTI or DICOM file'),
    (['predict', 'empty'], 'holds no PNG'),
    (['predict', 'a.png', '-o', 'file'], 'file is a file'),
    (['predict', 'a.png', '--at'], 'requires an argument'),
    (['predict', 'a.png', '--at', '12'], "'12' is no point"),
    (['predict', 'a.png', '--at', '3,x'], 'neither points'),
    (['predict', 'a.png', '-n', '0'], '0 is not in the range'),
    (['predict', 'a.png', '-n', 'ten'], "'ten' is not a valid integer"),
    (['predict', 'a.png', '--num-sample', '3'], 'did you mean --num-samples?'),
    (['predict', 'a.png', '--input=b.png'], 'give the input by itself'),
    (['predict', 'a.png', '--weights=lidc_smal'], 'did you mean lidc_small?'),
    (['predict', 'a.png', '--seed=-1'], '-1 is not in the range'),
    (['predict', 'a.png'], 'a.png: truncated or damaged'),
    (['predict', 'b.png', '--at', '400,3'], 'b.png: the point 400,3 lies outside the image: x 0 to 19, y 0 to 9'),
    (['predict', 'b.png', '--at', '4,3,1'], 'lies outside the image: x 0 to 19, y 0 to 9, z 0 to 0'),
    (['predict', 'b.png', '-o', 'file/below'], 'is a file; name a folder'),
    (['predict', 'b.png', '--weights=empty'], 'neither a workdir with checkpoints'),
    (['predict', 'b.png', '--weights=lidc_small', '--num-steps=2000'], 'more than the 1000 steps of the weights'),
    (['train', 'lidc', '--train.num_steps=2.5'], "--config.train.num_steps: give a whole number, not '2.5'"),
    (['train', 'lidc', '--train.num_steps=0'], 'config.train.num_steps=0 is out of range'),
    (['train', 'lidc', '--optim.learning_rate=fast'], "--config.optim.learning_rate: give a number, not 'fast'"),
    (['convert', 'lidc'], '--output is missing'),
    (['convert', 'lidc', '-o', 'x'], 'give one of --from_torch='),
    (['weights', 'lidc_small'], 'unexpected extra argument (lidc_small)'),
]


@pytest.mark.parametrize(('arguments', 'said'), MISTAKES, ids=lambda x: ' '.join(x) if isinstance(x, list) else '')
def test_a_mistake_is_one_line_on_stderr_and_status_2(arguments, said, elsewhere, monkeypatch):
    # None is told late: before weights are loaded or a run begins.
    monkeypatch.setattr(checkpoint, 'load_weights', None)
    monkeypatch.setattr(main, 'start', None)
    (elsewhere / 'file').write_text('no image\n')
    (elsewhere / 'empty').mkdir()
    (elsewhere / 'bad.py').write_text('def get_config():\n    return 1 / 0\n')
    (elsewhere / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    Image.new('L', (20, 10), 90).save('b.png')
    done = invoke(*arguments)
    assert done.exit_code == 2, (done.output, done.exception)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith('weights: ')]
    assert len(lines) == 1 and lines[0].startswith('ambdiff: ') and said in lines[0], done.stderr
    there = {path.name for path in elsewhere.iterdir()}
    assert not done.stdout and there == {'file', 'empty', 'bad.py', 'a.png', 'b.png'}


def test_help_needs_none_of_the_heavy_libraries():
    code = (
        'import sys\nfrom ambdiff.cli import entry\n'
        'try:\n    entry.ambdiff.main(["--help"])\nexcept SystemExit as end:\n    assert end.code == 0\n'
        'print("heavy:", *sorted({"jax", "numpy", "flax", "absl", "tensorflow"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == 'heavy:'


@pytest.mark.parametrize('module', ['train', 'evaluate', 'metrics', 'report', 'modes', 'baselines'])
def test_a_module_that_is_no_command_names_the_one_to_type(module):
    source = (ROOT / 'ambdiff' / f'{module}.py').read_text()
    guarded = source[source.index("if __name__ == '__main__':") :]
    with pytest.raises(SystemExit) as ended:
        exec(guarded, {'__name__': '__main__'})
    assert ended.value.code == 2 and 'ambdiff' in guarded
