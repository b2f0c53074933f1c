"""The files of one case of the `folder` layout: found by their names, read, and checked against each other.

  CASE/image.*    PNG, JPEG, TIFF, NIfTI or DICOM, or a folder image/ with one DICOM series
  CASE/mask_*.*   one a rater, PNG, JPEG, TIFF or NIfTI

No visible file of a case is passed over without a word: one whose name speaks of a mask and is not so (mask2.png,
mask_2.bmp) is a fault, since a rater would be lost; any other is named, but for notes and sidecars (`is_junk`).

What values a mask holds stands in `ambdiff.data.files.masks`. A mask has the size of its image and its place in space,
as far as both files tell: a picture that asks to be shown turned (EXIF), and a mask of its size that does not, are
refused.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

import ml_collections
import numpy as np

from ambdiff.data.files import geometry, intensity, neighbours, values
from ambdiff.data.files import images as image_files
from ambdiff.data.files import masks as mask_files
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError

_ENDING = r'\.(png|jpe?g|tiff?|nii|nii\.gz)'
IMAGE = re.compile(rf'image({_ENDING}|\.dcm|\.ima|\.dicom)', re.IGNORECASE)
MASK = re.compile(rf'mask(?:_(.+?))?{_ENDING}', re.IGNORECASE)
_PICTURE = re.compile(rf'.*({_ENDING}|\.dcm|\.ima|\.dicom)', re.IGNORECASE)
_JUNK = re.compile(
    r'thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|.*\.(txt|md|rst|log|json|ya?ml|xml|csv|tsv|html?|pdf|bval|bvec)|.*~',
    re.IGNORECASE,
)
_MAX_DEPTH = 8  # folders below the root


@dataclasses.dataclass(frozen=True)
class Case:
    """A case folder, not yet read.

    Attributes:
      name: its path below the root.
      image: the image file, or the folder of its series; None where there is a fault.
      masks: one file a rater, in the natural order of their names.
      fault: what is wrong with the folder, one line; '' where nothing is.
      unread: visible files beside them that are not read.
    """

    name: str
    image: pathlib.Path | None
    masks: tuple[pathlib.Path, ...]
    fault: str = ''
    unread: tuple[pathlib.Path, ...] = ()

    @property
    def raters(self) -> int:
        """How many raters outlined it."""
        return len(self.masks)

    @property
    def may_have_slices(self) -> bool:
        """Whether the image's kind of file can hold more than one slice."""
        return self.image.suffix.lower() not in ('.png', '.jpg', '.jpeg')

    def files(self) -> list[pathlib.Path]:
        """Image and masks, of a series each of its files."""
        paths = [self.image, *self.masks] if self.image else list(self.masks)
        return [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]

    def read(self, data: ml_collections.ConfigDict) -> values.Read:
        """Image in [0, 1] and masks, resampled to config.data.spacing where that is set; data: the config's group.

        Raises:
          UserError: the case's fault, or what is wrong with one of its files, in one line that names it.
        """
        if self.fault:
            raise UserError(self.fault)
        try:
            return self._read(data)
        except MemoryError as error:  # what a file holds fits, what is made of it does not
            raise UserError(f'{self.image}: takes more memory than there is; crop it or split it') from error

    def _read(self, data):
        image = image_files.read(self.image, channels=neighbours.own_channels(data))
        image_files.check_intensity(self.image, image, data.intensity)
        unit = intensity.to_unit(image.values, data.intensity, data.hu_window)
        read = [_mask(path, self.image, image, data.num_classes) for path in self.masks]
        masks = np.stack([mask for mask, _ in read], axis=1)
        notes = (*image.notes, *(f'mask: {note}' for _, more in read for note in more))
        return values.at_spacing(self.image, unit, masks, image.spacing, notes, data.spacing)

    def marked(self, data: ml_collections.ConfigDict) -> np.ndarray:
        """Whether any rater marked a pixel of each slice, bool [Z], from the masks alone.

        Raises:
          UserError: a mask cannot be read or has other values than a mask; sizes are checked by `read`.
        """
        found = None
        for path in self.masks:
            mask = image_files.read(path, classes=data.num_classes)
            here = _labels(path, mask, data.num_classes).any((1, 2))
            if found is not None and len(found) != len(here):
                raise UserError(
                    f'{path}: {len(here)} slices, but {self.masks[0].name} has {len(found)}; export it again'
                )
            found = here if found is None else found | here
        return found


def find(root: pathlib.Path) -> Iterator[Case]:
    """Every case below a folder; links to folders are followed, but not in a circle. Hidden files are passed over."""
    yield from _find(root, root, (root.resolve(),))


def is_junk(name: str) -> bool:
    """Whether a file is of a kind that lies beside images without being one: a desktop's, a note, a sidecar."""
    return name.startswith('.') or bool(_JUNK.fullmatch(name))


