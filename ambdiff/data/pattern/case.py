"""A case of a pattern: its files, and how they are read: channels on one grid, each rater's mask as labels 0 .. K.

A rater's label map has the values that `classes` lists; files of structures are painted in that order, those of
instances together. What is neither listed nor dropped is refused. Further channels and masks lie on the first channel,
as far as headers tell; where a mask's header disagrees and the pattern, or what is known of the data set, says so, its
voxels are laid on the image's one by one, in the order of the files, and that is noted.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import ml_collections
import numpy as np

from ambdiff.data.files import geometry, hdf5, intensity, neighbours, values
from ambdiff.data.files import images as image_files
from ambdiff.data.files import masks as mask_files
from ambdiff.data.files.volume import Volume
from ambdiff.data.pattern import drawn
from ambdiff.data.pattern.grammar import Known, Pattern
from ambdiff.errors import UserError

_ANY = 254  # labels of a map of which all others are dropped


@dataclasses.dataclass(frozen=True)
class Part:
    """A file, or the data set `key` of an HDF5 file."""

    path: pathlib.Path
    key: str = ''

    def __str__(self) -> str:
        return f'{self.path}#{self.key}' if self.key else str(self.path)


# (structure, instance), '' for none -> where it is.
Outlines = Mapping[tuple[str, str], Part]


@dataclasses.dataclass(frozen=True)
class Case:
    """A case, found and not yet read (`ambdiff.data.case_source.Case`).

    Attributes:
      name: {case}.
      pattern: what its files mean.
      images: a part a channel.
      masks: rater -> what they outlined, in the natural order of their names.
      fault: what is wrong with it, one line; '' where nothing is.
      notes: who was left out, and what is not there.
    """

    name: str
    pattern: Pattern
    images: tuple[Part, ...] = ()
    masks: Mapping[str, Outlines] = dataclasses.field(default_factory=dict)
    fault: str = ''
    notes: tuple[str, ...] = ()

    @property
    def raters(self) -> int:
        """How many raters outlined it."""
        return len(self.masks)

    @property
    def may_have_slices(self) -> bool:
        """Whether the image's kind of file can hold more than one slice."""
        return not self.pattern.drawn and self.images[0].path.suffix.lower() not in ('.png', '.jpg', '.jpeg')

    def known(self, rater: str) -> Known:
        """What is known of a rater's mask of this case."""
        return next((one for one in self.pattern.known_of(self.name) if one.rater == rater), Known(self.name, rater))

    def files(self) -> list[pathlib.Path]:
        """Images and masks, each file once."""
        parts = [*self.images, *(part for outlines in self.masks.values() for part in outlines.values())]
        return list(dict.fromkeys(part.path for part in parts))

    def read(self, data: ml_collections.ConfigDict) -> values.Read:
        """Image in [0, 1] and masks, resampled to config.data.spacing where that is set; data: the config's group.

        Raises:
          UserError: the case's fault, or what is wrong with one of its files, in one line that names it.
        """
        return _read(self, data)

    def marked(self, data: ml_collections.ConfigDict) -> np.ndarray:
        """Whether any rater marked a pixel of each slice, bool [Z].

        Raises:
          UserError: a mask cannot be read, or has other values than the pattern says.
        """
        return _marked(self, data)


def _read(case, data):
    if case.fault:
        raise UserError(case.fault)
    try:
        image, unit, notes = _image(case, data)
        masks, more = (_drawn if case.pattern.drawn else _masks)(case, data.num_classes, image)
        path = case.images[0].path
        return values.at_spacing(path, unit, np.stack(masks, 1), image.spacing, (*notes, *more), data.spacing)
    except MemoryError as error:  # what a file holds fits, what is made of it does not
        raise UserError(f'{case.images[0]}: takes more memory than there is; crop it or split it') from error


def _marked(case, data):
    # The order of slices is the mask's own where its header tells the truth, and the image's where it may not.
    doubted = case.pattern.by_index or any(case.known(rater).by_index for rater in case.masks)
    image = _volume(case.images[0], _channels(case, data)) if doubted else None
    masks, _ = _masks(case, data.num_classes, image)
    if odd := next((mask for mask in masks if len(mask) != len(masks[0])), None):
        raise UserError(f'{case.images[0]}: its masks have {len(masks[0])} and {len(odd)} slices; export them again')
    return np.any([mask.any((1, 2)) for mask in masks], axis=0)


def _channels(case, data):
    return neighbours.own_channels(data) if len(case.images) == 1 else 1


def _volume(part: Part, channels: int = 1, classes: int = 0) -> Volume:
    if part.key:
        return hdf5.read(part.path, part.key, classes)
    return image_files.read(part.path, channels=channels, classes=classes)


def _image(case, data):
    """(the first channel's Volume, all channels [Z, H, W, C] in [0, 1], notes)."""
    first, units, notes = None, [], []
    for part in case.images:
        volume = _volume(part, _channels(case, data))
        image_files.check_intensity(str(part), volume, data.intensity)
        if first is None:
            first = volume
        else:
            geometry.check_size(part.path, volume, case.images[0].path, first)
            geometry.check_place(part.path, volume, case.images[0].path, first)
        units.append(intensity.to_unit(volume.values, data.intensity, data.hu_window))
        notes += volume.notes
    return first, np.concatenate(units, axis=-1), notes


