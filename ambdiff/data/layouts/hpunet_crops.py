"""Reader of the PNG crops of the Hierarchical Probabilistic U-Net (Kohl et al., 2019), LIDC-IDRI "v2".

  {train,val,test}/images/<patient>/z-<z>_c<n>.png        180x180, 8-bit grey, 0.5 mm a pixel
  {train,val,test}/gt/<patient>/z-<z>_c<n>_l<k>.png       the mask of rater k = 0 .. 3, black and white

The published numbers are of the centre 128x128 (8,843, 1,993 and 1,980 slices), which data.image_size=128 with
data.fit='crop' gives. The folders lidc_crops_{train,val,test} into which the three archives unpack may be between.
CC BY 3.0, DeepMind, made from LIDC-IDRI.
"""

import concurrent.futures
import os
import pathlib
import re
import sys

import ml_collections
import numpy as np
from PIL import Image
from tqdm import tqdm

from ambdiff.data import example, source
from ambdiff.data.files import pictures
from ambdiff.data.files.cases import is_junk
from ambdiff.errors import UserError

FOLDERS = {'train': 'train', 'validation': 'val', 'test': 'test'}
IMAGE = re.compile(r'(z-.+_c\d+)\.png')
MASK = re.compile(r'(z-.+_c\d+)_l(\d{1,3})\.png')
SPACING = (0.5, 0.5)  # mm