def natural(text: str) -> list:
    """Sorts 'case10' after 'case9'."""
    parts = re.split(r'([0-9]{1,18})', text)  # text and numbers in turn
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _find(root, folder, above):
    name = folder.relative_to(root).as_posix()
    try:
        paths = sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError as error:
        yield Case(name, None, (), f'{folder}: cannot be read ({error.strerror or error})')
        return
    paths = [path for path in paths if not path.name.startswith('.') and path.name != '__MACOSX']
    for path in [path for path in paths if not _is_text(path.name)]:
        paths.remove(path)
        shown = os.fsencode(path).decode(errors='replace')
        yield Case(shown, None, (), f'{shown}: its name is not UTF-8, as in archives of older systems; rename it')
    files = [path for path in paths if path.is_file()]
    folders = [path for path in paths if path.is_dir()]
    images = [path for path in files if IMAGE.fullmatch(path.name)] + [f for f in folders if f.name.lower() == 'image']
    masks = [path for path in files if MASK.fullmatch(path.name)]
    others = [path for path in files if path not in images and path not in masks and not is_junk(path.name)]
    if images or masks:
        yield _case(name, folder, images, masks, others)
    elif folder != root and not paths:
        yield Case(name, None, (), f'{folder}: an empty folder; a case has image.* and mask_*.*')
    elif folder != root and not folders and any(_PICTURE.fullmatch(path.name) for path in files):
        yield Case(name, None, (), f'{folder}: no file is named image.* or mask_*.*; rename them, or take them away')
    for path in paths:
        if path in images:
            continue
        if path.is_symlink() and not path.exists():
            where = path.relative_to(root).as_posix()
            yield Case(where, None, (), f'{path}: a link that leads nowhere or in a circle; remove it')
        elif path in folders:
            real = path.resolve()
            if real in above or len(above) > _MAX_DEPTH:
                why = 'a link back to a folder above it' if real in above else f'deeper than {_MAX_DEPTH} folders'
                yield Case(path.relative_to(root).as_posix(), None, (), f'{path}: {why}; remove it')
            else:
                yield from _find(root, path, (*above, real))


def _is_text(name):
    """Whether a name can be written: bytes that are no UTF-8 become lone surrogates, which cannot."""
    return not any('\ud800' <= letter <= '\udfff' for letter in name)


def _case(name, folder, images, masks, others):
    name = folder.name if name == '.' else name
    raters = [MASK.fullmatch(mask.name)[1] for mask in masks]
    fault = ''
    if len(images) != 1:
        which = f' ({", ".join(path.name for path in images)})' if images else ''
        fault = f'{folder}: {len(images)} files image.*{which}; a case has exactly one'
    elif lost := [path for path in others if 'mask' in path.name.lower()]:
        fault = (
            f'{lost[0]}: is not read, since masks are named mask_NAME.png (or .jpg, .tif, .nii, .nii.gz); rename or '
            'convert it, or take it away'
        )
    elif not masks:
        fault = f'{folder}: no file mask_*.*; a case has one a rater (an empty mask is an answer, no file is none)'
    elif twice := [mask for mask, rater in zip(masks, raters, strict=True) if raters.count(rater) > 1]:
        fault = f'{twice[1]}: the same rater as {twice[0].name}; keep one of them'
    return Case(name, images[0] if len(images) == 1 else None, tuple(masks), fault, () if fault else tuple(others))


def read_mask(path: pathlib.Path, image_path: pathlib.Path, image: Volume, num_classes: int) -> np.ndarray:
    """A mask [Z, H, W] uint8, checked against its image.

    Raises:
      UserError: unreadable, of another size or place than the image, or of other values than a mask has.
    """
    return _mask(path, image_path, image, num_classes)[0]


def _mask(path, image_path, image, num_classes):
    """(mask [Z, H, W], notes)."""
    mask = image_files.read(path, classes=num_classes)
    geometry.check_size(path, mask, image_path, image)
    geometry.check_place(path, mask, image_path, image)
    return _labels(path, mask, num_classes), mask.notes


def _labels(path, mask, num_classes):
    return mask_files.labels(path, mask.values[..., 0], num_classes, mask_files.is_jpeg(path), mask.white)


def looks_like_cases(root: str | os.PathLike) -> bool:
    """Whether one of the first folders below `root` holds a file of this layout."""
    root = pathlib.Path(root)
    folders, seen = [root], 0
    while folders and seen < 300:
        folder, seen = folders.pop(0), seen + 1
        try:
            paths = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
        except OSError:
            continue
        if any((IMAGE.fullmatch(path.name) or MASK.fullmatch(path.name)) and path.is_file() for path in paths):
            return True
        if len(folder.relative_to(root).parts) < 3:
            folders += [path for path in paths if path.is_dir()]
    return False
