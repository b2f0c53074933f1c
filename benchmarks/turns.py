"""Programs that take turns on one machine: each is a process of its own, which waits while another works.

So neither's threads, memory or libraries touch the other's times, and both meet the same load.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# glibc gives large blocks back at every free; PyTorch then pays for fresh pages at every step.
MALLOC = {'MALLOC_MMAP_THRESHOLD_': '4294967296', 'MALLOC_TRIM_THRESHOLD_': '4294967296', 'MALLOC_TOP_PAD_': '67108864'}


class Program:
    """One of them; `ready` is what it said of itself."""

    def __init__(self, arguments, environment=()):
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115  as long as the process
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {'PYTHONPATH': str(ROOT)} | dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.ready = json.loads(self._answer())

    def take(self, what=''):
        """The seconds that it takes for this piece of its work."""
        print(what, file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self):
        """Ends it."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self):
        if line := self._process.stdout.readline():
            return line
        self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        print(lines[-1] if lines else 'a program ended without a word', file=sys.stderr)
        sys.exit(2)


def serve(start):
    """The program's side: start() gives (what to do at a turn, called with what is asked for; what it says of itself).

    Whatever the program prints goes to stderr.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    work, said = start()
    print(json.dumps(said), file=answers, flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        work(line.strip())
        print(time.perf_counter() - began, file=answers, flush=True)


def needs_torch(script):
    """Ends the process in one line where PyTorch is not installed."""
    import importlib.util

    if importlib.util.find_spec('torch') is None:
        print(f'{script}: PyTorch is not installed: pip install torch (the CPU build will do)', file=sys.stderr)
        sys.exit(2)


def config_of(name, fields=()):
    """A config; ends the process in one line where there is none."""
    sys.path.insert(0, str(ROOT))
    from ambdiff import command
    from ambdiff.errors import UserError

    try:
        return command.parse_config(name, fields)
    except UserError as error:
        sys.exit(command.fail(error))
