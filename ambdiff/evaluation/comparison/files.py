"""What a comparison writes and prints."""

import csv
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import files, metrics
from ambdiff.evaluation.comparison import page, paired, runs
from ambdiff.evaluation.comparison.paired import Comparison
from ambdiff.evaluation.files import format_table


def compare(places: Sequence[pathlib.Path], folder: pathlib.Path) -> Comparison:
    """Compares runs and writes compare.html, compare.json and compare.csv into the folder, all of them or none.

    Args:
      places: workdirs, evaluation folders or outputs of `ambdiff score`, two at least.
      folder: is made where it is not there.

    Raises:
      UserError: no such run, no image in common, raters' masks that differ, or numbers of samples that cannot be made
        equal; one line that names the run and the cure.
    """
    found = paired.of(runs.opened(places))
    with files.whole_files(*(folder / f'compare.{kind}' for kind in ('html', 'csv', 'json'))) as (html, table, summary):
        html.writelines(piece.encode() for piece in page.page(found))
        table.write(_csv(found).encode())
        summary.write(json.dumps(_json(found, places), indent=2, allow_nan=False).encode())
    return found


def format_differences(found: Comparison) -> str:
    """The runs and their differences to the first, as text."""
    less = {f'{name} less {found.names[0]}': row for name, row in found.differences.items()}
    return format_table({**found.means, **less})


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
