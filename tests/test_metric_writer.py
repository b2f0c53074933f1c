"""The log of a run: what stands there is read whatever it is, and what cannot be written is told, once, where it is."""

import json
import struct

import pytest
from tensorboardX.proto import event_pb2

from ambdiff.runtime.metric_writer import MetricWriter


def steps(workdir):
    return [json.loads(line)['step'] for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def events(path):
    """The records of an event file: length, its checksum, the record, its checksum."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack('<Q', content[:8])
        found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_a_run_that_goes_on_forgets_later_steps_in_both_logs(tmp_path):
    for first in (0, 2):
        with MetricWriter(tmp_path, first) as writer:
            for step in (first + 1, first + 2):
                writer.scalars(step, {'loss': 0.5 * step})
    with MetricWriter(tmp_path, 3):
        pass
    assert steps(tmp_path) == [1, 2, 3]
    starts, losses = [], []
    for path in sorted((tmp_path / 'tensorboard').iterdir()):
        for event in events(path):
            if event.HasField('session_log'):
                starts.append(event.step)
            losses += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    assert starts == [1, 3, 4]
    assert losses == [(step, 'loss', 0.5 * step) for step in (1, 2, 3, 4)]


STRANGE = [b'12', b'[]', b'"step"', b'{"loss": 1}', b'{"step": "2"}', b'{"step": null}', b'\xff\xfe', b'[' * 10**5, b'']


def test_lines_that_are_no_records_are_left_out_and_told_but_for_the_one_cut_short(tmp_path, caplog):
    good = [b'{"step": 1}', b'{"step": 2}']
    (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join([good[0], *STRANGE, good[1], b'{"step": 3, "lo']))
    with MetricWriter(tmp_path, 5):
        pass
    assert steps(tmp_path) == [1, 2]
    assert f'{len(STRANGE)} lines are no records of steps' in caplog.text


class Full:
    """A file of a disk that is full."""

    def write(self, _):
        raise OSError(28, 'No space left on device')

    flush = close = lambda self: self.write(None)


@pytest.mark.parametrize('which', ['_jsonl', '_events'])
def test_a_full_disk_is_one_error_where_it_is_met(tmp_path, which):
    with pytest.raises(OSError, match='No space') as error, MetricWriter(tmp_path, 0) as writer:
        file = writer._jsonl if which == '_jsonl' else writer._events._py_recordio_writer._writer
        file.close()
        if which == '_jsonl':
            writer._jsonl = Full()
        else:
            writer._events._py_recordio_writer._writer = Full()
        writer.scalars(1, {'loss': 1.0})
    assert error.value.__context__ is None
