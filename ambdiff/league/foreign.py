"""Masks that another program sampled for the league's images, or a baseline, as one who takes part."""

import pathlib

import ml_collections
import numpy as np

from ambdiff import baselines
from ambdiff.errors import UserError
from ambdiff.evaluation.cases import Cases
from ambdiff.evaluation.comparison.runs import Run
from ambdiff.evaluation.given_masks import find
from ambdiff.evaluation.given_masks.masks import RATERS, SAMPLES, GivenMasks
from ambdiff.text import printable

BASELINES = ('other_patients', 'raters_resampled', 'majority', 'empty')  # names of `of_baselines`


def named(text: str) -> tuple[str, pathlib.Path]:
    """'mine:masks.npz' -> name and place; a folder is an evaluation, or a run that holds one.

    Raises:
      UserError: no name, no place, or nothing there.
    """
    name, _, place = text.partition(':')
    if not name or not place:
        raise UserError(f'--score={printable(text)}: write --score=NAME:FILE, the name it has in the table first')
    path = pathlib.Path(place).expanduser()
    for folder in (path, path / 'evaluation'):
        if (folder / 'masks.npz').is_file():
            path = folder / 'masks.npz'
    if not path.exists():
        raise UserError(f'--score={printable(text)}: {path} is not there')
    return name, path


def read(name: str, path: pathlib.Path, cases: Cases, config: ml_collections.ConfigDict) -> Run:
    """The samples in a file or folder (`ambdiff.evaluation.given_masks`), checked against the league's images.

    Args:
      name: in the table.
      path: evaluate's masks.npz, or whatever else `ambdiff score` reads as samples.
      cases: the league's.
      config: of any run: the split, the number of classes and N.

    Raises:
      UserError: other images, another size, or too few samples; one line that names a case.
    """
    where, number = f'--score={printable(name)}:{path}', config.sample.num_samples
    samples = _found(path, SAMPLES, where, cases, config)
    ours = f'the {len(cases.names)} images of {config.evaluate.split}'
    for one, others, said in (
        (cases.names, samples.masks, 'has no samples for it'),
        (samples.masks, set(cases.names), 'has samples for it, and it is none of them'),
    ):
        if lost := next((case for case in one if case not in others), None):
            raise UserError(
                f'{where}: the case {printable(lost)} {said}: the league scores {ours}; sample masks of these, which '
                'evaluation/masks.npz of each run names'
            )
    for case, raters in zip(cases.names, cases.raters, strict=True):
        masks = samples.masks[case]()
        if masks.shape[1:] != (1, *raters.shape[1:]):
            shown = ' x '.join(map(str, masks.shape[2:]))
            raise UserError(
                f'{where}: the case {printable(case)} is {shown} pixels, the league’s {raters.shape[1]} x '
                f'{raters.shape[2]}; sample masks of that size'
            )
        exact = samples.draws != 'dependent'
        if len(masks) < number or (len(masks) > number and not exact):
            raise UserError(
                f'{where}: the case {printable(case)} has {len(masks)} samples, the league takes '
                f'{"at least " if exact else ""}{number}; sample {number}, or set --config.sample.num_samples for all'
            )
    if path.is_file() and _has_raters(path):
        told = _found(path, RATERS, where, cases, config)
        key = lambda masks: sorted(mask.tobytes() for mask in masks)
        for case, raters, present in zip(cases.names, cases.raters, cases.present, strict=True):
            if key(told.masks[case]()[:, 0]) != key(raters[present]):
                raise UserError(
                    f'{where}: the case {printable(case)}: its raters’ masks are not the league’s; evaluate on the '
                    'same data, read at the same size'
                )
    masks = np.stack([samples.masks[case]()[:number, 0] for case in cases.names])
    return given(name, cases, masks, config.data.num_classes, samples.draws or 'independent')


def given(name: str, cases: Cases, masks: np.ndarray, num_classes: int, draws: str = 'independent') -> Run:
    """Masks [n, N, H, W] of the league's images under a name; draws: how those of an image relate to each other."""
    rows = lambda row, there: lambda: row[there][:, None]
    side = lambda masks, present: dict(zip(cases.names, map(rows, masks, present), strict=True))
    images = dict(zip(cases.names, cases.images, strict=True)) if cases.images.any() else {}
    patients = dict(zip(cases.names, cases.patients, strict=True))
    place = pathlib.Path(name)
    samples = GivenMasks(place, side(masks, np.ones(masks.shape[:2], bool)), patients, draws, images)
    raters = GivenMasks(place, side(cases.raters, cases.present), patients)
    return Run(name, place, raters, samples, draws, masks.shape[1], num_classes)


def of_baselines(
    cases: Cases, others: tuple[np.ndarray, np.ndarray], number: int, num_classes: int, seed: int
) -> list[Run]:
    """Answers without a model (`ambdiff.baselines`); others: masks [K, M, H, W] of training and present [K, M]."""
    raters, present = cases.raters, cases.present
    masks = {
        **baselines.random_answers(raters, present, others, number, seed),
        'majority': baselines.majority(raters, present, number),
        'empty': baselines.empty(raters, number),
    }
    return [given(name, cases, answer, num_classes) for name, answer in masks.items()]


def _has_raters(path: pathlib.Path) -> bool:
    with np.load(path, allow_pickle=False) as file:
        return 'raters' in file.files


def _found(path, kind, where, cases: Cases, config) -> GivenMasks:
    try:
        return find.find(path, kind, config.data, config.evaluate.split, known=cases.names)
    except UserError as error:
        said = str(error).removeprefix(f'--{kind}={path}: ').removeprefix(f'{path}: ')
        raise UserError(f'{where}: {said}') from error
