"""A tree and a Pattern -> cases: which files, or data sets in HDF5 files, are the channels and the masks of each.

A file that matches a path of masks is no image. A rater without a file of a structure or instance that another rater of
the case has gave no answer there, and is left out of that case; a structure that nobody of a case has is not there. A
case without any mask is no example: such cases are counted. Links are followed, but not in a circle.
"""

import collections
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from ambdiff.data.files import hdf5
from ambdiff.data.files.cases import is_junk, natural
from ambdiff.data.pattern.case import Case, Part
from ambdiff.data.pattern.grammar import Pattern, Place
from ambdiff.errors import UserError

_MAX_DEPTH = 12  # folders below the root
_MAX_FILES = 2_000_000
_PICTURE = re.compile(r'.*\.(png|jpe?g|tiff?|bmp|nii|nii\.gz|mha|nrrd|h5|hdf5|npy|dcm)', re.IGNORECASE)


def find(root: pathlib.Path, pattern: Pattern) -> tuple[list[Case], list[str]]:
    """(the cases below a folder in the natural order of their names, what is not read, a line each).

    Raises:
      UserError: no file matches the pattern, or there are more files than any such data set has.
    """
    images, masks, faults, others = _matched(root, pattern)
    _join_by_capitals(images, masks)
    cases, bare, unread = [], [], []
    for name in sorted({*images, *masks}, key=natural):
        if name in faults:
            continue
        if name not in images and any(known.no_image for known in pattern.known_of(name)):
            unread.append(f'{root / name}: no clean picture, a known fault: left out')
            continue
        case = _case(root, name, pattern, images.get(name, {}), masks.get(name, {}))
        if case.fault or case.masks:
            cases.append(case)
        else:
            bare.append(name)
    cases += [Case(name, pattern, fault=fault) for name, fault in faults.items()]
    if not cases:
        raise UserError(_nothing(root, pattern, bare))
    if bare:
        unread.append(f'{root}: {len(bare)} cases have an image and no mask, and are left out, such as {bare[0]}')
    if others:
        unread.append(f'{root}: {len(others)} files match no path of the pattern and are not read, such as {others[0]}')
    return cases, unread


def _join_by_capitals(images, masks):
    """Gives masks of a case that differs from one with an image in its capitals alone to that one."""
    names: dict[str, list[str]] = {}
    for name in images:
        names.setdefault(name.casefold(), []).append(name)
    for name in [name for name in masks if name not in images]:
        alike = names.get(name.casefold(), [])
        if len(alike) == 1 and not masks[alike[0]].keys() & masks[name].keys():
            masks[alike[0]].update(masks.pop(name))


def _nothing(root, pattern, bare):
    if bare:
        masks = ' or '.join(place.text for place in pattern.masks)
        return f'{root}: {len(bare)} images and no mask, such as {bare[0]}; masks are looked for as {masks}'
    looked = f'{pattern.images[0].text} of config.data.pattern'
    return f'{root}: no file matches {looked}; config.data.path is the folder that the path begins in'


def _matched(root, pattern):
    """What was found of each case, by its name, and what matches nothing.

    ({case: {channel: Part}}, {case: {(rater, structure, instance): Part}}, {case: fault}, paths).
    """
    images, masks = collections.defaultdict(dict), collections.defaultdict(dict)
    ranks, faults, others = {}, {}, []

    def put(into, kind, case, what, part, rank):
        """Keeps a part, unless a better option of its path is there."""
        before = into[case].get(what)
        if before is None or rank < ranks[kind, case, what]:
            into[case][what], ranks[kind, case, what] = part, rank
        elif rank == ranks[kind, case, what]:
            faults.setdefault(case, f'{part}: the same as {before} by config.data.pattern; keep one of them')

    for path, fault in _files(root):
        if fault:
            faults[path] = fault
            continue
        used, whole = False, False
        for number, place in enumerate(pattern.masks):
            if found := place.match(path):
                used, whole = True, whole or place.key is None
                try:
                    parts = list(_parts(root / path, place, found[1], pattern))
                except UserError as error:
                    faults.setdefault(found[1]['case'], str(error))
                    continue
                for what, part in parts:
                    put(masks, 'mask', found[1]['case'], what, part, (number, found[0]))
        for channel, place in enumerate(pattern.images):
            if not whole and (found := place.match(path)):
                used = True
                key = place.text.partition('#')[2]
                put(images, 'image', found[1]['case'], channel, Part(root / path, key), (found[0],))
        if not used and _PICTURE.fullmatch(path):
            others.append(path)
    return images, masks, faults, others


