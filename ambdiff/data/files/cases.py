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

import numpy as np
from PIL import Image

from ambdiff.data import example
from ambdiff.data.files import images as image_files
from ambdiff.data.files import intensity
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
    def may_have_slices(self) -> bool:
        """Whether the image's kind of file can hold more than one slice."""
        return self.image.suffix.lower() not in ('.png', '.jpg', '.jpeg')

    def files(self) -> list[pathlib.Path]:
        """Image and masks, of a series each of its files."""
        paths = [self.image, *self.masks] if self.image else list(self.masks)
        return [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


@dataclasses.dataclass(frozen=True)
class Read:
    """A case's values: image [Z, H, W, C] float32 in [0, 1], masks uint8 [Z, M, H, W], (row, column) mm a pixel."""

    image: np.ndarray
    masks: np.ndarray
    spacing: tuple[float, float]
    notes: tuple[str, ...]


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


def read(case: Case, data) -> Read:
    """A case's image in [0, 1] and masks, resampled to config.data.spacing where that is set.

    Args:
      case: a case.
      data: the config's data group.

    Raises:
      UserError: the case's fault, or what is wrong with one of its files, in one line that names it.
    """
    if case.fault:
        raise UserError(case.fault)
    try:
        return _read(case, data)
    except MemoryError as error:  # what a file holds fits, what is made of it does not
        raise UserError(f'{case.image}: takes more memory than there is; crop it or split it') from error


def _read(case, data):
    image = image_files.read(case.image, channels=data.channels)
    _check_intensity(case.image, image, data.intensity)
    unit = intensity.to_unit(image.values, data.intensity, data.hu_window)
    read = [_mask(path, case.image, image, data.num_classes) for path in case.masks]
    masks = np.stack([mask for mask, _ in read], axis=1)
    notes = dict.fromkeys((*image.notes, *(f'mask: {note}' for _, more in read for note in more)))
    spacing = image.spacing[1:]
    if data.spacing > 0:
        unit, masks = resampled(case.image, unit, masks, spacing, data.spacing)
        spacing = (data.spacing, data.spacing)
    return Read(unit, masks, spacing, tuple(notes))


def marked(case: Case, num_classes: int) -> np.ndarray:
    """Whether any rater marked a pixel of each slice, bool [Z], from the masks alone.

    Raises:
      UserError: a mask cannot be read or has other values than a mask; sizes are checked by `read`.
    """
    found = None
    for path in case.masks:
        mask = image_files.read(path, classes=num_classes)
        here = mask_files.labels(path, mask.values[..., 0], num_classes, mask_files.is_jpeg(path), mask.white).any(
            (1, 2)
        )
        if found is not None and len(found) != len(here):
            raise UserError(f'{path}: {len(here)} slices, but {case.masks[0].name} has {len(found)}; export it again')
        found = here if found is None else found | here
    return found


def read_mask(path: pathlib.Path, image_path: pathlib.Path, image: Volume, num_classes: int) -> np.ndarray:
    """A mask [Z, H, W] uint8, checked against its image.

    Raises:
      UserError: unreadable, of another size or place than the image, or of other values than a mask has.
    """
    return _mask(path, image_path, image, num_classes)[0]


def _mask(path, image_path, image, num_classes):
    """(mask [Z, H, W], notes)."""
    mask = image_files.read(path, classes=num_classes)
    if mask.values.shape[:3] != image.values.shape[:3]:
        raise UserError(
            f'{path}: {_size(mask)} pixels, but {image_path.name} is {_size(image)}; image and masks must have the '
            'same size'
        )
    _check_place(path, mask, image_path, image)
    return mask_files.labels(path, mask.values[..., 0], num_classes, mask_files.is_jpeg(path), mask.white), mask.notes


def _size(volume):
    slices, height, width = volume.values.shape[:3]
    return f'{height}x{width}' if slices == 1 else f'{slices} slices of {height}x{width}'


def _check_intensity(path, image, kind):
    """Refuses an intensity that does not fit what the file stores."""
    if kind == 'hu_window':
        image_files.require_hu(path, image)
    stored = image.values.dtype
    in_unit = np.issubdtype(stored, np.floating) and image.values.min() >= 0 and image.values.max() <= 1
    if kind == 'full_range' and stored not in (np.uint8, np.uint16) and not in_unit:
        low, high = image.values.min(), image.values.max()
        raise UserError(
            f'{path}: holds {low:g} to {high:g} as {stored}; config.data.intensity=full_range is for 8- and 16-bit '
            'pictures, set --config.data.intensity=percentile (or hu_window for CT)'
        )


def _check_place(path, mask, image_path, image):
    """Refuses a mask that does not lie on its image as far as the two files tell."""
    if mask.affine is not None and image.affine is not None:
        slices, height, width = image.values.shape[:3]
        corners = np.array([[z, r, c, 1] for z in (0, slices - 1) for r in (0, height - 1) for c in (0, width - 1)])
        apart = np.abs((mask.affine - image.affine)[:3] @ corners.T).max()
        if apart > 0.5 * min(image.spacing[1:]):
            raise UserError(
                f'{path}: lies up to {apart:.3g} mm from {image_path.name} in space; resample it to that image'
            )
        return

    def turned(volume, plain):
        return volume.affine is not None and (volume.file_axes != plain or any(volume.file_flips))

    if image.orientation != mask.orientation:
        raise UserError(
            f'{path}: its EXIF orientation is {mask.orientation}, {image_path.name} has {image.orientation}, so one is '
            'shown turned; store both turned as they are shown, without an orientation'
        )
    # A picture's rows and columns are those of a NIfTI that is stored as columns, rows, slices, and of any DICOM.
    plain = (0, 1, 2) if image.files else (2, 1, 0)
    if turned(image, plain) or turned(mask, (2, 1, 0)):
        raise UserError(
            f'{path}: only one of it and {image_path.name} tells how it lies in space, and that one is turned; store '
            'both as NIfTI with one orientation'
        )


def resampled(path, image, masks, spacing, target):
    """Image [Z, H, W, C] (bilinear, antialiased) and masks [Z, M, H, W] (nearest) at `target` mm a pixel.

    Raises:
      UserError: naming `path`: the spacing is not known, or the result would be too large.
    """
    if not np.isfinite(spacing).all():
        raise UserError(f'{path}: has no pixel spacing to resample from; set --config.data.spacing=0')
    height, width = (max(1, round(n * mm / target)) for n, mm in zip(image.shape[1:3], spacing, strict=True))
    example.check_side(f'{path} at config.data.spacing={target}', height, width)
    resize = lambda plane, how: np.asarray(Image.fromarray(plane).resize((width, height), how))
    planes = np.moveaxis(image, -1, 1)
    planes = np.stack([[resize(plane, Image.Resampling.BILINEAR) for plane in z] for z in planes]).clip(0, 1)
    masks = np.stack([[resize(plane, Image.Resampling.NEAREST) for plane in z] for z in masks])
    return np.moveaxis(planes, 1, -1), masks


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
