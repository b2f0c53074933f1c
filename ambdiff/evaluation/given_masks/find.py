"""Which kind of masks lies at a place."""

import importlib
import pathlib
from collections.abc import Callable, Collection

import ml_collections

from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.evaluation.given_masks import archive, folder
from ambdiff.evaluation.given_masks.masks import RATERS, GivenMasks


def find(
    place: pathlib.Path,
    kind: str,
    data: ml_collections.ConfigDict,
    split: str,
    known: Collection[str] = (),
    height: Callable[[], int] | None = None,
) -> GivenMasks:
    """The masks at a file or in a folder.

    Read are evaluate's masks.npz and other .npz (`archive`), folders of picture or NIfTI files
    (`folder`), and, for raters, whatever layout `ambdiff.data.sources` reads.

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
    flag = f'--{kind}={place}'
    if not place.exists():
        raise UserError(f'{flag}: no such file or folder')
    if place.is_file() and archive.matches(place):
        return archive.find(place, kind, data.num_classes)
    if kind == RATERS and (layout := _layout(place)):
        return _of_layout(place, layout, data, split, height)
    if place.is_dir():
        return folder.find(place, kind, data.num_classes, known)
    reads = 'an .npz file or a folder of cases' + (', or a data set that training reads' if kind == RATERS else '')
    raise UserError(f'{flag}: is none of what is read: {reads}')


def _layout(place: pathlib.Path):
    """The reader of data as it lies on disk that reads this place; None where none does, or one a case folder."""
    for name in sources.LAYOUTS:
        layout = importlib.import_module(f'ambdiff.data.layouts.{name}')
        # Case folders are read without their images, at the size of the masks.
        if name != 'case_folder' and layout.matches(place):
            return layout
    return None


def _of_layout(place, layout, data, split, height) -> GivenMasks:
    if not data.image_size:
        data = data.copy_and_resolve_references()
        data.image_size = height()
    source = layout.open_split(place, split, data, False)
    examples = {}
    for row in range(len(source)):
        found = source[row]
        examples[str(found['case'])] = (found['masks'][found['present']], str(found['patient']))
    masks = {case: lambda held=held: held[:, None] for case, (held, _) in examples.items()}
    return GivenMasks(place, masks, {case: patient for case, (_, patient) in examples.items()})
