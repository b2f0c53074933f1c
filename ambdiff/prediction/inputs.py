"""What there is to predict: pictures, NIfTI files and DICOM series, found in a file or in a folder and all below it.

Where masks lie beside an image as in the `folder` layout (image.* with mask_*.*), they are its raters' and nothing to
predict. Results of earlier runs are left out.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from ambdiff.data.files import cases as case_files
from ambdiff.data.files import images as image_files
from ambdiff.data.files.signature import is_dicom
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.prediction import earlier, names
from ambdiff.text import printable, short_digest


@dataclasses.dataclass(frozen=True)
class Input:
    """One image to predict.

    Attributes:
      name: the folder of its results, below the output.
      source: its place in the input, as the file system has it.
      files: one, or those of a DICOM series.
      masks: the files of its raters.
      hidden: words that are to be read nowhere (`anonymous`).
    """

    name: str
    source: str
    files: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path, ...] = ()
    hidden: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """`source` as it may be shown."""
        return printable(self.source)

    @property
    def rater_names(self) -> list[str]:
        """What each rater's mask is called."""
        return [f'rater {i}' for i in range(1, len(self.masks) + 1)] if self.hidden else [p.name for p in self.masks]

    def told(self, message: str) -> str:
        """A message on it, its title in the place of what is hidden."""
        for word in self.hidden:
            message = message.replace(word, self.title).replace(printable(word), self.title)
        return message

    def sha256(self) -> str:
        """Of the content of its files, whatever their names and order."""
        return hashlib.sha256(b''.join(sorted(map(_content, self.files)))).hexdigest()

    def masks_sha256(self) -> str:
        """Of the content of its raters' masks, in their order."""
        return hashlib.sha256(b''.join(map(_content, self.masks))).hexdigest()

    def read(self, channels: int) -> Volume:
        """The image.

        Raises:
          UserError: it cannot be read; names the file.
        """
        if len(self.files) == 1:
            return image_files.read(self.files[0], channels=channels)
        from ambdiff.data.files import dicom

        volume = dicom.read_series(self.files, mend=True)
        if volume.values.shape[-1] != channels:
            raise UserError(f'{self.source}: has {volume.values.shape[-1]} channels, the weights take {channels}')
        return volume

    def raters(self, volume: Volume, num_classes: int) -> np.ndarray:
        """Its raters' masks, bool [M, Z, H, W] with the bits of a row packed; M may be 0.

        Raises:
          UserError: a mask cannot be read or does not fit the image; names the file.
        """
        read = (case_files.read_mask(path, self.files[0], volume, num_classes) for path in self.masks)
        packed = [np.packbits(mask > 0, axis=-1) for mask in read]
        slices, height, width = volume.values.shape[:3]
        return np.stack(packed) if packed else np.zeros((0, slices, height, -(-width // 8)), np.uint8)


@dataclasses.dataclass(frozen=True)
class Found:
    """What lies at --input=.

    Attributes:
      inputs: what there is to predict, sorted by place.
      skipped: what is no image, a phrase each.
      faults: {place: why it cannot be read} of folders.
    """

    inputs: list[Input]
    skipped: list[str]
    faults: dict[str, str]


def find(paths: Sequence[pathlib.Path], output: pathlib.Path | None = None) -> Found:
    """The inputs at files, or in folders and all below them.

    Each picture and NIfTI is one, and each DICOM series of a folder. Links are followed, each folder is read once.
    `output`, results of other runs, hidden folders and the shadow files of macOS (._NAME) are not looked at. The place
    of an input is counted from the one folder given, from several from the folder that holds them all.

    Raises:
      UserError: nothing there.
    """
    # Absolute, since '.' and '..' have no name; each once.
    paths = list(dict.fromkeys(pathlib.Path(os.path.abspath(path)) for path in paths))
    for path in paths:
        if not path.is_dir() and not path.is_file():
            there = os.path.lexists(path)
            why = 'neither a file nor a folder' if there else 'no such file or folder'
            raise UserError(f'{printable(str(path))}: {why}')
        if path.is_dir() and earlier.is_result(path):
            raise UserError(
                f'{printable(str(path))}: is itself a result of ambdiff.predict; name the image that it was made of'
            )
    path = paths[0]
    if len(paths) == 1 and path.is_file():
        if why := image_files.strange(path):
            raise UserError(printable(why))
        return Found([Input(names.folders([path.name])[0], path.name, (path,), _raters(path))], [], {})
    if len(paths) > 1:
        paths = [path for path in paths if not set(path.parents) & set(paths)]
        try:
            path = pathlib.Path(os.path.commonpath([path.parent for path in paths]))
        except ValueError as error:  # drives of Windows
            raise UserError(f'{printable(str(paths[-1]))}: on another drive; predict it by itself') from error
    walk = _Walk(path, paths, output)
    groups, found = walk.groups, walk.found
    raters = {files[0]: _raters(files[0]) for files in groups.values() if case_files.IMAGE.fullmatch(files[0].name)}
    # Masks that are read as raters' are no images of their own, nor are those whose names miss the rule by a little.
    masks = {mask for group in raters.values() for mask in group}
    rated = {image.parent: image.name for image, group in raters.items() if group}
    sources = []
    for (folder, series), files in groups.items():
        if files[0] in masks:
            continue
        if files[0].parent in rated and files[0].name.lower().startswith('mask'):
            found.skipped.append(
                f'{printable(files[0].relative_to(path).as_posix())}: not used; the masks of '
                f'{rated[files[0].parent]} are named mask_*.*'
            )
            continue
        source = files[0].relative_to(path).as_posix()
        if series and len(files) > 1:
            several = sum(place == folder and len(group) > 1 for (place, other), group in groups.items() if other) > 1
            source = path.name if folder == '.' else folder
            source = f'{source}/series_{short_digest(series)}' if several else source
        sources.append((source, tuple(files)))
    if not sources and not found.faults:
        why = f' ({"; ".join(found.skipped)})' if found.skipped else ''
        raise UserError(f'{printable(str(path))}: holds no PNG, JPEG, TIFF, NIfTI or DICOM file{why}')
    folders = names.folders([source for source, _ in sources])
    inputs = [
        Input(name, source, files, raters.get(files[0], ()))
        for name, (source, files) in zip(folders, sources, strict=True)
    ]
    found.inputs.extend(sorted(inputs, key=lambda item: item.source))
    return found


def anonymous(item: Input) -> Input:
    """The same input, called by its content: what is written and said names no file, folder or patient.

    Raises:
      OSError: its files cannot be read.
    """
    name = f'case_{item.sha256()[:12]}'
    paths = [path for file in (*item.files, *item.masks) for path in (file, file.parent)]
    words = {item.source, *item.source.split('/'), *map(str, paths), *(path.name for path in paths)}
    # The longest first, since it holds others; single letters would be found in any sentence.
    hidden = tuple(sorted((word for word in words if len(word) > 2), key=len, reverse=True)) or (item.source,)
    return dataclasses.replace(item, name=name, source=name, hidden=hidden)


class _Walk:
    """All files that may be images: groups {(folder, series): files}, '' for files that are alone.

    starts: files, which are images whatever they are called, and folders, at or below the root.
    """

    def __init__(self, root: pathlib.Path, starts: Sequence[pathlib.Path], output: pathlib.Path | None):
        self.root = root
        self.groups: dict[tuple[str, str], list[pathlib.Path]] = {}
        self.found = Found([], [], {})
        self._output = os.path.realpath(output) if output else None
        self._results, self._others = 0, 0
        self._seen: set[str] = set()
        for start in starts:
            if start.is_file():
                self._sort(start, named=True)
            else:
                for file in self._files(start):
                    self._sort(file)
        if self._results:
            self.found.skipped.append(f'{_count(self._results, "result")} of earlier runs skipped')
        if self._others:
            self.found.skipped.append(f'{_count(self._others, "other file")} skipped')

    def _files(self, start: pathlib.Path) -> Iterator[pathlib.Path]:
        top = os.path.realpath(start)
        seen = self._seen
        seen.add(top)
        for folder, folders, files in os.walk(start, followlinks=True, onerror=self._unreadable):
            here = pathlib.Path(folder)
            keep = []
            for name in sorted(folders):
                real = os.path.realpath(here / name)
                if name.startswith('.') or name == '__MACOSX' or real == self._output:
                    continue
                if os.path.commonpath([real, top]) == real:
                    where = printable((here / name).relative_to(self.root).as_posix())
                    self.found.skipped.append(f'{where}: a link to a folder above it, skipped')
                elif real in seen:
                    if os.path.islink(here / name):
                        where = printable((here / name).relative_to(self.root).as_posix())
                        self.found.skipped.append(f'{where}: a link to a folder that is read already, skipped')
                elif earlier.is_result(here / name):
                    self._results += 1
                else:
                    seen.add(real)
                    keep.append(name)
            folders[:] = keep
            # Hidden pictures may be meant, other hidden files never are.
            yield from (
                here / name
                for name in sorted(files)
                if not name.startswith('._') and (name[0] != '.' or name.lower().endswith(names.SUFFIXES))
            )

    def _unreadable(self, error: OSError) -> None:
        where = os.path.relpath(os.fsdecode(error.filename), self.root)
        self.found.faults[where] = f'cannot be read ({error.strerror})'

    def _sort(self, file: pathlib.Path, named: bool = False) -> None:
        where = file.relative_to(self.root).as_posix()
        try:
            if not file.is_file():  # a pipe would wait for ever
                if file.name.lower().endswith(names.SUFFIXES):
                    self.found.skipped.append(f'{printable(where)}: no file (a pipe, or a link to nowhere), skipped')
                return
            dicom = file.name.upper() != 'DICOMDIR' and is_dicom(file)
        except OSError as error:
            if file.name.lower().endswith(names.SUFFIXES):
                self.found.faults[where] = f'cannot be read ({error.strerror})'
            else:
                self._others += 1
            return
        if not dicom and not named and not file.name.lower().endswith(names.SUFFIXES):
            self._others += 1
            return
        series, reason = _series(file) if dicom else ('', '')
        if reason:
            self.found.skipped.append(f'{printable(where)}: {reason}, skipped')
        elif series:
            self.groups.setdefault((file.parent.relative_to(self.root).as_posix(), series), []).append(file)
        else:
            self.groups[where, ''] = [file]


def _count(number: int, what: str) -> str:
    return f'{number} {what}{"s" if number > 1 else ""}'


def _raters(image: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The masks beside an image, if it is named as in the `folder` layout."""
    if not case_files.IMAGE.fullmatch(image.name):
        return ()
    try:
        beside: Sequence[pathlib.Path] = sorted(image.parent.iterdir())
    except OSError:
        return ()
    return tuple(path for path in beside if case_files.MASK.fullmatch(path.name) and path.is_file())


def _content(path: pathlib.Path) -> bytes:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').digest()


def _series(path: pathlib.Path) -> tuple[str, str]:
    """(SeriesInstanceUID, why it is no image) of a DICOM file; both '' where it cannot be read."""
    from ambdiff.data.files import dicom_file, dicom_header

    try:
        header = dicom_file.read_header(path)
        reason = dicom_header.not_an_image(header)
        return ('', reason) if reason else (str(header.get('SeriesInstanceUID') or ''), '')
    except Exception:  # told when the file is read as an image of its own
        return '', ''
