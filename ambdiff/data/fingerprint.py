"""What data a run is made of, so that a run that goes on can say what changed since.

  before = fingerprint.of(source, config.data)        a dict that JSON keeps, of at most some 100 kB
  fingerprint.changes(before, fingerprint.of(source, config.data))   lines, none where nothing changed

Files count by their content where all together are at most CONTENT_BYTES, else by size and time of modification. Their
names are those below config.data.path, so data that moved is the same data. Where there are more than _ENTRIES files,
those of one folder stand together. Computed data has no files and never changes: its version is its code's.
"""

import hashlib
import logging
import pathlib
from collections.abc import Iterable

from ambdiff.data.source import Source
from ambdiff.errors import UserError

logger = logging.getLogger(__name__)

CONTENT_BYTES = 1 << 28  # read in about a second
_ENTRIES = 1000
_SHOWN = 5

Fingerprint = dict[str, object]


def of(source: Source, data) -> Fingerprint:
    """The fingerprint of what a source reads.

    Args:
      source: an opened split (`sources.open_source`).
      data: the config's data group.

    Returns:
      {'by': 'content' or 'time', 'files': their number, 'bytes': of all together, 'entries': {name: digest}}.

    Raises:
      UserError: a file is gone or cannot be read.
    """
    by, total, digests = of_files(source.files(), pathlib.Path(data.path).expanduser())
    return {'by': by, 'files': len(digests), 'bytes': total, 'entries': _grouped(digests)}


def of_files(paths: Iterable[pathlib.Path], root: pathlib.Path) -> tuple[str, int, dict[str, str]]:
    """('content' or 'time', bytes of all together, {name below root: digest}) of files.

    Raises:
      UserError: a file is gone or cannot be read.
    """
    paths = sorted(set(paths))
    try:
        total = sum(path.stat().st_size for path in paths)
        by = 'content' if total <= CONTENT_BYTES else 'time'
        return by, total, {_name(path, root): _digest(path, by) for path in paths}
    except OSError as error:
        raise UserError(f'{error.filename}: gone or cannot be read ({error.strerror or error})') from error


def changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What is new, gone or changed, a line each, the first few of a kind; [] where the data is the same."""
    if before == now:
        return []
    then, since = before['entries'], now['entries']
    kinds = {
        'new': [name for name in since if name not in then],
        'gone': [name for name in then if name not in since],
        'changed': [name for name in since if name in then and since[name] != then[name]],
    }
    if before['by'] != now['by']:  # too much was added or taken away to compare the rest
        kinds['changed'] = []
    elif now['by'] == 'time':
        kinds['modified since (by its time or size)'] = kinds.pop('changed')
    lines = [f'{before["files"]} files of {before["bytes"]} bytes then, {now["files"]} of {now["bytes"]} now']
    for kind, names in kinds.items():
        lines += [f'{kind}: {name}' for name in names[:_SHOWN]]
        if len(names) > _SHOWN:
            lines.append(f'{kind}: {len(names) - _SHOWN} more')
    return lines


def check(before: Fingerprint, now: Fingerprint, accepted: bool) -> None:
    """Sees that a run goes on with the data that it began with.

    Large files that were only touched, as a copy's are, are told and taken.

    Args:
      before: the fingerprint that the run's checkpoint keeps.
      now: the present one.
      accepted: go on with other data as well, and say so.

    Raises:
      UserError: the data is another; it says what changed, and the cures.
    """
    lines = '; '.join(changes(before, now))
    if not lines:
        return
    same = lambda what: before[what] == now[what]
    touched = before['by'] == now['by'] == 'time' and same('files') and same('bytes')
    if accepted or (touched and before['entries'].keys() == now['entries'].keys()):
        logger.warning('the training data is not as it was when the run began (%s)', lines)
        return
    raise UserError(
        f'the training data is not what the run began with ({lines}): put it back, begin anew in another --workdir, or '
        'go on knowingly with --config.data.accept_changes=True'
    )


def _name(path, root):
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else path.name


def _digest(path, by):
    if by == 'time':
        stat = path.stat()
        return _short(f'{stat.st_size} {stat.st_mtime_ns}'.encode())
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def _short(content):
    return hashlib.sha256(content).hexdigest()[:16]


def _grouped(digests):
    """{name: digest}, of whole folders where the files are too many."""
    parts = {name: tuple(name.split('/')) for name in digests}
    depth = max(map(len, parts.values()), default=0)
    while depth and len({part[:depth] for part in parts.values()}) > _ENTRIES:
        depth -= 1
    groups: dict[str, list[str]] = {}
    for name, part in parts.items():
        groups.setdefault('/'.join(part[:depth]) or '.', []).append(f'{name} {digests[name]}')
    return {
        name: digests[name] if name in digests else _short('\n'.join(sorted(lines)).encode('utf-8', 'surrogateescape'))
        for name, lines in groups.items()
    }
