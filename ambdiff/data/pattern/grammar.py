"""The text of a pattern -> Pattern: which paths are images, which are masks, and whose.

  pattern   entry,entry,..   or   PRESET   or   PRESET,entry,..       an entry replaces the preset's
  entry     image=PATH:PATH..     the channels of an image, in this order
            mask=PATH:PATH..      the raters' masks
            classes=A:B+C..       label 1, label 2, ..: the structures, or the values of a label map, that it stands for
            drop=D:E or drop=*    structures or values that are background; any other one is refused
            drawn=A or drawn=A:B  masks are the picture with the outline of A drawn in, and of B within A
            patient=NAME          the patient in the last folder or file name of {case}, as in Sample_{patient}_slice_*
            align=index           masks whose header disagrees with the image's are laid on it voxel by voxel
  PATH      a path below config.data.path, and after a # the name of a dataset in an HDF5 file
            {case}                what all files of a case share, one or several folders; without it PATH stands in the
                                  folder of the case, as if {case}/ were before it
            {name}                the last folder of {case}
            {rater} {structure} {instance}    in masks: whose it is, what of, and which of several
            *                     any text within a name; in a mask's path without {rater} the one * is the rater
            [x]  (x|y)            x or nothing, x or y: where a case has several of them, the first counts

Structures are painted in the order of `classes`: where they overlap, the later one counts. Files of several instances
are one mask, their union. A mask's path that names no rater is one rater's file.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence

from ambdiff.errors import UserError

KEYS = ('image', 'mask', 'classes', 'drop', 'drawn', 'patient', 'align')
_OF_MASKS = ('rater', 'structure', 'instance')
_MOST_TEXT = 2000
_MOST_OPTIONS = 64  # that the brackets of a path stand for
_MOST_WILD = 6  # placeholders and stars of a path: each multiplies what matching may take
_MOST_CLASSES = 254
_TOKEN = re.compile(r'\{(\w*)\}|(\*)')


@dataclasses.dataclass(frozen=True)
class Place:
    """A path of a pattern.

    Attributes:
      text: as it was written.
      options: what its brackets stand for, in order: patterns of a path below the root.
      key: of the name of a dataset in an HDF5 file; None for a file that is read as a whole.
      names: the placeholders in path and key.
    """

    text: str
    options: tuple[re.Pattern, ...]
    key: re.Pattern | None
    names: frozenset[str]

    def match(self, path: str) -> tuple[int, dict[str, str]] | None:
        """(which option it is, the placeholders' values) of a path below the root; None where it is none."""
        for number, option in enumerate(self.options):
            if found := option.fullmatch(path):
                return number, found.groupdict()
        return None


@dataclasses.dataclass(frozen=True)
class Known:
    """A known fault of a published data set.

    Attributes:
      case: the end of the case's name.
      rater: whose mask.
      by_index: its header disagrees with the image's, and its voxels are laid on the image's one by one.
      lacks: the value or structure that was not outlined: who asks for it does without this rater.
      called: what that is.
      no_image: there are masks, and no image.
    """

    case: str
    rater: str = ''
    by_index: bool = False
    lacks: str = ''
    called: str = ''
    no_image: bool = False


@dataclasses.dataclass(frozen=True)
class Pattern:
    """What a data set's files mean.

    Attributes:
      images: a path a channel; a single one may hold several channels.
      masks: paths of masks.
      classes: the structures or values of label 1, 2, ..; none: masks are read as they are.
      drop: structures or values that are background; ('*',) for all others.
      drawn: what is outlined in the masks, which are pictures; the outer one first; none: masks are masks.
      patient: of the last folder of a case; None: every case is a patient.
      by_index: whether masks are laid on their image voxel by voxel where the headers disagree.
      known: faults of the data set.
    """

    images: tuple[Place, ...]
    masks: tuple[Place, ...]
    classes: tuple[tuple[str, ...], ...] = ()
    drop: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    patient: re.Pattern | None = None
    by_index: bool = False
    known: tuple[Known, ...] = ()

    @property
    def by_structure(self) -> bool:
        """Whether masks are files of one structure each; else `classes` are values of label maps."""
        return 'structure' in self.masks[0].names

    def known_of(self, case: str) -> list[Known]:
        """What is known of a case."""
        return [known for known in self.known if f'/{case}'.endswith(f'/{known.case}')]

    def label(self, item: str) -> int:
        """The label of a structure or value, 0 where it is dropped.

        Raises:
          KeyError: the pattern says nothing of it.
        """
        for label, items in enumerate(self.classes, 1):
            if item in items:
                return label
        if item in self.drop or '*' in self.drop:
            return 0
        raise KeyError(item)


def parse(text: str, entries_of: Mapping[str, str], known_of: Mapping[str, Sequence[Known]]) -> Pattern:
    """The Pattern of config.data.pattern.

    Args:
      text: a pattern, or the name of a preset, further entries after it.
      entries_of: name of a preset -> its pattern.
      known_of: name of a preset -> its known faults.

    Raises:
      UserError: what cannot be understood, and the cure.
    """
    if len(text) > _MOST_TEXT:
        raise _wrong(f'is longer than {_MOST_TEXT} letters', 'name paths by placeholders')
    first, _, rest = text.partition(',')
    preset = first.strip() if '=' not in first else ''
    if preset and preset not in entries_of:
        raise _wrong(f'names {preset!r}', f'choose {", ".join(entries_of)}, or write image=PATH,mask=PATH')
    entries = _entries(entries_of[preset]) | _entries(rest) if preset else _entries(text)
    if lacking := next((key for key in ('image', 'mask') if key not in entries), ''):
        raise _wrong(f'has no {lacking}=', 'write image=image.nii.gz,mask=annotation_*.nii.gz')
    masks = tuple(_place('mask', path) for path in _list('mask', entries['mask'], most=16))
    drawn = tuple(_list('drawn', entries.get('drawn', ''), most=2))
    given = _list('classes', entries.get('classes', '')) or drawn
    classes = tuple(tuple(_list('classes', item, '+')) for item in given)
    drop = tuple(_list('drop', entries.get('drop', '')))
    _check_classes(masks, classes, drop, drawn)
    if entries.get('align', 'index') != 'index':
        raise _wrong(f'has align={entries["align"]}', 'write align=index, or leave it out')
    images = tuple(_place('image', path) for path in _list('image', entries['image'], most=64))
    patient = _patient(entries['patient']) if 'patient' in entries else None
    return Pattern(images, masks, classes, drop, drawn, patient, 'align' in entries, tuple(known_of.get(preset, ())))


def _wrong(what, cure):
    return UserError(f'config.data.pattern {what}; {cure} (docs/data/pattern.md)')


def _entries(text):
    entries = {}
    for part in filter(None, map(str.strip, text.split(','))):
        key, equal, value = (piece.strip() for piece in part.partition('='))
        if key not in KEYS or not equal or not value:
            raise _wrong(f'has the entry {part[:80]!r}', f'entries are KEY=VALUE, with the keys {", ".join(KEYS)}')
        if key in entries:
            raise _wrong(f'has {key}= twice', 'part several paths by ":"')
        entries[key] = value
    return entries


def _list(key, text, by=':', most=_MOST_CLASSES):
    parts = [part.strip() for part in text.split(by)] if text else []
    if not all(parts) or len(parts) > most:
        what = f'has more than {most} parts in {key}=' if all(parts) else f'has an empty part in {key}={text[:80]}'
        raise _wrong(what, f'part them by "{by}"')
    return parts


def _place(key, text):
    """The Place of a path."""
    path, sharp, dataset = text.partition('#')
    if path.startswith('/') or '\\' in path or {'..', '.', ''} & {*path.split('/')} or (sharp and not dataset):
        raise _wrong(f'has the path {text[:80]!r}', 'write a path below config.data.path, with / and without ..')
    allowed = ('case', 'name', *_OF_MASKS) if key == 'mask' else ('case', 'name')
    named = _named(path) | _named(dataset)
    odd = sorted(named - {*allowed}) or sorted(_named(dataset) - {*_OF_MASKS})
    if odd or {'{', '}'} & {*_TOKEN.sub('', text)}:
        what = f'{{{odd[0]}}}' if odd else 'a brace that does not close'
        where = 'and after # no {case} or {name}' if sharp else f'{key}= takes {", ".join(f"{{{n}}}" for n in allowed)}'
        raise _wrong(f'has {what} in {key}={text[:80]}', where)
    if key == 'mask' and 'rater' not in named:
        if text.count('*') > 1:
            raise _wrong(f'has several * in mask={text[:80]}', 'write {rater} for the one that is the rater')
        path, dataset = (part.replace('*', '{rater}') for part in (path, dataset))
    if '{case}' not in path:
        path = '{case}/' + path
    options = tuple(re.compile(_regex(text, option)) for option in _options(text, path))
    compiled = re.compile(_regex(text, dataset)) if sharp else None
    return Place(text, options, compiled, frozenset(_named(path) | _named(dataset)))


def _named(text):
    """The placeholders of a path, '' for {}."""
    return {found[1] for found in _TOKEN.finditer(text) if found[1] is not None}


def _options(text, path):
    """The paths that the brackets of one stand for, in order."""
    parts, rest = [], path
    while found := re.search(r'\[([^][()]*)\]|\(([^][()]*)\)', rest):
        choices = [found[1], ''] if found[1] is not None else found[2].split('|')
        parts += [[rest[: found.start()]], choices]
        rest = rest[found.end() :]
    parts.append([rest])
    if any(letter in part for (part, *_) in parts[::2] for letter in '[]()|'):
        raise _wrong(f'has brackets that do not close, or lie in each other, in {text[:80]!r}', 'write [x] or (x|y)')
    options = [''.join(choice) for choice in itertools.islice(itertools.product(*parts), _MOST_OPTIONS + 1)]
    if len(options) > _MOST_OPTIONS:
        raise _wrong(f'has a path of more than {_MOST_OPTIONS} variants, {text[:80]!r}', 'use fewer brackets')
    return options


def _regex(text, path):
    """The regular expression of a path without brackets."""
    found, seen, wild, end = [], set(), 0, 0
    for token in _TOKEN.finditer(path):
        found.append(re.escape(path[end : token.start()]))
        end, name, wild = token.end(), token[1], wild + 1
        if name is None:
            found.append('[^/]*?')
        elif name in seen:
            found.append(f'(?P={name})')
        elif name == 'name':
            raise _wrong(
                f'has {{name}} before {{case}} in {text[:80]!r}', '{name} is the last folder of a {case} before it'
            )
        elif name == 'case':
            found.append('(?P<case>(?:[^/]+/)*?(?P<name>[^/]+?))')
            seen |= {'case', 'name'}
        else:
            found.append(f'(?P<{name}>[^/]+?)')
            seen.add(name)
    if wild > _MOST_WILD:
        raise _wrong(f'has more than {_MOST_WILD} placeholders and * in {text[:80]!r}', 'use fewer')
    return ''.join([*found, re.escape(path[end:])])


def _patient(text):
    if _named(text) != {'patient'} or text.count('{') > 1 or '/' in text:
        raise _wrong(
            f'has patient={text[:80]}', 'write the name of a case with {patient} in it, once, and * for the rest'
        )
    return re.compile(_regex(text, text))


def _check_classes(masks, classes, drop, drawn):
    if len({'structure' in place.names for place in masks}) > 1:
        raise _wrong('has {structure} in some masks and not in others', 'name it in each of them')
    items = [item for group in classes for item in group]
    if twice := next((item for item in (*items, *drop) if [*items, *drop].count(item) > 1), ''):
        raise _wrong(f'names {twice!r} twice in classes= and drop=', 'name it once')
    if drawn:
        if 'structure' in masks[0].names:
            raise _wrong('has {structure} and drawn=', 'leave one of them out')
        if strange := {*items, *drop} - {*drawn, '*'}:
            raise _wrong(f'names {min(strange)!r}, and drawn= does not', f'what is drawn is {" and ".join(drawn)}')
        if unsaid := {*drawn} - {*items, *drop} if '*' not in drop else ():
            raise _wrong(f'says nothing of {min(unsaid)!r} of drawn=', 'add it to classes= or drop=')
        return
    if 'structure' in masks[0].names:
        if not classes:
            raise _wrong('has {structure} and no classes=', 'say which are labels 1, 2, ..: classes=kidney:tumor')
        return
    if drop and not classes:
        raise _wrong('has drop= and no classes=', 'say which values are labels 1, 2, ..: classes=1:2')
    for item in (*items, *(item for item in drop if item != '*')):
        if not re.fullmatch(r'[0-9]{1,5}', item) or int(item) == 0 or item != str(int(item)):
            raise _wrong(
                f'names {item[:40]!r} in classes= or drop=',
                'without {structure} they are values of a label map, 1 or more',
            )
