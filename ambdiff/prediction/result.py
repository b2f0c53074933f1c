"""What a model's samples say of an image: the value that the command writes and that Python code works with."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import modes
from ambdiff.data.files.volume import Volume
from ambdiff.prediction.points import Point, text_of
from ambdiff.prediction.samples import Samples
from ambdiff.prediction.values import Window


@dataclasses.dataclass(frozen=True)
class Settings:
    """How samples are made and told apart.

    Attributes:
      num_samples: N of an image.
      num_steps: of the sampler, for methods that take steps.
      seed: of all that is random.
      smallest_part: pixels of the smallest connected part of a mask on a slice that counts for answers, areas and
        empty shares; 1: every part does. Masks and maps are as sampled in any case.
      everywhere: tiles of a CT that show nothing of the body are sampled as well.
      screen: tiles are left empty of which at most this share of the masks of a first, cheap pass marks anything; None:
        there is no such pass.
    """

    num_samples: int
    num_steps: int
    seed: int
    smallest_part: int
    everywhere: bool = False
    screen: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """One distinct answer among the samples, in which parts that are too small to count are left out.

    Attributes:
      share: of the samples that give it.
      words: its size and, for all but the most frequent mask, how it lies to that.
      empty: whether it is "nothing there".
      area: of its most typical sample, in the unit of `Finding.area`.
      sample: the number of that sample.
      samples: the numbers of all of them.
    """

    share: float
    words: str
    empty: bool
    area: float
    sample: int
    samples: tuple[int, ...]
    _all: Samples = dataclasses.field(repr=False)

    @property
    def mask(self) -> np.ndarray:
        """The most typical sample: [H, W], or [D, H, W] of a volume; bool, uint8 labels of several classes."""
        return _plain(self._all.whole(self.sample), self._all.num_classes)

    def to_json(self) -> dict:
        """As summary.json holds it."""
        names = ('share', 'words', 'empty', 'area', 'sample')
        return {**{name: getattr(self, name) for name in names}, 'samples': list(self.samples)}


class Finding:
    """What samples say of the whole image, or of the crop around one point.

    Attributes:
      at: the point; None for the whole image.
      box: (slice, top, left, bottom, right) of its crop; None for the whole image.
      areas: [N], each sample's area on the slice where it marks most, in `unit`.
      unit: 'mm^2', or 'px' where the spacing is not known.
      groups: the distinct answers as groups of samples.
    """

    def __init__(
        self, samples: Samples, spacing: tuple[float, float], at: Point | None = None, box: tuple | None = None
    ):
        self.at, self.box = at, box
        here = samples.cut(box[0], box[1:]) if box else samples
        scale, self.unit = modes.pixel_area(spacing)
        self.areas = here.pixels().max(1, initial=0) * scale
        self.groups = modes.find_in_parts(here.on_slices())
        texts = modes.words(here, self.groups, spacing)
        self._answers = tuple(
            Answer(g.share, text, g.empty, float(self.areas[g.medoid]), g.medoid, g.members, samples)
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
        return {**modes.area_quantiles(self.areas), 'mean': float(self.areas.mean())}

    @property
    def headline(self) -> str:
        """'61%: 8 mm; 28%: nothing; 11%: 14 mm, elsewhere'."""
        return modes.sentence(self.groups, [answer.words for answer in self.modes])

    def to_json(self) -> dict:
        """As summary.json holds it."""
        area = {'unit': self.unit, 'of': 'the slice where a sample marks most; empty samples count as 0', **self.area}
        answers = [answer.to_json() for answer in self.modes]
        return {'empty_share': self.empty_share, 'area': area, 'modes': answers}


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """The samples of one image, and what they say; arrays are read-only.

    Attributes:
      name: the folder of the result below the output.
      title: where the image came from, as it may be shown.
      samples: the N masks, as bits.
      volume: the geometry of the image; its values are not kept.
      images: {slice: [H, W, C] float32 in [0, 1]} of the slices looked at.
      window: what 0 and 1 of `images` stand for, and the unit.
      points: those looked at; () where tiles covered all.
      boxes: (slice, top, left, bottom, right) of the crop around each point.
      raters: their masks, [M, Z, H, W] with the bits of a row packed; M may be 0.
      rater_names: the file of each.
      notes: what had to be guessed or changed, a phrase each.
      drawn_with: how, `Settings`.
      weights: {'name', 'step', 'sha256'} of the weights.
      draws: 'independent', or 'dependent' where the samples depend on each other.
      evaluations: of the network, a mask.
      settings: what the result follows from; one with equal settings need not be made again.
    """

    name: str
    title: str
    samples: Samples
    volume: Volume
    images: Mapping[int, np.ndarray]
    window: Window
    points: Sequence[Point]
    boxes: Sequence[tuple[int, int, int, int, int]]
    raters: np.ndarray
    rater_names: Sequence[str]
    notes: Sequence[str]
    drawn_with: Settings
    weights: Mapping
    draws: str
    evaluations: float
    settings: Mapping

    @property
    def masks(self) -> np.ndarray:
        """All samples: [N, H, W], or [N, D, H, W] of a volume; bool, uint8 labels of several classes.

        A byte a pixel: of many samples of a large volume rather ask `samples` for one mask or one slice.
        """
        masks = np.stack([self.samples.whole(number) for number in range(len(self.samples))])
        return _plain(masks, self.samples.num_classes, axis=1)

    @functools.cached_property
    def probability(self) -> np.ndarray:
        """Share of the samples that mark a pixel, float32 [H, W] or [D, H, W] in [0, 1]."""
        return _plain(self.map_of(modes.probability))

    @functools.cached_property
    def disagreement(self) -> np.ndarray:
        """Entropy in bits of a pixel's label over the samples, float32 [H, W] or [D, H, W], 0 where all agree."""
        return _plain(self.map_of(modes.disagreement))

    def map_of(self, measure) -> np.ndarray:
        """A measure of the samples [N, H, W] of a slice -> [H, W], on all slices: float32 [Z, H, W]."""
        result = np.zeros(self.samples.shape[1:], np.float32)
        for z in self.samples.slices:
            result[z] = measure(self.samples.on_slice(z))
        return result

    @property
    def spacing(self) -> tuple[float, ...]:
        """(row, column), of a volume (slice, row, column) distance in mm; NaN where unknown."""
        return self.volume.spacing[1:] if self.samples.shape[1] == 1 else self.volume.spacing

    @property
    def affine(self) -> np.ndarray | None:
        """[4, 4], (slice, row, column, 1) -> (right, anterior, superior, 1) in mm; None where unknown."""
        return self.volume.affine

    @functools.cached_property
    def counted(self) -> Samples:
        """The samples without parts that are too small to count: what answers, areas and empty shares are of."""
        smallest = self.drawn_with.smallest_part
        if smallest == 1:
            return self.samples
        return self.samples.changed(lambda masks: modes.without_small_parts(masks, smallest))

    @functools.cached_property
    def whole(self) -> Finding:
        """What the samples say of the whole image; with one point that is what they say of it."""
        return Finding(self.counted, self.volume.spacing[1:])

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """One for each point; with one point or none, the whole image."""
        if len(self.points) < 2:
            return (self.whole,)
        spacing = self.volume.spacing[1:]
        return tuple(Finding(self.counted, spacing, at, box) for at, box in zip(self.points, self.boxes, strict=True))

    @property
    def modes(self) -> tuple[Answer, ...]:
        """The distinct answers, the most frequent first."""
        return self.whole.modes

    @property
    def empty_share(self) -> float:
        """The share of samples that mark nothing."""
        return self.whole.empty_share

    @property
    def area(self) -> dict[str, float]:
        """Quantiles ('p05' .. 'p95') and mean of the samples' areas, in mm^2, or pixels where spacing is unknown."""
        return self.whole.area

    def name_of(self, finding: Finding) -> str:
        """The title, with the point where there are several."""
        return self.title if finding.at is None else f'{self.title} at {text_of(finding.at)}'


def _plain(array: np.ndarray, num_classes: int = 0, axis: int = 0) -> np.ndarray:
    """Without the axis of slices where there is one slice; masks of one class as bool; read-only."""
    array = array[(slice(None),) * axis + (0,)] if array.shape[axis] == 1 else array
    array = array.astype(bool) if num_classes == 1 else array
    array.flags.writeable = False
    return array
