"""Runs beside each other: the same images, the same number of samples, paired differences to the first run."""

import csv
import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import files, metrics
from ambdiff.errors import UserError
from ambdiff.evaluation import compare_page, drawn, drawn_archive
from ambdiff.evaluation.scores import Means

# 'calibration' is of all pixels together, no mean over images, so that it has no paired difference.
KEYS = tuple(key for key in metrics.ALL_KEYS if key != 'calibration')
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
    raters: drawn.Drawn
    samples: drawn.Drawn
    draws: str
    num_samples: int
    num_classes: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is told of runs; the first one is what the others are compared with.

    Attributes:
      names: of the runs.
      cases: the images that all have.
      patients: of each, '' where unknown.
      num_samples: N, the same of all.
      draws: of each run.
      per_image: {run: {key: [n]}}, NaN where undefined.
      means: {run: (means, standard errors)}.
      differences: {run but the first: (mean of run less first, standard error)}, over images where both are defined.
      notes: what was left out, a sentence each.
      images: [n, H, W, C] float32 in [0, 1]; black where masks alone are there.
      raters: [M, H, W] bool of each case.
      samples: {run: [n, N, H, W] bool}.
    """

    names: list[str]
    cases: list[str]
    patients: list[str]
    num_samples: int
    draws: list[str]
    per_image: dict[str, dict[str, np.ndarray]]
    means: dict[str, tuple[Means, Means]]
    differences: dict[str, tuple[Means, Means]]
    notes: list[str]
    images: np.ndarray
    raters: list[np.ndarray]
    samples: dict[str, np.ndarray]


def compare(places: Sequence[pathlib.Path], folder: pathlib.Path) -> Comparison:
    """Compares runs and writes compare.html, compare.json and compare.csv into the folder, all of them or none.

    Args:
      places: workdirs, evaluation folders or outputs of `ambdiff score`, two at least.
      folder: is made where it is not there.

    Raises:
      UserError: no such run, no image in common, raters' masks that differ, or numbers of samples that cannot be made
        equal; one line that names the run and the cure.
    """
    found = of(_open(places))
    with files.whole_files(*(folder / f'compare.{kind}' for kind in ('html', 'csv', 'json'))) as (page, table, summary):
        page.writelines(piece.encode() for piece in compare_page.page(found))
        table.write(_csv(found).encode())
        summary.write(json.dumps(_json(found, places), indent=2, allow_nan=False).encode())
    return found


def of(runs: Sequence[Run]) -> Comparison:
    """The comparison of opened runs."""
    first, notes = runs[0], []
    cases = [name for name in first.samples.masks if all(name in run.samples.masks for run in runs)]
    if not cases:
        raise UserError(f'{" and ".join(run.name for run in runs)} have no case in common; evaluate them on one split')
    if most := max(len(run.samples.masks) - len(cases) for run in runs):
        notes.append(f'{len(cases)} images are in every run; up to {most} more of a run are left out.')
    if len({run.num_classes for run in runs}) > 1:
        raise UserError('the runs have different numbers of classes; compare runs on one kind of masks')
    number = _equal_number(runs, notes)
    raters = [_same_raters(runs, name) for name in cases]
    most = max(map(len, raters))
    present = np.stack([np.arange(most) < len(masks) for masks in raters])
    padded = np.stack([np.pad(masks, ((0, most - len(masks)), (0, 0), (0, 0))) for masks in raters])
    known = first.raters.patients
    patients = [known.get(name, '') for name in cases]
    clusters = patients if any(patients) else None
    samples, per_image = {}, {}
    for run in runs:
        masks = np.stack([run.samples.masks[name]()[:number, 0] for name in cases])
        if masks.shape[2:] != padded.shape[2:]:
            raise UserError(
                f'{run.name}: its images are of another size than those of {first.name}; compare equal ones'
            )
        values, _ = metrics.per_class(padded, masks, first.num_classes, run.draws, present)
        per_image[run.name] = {key: values[key] for key in KEYS}
        samples[run.name] = masks > 0
    reference = per_image[first.name]
    differences = {
        name: metrics.summarize({key: values[key] - reference[key] for key in KEYS}, clusters)
        for name, values in per_image.items()
        if name != first.name
    }
    images = next((run.samples.images for run in runs if run.samples.images), {})
    black = np.zeros((*padded.shape[2:], 1), np.float32)
    return Comparison(
        [run.name for run in runs],
        cases,
        patients,
        number,
        [run.draws for run in runs],
        per_image,
        {name: metrics.summarize(values, clusters) for name, values in per_image.items()},
        differences,
        notes,
        np.stack([images.get(name, black) for name in cases]),
        [masks > 0 for masks in raters],
        samples,
    )


def _open(places: Sequence[pathlib.Path]) -> list[Run]:
    folders = [_folder(place) for place in places]
    if twice := next((place for place, folder in zip(places, folders, strict=True) if folders.count(folder) > 1), None):
        raise UserError(f'{twice} is given twice; name different runs')
    if len(folders) < 2:
        raise UserError(f'one run ({places[0]}) is nothing to compare; name two or more')
    short = [(folder.parent if folder.name == 'evaluation' else folder).resolve().name for folder in folders]
    names = [str(place) if short.count(name) > 1 else name for place, name in zip(places, short, strict=True)]
    return [_run(name, folder) for name, folder in zip(names, folders, strict=True)]


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


def _run(name: str, folder: pathlib.Path) -> Run:
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
    raters, samples = (drawn_archive.find(masks, kind, classes) for kind in (drawn.RATERS, drawn.SAMPLES))
    counts = {len(read()) for read in samples.masks.values()}
    if counts != {number}:
        raise UserError(
            f'{folder}: masks.npz holds {sorted(counts)} samples a case, metrics.json says {number}; score again'
        )
    return Run(name, folder, raters, samples, draws, number, classes)


def _equal_number(runs: Sequence[Run], notes: list[str]) -> int:
    """The least N; of a run with more, its first N are taken, which only independent ones stand for."""
    few = min(runs, key=lambda run: run.num_samples)
    for run in runs:
        if run.num_samples == few.num_samples:
            continue
        if run.draws == 'dependent':
            raise UserError(
                f'{run.name} has {run.num_samples} samples a case and {few.name} {few.num_samples}; the first ones of '
                f'dependent samples are no smaller set of their kind: evaluate {run.name} again with '
                f'--sample.num_samples={few.num_samples}'
            )
        notes.append(f'Of {run.name} the first {few.num_samples} of {run.num_samples} samples a case are taken.')
    return few.num_samples


def _same_raters(runs: Sequence[Run], case: str) -> np.ndarray:
    """The raters' masks of a case, [M, H, W], the same in all runs but for the order."""
    first = runs[0].raters.masks[case]()[:, 0]
    key = lambda masks: (masks.shape, sorted(mask.tobytes() for mask in masks))
    for run in runs[1:]:
        if key(run.raters.masks[case]()[:, 0]) != key(first):
            raise UserError(
                f'the case {case}: raters’ masks of {run.name} and {runs[0].name} differ; compare runs of one '
                'data set, read at one size'
            )
    return first


