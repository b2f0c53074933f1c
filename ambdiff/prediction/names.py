"""Names of the folders that results go to: they mirror the input's tree, and nothing in them leads out of the output.

  scans/a/ct.nii.gz -> a/ct        scans/a/ct.dcm and scans/a/ct.png -> a/ct_dcm and a/ct_png

Names are letters, digits, dot, dash and underline; what loses something in the change gets a digest. No two results
share a folder, nor does one lie within another, also where capitals do not count.
"""

import re
from collections.abc import Sequence

from ambdiff.text import short_digest

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.nii', '.nii.gz', '.dcm', '.ima', '.dicom')
_RESERVED = ('index.html', 'predictions.csv', 'summary.json')
_LONGEST = 80


def folders(sources: Sequence[str]) -> list[str]:
    """A folder below the output, 'a/b', for each file or series of the input, 'a/b.png'."""
    choices = [_choices(source) for source in sources]
    chosen = [0] * len(sources)
    while clashes := _clashes([names[choice].lower() for names, choice in zip(choices, chosen, strict=True)]):
        for index in clashes:
            chosen[index] = min(chosen[index] + 1, len(choices[index]) - 1)
    return [names[choice] for names, choice in zip(choices, chosen, strict=True)]


def _choices(source: str) -> list[str]:
    """Names, the second with its kind of file, the third always its own."""
    *parents, name = source.split('/')
    stem, kind = _stem(name)
    parents = [_safe(parent) for parent in parents]
    last = _safe(stem)
    full = f'{last}_{kind}' if kind else f'{last}_case'
    return ['/'.join([*parents, end]) for end in (last, full, f'{full}-{short_digest(source)}')]


def _clashes(names: Sequence[str]) -> set[int]:
    """Those that share a name, or whose name is a folder above another's."""
    owners: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        owners.setdefault(name, []).append(index)
    above = {name[:end] for name in owners for end in range(len(name)) if name[end] == '/'}
    clash = {index for group in owners.values() if len(group) > 1 for index in group}
    return clash | {index for name, group in owners.items() if name in above for index in group}


def _stem(name: str) -> tuple[str, str]:
    """('ct', 'nii_gz') of 'ct.nii.gz'."""
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default='')
    return (name[: -len(suffix)], suffix[1:].replace('.', '_')) if suffix else (name, '')


def _safe(part: str) -> str:
    """One level's name, harmless."""
    name = re.sub(r'[^A-Za-z0-9._-]+', '_', part).strip('.').lstrip('-')[:_LONGEST]
    while (split := _stem(name))[1]:  # no folder looks like a file
        name = '_'.join(split)
    if name and name == part and name not in _RESERVED:
        return name
    return f'{name}-{short_digest(part)}' if name else short_digest(part)
