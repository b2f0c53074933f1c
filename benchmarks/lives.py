"""Lives of a program for benchmarks/kill_soak.py: started as a user does or from a warm parent, watched, killed.

A warm life is forked from a process that has imported JAX and this project but started neither; from there on it is the
program itself, from its flags on. So what is killed is the true program, a second or two earlier.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import time

import processes

PRELOAD = [
    'ambdiff.train',
    'ambdiff.evaluate',
    'ambdiff.predict',
    'ambdiff.data.layouts.phiseg_hdf5',
    'ambdiff.prediction.inputs',
    'ambdiff.prediction.flow',
    'ambdiff.prediction.output',
    'ambdiff.prediction.page',
]


def _run(module: str, arguments: list[str], log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name='__main__', alter_sys=True)


class Warm:
    """A program forked from the warm parent, with what subprocess.Popen says of one."""

    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOAD)

    def __init__(self, module: str, arguments: list[str], log: pathlib.Path):
        self._process = self.context.Process(target=_run, args=(module, arguments, str(log)), daemon=True)
        self._process.start()
        self.pid = self._process.pid
        self.send_signal = lambda number: os.kill(self.pid, number)
        self.kill = self._process.kill

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired('a warm life', timeout)
        return self._process.exitcode


class Life:
    """One life of a program whose log goes on from life to life.

    Args:
      module: what python -m runs.
      arguments: of it.
      log: <log>.0 is appended to.
      warm: forked from the warm parent.
      several: processes and simulated devices of each, for a cold life of ambdiff.main.
    """

    def __init__(self, module: str, arguments: list[str], log: pathlib.Path, warm: bool, several=(1, 1)):
        self._log = log.with_name(f'{log.name}.0')
        self._before = self._log.stat().st_size if self._log.exists() else 0
        if warm:
            self.running = [Warm(module, arguments, self._log)]
        else:
            self.running = processes.start(arguments, *several, log, module)

    def alive(self) -> bool:
        """Whether a process of it runs."""
        return any(process.poll() is None for process in self.running)

    def said(self) -> str:
        """What its first process has said so far."""
        if not self._log.exists():
            return ''
        with self._log.open('rb') as file:
            file.seek(self._before)
            return file.read().decode(errors='replace')

    def until(self, condition, seconds: float) -> None:
        """Waits for a condition, for the life's end, or so long."""
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline and not condition():
            time.sleep(0.002)

    def end(self, seconds: float = 3600) -> list[int]:
        """The exit statuses, once all have ended by themselves."""
        return processes.finish(self.running, seconds)