def format_differences(found: Comparison) -> str:
    """The runs and their differences to the first, as text."""
    from ambdiff.evaluation.files import format_table as rows

    less = {f'{name} less {found.names[0]}': row for name, row in found.differences.items()}
    return rows({**found.means, **less})


def _json(found: Comparison, places: Sequence[pathlib.Path]) -> dict:
    clean = lambda means: {key: value if math.isfinite(value) else None for key, value in means.items()}
    both = lambda rows, which: {name: clean(row[which]) for name, row in rows.items()}
    known = any(found.patients)
    return {
        'runs': [
            {'name': name, 'path': str(place), 'draws': draws}
            for name, place, draws in zip(found.names, places, found.draws, strict=True)
        ],
        'num_images': len(found.cases),
        'samples_per_image': found.num_samples,
        'stderr_clustered_by': 'patient' if known else 'image',
        'num_patients': len(set(metrics.clusters(found.patients))) if known else None,
        'metrics': both(found.means, 0),
        'stderr': both(found.means, 1),
        'reference': found.names[0],
        'difference': both(found.differences, 0),
        'difference_stderr': both(found.differences, 1),
        'notes': found.notes,
    }


def _csv(found: Comparison) -> str:
    """A line an image: case, patient, every metric of every run; blank where undefined."""
    text = io.StringIO()
    writer = csv.writer(text)
    columns: Mapping[str, np.ndarray] = {
        f'{name}:{key}': values for name, row in found.per_image.items() for key, values in row.items()
    }
    writer.writerow(['case', 'patient', *columns])
    for row, (case, patient) in enumerate(zip(found.cases, found.patients, strict=True)):
        cells = (float(values[row]) for values in columns.values())
        writer.writerow([case, patient, *(f'{value:.6f}' if math.isfinite(value) else '' for value in cells)])
    return text.getvalue()
