"""What predict writes for an image, in the image's own geometry: masks, maps, DICOM-SEG, summary and page.

A result's folder is filled under a temporary name and then renamed: it is there as a whole or not at all.

  samples.nii.gz          NIfTI and DICOM: uint8, the file's own axes, the last axis N      samples_00.png .. pictures
  probability.nii.gz      float32, share of the samples that mark a voxel                   probability.png, 255 = 1
  disagreement.nii.gz     float32, entropy in bits                                          disagreement.png, 255 = most
  answers.nii.gz          uint8, the number of the answer that marks a voxel, 0 where none does
  segmentation.dcm        DICOM only: one segment an answer
  summary.json            what the samples say, and what they were made with
  index.html              the result as a page
Pictures of several pages (TIFF) get .tif files of as many pages.
"""

import csv
import hashlib
import io
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from ambdiff import files, modes
from ambdiff.errors import UserError
from ambdiff.prediction import earlier, nifti, page, segmentation
from ambdiff.prediction.points import text_of
from ambdiff.prediction.result import Result
from ambdiff.text import printable
from ambdiff.version import __version__


def save(prediction: Result, folder: pathlib.Path) -> list[str]:
    """Writes a result, whole or not at all, in place of one that predict wrote; returns what had to be left out.

    Raises:
      UserError: something else is in the way.
      OSError: it cannot be written.
    """
    earlier.claim(folder, {})
    with files.whole_folder(folder) as partial:
        names = _write_masks(partial, prediction)
        notes = []
        if prediction.settings.get('anonymised'):
            if prediction.volume.kind == 'dicom':
                notes.append('no segmentation.dcm, which would carry the patient of the image (--anonymise)')
        elif prediction.volume.kind == 'dicom':
            about = {'name': prediction.name, 'version': __version__, **prediction.settings}
            words = [answer.words for answer in prediction.modes]
            try:
                path = partial / 'segmentation.dcm'
                segmentation.write(path, prediction.volume, prediction.counted, prediction.whole.groups, words, about)
                names.append(path.name)
            except UserError as error:
                notes.append(printable(str(error)))
        warnings = [*prediction.notes, *notes]
        shown = page.write(partial / 'index.html', prediction, names, warnings)
        sizes = [(partial / name).stat().st_size for name in names]
        summary = _summary(prediction, names, sizes, warnings, hashlib.sha256(shown).hexdigest())
        (partial / 'summary.json').write_text(json.dumps(summary, indent=2, allow_nan=False), 'utf-8')
    return notes


def _summary(prediction: Result, names: list[str], sizes: list[int], warnings: list[str], digest: str) -> dict:
    """summary.json; `earlier` says which of its fields are relied on."""
    points = prediction.findings if prediction.points else ()
    return {
        'format': earlier.FORMAT,
        'case': prediction.name,
        'input': prediction.title,
        'num_samples': prediction.drawn_with.num_samples,
        'num_steps': prediction.drawn_with.num_steps,
        'seed': prediction.drawn_with.seed,
        'network_evaluations_per_mask': prediction.evaluations,
        'smallest_part': prediction.drawn_with.smallest_part,
        **prediction.whole.to_json(),
        'points': [
            {'at': list(at), **finding.to_json()} for at, finding in zip(prediction.points, points, strict=True)
        ],
        'raters': [printable(name) for name in prediction.rater_names],
        'shape': list(prediction.samples.shape[1:]),
        'spacing': [float(step) if np.isfinite(step) else None for step in prediction.volume.spacing],
        'weights': dict(prediction.weights),
        'warnings': warnings,
        'files': names,
        'bytes': sizes,
        'page_sha256': digest,
        'settings': dict(prediction.settings),
    }


def _write_masks(folder: pathlib.Path, prediction: Result) -> list[str]:
    """Writes the samples one by one, and their maps; returns the names of the files."""
    samples, volume = prediction.samples, prediction.volume
    maps = {'probability': modes.probability, 'disagreement': modes.disagreement}
    if volume.kind != 'picture':
        nifti.write(folder / 'samples.nii.gz', volume, np.uint8, samples.plane, len(samples))
        for name, measure in maps.items():
            plane = lambda _, z, measure=measure: measure(samples.on_slice(z)) if z in samples.slices else None
            nifti.write(folder / f'{name}.nii.gz', volume, np.float32, plane)
        nifti.write(folder / 'answers.nii.gz', volume, np.uint8, _answers(prediction))
        return ['samples.nii.gz', *(f'{name}.nii.gz' for name in (*maps, 'answers'))]
    suffix = '.png' if samples.shape[1] == 1 else '.tif'
    names = []
    digits = max(2, len(str(len(samples) - 1)))
    # Foreground white, so that a mask shows in any viewer; labels as they are.
    white = 255 if samples.num_classes == 1 else 1
    for number in range(len(samples)):
        names.append(f'samples_{number:0{digits}}{suffix}')
        _write_picture(folder / names[-1], samples.whole(number) * np.uint8(white))
    for name, measure in maps.items():
        most = math.log2(samples.num_classes + 1) if name == 'disagreement' else 1.0
        names.append(f'{name}{suffix}')
        _write_picture(folder / names[-1], np.rint(prediction.map_of(measure) / most * 255).astype(np.uint8))
    return names