def _masks(case, num_classes, image):
    """(the labels [Z, H, W] of each rater who has all, notes); image None: its place is not looked at."""
    masks, notes = [], list(case.notes)
    for rater, outlines in case.masks.items():
        known = case.known(rater)
        by_index = case.pattern.by_index or known.by_index
        painted, seen = None, set()
        for (structure, _), part in sorted(outlines.items(), key=lambda item: _order(case.pattern, item[0][0])):
            volume = _volume(part, classes=_classes(case.pattern, num_classes))
            notes += [f'mask: {note}' for note in volume.notes]
            stored = volume.values[..., 0]
            if image is not None:
                stored = _on_image(case, part, volume, image, by_index, notes)
            labels = _labels(case.pattern, part, stored, structure, num_classes, volume.white, seen)
            if painted is not None and painted.shape != labels.shape:
                raise UserError(f"{part}: not of the size of the rater's other files; export it again")
            painted = labels if painted is None else np.where(labels > 0, labels, painted)
        if known.lacks and known.lacks not in seen and any(known.lacks in items for items in case.pattern.classes):
            notes.append(f'{case.name}: rater {rater} has no {known.called}, a known fault: left out')
        else:
            masks.append(painted)
    if not masks:
        raise UserError(f'{case.images[0]}: no rater is left; take the case away')
    return masks, notes


def _drawn(case, _, image):
    """As `_masks`, of outlines that are drawn into copies of the picture."""
    pattern, masks, notes = case.pattern, [], list(case.notes)
    clean = _volume(case.images[0], 3)
    # An inner outline that nobody asks for need not close.
    count = max(number for number, name in enumerate(pattern.drawn, 1) if pattern.label(name))
    for rater, outlines in case.masks.items():
        labels = np.zeros(image.values.shape[:3], np.uint8)
        for part in outlines.values():
            picture = _volume(part, 3)
            geometry.check_size(part.path, picture, case.images[0].path, clean)
            geometry.check_place(part.path, picture, case.images[0].path, clean)
            try:
                found = drawn.regions(clean.values[0], picture.values[0], count)
            except drawn.NotFound as error:
                notes.append(f'{case.name}: rater {rater} {error}: left out')
                break
            for name, mask in sorted(zip(pattern.drawn, found, strict=False), key=lambda one: _order(pattern, one[0])):
                if label := pattern.label(name):
                    labels[0][mask] = label
        else:
            masks.append(labels)
    if not masks:
        raise UserError(f'{case.images[0]}: no outline can be told ({notes[-1]}); take the case away')
    return masks, notes


def _order(pattern, structure):
    """Place of a structure in `classes`, so that later ones cover."""
    return pattern.label(structure) if structure else 0


def _classes(pattern, num_classes):
    """How many labels a file may hold."""
    if pattern.by_structure:
        return 1
    if not pattern.classes:
        return num_classes
    if '*' in pattern.drop:
        return _ANY
    return max(int(item) for item in (*pattern.drop, *(item for items in pattern.classes for item in items)))


def _labels(pattern, part, stored, structure, num_classes, white, seen):
    """Labels 0 .. K uint8 of stored values; what they stand for is added to `seen`."""
    lossy = not part.key and mask_files.is_jpeg(part.path)
    if pattern.by_structure:
        seen.add(structure)
        label = np.uint8(pattern.label(structure))
        return mask_files.labels(str(part), stored, 1, lossy, white) * label
    if not pattern.classes:
        return mask_files.labels(str(part), stored, num_classes, lossy, white)
    if lossy:
        raise UserError(f'{part}: JPEG blurs labels; store label maps as PNG, TIFF or NIfTI')
    labels = np.zeros(stored.shape, np.uint8)
    for value in np.unique(stored):
        if not value:
            continue
        item = str(int(value)) if value == int(value) else repr(float(value))
        try:
            label = pattern.label(item)
        except KeyError:
            raise UserError(
                f'{part}: holds the value {item}, of which config.data.pattern says nothing; add it to classes=, or to '
                'drop='
            ) from None
        seen.add(item)
        labels[stored == value] = label
    return labels


def _on_image(case, part, mask, image, by_index, notes):
    """The stored values [Z, H, W] of a mask on its image's grid."""
    where = case.images[0].path
    try:
        geometry.check_size(part.path, mask, where, image)
        geometry.check_place(part.path, mask, where, image)
    except UserError as error:
        if not by_index:
            cure = '' if case.pattern.by_index or part.key else ', or add align=index to config.data.pattern'
            raise UserError(f'{error}{cure}') from None
        stored = mask.to_file_order(mask.values[..., 0])
        if stored.shape != image.to_file_order(image.values[..., 0]).shape:
            raise
        notes.append(f'{case.name}: the header of {part.path.name} disagrees with the image: laid on it by voxel index')
        return image.from_file_order(stored)
    return mask.values[..., 0]