def split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folder of each split under `root`; {} where the layout is another one."""
    found = {}
    for split, name in FOLDERS.items():
        for folder in (root / name, root / f'lidc_crops_{name}' / name):
            if (folder / 'images').is_dir() and (folder / 'gt').is_dir():
                found[split] = folder
    return found


def matches(path: pathlib.Path) -> bool:
    """Whether a folder has a split of this layout."""
    return path.is_dir() and bool(split_folders(path))


def split_table(path: pathlib.Path, data: ml_collections.ConfigDict) -> dict[str, tuple[str, str]]:
    """No table: the folders are the splits."""
    del path, data
    return {}


def open_split(root: pathlib.Path, split: str, data: ml_collections.ConfigDict, walk: bool = False) -> 'Source':
    """The cases of a split of the folder `root`; see `ambdiff.data.source.Layout`.

    Raises:
      UserError: no such split, an image without its masks, a patient in two splits, or a damaged or mismatched image;
        the message names the file and the cure.
    """
    source.require_one(root, data)
    folders = split_folders(root)
    if split not in folders:
        raise UserError(f"{root}: has no {FOLDERS[split]}/images with {FOLDERS[split]}/gt for the split '{split}'")
    patients = {name: {path.name for path in _folders(folder / 'images')} for name, folder in folders.items()}
    for name, here in patients.items():
        # Who walks through the data goes on to tell the rest, and this among its leaks.
        if name != split and (shared := here & patients[split]) and not walk:
            raise UserError(
                f'{root}: {len(shared)} patients are in both {FOLDERS[split]} and {FOLDERS[name]} '
                f"(first: '{min(shared)}'); move each to one split"
            )
    return Source(folders[split], data, walk)


class Source(source.Source):
    """Random access to the cases of one split.

    A split below example.MEMORY_LIMIT is decoded once and kept as stored images and packed masks; a larger one, and one
    that is walked through, is decoded case by case.
    """

    def __init__(self, folder, data, walk):
        self._size, self._fit, self._num_raters = data.image_size, data.fit, data.num_raters
        self._files, self._strays = _cases(folder)
        if self._strays and not walk:
            raise UserError(self._strays[0])
        self.patients = [patient for patient, _, _, _ in self._files]
        self._kept = None
        if walk:
            return
        for entry in self._files:
            _check_raters(*entry, data.num_raters)
        image, masks = self._read(0)
        if len(self) * (image.nbytes + masks.nbytes) < example.MEMORY_LIMIT:
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                read = pool.map(self._read, range(len(self)))
                quiet = len(self) < 500
                wait = 0.5 if sys.stderr.isatty() else 10
                self._kept = list(tqdm(read, folder.name, len(self), disable=quiet, mininterval=wait, unit=' slices'))

    def files(self) -> list[pathlib.Path]:
        """Images and masks."""
        return [path for _, _, image, masks in self._files for path in (image, *masks)]

    def findings(self) -> source.Findings:
        """Files whose names are not those of the layout."""
        return source.Findings(faults=self._strays)

    def __len__(self) -> int:
        """The number of cases."""
        return len(self._files)

    def __getitem__(self, index: int) -> example.Example:
        """The example dict of a case; see `ambdiff.data.example`."""
        index = range(len(self))[index]
        image, masks = self._kept[index] if self._kept else self._read(index)
        patient, name, _, _ = self._files[index]
        masks = np.unpackbits(masks, axis=-1, count=image.shape[1])
        masks, present = example.padded(name, masks, self._num_raters)
        return example.make(
            image / np.float32(np.iinfo(image.dtype).max),
            masks,
            present=present,
            case=f'{patient}/{name}',
            patient=patient,
            index=index,
            size=self._size,
            fit=self._fit,
            spacing=SPACING,
        )

    def _read(self, index):
        """Image [H, W] as stored and masks uint8 [M, H, ceil(W / 8)] of packed bits, checked."""
        _check_raters(*self._files[index], self._num_raters)
        _, _, image_file, mask_files = self._files[index]
        image = _decode(image_file)
        masks = []
        for file in mask_files:
            mask = _decode(file, classes=1)
            if mask.shape != image.shape:
                raise UserError(
                    f'{file}: {mask.shape[0]}x{mask.shape[1]} pixels, but its image is '
                    f'{image.shape[0]}x{image.shape[1]}; image and masks must have the same size'
                )
            if (grey := (mask != 0) & (mask != mask.max())).any():
                raise UserError(
                    f'{file}: has the values 0, {mask[grey][0]} and {mask.max()}; store a mask as black and white'
                )
            masks.append(np.packbits(mask != 0, axis=-1))
        return image, np.stack(masks)


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir())


def _cases(folder):
    """(patient, name, image file, mask files in the order of raters) of every image, and a line for each other file."""
    cases, strays = [], []
    for images in _folders(folder / 'images'):
        masks = {}
        gt = folder / 'gt' / images.name
        for path in sorted(gt.iterdir()) if gt.is_dir() else ():
            own = masks.setdefault(found[1], {}) if (found := MASK.fullmatch(path.name)) else {}
            if found and int(found[2]) not in own:
                own[int(found[2])] = path
            elif not is_junk(path.name):
                strays.append(f'{path}: no mask z-<z>_c<n>_l<k>.png of a rater of its own; rename it or take it away')
        for path in sorted(images.iterdir()):
            if found := IMAGE.fullmatch(path.name):
                own = masks.pop(found[1], {})
                cases.append((images.name, found[1], path, [own[rater] for rater in sorted(own)]))
            elif not is_junk(path.name):
                strays.append(f'{path}: no image z-<z>_c<n>.png; rename it or take it away')
        strays += [f'{next(iter(own.values()))}: its image {name}.png is not there' for name, own in masks.items()]
    if not cases:
        raise UserError(f'{folder}: has no case; expected images/<patient>/z-<z>_c<n>.png')
    return cases, sorted(strays)


def _check_raters(patient, name, image_file, mask_files, num_raters):
    if not 0 < len(mask_files) <= num_raters:
        raise UserError(
            f'{image_file}: has {len(mask_files)} masks gt/{patient}/{name}_l*.png, but config.data.num_raters is '
            f'{num_raters}; complete the case or set --config.data.num_raters'
        )


def _decode(file, classes=0):
    """A grey PNG as uint8 or uint16 [H, W], by the one rule of pictures; its sides are checked before it is decoded."""
    try:
        with Image.open(file, formats=('PNG',)) as image:
            example.check_side(str(file), image.height, image.width)
            pixels, notes, _, _ = pictures.read_page(file, image, classes=classes)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f'{file}: claims more pixels than any image of this layout') from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow names no type of damage
        raise UserError(f'{file}: not a whole PNG; copy or export it again') from error
    if notes and not classes:
        raise UserError(f'{file}: {notes[0]}; this layout holds plain grey images, so convert it')
    return pixels[..., 0]
