"""Reader of the folder layout of the released CIMD code (Rahman et al., CVPR 2023).

  split/case/image_*.jpg     8-bit grey
  split/case/label0_.jpg ..  one mask a rater

JPEG leaves 0..20 and 235..255 in the masks, so the threshold is 127.

Splits are folders named `training`, `validation` and `testing`, or the shorter names in FOLDERS; a
folder of cases is taken for a `training` split. A split that is missing is cut from the end of
training, a tenth of its cases. No patient is named: `patient` is '', and since neighbouring cases
are often slices of one patient, the cut keeps them in order, which leaks less than a shuffle, but
a patient at the border can be on both sides. The masks of the released files sit one pixel up and
left of the image; they are left as they are, so that numbers compare with other work on them.
"""

import logging
import pathlib
import re

import ml_collections
import numpy as np
from PIL import Image

from ambdiff.data import example, source
from ambdiff.data.files import pictures
from ambdiff.errors import UserError

logger = logging.getLogger(__name__)

FOLDERS = {
    'train': ('training', 'train'),
    'validation': ('validation', 'val'),
    'test': ('testing', 'test'),
}
IMAGE = re.compile(r'image_.*\.jpe?g', re.IGNORECASE)
LABEL = re.compile(r'label(\d{1,3})_.*\.jpe?g', re.IGNORECASE)


def split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folder of each split under `root`; {} where the layout is another one."""
    if _case_folders(root):
        return {'train': root}
    found = {}
    for split, names in FOLDERS.items():
        for name in names:
            if split not in found and (root / name).is_dir():
                found[split] = root / name
    return found


def matches(path: pathlib.Path) -> bool:
    """Whether a folder has cases or splits of this layout."""
    return path.is_dir() and bool(split_folders(path))


def split_table(path: pathlib.Path, data: ml_collections.ConfigDict) -> dict[str, tuple[str, str]]:
    """No table: the folders are the splits."""
    del path, data
    return {}


def open_split(root: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool = False) -> 'Source':
    """The cases of a split of the folder `root`; see `ambdiff.data.source.Layout`.

    Raises:
      UserError: no such split, a case that lacks a file, or a damaged or mismatched image; the
        message names the file and the cure.
    """
    source.require_one(root, data, classes=False)
    if data.num_classes > 1:
        raise UserError(
            f'{root}: this layout stores masks as JPEG, yes or no; set --config.data.num_classes=1, or keep label '
            'maps in PNG or NIfTI files'
        )
    folders = split_folders(root)
    folder = folders.get(split, folders.get('train'))
    if folder is None:
        raise UserError(
            f"{root}: has no split for '{split}'; expected a folder {FOLDERS[split][0]}/ with one "
            'folder a case (image_*.jpg, label0_.jpg, label1_.jpg ..)'
        )
    cases = _case_folders(folder)
    if folder == folders.get('train'):
        missing = [name for name in example.SPLITS if name not in folders]
        parts = cut(cases, missing)
        if missing:
            logger.warning(
                '%s: no folder for %s, so the last cases of training serve (%s); patients are '
                'not named in this layout, so one may be on both sides of the cut',
                root,
                ' and '.join(missing),
                ', '.join(f'{name} {len(part)}' for name, part in parts.items()),
            )
        cases = parts[split]
    if not cases:
        raise UserError(
            f"{folder}: the split '{split}' has no case; expected folders with image_*.jpg, label0_.jpg, label1_.jpg .."
        )
    return Source(folder, cases, data, walk)


def cut(cases: list, missing: list[str]) -> dict[str, list]:
    """Training without its end, and for each missing split the next tenth (at least one case)."""
    share = max(1, len(cases) // 10)
    kept = max(1, len(cases) - share * len(missing))
    parts = {'train': cases[:kept]}
    for place, name in enumerate(missing):
        parts[name] = cases[kept + place * share : kept + (place + 1) * share]
    return parts


class Source(source.Source):
    """Random access to the cases of one folder.

    A split below example.MEMORY_LIMIT is decoded once and kept as 8-bit images and masks; a larger one, and one that
    is walked through, is decoded case by case.
    """

    def __init__(self, folder, cases, data, walk):
        self.patients = [''] * len(cases)
        self._folder, self._size, self._fit = folder, data.image_size, data.fit
        self._cases, self._num_raters = cases, data.num_raters
        self._files = self._kept = None
        if walk:
            return
        self._files = [_files_of(case, data.num_raters) for case in cases]
        with _open(self._files[0][0]) as image:
            pixels = image.width * image.height
        if len(cases) * pixels * (1 + data.num_raters) < example.MEMORY_LIMIT:
            self._kept = [_read(*files) for files in self._files]

    def files(self) -> list[pathlib.Path]:
        """Images and masks."""
        every = (path for case in self._cases for path in case.iterdir())
        return [path for path in every if IMAGE.fullmatch(path.name) or LABEL.fullmatch(path.name)]

    def __len__(self) -> int:
        """The number of cases."""
        return len(self._cases)

    def __getitem__(self, index: int) -> example.Example:
        """The example dict of a case; see `ambdiff.data.example`."""
        index = range(len(self))[index]
        files = self._files[index] if self._files else _files_of(self._cases[index], self._num_raters)
        image, masks = self._kept[index] if self._kept else _read(*files)
        return example.make(
            image / np.float32(255),
            masks,
            case=str(files[0].relative_to(self._folder.parent).with_suffix('')),
            patient='',
            index=index,
            size=self._size,
            fit=self._fit,
        )


def _case_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Subfolders that hold an image or a label file, in the order of the numbers in their names."""

    def natural(path):
        parts = re.split(r'([0-9]{1,18})', path.name)  # text and numbers in turn
        return [int(part) if place % 2 else part for place, part in enumerate(parts)]

    return sorted(
        (
            case
            for case in folder.iterdir()
            if case.is_dir() and any(IMAGE.fullmatch(f.name) or LABEL.fullmatch(f.name) for f in case.iterdir())
        ),
        key=natural,
    )


