"""Masks that any program or raters made: found in a file or folder, a case at a time, not yet read."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Collection, Mapping

import ml_collections
import numpy as np

from ambdiff.errors import UserError

RATERS, SAMPLES = 'raters', 'samples'


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One side's masks.

    Attributes:
      place: the file or folder, for what is told.
      masks: {case: what reads its masks, uint8 [K, Z, H, W]: 0 and 1, or labels}, in their order.
      patients: {case: patient}, where they are known; '' of one that is not.
      draws: how the samples of a case relate to each other, if the file says so.
      images: {case: [H, W, C] float32 in [0, 1]}, where the file holds them.
    """

    place: pathlib.Path
    masks: Mapping[str, Callable[[], np.ndarray]]
    patients: Mapping[str, str] = dataclasses.field(default_factory=dict)
    draws: str = ''
    images: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def find(
    place: pathlib.Path,
    kind: str,
    data: ml_collections.ConfigDict,
    split: str,
    known: Collection[str] = (),
    height: Callable[[], int] | None = None,
) -> Drawn:
    """The masks at a file or in a folder.

    Read are evaluate's masks.npz and other .npz (`ambdiff.evaluation.drawn_archive`), folders of picture or NIfTI files
    (`ambdiff.evaluation.drawn_folder`), and, for raters, whatever layout `ambdiff.data.sources` reads.

    Args:
      place: the file or folder.
      kind: RATERS or SAMPLES.
      data: the config's data group, for layouts and for the number of classes.
      split: of layouts.
      known: the cases of the other side, by which names of samples are understood.
      height: tells the size that layouts are read at where data.image_size is 0.

    Raises:
      UserError: nothing there that is read, or not clear which mask is of which case; one line that names the place.
    """
    from ambdiff.evaluation import drawn_archive, drawn_folder

    flag = f'--{kind}={place}'
    if not place.exists():
        raise UserError(f'{flag}: no such file or folder')
    if place.is_file() and drawn_archive.matches(place):
        return drawn_archive.find(place, kind, data.num_classes)
    if kind == RATERS and (layout := _layout(place)):
        return _of_layout(place, layout, data, split, height)
    if place.is_dir():
        return drawn_folder.find(place, kind, data.num_classes, known)
    reads = 'an .npz file or a folder of cases' + (', or a data set that training reads' if kind == RATERS else '')
    raise UserError(f'{flag}: is none of what is read: {reads}')


def _layout(place: pathlib.Path):
    """The reader of data as it lies on disk that reads this place; None where none does, or one a case folder."""
    from ambdiff.data import sources

    for name in sources.LAYOUTS:
        layout = importlib.import_module(f'ambdiff.data.layouts.{name}')
        # Case folders are read without their images, at the size of the masks.
        if name != 'case_folder' and layout.matches(place):
            return layout
    return None


def _of_layout(place, layout, data, split, height) -> Drawn:
    if not data.image_size:
        data = data.copy_and_resolve_references()
        data.image_size = height()
    source = layout.open_split(place, split, data, False)
    examples = {}
    for row in range(len(source)):
        found = source[row]
        examples[str(found['case'])] = (found['masks'][found['present']], str(found['patient']))
    masks = {case: lambda held=held: held[:, None] for case, (held, _) in examples.items()}
    return Drawn(place, masks, {case: patient for case, (_, patient) in examples.items()})
