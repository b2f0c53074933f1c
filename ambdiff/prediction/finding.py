"""What samples say of a finding: its distinct answers, and how large it is.

Sizes are those that radiologists report. On a slice: the area, and the longest diameter with the longest one at a right
angle to it (`ambdiff.modes.diameters`). Of what was looked at on several slices besides: the volume, which is the
number of voxels times a voxel's volume, and the number of slices. Quantiles of the area count samples that mark nothing
as 0, those of all else leave them out: how often that is stands beside them, as `empty_share`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from ambdiff import modes
from ambdiff.prediction import follow
from ambdiff.prediction.points import Point
from ambdiff.prediction.samples import Samples

_MARKED = 'samples that mark something; 0 where none does'


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """One distinct answer among the samples, in which parts that are too small to count are left out.

    Attributes:
      share: of the samples that give it.
      words: its size and, for all but the most frequent mask, how it lies to that.
      empty: whether it is "nothing there".
      area: of its most typical sample, in the unit of `Finding.area`.
      marked_volume: of that sample, in the unit of `Finding.marked_volume`; None on a single slice.
      sample: the number of that sample.
      samples: the numbers of all of them.
    """

    share: float
    words: str
    empty: bool
    area: float
    marked_volume: float | None
    sample: int
    samples: tuple[int, ...]
    _finding: 'Finding' = dataclasses.field(repr=False)

    @property
    def mask(self) -> np.ndarray:
        """The most typical sample: [H, W], or [D, H, W] of a volume; bool, uint8 labels of several classes."""
        return plain(self._finding.whole(self.sample), self._finding.samples.num_classes)

    def to_json(self) -> dict:
        """As summary.json holds it."""
        names = ('share', 'words', 'empty', 'area', 'sample')
        said = {name: getattr(self, name) for name in names}
        return {**said, 'volume': self.marked_volume, 'samples': list(self.samples)}


class Finding:
    """What samples say of the whole image, or of the surroundings of one point.

    Attributes:
      at: the point; None for the whole image.
      region: where was looked around it; None for the whole image.
      samples: the masks it is told by; around a point those of an image as large as the region.
      areas: [N], each sample's area on the slice where it marks most, in `unit`.
      unit: 'mm^2', or 'px' where the spacing is not known.
      volumes: [N], each sample's volume in `volume_unit`; None where a single slice was looked at.
      volume_unit: 'mm^3', or 'voxels' where the spacing is not known.
      length_unit: of diameters, 'mm', or 'px' where the spacing is not known.
      groups: the distinct answers as groups of samples.
    """

    def __init__(
        self,
        samples: Samples,
        spacing: tuple[float, float, float],
        body: bool,
        at: Point | None = None,
        region: follow.Region | None = None,
    ):
        """body: whether several slices were looked at, so that there are volumes."""
        self.at, self.region = at, region
        self._shape, self._spacing = samples.shape, spacing
        self.samples = follow.cut(samples, region) if region else samples
        pixels = self.samples.pixels()
        scale, self.unit = modes.pixel_area(spacing[1:])
        self.areas = pixels.max(1, initial=0) * scale
        voxel, self.volume_unit = modes.voxel_volume(spacing)
        self.volumes = pixels.sum(1) * voxel if body else None
        self.length_unit = 'mm' if modes.known(spacing[1:]) else 'px'
        self._on_slices = (pixels > 0).sum(1)
        self.groups = modes.find_in_parts(self.samples.on_slices())
        texts = modes.words(self.samples, self.groups, spacing if body else spacing[1:])
        of = lambda values, group: None if values is None else float(values[group.medoid])
        self._answers = tuple(
            Answer(g.share, text, g.empty, of(self.areas, g), of(self.volumes, g), g.medoid, g.members, self)
            for g, text in zip(self.groups, texts, strict=True)
        )

    @property
    def modes(self) -> tuple[Answer, ...]:
        """The distinct answers, the most frequent first."""
        return self._answers

    @property
    def empty_share(self) -> float:
        """The share of samples that mark nothing."""
        return float((self.areas == 0).mean())

    @property
    def area(self) -> dict[str, float]:
        """Quantiles and mean of `areas`, empty samples counted as 0."""
        return _quantiles(self.areas)

    @property
    def marked_volume(self) -> dict[str, float] | None:
        """Quantiles and mean of `volumes` over the samples that mark something; None on a single slice."""
        return None if self.volumes is None else _quantiles(self._marked(self.volumes))

    @functools.cached_property
    def diameters(self) -> np.ndarray:
        """[N, 2], the longest diameter of each sample on a slice and the longest at a right angle to it there."""
        return np.array([modes.diameters(mask, self._spacing[1:]) for mask in self._each()])

    @property
    def diameter(self) -> dict[str, float]:
        """Quantiles and mean of the longest diameters on a slice, over the samples that mark something."""
        return _quantiles(self._marked(self.diameters[:, 0]))

    @property
    def perpendicular(self) -> dict[str, float]:
        """Quantiles and mean of the longest diameters at a right angle to those, on the same slices."""
        return _quantiles(self._marked(self.diameters[:, 1]))

    @property
    def marked_slices(self) -> float:
        """The median number of slices that a sample marks, over the samples that mark something."""
        return float(np.median(self._marked(self._on_slices)))

    @property
    def headline(self) -> str:
        """'61%: 8 mm; 28%: nothing', of several slices 'volume 310 to 520 mm³ in 13 of 16 samples, 900 in 1'.

        A range is that of the samples that give one answer, from the smallest to the largest.
        """
        if self.volumes is None:
            return modes.sentence(self.groups, [answer.words for answer in self.modes])
        count, unit, texts = len(self.volumes), self.volume_unit.replace('^3', '³'), []
        for group in sorted(self.groups, key=lambda group: group.empty):
            size = 'nothing' if group.empty else _span(self.volumes[list(group.members)])
            if not texts:
                size = size if group.empty else f'volume {size} {unit}'
                texts.append(f'{size} in {len(group.members)} of {count} samples')
            else:
                texts.append(f'{size} in {len(group.members)}')
        return ', '.join(texts)

    @property
    def sizes(self) -> str:
        """'longest diameter 8 to 11 mm, across it 6 to 8 mm, on 3 to 5 slices'; '' where nothing is marked."""
        if not self._on_slices.any():
            return ''
        longest, across = (_span(self._marked(values)) for values in self.diameters.T)
        text = f'longest diameter {longest} {self.length_unit}, across it {across} {self.length_unit}'
        return text if self.volumes is None else f'{text}, on {_span(self._marked(self._on_slices))} slices'

    def whole(self, number: int) -> np.ndarray:
        """One sample in the whole image, [Z, H, W] uint8."""
        if self.region is None:
            return self.samples.whole(number)
        mask = np.zeros(self._shape[1:], np.uint8)
        top, left, bottom, right = self.region.box
        mask[self.region.first : self.region.last, top:bottom, left:right] = self.samples.whole(number)
        return mask

    def to_json(self) -> dict:
        """As summary.json holds it; `volume` is null where a single slice was looked at."""
        area = {'unit': self.unit, 'of': 'the slice where a sample marks most; empty samples count as 0', **self.area}
        length = {'unit': self.length_unit, 'of': f'{_MARKED}, on the slice where it is longest'}
        volume = self.marked_volume and {'unit': self.volume_unit, 'of': _MARKED, **self.marked_volume}
        return {
            'empty_share': self.empty_share,
            'headline': self.headline,
            'area': area,
            'volume': volume,
            'diameter': {**length, **self.diameter},
            'perpendicular': {**length, **self.perpendicular},
            'slices': self.marked_slices,
            'modes': [answer.to_json() for answer in self.modes],
        }

    def _each(self):
        return (self.samples[number] for number in range(len(self.samples)))

    def _marked(self, values: np.ndarray) -> np.ndarray:
        """Of values [N] those of samples that mark something; [0] where none does."""
        there = values[self.areas > 0]
        return there if len(there) else np.zeros(1)


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {**modes.quantiles(values), 'mean': float(values.mean())}


def _span(values: Sequence[float]) -> str:
    """'310 to 520', or '310' where the ends read alike."""
    ends = dict.fromkeys(modes.figure(float(end)) for end in (np.min(values), np.max(values)))
    return ' to '.join(ends)


def plain(array: np.ndarray, num_classes: int = 0, axis: int = 0) -> np.ndarray:
    """Without the axis of slices where there is one slice; masks of one class as bool; read-only."""
    array = array[(slice(None),) * axis + (0,)] if array.shape[axis] == 1 else array
    array = array.astype(bool) if num_classes == 1 else array
    array.flags.writeable = False
    return array
