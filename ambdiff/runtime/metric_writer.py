"""Scalars and pictures of a run: metrics.jsonl, TensorBoard events and PNG files in the workdir."""

import contextlib
import json
import logging
import pathlib
import time
from collections.abc import Mapping

from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from ambdiff import files
from ambdiff.runtime import hosts

logger = logging.getLogger(__name__)


class MetricWriter:
    """Writes to <workdir>/metrics.jsonl (one line a call), <workdir>/tensorboard and <workdir>/samples.

    A run that resumes at `step` forgets what was written after it, so that no step stands there twice. Of several
    processes the main one alone writes. What cannot be written raises OSError where it is written: no thread of its
    own, in which that would be lost.
    """

    def __init__(self, workdir: pathlib.Path, step: int):
        self._workdir, self._writes = workdir, hosts.is_main()
        if not self._writes:
            return
        self._path = workdir / 'metrics.jsonl'
        if self._path.exists():
            self._forget_after(step)
        folder = workdir / 'tensorboard'
        folder.mkdir(parents=True, exist_ok=True)
        # A name of its own, as a run that went back may be here again within the second that the name says.
        self._events = event_file_writer.EventsWriter(str(folder / 'events'), f'.{time.time_ns()}')
        # TensorBoard forgets what stands there of later steps.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.write_event(event_pb2.Event(step=step + 1, session_log=start))
        self._jsonl = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if not self._writes:
            return
        for file in (self._jsonl, self._events):
            # After an error, such as a full disk, closing meets it once more.
            with contextlib.suppress(*[OSError] if kind else []):
                file.close()

    def _forget_after(self, step: int) -> None:
        kept, lines = [], self._path.read_bytes().splitlines()
        strange = 0
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                later = record['step'] > step
            except (ValueError, TypeError, KeyError, RecursionError):
                strange += number < len(lines)  # the last one is what a kill cut short
                continue
            if not later:
                kept.append(line + b'\n')
        if strange:
            logger.warning('%s: %d lines are no records of steps and are left out', self._path, strange)
        files.write_whole(self._path, b''.join(kept))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes named scalars of a step."""
        if not self._writes:
            return
        values = {name: float(value) for name, value in values.items()}
        self._jsonl.write(json.dumps({'step': step, 'time': round(time.time(), 1), **values}) + '\n')
        self._jsonl.flush()
        for name, value in values.items():
            said = summary.scalar(name, value)
            self._events.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=said))
        self._events.flush()

    def picture(self, step: int, png: bytes) -> pathlib.Path:
        """Writes a PNG of samples; returns its path."""
        path = self._workdir / 'samples' / f'step_{step:08d}.png'
        files.write_whole(path, png)
        return path
