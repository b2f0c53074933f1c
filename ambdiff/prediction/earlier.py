"""Results that lie below an output already: found, and checked before they are trusted.

A result is trusted if its summary has every field that is used, of the right type, its files have the sizes that the
summary tells, and its page the digest. One that is not is made anew where its image is predicted again, and else named
and left alone.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from ambdiff import files
from ambdiff.errors import UserError
from ambdiff.prediction import claims
from ambdiff.text import printable

FORMAT = 'ambdiff prediction 5'
TABLE = 'predictions.csv'
_OURS = re.compile(
    r'(samples(_\d+)?|probability|disagreement|answers)\.(png|tif|nii\.gz)|segmentation\.dcm|summary\.json|index\.html'
)
_JUNK = ('.DS_Store', 'Thumbs.db', 'desktop.ini')
_LARGEST = 1 << 26  # bytes of a summary
_HEAD = re.compile(rb'\s*\{\s*"format":\s*"ambdiff prediction')

_ANSWER = {'share': float, 'words': str, 'empty': bool, 'area': float, 'sample': int, 'samples': [int]}
_SIZE = {'unit': str, **{name: float for name in ('p05', 'p25', 'p50', 'p75', 'p95', 'mean')}}
_SAID = {
    'empty_share': float,
    'headline': str,
    'area': _SIZE,
    'volume': (_SIZE, type(None)),  # one or the other
    'diameter': _SIZE,
    'perpendicular': _SIZE,
    'slices': float,
    'modes': [_ANSWER],
}
_SUMMARY = {
    'format': str,
    'case': str,
    'input': str,
    'num_samples': int,
    'num_steps': int,
    'seed': int,
    'network_evaluations_per_mask': float,
    'smallest_part': int,
    **_SAID,
    'points': [{'at': [float], **_SAID}],
    'raters': [str],
    'weights': {'name': str, 'step': int, 'sha256': str},
    'warnings': [str],
    'files': [str],
    'bytes': [int],
    'page_sha256': str,
    'settings': {},
}


@dataclasses.dataclass(frozen=True)
class WrittenResult:
    """A finished result: its folder, and its summary, which has every field that `_SUMMARY` lists."""

    folder: pathlib.Path
    summary: dict

    def page(self) -> str:
        """Its page."""
        return (self.folder / 'index.html').read_text('utf-8')


def read(folder: pathlib.Path) -> WrittenResult | None:
    """The result in a folder, None if there is none or it is not to be trusted."""
    try:
        if (folder / 'summary.json').stat().st_size > _LARGEST:
            return None
        summary = json.loads((folder / 'summary.json').read_text('utf-8'))
        if not _fits(summary, _SUMMARY) or summary['format'] != FORMAT:
            return None
        if not all(said['modes'] for said in (summary, *summary['points'])):
            return None
        for name, size in zip(summary['files'], summary['bytes'], strict=True):
            if not _OURS.fullmatch(name) or (folder / name).stat().st_size != size:
                return None
        page = (folder / 'index.html').read_bytes()
        return WrittenResult(folder, summary) if hashlib.sha256(page).hexdigest() == summary['page_sha256'] else None
    except (OSError, ValueError, RecursionError, MemoryError):
        return None


def _fits(value: object, form: object) -> bool:
    """Whether a value from JSON has this form: a type, [the form of each item], {name: form} or (one, or another)."""
    if isinstance(form, tuple):
        return any(_fits(value, one) for one in form)
    if isinstance(form, dict):
        return isinstance(value, dict) and all(name in value and _fits(value[name], form[name]) for name in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(item, form[0]) for item in value)
    if form is float:
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    if form is int:
        return type(value) is int and 0 <= value < 2**63
    return type(value) is form and (form is not str or printable(value) == value)


def is_result(folder: pathlib.Path) -> bool:
    """Whether a folder was written by predict, as far as its names and the first line of its summary tell."""
    try:
        with (folder / 'summary.json').open('rb') as file:
            if _HEAD.match(file.read(99)):
                return True
    except OSError:
        pass
    return _only_ours(folder)


def _only_ours(folder: pathlib.Path) -> bool:
    """Whether a folder holds what predict writes and nothing else."""
    try:
        names = [path.name for path in folder.iterdir() if path.name not in _JUNK]
    except OSError:
        return False
    masks = any(name.startswith('probability.') for name in names)
    return masks and all(map(_OURS.fullmatch, names))


def claim(folder: pathlib.Path, settings: dict) -> WrittenResult | None:
    """The result in a folder if it was made with these settings; None where one is to be written.

    That is so where nothing is there, or nothing but what predict wrote with other settings, or that is damaged.

    Raises:
      UserError: something of the user's own is in the way.
    """
    if not os.path.lexists(folder):
        return None
    if (result := read(folder)) and result.summary['settings'] == settings:
        return result
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            names = [path.name for path in folder.iterdir() if path.name not in _JUNK]
            if not names or (is_result(folder) and all(map(_OURS.fullmatch, names))):
                return None
    raise UserError(
        f'{folder} is in the way: it is no result of ambdiff predict, or holds other files beside one; move it, or '
        'name another folder'
    )


def below(output: pathlib.Path) -> tuple[list[WrittenResult], list[str]]:
    """(the results below an output, sorted; folders with results that are not to be trusted), those of others left out.

    A folder with predictions.csv is another output.
    """
    results, doubtful = [], []
    for folder in _folders(output):
        if (folder / 'summary.json').exists():
            if result := read(folder):
                results.append(result)
            elif is_result(folder):
                doubtful.append(folder.relative_to(output).as_posix())
    return sorted(results, key=lambda result: result.folder.relative_to(output).as_posix()), doubtful


@contextlib.contextmanager
def writing(output: pathlib.Path, names: Iterable[str]) -> Iterator[None]:
    """Holds an output for this run, and clears what a killed one left beside the results of these names.

    Raises:
      UserError: another run holds it.
      OSError: it cannot be written.
    """
    with files.held(output, claims.busy(output)):
        if claims.shared(output):
            raise UserError(claims.busy(output))
        for parent in {(output / name).parent for name in names} - {output}:
            files.tidy(parent)
        yield


def _folders(output: pathlib.Path) -> Iterator[pathlib.Path]:
    for place, folders, _ in os.walk(output):
        here = pathlib.Path(place)
        folders[:] = [f for f in folders if not f.startswith('.') and not (here / f / TABLE).exists()]
        yield from (here / folder for folder in folders)