def _parts(path: pathlib.Path, place: Place, found: Mapping[str, str], pattern: Pattern) -> Iterator[tuple]:
    """((rater, structure, instance), Part) of a file that matches the path of masks."""
    if place.key is None:
        keys = [('', found)]
    else:
        matched = ((key, place.key.fullmatch(key)) for key in hdf5.names(path))
        keys = [(key, {**found, **of_key.groupdict()}) for key, of_key in matched if of_key]
    for key, names in keys:
        structure = names.get('structure', '')
        try:
            if structure and not pattern.label(structure):
                continue
        except KeyError:
            raise UserError(
                f"{path}: config.data.pattern says nothing of the structure '{structure}'; add it to classes= or drop="
            ) from None
        rater = names.get('rater') or key or pathlib.PurePath(place.text.replace('[', '.')).name.partition('.')[0]
        yield (rater, structure, names.get('instance', '')), Part(path, key)


def _case(root, name, pattern, images, masks):
    """A case of its parts."""
    where = root / name
    if lacking := [place.text for channel, place in enumerate(pattern.images) if channel not in images]:
        what = 'no image' if len(lacking) == len(pattern.images) else 'not every channel'
        return Case(name, pattern, fault=f'{where}: {what}, looked for as {lacking[0]}; add it, or take the case away')
    by_rater = collections.defaultdict(dict)
    for (rater, structure, instance), part in masks.items():
        by_rater[rater][structure, instance] = part
    expected = {what for outlines in by_rater.values() for what in outlines}
    kept, notes = {}, []
    for rater in sorted(by_rater, key=natural):
        if lacking := sorted(expected - by_rater[rater].keys()):
            what = ' '.join(filter(None, lacking[0])) + (f' and {len(lacking) - 1} more' if len(lacking) > 1 else '')
            notes.append(f'{name}: rater {rater} has no {what}, which others outlined: left out')
        else:
            kept[rater] = by_rater[rater]
    if by_rater and not kept:
        return Case(name, pattern, fault=f'{where}: no rater has all that others outlined; complete one, or drop= some')
    if pattern.by_structure and expected:
        there = {structure for structure, _ in expected}
        for items in pattern.classes:
            if not there & {*items}:
                notes.append(f'no file of {"+".join(items)}: taken as not there')
    parts = tuple(images[channel] for channel in range(len(pattern.images)))
    return Case(name, pattern, parts, kept, notes=tuple(notes))


def _files(root: pathlib.Path) -> Iterator[tuple[str, str]]:
    """(path below the root, '') of every file that is not hidden, in order; (what it is, a fault) of what is none."""
    stack, count = [(root, '', (os.path.realpath(root),))], 0
    while stack:
        folder, prefix, above = stack.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: natural(entry.name))
        except OSError as error:
            yield prefix or str(root), f'{folder}: cannot be read ({error.strerror or error})'
            continue
        count += len(entries)
        if count > _MAX_FILES:
            raise UserError(f'{root}: more than {_MAX_FILES} files; let config.data.path name the data set alone')
        below = []
        for entry in entries:
            path = prefix + entry.name
            if entry.name.startswith('.') or entry.name == '__MACOSX' or is_junk(entry.name):
                continue
            if any('\ud800' <= letter <= '\udfff' for letter in entry.name):
                shown = os.fsencode(entry.path).decode(errors='replace')
                yield shown, f'{shown}: its name is not UTF-8, as in archives of older systems; rename it'
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in above or len(above) > _MAX_DEPTH:
                    why = 'a link back to a folder above it' if real in above else f'deeper than {_MAX_DEPTH} folders'
                    yield path, f'{entry.path}: {why}; remove it'
                else:
                    below.append((entry.path, f'{path}/', (*above, real)))
            elif entry.is_file():  # reading a pipe may never end
                yield path, ''
            elif entry.is_symlink():
                yield path, f'{entry.path}: a link that leads nowhere or in a circle; remove it'
        stack += reversed(below)
