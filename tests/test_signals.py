"""SIGINT and SIGTERM end a command in one line, whenever they come."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ambdiff import signals

ROOT = pathlib.Path(__file__).parents[1]
SENT = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(('number', 'status'), SENT)
def test_a_signal_unwinds_what_is_under_way_and_is_said_in_one_line(number, status, capfd):
    before, undone = [signal.getsignal(n) for n, _ in SENT], []

    def work():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            undone.append(True)

    assert signals.run(work, 'start again') == status and undone == [True]
    assert capfd.readouterr().err == 'ambdiff: interrupted: start again\n'
    assert [signal.getsignal(n) for n, _ in SENT] == before
    assert signals.run(lambda: 3, '') == 3


@pytest.mark.parametrize(('number', 'status'), SENT)
def test_a_signal_that_comes_while_an_object_is_destroyed_is_not_lost(number, status, capfd):
    class Dying:
        def __del__(self):
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    def work():
        Dying()
        time.sleep(60)
        return 0

    assert signals.run(work, 'start again') == status
    assert capfd.readouterr().err == 'ambdiff: interrupted: start again\n'


# In the middle of importing a library written in C an exception could crash it.
DURING = {
    'at start': 'signals.at_start(); {kill}',
    'importing': 'signals.run(lambda: exec("with signals.importing(): {kill}"), "too late")',
}


@pytest.mark.parametrize('when', DURING)
@pytest.mark.parametrize(('number', 'status'), SENT)
def test_a_signal_while_a_command_is_imported_ends_it_at_once(when, number, status):
    kill = f'os.kill(os.getpid(), {int(number)}); signal.pause()'
    code = f'import os, signal; from ambdiff import signals; {DURING[when].format(kill=kill)}'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (status, 'ambdiff: interrupted before it began\n')


def test_garbage_is_looked_for_again_after_an_import_that_failed():
    with pytest.raises(ImportError), signals.importing():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
