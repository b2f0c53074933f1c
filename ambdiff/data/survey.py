"""What a data set holds, gathered example by example: counts, sizes, agreement, and leaks between splits."""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from ambdiff.data.example import Example
from ambdiff.data.source import Findings


@dataclasses.dataclass
class Survey:
    """One split. `add` takes an example; `rows` tells what was found.

    Attributes:
      num_classes: foreground classes of the masks.
      count: examples.
      cases: of how many examples each case's name is.
      patients: examples of each patient, '' for unknown.
      raters: of how many examples each number of raters is.
      images: digest of each image that is not one flat value -> the names of its cases.
      sizes: height and width as trained on, of how many examples.
      findings: what reading met.
    """

    num_classes: int = 1
    count: int = 0
    cases: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    patients: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    raters: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    images: dict[bytes, list[str]] = dataclasses.field(default_factory=dict)
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    findings: Findings = dataclasses.field(default_factory=Findings)
    _spacing: list = dataclasses.field(default_factory=list)
    _areas: list = dataclasses.field(default_factory=list)
    _agreement: list = dataclasses.field(default_factory=list)
    _range: list = dataclasses.field(default_factory=list)
    _missing: int = 0

    def add(self, example: Example) -> None:
        """Counts one example."""
        image, masks = example['image'], example['masks'][example['present']]
        self.count += 1
        self.cases[example['case']] += 1
        self.patients[example['patient']] += 1
        self.raters[len(masks)] += 1
        self._missing += int(np.count_nonzero(~example['present']))
        self.sizes[image.shape] += 1
        self._spacing.append(example['spacing'])
        self._areas += np.count_nonzero(masks, axis=(1, 2)).tolist()
        if len(masks) > 1:
            self._agreement.append(pairwise_iou(masks, self.num_classes))
        low, high = float(image.min()), float(image.max())
        self._range.append((low, float(image.mean()), high))
        if low < high:  # blank pictures are alike without being the same
            self.images.setdefault(hashlib.sha256(image.tobytes()).digest(), []).append(example['case'])

    def rows(self) -> dict[str, str]:
        """{what: value} as text."""
        if not self.count:
            return {'cases': '0'}
        areas = np.array(self._areas)
        marked = areas[areas > 0]
        marked = f'{marked.min()} to {marked.max()}, median {np.median(marked):.0f}' if marked.size else '0'
        spacing = np.array(self._spacing)
        spacing = spacing[np.isfinite(spacing).all(1)]
        low, mean, high = np.array(self._range).T
        known = [patient for patient in self.patients if patient]
        unnamed = self.patients['']
        return {
            'cases': f'{self.count}',
            'patients': f'{len(known) or "unknown"}' + f' ({unnamed} cases without)' * bool(known and unnamed),
            'raters a case': _counts({str(n): count for n, count in sorted(self.raters.items())}),
            'masks missing': f'{self._missing} of {self._missing + len(areas)}',
            'size': _counts({_by(size): count for size, count in self.sizes.most_common()}),
            'size as stored': _counts({_by(size): count for size, count in self.findings.stored_sizes.most_common()})
            or 'unknown',
            'spacing, mm': _range(spacing) + f' ({len(spacing)} cases)' * (0 < len(spacing) < self.count),
            'empty masks': f'{np.mean(areas == 0):.1%}',
            'marked pixels a mask': marked,
            'IoU of two raters': f'{np.mean(self._agreement):.3f}' if self._agreement else 'one rater a case',
            'intensity': f'{low.min():.3f} to {high.max():.3f}, mean {mean.mean():.3f}',
        }

    def remarks(self) -> list[str]:
        """What is no fault but should be known."""
        found = [f'{note}: {count} cases' for note, count in self.findings.notes.items()]
        found += self.findings.unread
        if self.findings.dropped_slices:
            found.append(f'{self.findings.dropped_slices} slices that no rater marked are left out')
        twice = [names for names in self.images.values() if len(names) > 1]
        if twice:
            found.append(f'{len(twice)} images are there more than once (first: {" and ".join(twice[0][:2])})')
        if self.count and max(self.raters) == 1:
            found.append(
                'one rater a case: what raters disagree on can be learnt only from case to case, and evaluation has no '
                'ideal level (docs/train.md, "One rater an image")'
            )
        if not any(self._areas):
            found.append('no rater marked anything')
        return found

    def repeated_cases(self) -> list[str]:
        """The names that several cases share, a line each."""
        return [f"the case '{case}' is there {count} times" for case, count in self.cases.items() if count > 1]


def leaks(surveys: Mapping[str, Survey]) -> list[str]:
    """What two splits share, patients and images to the byte, a line each."""
    names, found = list(surveys), []
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            shared = sorted((set(surveys[one].patients) & set(surveys[other].patients)) - {''})
            if shared:
                found.append(f"{len(shared)} patients are in both {one} and {other} (first: '{shared[0]}')")
            same = [digest for digest in surveys[one].images if digest in surveys[other].images]
            if same:
                first = (surveys[one].images[same[0]][0], surveys[other].images[same[0]][0])
                found.append(f"{len(same)} images are in both {one} and {other} (first: '{first[0]}' and '{first[1]}')")
    return found


def pairwise_iou(masks: np.ndarray, num_classes: int = 1) -> float:
    """Mean IoU over pairs of masks [M, H, W], M > 1, and over foreground classes; two empty masks agree (1)."""
    values = []
    for label in range(1, num_classes + 1):
        flat = (masks == label).reshape(len(masks), -1).astype(np.float64)
        both = flat @ flat.T
        area = np.diagonal(both)
        union = area[:, None] + area[None, :] - both
        iou = np.divide(both, union, out=np.ones_like(both), where=union > 0)
        values.append(iou[np.triu_indices(len(masks), 1)].mean())
    return float(np.mean(values))


def _by(size):
    return 'x'.join(map(str, size[:2])) + (f', {size[2]} channel{"s" * (size[2] > 1)}' if len(size) > 2 else '')


def _counts(counts):
    """'4' where there is one kind, else '3 (12 cases), 4 (40 cases)', the first few."""
    if len(counts) < 2:
        return ''.join(counts)
    shown = ', '.join(f'{value} ({count})' for value, count in list(counts.items())[:4])
    return f'{shown} and {len(counts) - 4} more' if len(counts) > 4 else shown


def _range(spacing):
    if not len(spacing):
        return 'unknown'
    low, high = spacing.min(), spacing.max()
    return f'{low:.3g}' if high - low < 1e-4 else f'{low:.3g} to {high:.3g}'
