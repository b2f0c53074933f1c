"""Runs commands as `python -m` does, without a start of the interpreter and of the libraries for each.

A process that has imported what they all import, and begun nothing with it, forks itself for each of them.
"""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
# Reads [arguments of python, file for stdout, for stderr] a line and answers with the exit status.
SERVER = """
import json, os, runpy, sys, traceback
import jax, flax.linen, h5py, optax
from ambdiff import command, config, methods
for name in methods.known():
    config.default(name)

def run(arguments):
    kind, program, *sys.argv[1:] = arguments
    sys.argv[0] = program if kind == '-m' else kind
    try:
        if kind == '-m':
            runpy.run_module(program, run_name='__main__', alter_sys=True)
        else:
            exec(compile(program, '<string>', 'exec'), {'__name__': '__main__'})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    arguments, out, err = json.loads(line)
    sys.stdout.flush()
    if not (child := os.fork()):
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        status = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen:
    """The process that forks: one of each process that runs tests, ended with it."""
    started = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', SERVER],
        cwd=ROOT,
        env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(started.wait)
    atexit.register(started.stdin.close)
    return started


def run(*arguments) -> subprocess.CompletedProcess:
    """`python` with arguments that begin with -m MODULE or -c PROGRAM, from the repository's root, on one device."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (pathlib.Path(folder) / name for name in ('out', 'err'))
        server = _server()
        print(json.dumps([[str(a) for a in arguments], str(out), str(err)]), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, out.read_text('utf-8'), err.read_text('utf-8'))
