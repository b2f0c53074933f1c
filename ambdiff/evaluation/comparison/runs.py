"""Runs to compare, opened: their raters' masks and samples as they lie in the files of an evaluation."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from ambdiff import metrics
from ambdiff.errors import UserError
from ambdiff.evaluation.given_masks import archive
from ambdiff.evaluation.given_masks.masks import RATERS, SAMPLES, GivenMasks

_MOST_JSON = 1 << 24  # bytes


@dataclasses.dataclass(frozen=True)
class Run:
    """One evaluation, or one output of `ambdiff score`.

    Attributes:
      name: what it is called in the table.
      folder: of its metrics.json and masks.npz.
      raters: their masks.
      samples: what was drawn.
      draws: 'independent' or 'dependent'.
      num_samples: N.
      num_classes: foreground classes.
    """

    name: str
    folder: pathlib.Path
    raters: GivenMasks
    samples: GivenMasks
    draws: str
    num_samples: int
    num_classes: int


def opened(places: Sequence[pathlib.Path]) -> list[Run]:
    """The runs at these places: workdirs, evaluation folders or outputs of `ambdiff score`, two at least.

    Raises:
      UserError: no such run, or its files are damaged; one line that names it and the cure.
    """
    folders = [_folder(place) for place in places]
    if twice := next((place for place, folder in zip(places, folders, strict=True) if folders.count(folder) > 1), None):
        raise UserError(f'{twice} is given twice; name different runs')
    if len(folders) < 2:
        raise UserError(f'one run ({places[0]}) is nothing to compare; name two or more')
    short = [(folder.parent if folder.name == 'evaluation' else folder).resolve().name for folder in folders]
    names = [str(place) if short.count(name) > 1 else name for place, name in zip(places, short, strict=True)]
    return [open_run(name, folder) for name, folder in zip(names, folders, strict=True)]


def _folder(place: pathlib.Path) -> pathlib.Path:
    """The folder of metrics.json and masks.npz."""
    if not place.exists():
        raise UserError(f'{place}: no such run')
    for folder in (place, place / 'evaluation'):
        if (folder / 'metrics.json').is_file() and (folder / 'masks.npz').is_file():
            return folder
    raise UserError(
        f'{place}: holds no metrics.json with masks.npz, here or in evaluation/; name a run that was evaluated, or an '
        'output of ambdiff score'
    )


def open_run(name: str, folder: pathlib.Path) -> Run:
    """The evaluation in a folder, under a name.

    Raises:
      UserError: what is there cannot be read, or contradicts itself.
    """
    path = folder / 'metrics.json'
    try:
        if path.stat().st_size > _MOST_JSON:
            raise UserError(f'{path}: larger than {_MOST_JSON >> 20} MiB; evaluate again')
        told = json.loads(path.read_text('utf-8'))
        draws, number, classes = told['draws'], told['samples_per_image'], max(len(told.get('per_class', {})), 1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path}: damaged, or of another program ({type(error).__name__}); evaluate again') from error
    if draws not in metrics.DRAWS or not isinstance(number, int) or isinstance(number, bool):
        raise UserError(f'{path}: damaged: draws={draws!r:.30} and samples_per_image={number!r:.30}; evaluate again')
    masks = folder / 'masks.npz'
    raters, samples = (archive.find(masks, kind, classes) for kind in (RATERS, SAMPLES))
    counts = {len(read()) for read in samples.masks.values()}
    if counts != {number}:
        raise UserError(
            f'{folder}: masks.npz holds {sorted(counts)} samples a case, metrics.json says {number}; score again'
        )
    return Run(name, folder, raters, samples, draws, number, classes)
