"""launch/local_hosts.sh: one command a process, and what becomes of the processes."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
from launched import AWKWARD, LAUNCH, STAND_IN, alive, dry, environment, program, until


class Hosts:
    """local_hosts.sh with the stand-in as interpreter."""

    def __init__(self, folder, *plan, arguments=(), **variables):
        self.folder, self.count = folder, len(plan)
        python = program(folder / 'my python', STAND_IN.format(python=sys.executable))
        self.process = subprocess.Popen(
            ['bash', LAUNCH / 'local_hosts.sh', *arguments],
            env=environment(HOSTS=len(plan), PYTHON=python, OUT=folder, PLAN=json.dumps(plan), **variables),
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self):
        until(lambda: len(list(self.folder.glob('*.json'))) == self.count)
        return [json.loads((self.folder / f'{i}.json').read_text()) for i in range(self.count)]

    def pids(self):
        return [pid for told in self.told() for pid in told['pids']]

    def status(self):
        _, self.errors = self.process.communicate(timeout=120)
        return self.process.returncode


def test_local_hosts_prints_one_command_a_process():
    commands = dry('local_hosts.sh', *AWKWARD, HOSTS=3, DEVICES=4, PYTHON=sys.executable)
    assert len(commands) == 3
    for index, words in enumerate(commands):
        main = words[words.index('-m') :]
        assert words[words.index('-m') - 1] == sys.executable and main[2] == '--multihost'
        assert re.fullmatch(r'--coordinator_address=127\.0\.0\.1:\d+', main[3]) and main[3] == commands[0][-6]
        assert main[4:] == ['--num_processes=3', f'--process_id={index}', *AWKWARD]
        assert 'XLA_FLAGS=--xla_force_host_platform_device_count=4' in words and 'JAX_PLATFORMS=cpu' in words


def test_local_hosts_ends_well_when_all_do(tmp_path):
    hosts = Hosts(tmp_path, 'exit 0', 'exit 0', arguments=AWKWARD, DEVICES=2, XLA_FLAGS='--a', JAX_NUM_CPU_DEVICES=8)
    assert hosts.status() == 0 and hosts.errors == ''
    for index, told in enumerate(hosts.told()):
        assert told['argv'][-5:] == ['--num_processes=2', f'--process_id={index}', *AWKWARD]
        assert told['xla'] == '--a --xla_force_host_platform_device_count=2' and told['devices'] is None


@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGHUP])
def test_local_hosts_forwards_a_signal_so_that_every_process_saves(tmp_path, sent):
    if signal.getsignal(sent) == signal.SIG_IGN:
        pytest.skip(f'{sent.name} is ignored here (nohup), and a shell cannot trap what was ignored when it began')
    hosts = Hosts(tmp_path, 'save', 'save', 'save')
    pids = hosts.pids()
    hosts.process.send_signal(sent)
    assert hosts.status() == 0
    assert all((tmp_path / f'saved{i}').exists() for i in range(3)) and not any(map(alive, pids))


def test_local_hosts_ends_all_when_one_fails(tmp_path):
    hosts = Hosts(tmp_path, 'parent', 'exit 3 after all', 'deaf', GRACE=1)
    pids = hosts.pids()
    assert hosts.status() == 3 and 'process 1 of 3 ended with status 3' in hosts.errors
    assert len(pids) == 4 and not any(map(alive, pids))


def test_local_hosts_kills_what_ignores_the_signal(tmp_path):
    hosts = Hosts(tmp_path, 'deaf', 'save', GRACE=1)
    pids = hosts.pids()
    hosts.process.terminate()
    assert hosts.status() == 137 and not any(map(alive, pids))


def test_local_hosts_takes_its_processes_along_when_killed(tmp_path):
    if not shutil.which('setpriv'):
        pytest.skip('only a system with setpriv binds a process to its parent')
    hosts = Hosts(tmp_path, 'deaf', 'save')
    pids = hosts.pids()
    hosts.process.kill()
    hosts.process.communicate()
    until(lambda: not any(map(alive, pids)))
