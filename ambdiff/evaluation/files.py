"""The files of an evaluation: metrics.json, per_image.csv, masks.npz and report.html, all of them or none.

With config.evaluate.volumes also per_volume.csv, a line a volume, and the part `volumes` of metrics.json.

metrics.json    what was measured and how, NaN as null, `undefined` saying why
per_image.csv   a line an image: case, patient, every metric; blank where undefined
masks.npz       samples [n, N, H, W / 8] and raters [n, M, H, W / 8] as bits along W (labels [n, N, H, W] for several
                classes), width (W), present [n, M], case [n], patient [n], draws ('independent' or 'dependent'), and
                image [n, H, W, C] uint8 where all of them take at most 64 MiB
report.html     one page to look at
"""

import csv
import io
import json
import math
import pathlib
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from ambdiff import files
from ambdiff.evaluation import report, volumes
from ambdiff.evaluation.cases import Cases
from ambdiff.evaluation.scores import Means, Scores

_MOST_PIXELS = 1 << 26  # of all images together that masks.npz holds


def write(
    folder: pathlib.Path,
    result: Mapping,
    scores: Scores,
    cases: Cases,
    samples: np.ndarray,
    num_classes: int,
    facts: Mapping[str, str],
    notice: str,
    of_volumes: volumes.Scores | None = None,
) -> None:
    """Writes the files into the folder.

    result: of metrics.json; samples [n, N, H, W]; facts: shown at the top of the report; notice: a line there that must
    not be missed; of_volumes: of whole volumes, where those were asked for.
    """
    if num_classes > 1:
        notice = f'{notice} Pictures show all {num_classes} classes as one; scores are means over classes.'
    page = report.page(
        images=cases.images,
        raters=cases.raters > 0,
        samples=samples > 0,
        cases=cases.names,
        present=cases.present,
        scores=scores,
        facts=facts,
        notice=notice.strip(),
        by_number=result.get('by_num_samples'),
        of_volumes=of_volumes,
    )
    names = ['per_image.csv', 'masks.npz', 'report.html', 'metrics.json'] + ['per_volume.csv'] * bool(of_volumes)
    with files.whole_files(*(folder / name for name in names)) as (per_image, masks, html, summary, *more):
        for per_volume in more:
            per_volume.write(of_volumes.table().encode())
        per_image.write(per_image_table(scores, cases).encode())
        _pack(masks, cases, samples, num_classes, scores.draws)
        html.writelines(piece.encode() for piece in page)
        summary.write(json.dumps(without_nan(result), indent=2, allow_nan=False).encode())


def per_image_table(scores: Scores, cases: Cases) -> str:
    """The text of per_image.csv."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(['case', 'patient', *scores.per_image])
    for row, (case, patient) in enumerate(zip(cases.names, cases.patients, strict=True)):
        cells = (float(values[row]) for values in scores.per_image.values())
        writer.writerow([case, patient, *(f'{value:.6f}' if math.isfinite(value) else '' for value in cells)])
    return text.getvalue()


def format_table(table: Mapping[str, tuple[Means, Means]]) -> str:
    """The rows as text: mean +- standard error of every metric, in blocks of as many columns as a screen takes."""
    names = list(next(iter(table.values()))[0])
    blocks = []
    for first in range(0, len(names), 8):
        part = names[first : first + 8]
        lines = [' '.join([f'{"":18}', *(f'{name:>17}' for name in part)])]
        for row, (means, errors) in table.items():
            cells = (f'{means[n]:6.3f} +- {errors[n]:.3f}' if math.isfinite(means[n]) else '-' for n in part)
            lines.append(' '.join([f'{row:18}', *(f'{cell:>17}' for cell in cells)]))
        blocks.append('\n'.join(lines))
    return '\n\n'.join(blocks)


def tell(result: Mapping, found: Scores, notice: str, folder: pathlib.Path) -> None:
    """Prints what was found."""
    print(format_table(found.table))
    print(f'+- is one standard error, clustered by {result["stderr_clustered_by"]}; samples are {found.draws}')
    for key, reason in found.undefined.items():
        print(f'{key}: {reason}')
    for number, row in result.get('by_num_samples', {}).items():
        print(
            f'N = {number:4}: ' + ', '.join(f'{k} {v:.3f} +- {row["stderr"][k]:.3f}' for k, v in row['metrics'].items())
        )
    if whole := result.get('volumes'):
        means, errors = whole['metrics'], whole['stderr']
        told = ', '.join(f'{k} {v:.3f} +- {errors[k]:.3f}' for k, v in means.items() if math.isfinite(v))
        print(f'{whole["num_volumes"]} volumes: {told}')
    for label, means in result.get('per_class', {}).items():
        print(f'class {label}: ' + ', '.join(f'{name} {value:.3f}' for name, value in means.items()))
    if notice:
        print(notice.strip())
    print(f'{folder / "report.html"}')


def _pack(file: BinaryIO, cases: Cases, samples: np.ndarray, num_classes: int, draws: str) -> None:
    # Bits where a mask is yes or no; labels of several classes as they are.
    pack = lambda masks: np.packbits(masks, axis=-1) if num_classes == 1 else masks
    few = cases.images.size <= _MOST_PIXELS and cases.images.any()
    images = {'image': np.rint(cases.images.clip(0, 1) * 255).astype(np.uint8)} if few else {}
    np.savez_compressed(
        file,
        **images,
        samples=pack(samples),
        raters=pack(cases.raters),
        width=samples.shape[-1],
        present=cases.present,
        case=np.array(cases.names),
        patient=np.array(cases.patients),
        draws=draws,
    )


def without_nan(value):
    """The same tree with what is not finite as None: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
