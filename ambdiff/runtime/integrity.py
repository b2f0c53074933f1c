"""Whether a checkpoint on disk is whole: every file as it was written.

A manifest in a step's folder holds size and CRC-32 of every file of its items; it is there as soon as the folder has
its name. A folder without one, of an earlier version, is read instead, array by array.
"""

import json
import pathlib
import zlib

import tensorstore

from ambdiff.errors import UserError
from ambdiff.runtime import hosts, weights_place

_MANIFEST = 'manifest.json'


def first_line(error: Exception) -> str:
    """What an error says, in one line of at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def write_manifest(folder: pathlib.Path) -> None:
    """Lists the files of a step's folder that is complete."""
    files = [path for path in sorted(folder.rglob('*')) if path.is_file() and path.parent != folder]
    manifest = {str(path.relative_to(folder)): (path.stat().st_size, _crc(path)) for path in files}
    (folder / _MANIFEST).write_text(json.dumps(manifest))


def _crc(path: pathlib.Path) -> int:
    value = 0
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def damage(folder: pathlib.Path, items: tuple[str, ...]) -> str | None:
    """Why the folder of a step cannot be used for these items; None if it can."""
    listed = (folder / _MANIFEST).is_file()
    for item in items:
        # Earlier versions, which wrote no manifest, kept no record either.
        if not (folder / item).is_dir() and (listed or item != 'record'):
            return f'{item} is missing'
    try:
        if listed:
            files = json.loads((folder / _MANIFEST).read_bytes())
            unlisted = set(items) - {pathlib.PurePath(name).parts[0] for name in files}
            if unlisted:
                return f'{_MANIFEST} lists no file of {", ".join(sorted(unlisted))}'
            for name, (size, crc) in files.items():
                path = folder / name
                if pathlib.PurePath(name).parts[0] not in items:
                    continue
                if not path.is_file():
                    return f'{name} is missing'
                if path.stat().st_size != size:
                    return f'{name} has {path.stat().st_size} bytes instead of {size}'
                if _crc(path) != crc:
                    return f'{name} is not as it was written'
            return None
        json.loads((folder / 'config' / 'metadata').read_bytes())
        for item in {'state', 'ema'} & set(items):
            json.loads((folder / item / '_METADATA').read_bytes())
            store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': f'file://{folder / item}/'}).result()
            for key in store.list().result():
                store.read(key).result()
    except (OSError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        return first_line(error)
    return None


def _steps(folder: pathlib.Path) -> list[int]:
    """The steps that have a folder here, whole or not, newest first."""
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((int(name) for name in names if weights_place.is_step(name)), reverse=True)


def newest_good(folder: pathlib.Path, items: tuple[str, ...]) -> tuple[int | None, dict[int, str]]:
    """(newest step whose items can be read, or None; why each newer one cannot). All processes call it together.

    Raises:
      UserError: there are checkpoints, but none can be read.
    """
    bad, good = {}, -1
    if hosts.is_main():
        for step in _steps(folder):
            reason = damage(folder / str(step), items)
            if reason is None:
                good = step
                break
            bad[step] = reason
        if bad and good < 0:
            good = -2
    good = hosts.from_main(good)
    if good == -2:
        reasons = '; '.join(f'{step}: {reason}' for step, reason in bad.items()) or 'process 0 says why'
        raise UserError(
            f'no checkpoint in {folder} can be read ({reasons}): put a good one there, or delete the folder to start '
            'from step 0'
        )
    return (None if good == -1 else good), bad