def _answers(prediction: Result) -> nifti.Plane:
    """Gives which answer marks each pixel of a slice, [H, W] uint8: 1 the most frequent, in order of `modes`, 0 none.

    Answers lie within each other: where several mark a pixel the smallest of them shows, so that none hides another.
    """
    counted = prediction.counted
    typical = [group.medoid for group in prediction.whole.groups[:255]]
    sizes = counted.pixels().sum(1)
    largest_first = sorted(range(len(typical)), key=lambda number: -sizes[typical[number]])

    def plane(_: int, z: int) -> np.ndarray | None:
        if z not in counted.slices:
            return None
        labels = np.zeros(counted.shape[2:], np.uint8)
        for number in largest_first:
            labels[counted.plane(typical[number], z) > 0] = number + 1
        return labels

    return plane


def _write_picture(path: pathlib.Path, pages: np.ndarray) -> None:
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, **({'save_all': True, 'append_images': rest, 'compression': 'tiff_deflate'} if rest else {}))


def write_predictions(
    output: pathlib.Path, results: Sequence[earlier.WrittenResult], failed: Mapping[str, str]
) -> None:
    """predictions.csv: a line a point, or a case without points; those that failed with the reason."""
    quantiles = [f'p{q * 100:02.0f}' for q in modes.QUANTILES]
    columns = ['case', 'input', 'point', 'num_samples', 'empty_share', 'area_unit']
    columns += [*(f'area_{q}' for q in quantiles), 'volume_unit', *(f'volume_{q}' for q in quantiles), 'length_unit']
    columns += [*(f'diameter_{q}' for q in quantiles), *(f'perpendicular_{q}' for q in quantiles), 'slices']
    columns += ['modes', 'mode_1_share', 'mode_1_area', 'headline', 'in_words']
    columns += ['warnings', 'error']
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval='')
    writer.writeheader()
    for result in results:
        for row in _rows(output, result, quantiles):
            writer.writerow({name: _cell(value) for name, value in row.items()})
    for title, reason in failed.items():
        writer.writerow({'input': _cell(title), 'error': _cell(reason)})
    files.write_whole(output / earlier.TABLE, text.getvalue())


def _rows(output: pathlib.Path, result: earlier.WrittenResult, quantiles: Sequence[str]) -> Iterator[dict]:
    summary = result.summary
    for said in summary['points'] or [summary]:
        first = said['modes'][0]
        yield {
            'case': result.folder.relative_to(output).as_posix(),
            'input': summary['input'],
            'point': text_of(said['at']) if 'at' in said else '',
            'num_samples': summary['num_samples'],
            'empty_share': f'{said["empty_share"]:.4f}',
            'area_unit': said['area']['unit'],
            **{f'area_{q}': f'{said["area"][q]:.2f}' for q in quantiles},
            **_sizes(said, 'volume', quantiles),
            **_sizes(said, 'diameter', quantiles),
            **_sizes(said, 'perpendicular', quantiles),
            'volume_unit': (said['volume'] or {}).get('unit', ''),
            'length_unit': said['diameter']['unit'],
            'slices': f'{said["slices"]:g}',
            'modes': len(said['modes']),
            'mode_1_share': f'{first["share"]:.4f}',
            'mode_1_area': f'{first["area"]:.2f}',
            'headline': said['headline'],
            'in_words': '; '.join(f'{mode["share"]:.0%}: {mode["words"]}' for mode in said['modes']),
            'warnings': '; '.join(summary['warnings']),
        }


def _sizes(said: Mapping, name: str, quantiles: Sequence[str]) -> dict[str, str]:
    """The cells of a size's quantiles; none where it has none."""
    return {f'{name}_{q}': f'{said[name][q]:.2f}' for q in quantiles} if said[name] else {}


def _cell(value: object) -> str:
    """A cell as text that no spreadsheet takes for a formula; a negative coordinate stays a number."""
    text = str(value)
    formula = text[:1] in ('=', '+', '-', '@') and not text.replace(',', '').lstrip('-').replace('.', '').isdecimal()
    return f"'{text}" if formula else text
