"""Scalars and pictures of a run: metrics.jsonl, TensorBoard events and PNG files in the workdir."""

import json
import pathlib
import time
from collections.abc import Mapping

import tensorboardX

from ambdiff import files
from ambdiff.runtime import hosts


class MetricWriter:
    """Writes to <workdir>/metrics.jsonl (one line a call), <workdir>/tensorboard and <workdir>/samples.

    A run that resumes at `step` forgets what was written after it, so that no step stands there twice. Of several
    processes the main one alone writes.
    """

    def __init__(self, workdir: pathlib.Path, step: int):
        self._workdir, self._writes = workdir, hosts.is_main()
        if not self._writes:
            return
        self._path = workdir / 'metrics.jsonl'
        if self._path.exists():
            self._forget_after(step)
        self._jsonl = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115
        self._events = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1, flush_secs=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writes:
            self._jsonl.close()
            self._events.close()

    def _forget_after(self, step: int) -> None:
        kept = []
        for line in self._path.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # the line that a kill cut short
                continue
            if record['step'] <= step:
                kept.append(line + '\n')
        files.write_whole(self._path, kept)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes named scalars of a step."""
        if not self._writes:
            return
        values = {name: float(value) for name, value in values.items()}
        self._jsonl.write(json.dumps({'step': step, 'time': round(time.time(), 1), **values}) + '\n')
        self._jsonl.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def picture(self, step: int, png: bytes) -> pathlib.Path:
        """Writes a PNG of samples; returns its path."""
        path = self._workdir / 'samples' / f'step_{step:08d}.png'
        files.write_whole(path, png)
        return path
