"""The command line: one clear line and exit status 2 for a mistake, before anything is written."""

import forked
import pytest
import tiny


def run(*arguments):
    return forked.run('-m', 'ambdiff.main', *arguments)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([], 'give a config'),
        (['--config=configs/lidc.py:smal'], "no variant 'smal'"),
        (['--config=configs/nope.py'], 'configs/nope.py does not exist'),
        (['--config=configs/lidc.py', '--config.train.nmu_steps=3'], 'did you mean config.train.num_steps?'),
        (['--config=configs/lidc.py', '--config.train.num_steps=many'], 'train.num_steps'),
        (['--config=configs/lidc.py', '--mode=dream'], 'train_and_evaluate'),
        (['--config=configs/lidc.py', 'surplus'], 'surplus'),
        (['--config=configs/lidc.py'], '--config=configs/demo.py'),
        (['--config=configs/lidc.py', '--config.data.path=nowhere.hdf5'], 'nowhere.hdf5'),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_2(arguments, said, tmp_path):
    done = run(*arguments, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith('ambdiff: ')]
    assert len(lines) == 1 and said in lines[0]
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'run').exists()


def test_truncated_hdf5_is_one_line_that_names_the_file(tmp_path):
    path = tiny.write_hdf5(tmp_path / 'cut.hdf5')
    path.write_bytes(path.read_bytes()[:3000])
    done = run('--config=configs/lidc.py:small', f'--config.data.path={path}', f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2 and 'cut.hdf5' in done.stderr and 'Traceback' not in done.stderr