def _files_of(case, num_raters):
    """The image file of a case folder and its label files by rater."""
    names = sorted(path.name for path in case.iterdir())
    images = [name for name in names if IMAGE.fullmatch(name)]
    labels = {int(found[1]): name for name in names if (found := LABEL.fullmatch(name))}
    if lost := [name for name in names if name.lower().startswith('label') and name not in labels.values()]:
        raise UserError(f'{case / lost[0]}: no label<k>_*.jpg of a rater of its own; rename it or take it away')
    if len(images) != 1:
        raise UserError(f'{case}: {len(images)} files image_*.jpg; a case has exactly one')
    if len(labels) != num_raters:
        raise UserError(
            f'{case}: {len(labels)} files label*_.jpg, but config.data.num_raters is {num_raters}; '
            'complete the case or set --config.data.num_raters'
        )
    return case / images[0], [case / labels[rater] for rater in sorted(labels)]


def _read(image_file, label_files):
    """Image [H, W] uint8 and masks [M, H, W] uint8 in {0, 1}, checked."""
    image = _decode(image_file)
    masks = []
    for file in label_files:
        label = _decode(file, classes=1)
        if label.shape != image.shape:
            raise UserError(
                f'{file}: {label.shape[0]}x{label.shape[1]} pixels, but its image is '
                f'{image.shape[0]}x{image.shape[1]}; image and masks must have the same size'
            )
        if 0 < label.max() <= 127 or np.mean((label > 63) & (label < 192)) > 0.05:
            raise UserError(
                f'{file}: grey values up to {label.max()} that are neither near 0 nor near 255; '
                'store a mask as black and white'
            )
        masks.append(label > 127)
    return image, np.stack(masks).astype(np.uint8)


def _open(file):
    """The opened image, its header checked and nothing decoded yet."""
    try:
        image = Image.open(file, formats=('JPEG',))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f'{file}: claims more pixels than any image of this layout') from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f'{file}: not a readable JPEG; copy or export it again') from error
    try:
        example.check_side(str(file), image.height, image.width)
    except UserError:
        image.close()
        raise
    return image


def _decode(file, classes=0):
    """A grey JPEG as uint8 [H, W], by the one rule of pictures."""
    with _open(file) as image:
        try:
            pixels, notes, _, _ = pictures.read_page(file, image, classes=classes)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # Pillow names no type of damage
            raise UserError(f'{file}: the JPEG is truncated or damaged; copy or export it again') from error
    if odd := [note for note in notes if note != pictures.COLOUR]:
        raise UserError(f'{file}: {odd[0]}; this layout holds plain grey images, so convert it')
    return pixels[..., 0]
