"""Starts python -m ambdiff.main as a user does: in one process, or in several over loopback."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]


def start(
    arguments: list[str],
    processes: int = 1,
    devices: int = 1,
    log: pathlib.Path | None = None,
    module: str = 'ambdiff.main',
):
    """The running processes of a module; what process i says goes to the file <log>.<i>."""
    several = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        several = [f'--coordinator_address=127.0.0.1:{port}', f'--num_processes={processes}']
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
    running = []
    for number in range(processes):
        which = [*several, f'--process_id={number}'] if several else []
        with open(f'{log}.{number}', 'a') as said:
            command = [sys.executable, '-m', module, *arguments, *which]
            running.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said))
    return running


def finish(running: list[subprocess.Popen], seconds: float = 600) -> list[int]:
    """Waits for all; their exit statuses. None is left behind, whatever happens."""
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_for(path: pathlib.Path, running: list[subprocess.Popen], seconds: float = 600) -> None:
    """Until `path` exists; fails, and leaves no process behind, if one ends before."""
    deadline = time.monotonic() + seconds
    try:
        while not path.exists():
            assert all(process.poll() is None for process in running), f'a process ended before {path} was there'
            assert time.monotonic() < deadline, f'{path} is not there after {seconds} s'
            time.sleep(0.01)
    except AssertionError:
        for process in running:
            process.kill()
            process.wait()
        raise
