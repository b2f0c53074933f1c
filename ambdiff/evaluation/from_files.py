"""Scores of masks that any program made: files in, the files of an evaluation out."""

import dataclasses
import pathlib

import ml_collections

from ambdiff.errors import UserError
from ambdiff.evaluation import files, matched, scores
from ambdiff.evaluation.given_masks import archive
from ambdiff.evaluation.given_masks.find import find
from ambdiff.evaluation.given_masks.masks import RATERS, SAMPLES


@dataclasses.dataclass(frozen=True)
class Request:
    """What is scored, and how.

    Attributes:
      samples: file or folder of what was drawn.
      raters: of the raters' masks; None: the file of the samples.
      train: of masks of other patients, for the baseline `other_patients`; None: no such baseline.
      patients: a CSV with the columns case and patient; None: as the raters' file says, if it does.
      data: the config's data group: the number of classes, and how layouts are read (image_size 0: as the samples).
      split: of layouts.
      draws: 'independent' or 'dependent'; None: as the samples' file says, else independent.
      number: the first so many samples of each case; None: all.
      only_common: leave out cases of one side alone, instead of refusing them.
      seed: of the baselines.
    """

    samples: pathlib.Path
    raters: pathlib.Path | None
    train: pathlib.Path | None
    patients: pathlib.Path | None
    data: ml_collections.ConfigDict
    split: str
    draws: str | None
    number: int | None
    only_common: bool
    seed: int


def score(request: Request, folder: pathlib.Path) -> dict:
    """Scores and writes metrics.json, per_image.csv, masks.npz and report.html into the folder, all or nothing.

    Returns:
      What metrics.json holds; fields that only the program knows that sampled are None.

    Raises:
      UserError: a file cannot be read, or what it holds does not fit; one line that names the case and the cure.
    """
    data, of_raters = request.data, request.raters or request.samples
    samples = find(request.samples, SAMPLES, data, request.split)
    height = lambda: next(iter(samples.masks.values()))().shape[2]
    if not request.raters and not archive.holds_both(request.samples):
        raise UserError(
            f'--samples={request.samples}: holds no raters’ masks beside the samples; name them by --raters=DIR_OR_NPZ'
        )
    raters = find(of_raters, RATERS, data, request.split, height=height)
    if request.samples.is_dir():  # the names of files are understood beside the raters' cases
        samples = find(request.samples, SAMPLES, data, request.split, raters.masks)
    draws = request.draws or samples.draws or 'independent'
    if draws == 'dependent' and request.number:
        raise UserError(
            '--num-samples takes the first samples of each case, which of dependent ones are no smaller set of their '
            'kind; draw fewer instead'
        )
    patients = raters.patients
    if request.patients:
        patients = matched.patients_of(request.patients, [name for name in raters.masks if name in samples.masks])
    found = matched.match(raters, samples, patients, request.only_common, request.number)
    others = None
    if request.train:
        try:
            train = find(request.train, RATERS, data, 'train', height=height)
        except UserError as error:  # which names the flag of what it takes them for
            raise UserError(str(error).replace(f'--{RATERS}=', '--train=', 1)) from error
        others = matched.training_masks(train, found, raters)
    figures = scores.compute(
        found.cases.raters,
        found.cases.present,
        found.samples,
        patients=found.cases.patients,
        draws=draws,
        num_classes=data.num_classes,
        seed=request.seed,
        others=others,
    )
    result = _result(request, of_raters, found, figures)
    facts = {
        'samples': request.samples,
        'raters': of_raters,
        'images': str(len(found.cases.names)),
        'masks an image (N)': f'{found.samples.shape[1]}, {draws}',
    }
    notice = '' if found.cases.images.any() else 'Masks alone: the images were not given.'
    if found.shape is None:
        notice += ' Cases of different size, or volumes, are cut to what was drawn; slices lie one below the other.'
    shown = {key: str(value) for key, value in facts.items()}
    files.write(folder, result, figures, found.cases, found.samples, data.num_classes, shown, notice)
    files.tell(result, figures, notice, folder)
    return result


def _result(request: Request, of_raters, found: matched.Matched, figures: scores.Scores) -> dict:
    told = figures.as_json()
    told['baselines'] = {'other_patients': None, **told['baselines']}
    return {
        'config': None,
        'checkpoint_step': None,
        'split': None,
        'num_images': len(found.cases.names),
        'samples_per_image': found.samples.shape[1],
        'network_evaluations_per_mask': None,
        'seconds_per_mask': None,
        **told,
        'empty_share': {
            'samples': float((~found.samples.any((2, 3))).mean()),
            'raters': found.cases.empty_share(),
        },
        'scored': {'samples': str(request.samples), 'raters': str(of_raters)},
    }
