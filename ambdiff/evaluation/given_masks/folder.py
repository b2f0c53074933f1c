"""Masks in a folder of PNG, JPEG, TIFF or NIfTI files.

CASE/ANY.png   a folder a case, at any depth; the case is its path. Of raters the files mask_*.*, of samples the files
               sample*.* where there are any; else every picture but image.* (probability and disagreement maps, which
               `ambdiff predict` puts beside its samples, are left out)
CASE_0.png ..  all in one folder: the case is the name up to the last _ and a number. Where the other side has a case of
               the whole name, the file is that case's one mask; both at once is refused
A NIfTI of four axes is several masks, its last axis counting them; one of three is one mask of a volume.
"""

import collections
import pathlib
import re
from collections.abc import Collection

import numpy as np

from ambdiff.data.files import cases as case_files
from ambdiff.data.files import masks as mask_files
from ambdiff.errors import UserError
from ambdiff.evaluation.given_masks.masks import RATERS, SAMPLES, GivenMasks, size

_FILE = re.compile(r'(.+?)\.(png|jpe?g|tiff?|nii|nii\.gz)', re.IGNORECASE)
_NUMBERED = re.compile(r'(.+)_([0-9]+)')
_SIDE = {RATERS: re.compile(r'mask', re.IGNORECASE), SAMPLES: re.compile(r'samples?(?![a-z])', re.IGNORECASE)}
_NO_MASK = re.compile(r'(image|probability|disagreement)\..*', re.IGNORECASE)
_MAX_FILES = 1_000_000


def find(root: pathlib.Path, kind: str, num_classes: int, known: Collection[str]) -> GivenMasks:
    """The masks of one side in a folder; see `find.find`."""
    folders = collections.defaultdict(list)
    for number, path in enumerate(root.rglob('*')):
        if number > _MAX_FILES:
            raise UserError(f'--{kind}={root}: more than {_MAX_FILES} files; name the folder of the cases')
        where = path.relative_to(root)
        if not any(part.startswith('.') for part in where.parts) and _FILE.fullmatch(path.name) and path.is_file():
            folders[where.parent].append(path)
    if not folders:
        raise UserError(f'--{kind}={root}: holds no PNG, JPEG, TIFF or NIfTI file; expected CASE/{kind[:-1]}_0.png ..')
    masks = {}
    for folder, paths in sorted(folders.items(), key=lambda item: case_files.natural(item[0].as_posix())):
        paths.sort(key=lambda path: case_files.natural(path.name))
        _check_side(root, kind, paths)
        if folder == pathlib.Path() and not _is_case(kind, paths):
            found = _flat(root, kind, paths, known)
        else:
            name = folder.as_posix() if folder != pathlib.Path() else root.resolve().name
            found = {name: chosen} if (chosen := _of_side(kind, paths)) else {}
        for case, files in found.items():
            if case in masks:
                raise UserError(f'--{kind}={root}: the case {case} is a folder and files; keep one of them')
            masks[case] = files
    if not masks:
        raise UserError(f'--{kind}={root}: holds images and no masks; {kind} are CASE/{_example(kind)}')
    return GivenMasks(root, {case: lambda files=files: _stack(files, num_classes) for case, files in masks.items()})


def _stack(files, num_classes) -> np.ndarray:
    """[K, Z, H, W] of all files of a case."""
    first, parts = None, []
    for path in files:
        masks = mask_files.stack(path, num_classes)
        if first is not None and masks.shape[1:] != first.shape[1:]:
            raise UserError(
                f'{path}: {size(masks)} pixels, but {files[0].name} is {size(first)}; the masks of a case have one size'
            )
        first = masks if first is None else first
        parts.append(masks)
    return np.concatenate(parts)


def _check_side(root, kind, paths):
    """Refuses a folder that is clearly the other side's."""
    mine, other = _SIDE[kind], _SIDE[SAMPLES if kind == RATERS else RATERS]
    theirs = [path for path in paths if other.match(path.name)]
    image = any(case_files.IMAGE.fullmatch(path.name) for path in paths)
    if theirs and not any(mine.match(path.name) for path in paths) and (kind == RATERS or image):
        what, where = ('samples', 'samples') if kind == RATERS else ("raters' masks beside images", 'raters')
        raise UserError(
            f'--{kind}={root}: holds {what} ({theirs[0].relative_to(root)}), which --{where} takes; are they swapped?'
        )


def _is_case(kind, paths) -> bool:
    """Whether files at the top are one case's own, and not several cases'."""
    return any(_SIDE[kind].match(path.name) for path in paths)


def _of_side(kind, paths):
    """The files of a case's folder that are this side's masks."""
    named = [path for path in paths if _SIDE[kind].match(path.name)]
    return named or [path for path in paths if not _NO_MASK.fullmatch(path.name)]


def _flat(root, kind, paths, known) -> dict[str, list[pathlib.Path]]:
    found = collections.defaultdict(list)
    for path in paths:
        if _NO_MASK.fullmatch(path.name):
            continue
        stem = _FILE.fullmatch(path.name)[1]
        numbered = _NUMBERED.fullmatch(stem)
        whole, part = stem in known, bool(numbered) and numbered[1] in known
        if whole and part:
            raise UserError(
                f'{path}: may be the mask of {stem} or one of {numbered[1]}; put the masks of each case into a folder '
                f'{root.name}/CASE'
            )
        found[stem if whole or not numbered else numbered[1]].append(path)
    return dict(found)


def _example(kind):
    return 'mask_1.png, mask_2.png ..' if kind == RATERS else 'sample_0.png, sample_1.png ..'
