"""What a model's samples say of an image: the value that the command writes and that Python code works with."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from ambdiff import modes
from ambdiff.data.files.volume import Volume
from ambdiff.prediction import follow
from ambdiff.prediction.finding import Answer, Finding, plain
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
      slices: how many to look at around a point of a volume, `follow.slices`; 0: as far as `follow.REACH` says.
      everywhere: tiles of a CT that show nothing of the body are sampled as well.
      screen: tiles are left empty of which at most this share of the masks of a first, cheap pass marks anything; None:
        there is no such pass.
    """

    num_samples: int
    num_steps: int
    seed: int
    smallest_part: int
    slices: int
    everywhere: bool = False
    screen: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """The samples of one image, and what they say; arrays are read-only.

    Attributes:
      name: the folder of the result below the output.
      title: where the image came from, as it may be shown.
      samples: the N masks, as bits; around points of a volume what hangs together with them (follow.py).
      volume: the geometry of the image; its values are not kept.
      images: {slice: [H, W, C] float32 in [0, 1]} of the slices looked at.
      window: what 0 and 1 of `images` stand for, and the unit.
      points: those looked at; () where tiles covered all.
      regions: where was looked around each point.
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
    regions: Sequence[follow.Region]
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
        return plain(masks, self.samples.num_classes, axis=1)

    @functools.cached_property
    def probability(self) -> np.ndarray:
        """Share of the samples that mark a pixel, float32 [H, W] or [D, H, W] in [0, 1]."""
        return plain(self.map_of(modes.probability))

    @functools.cached_property
    def disagreement(self) -> np.ndarray:
        """Entropy in bits of a pixel's label over the samples, float32 [H, W] or [D, H, W], 0 where all agree."""
        return plain(self.map_of(modes.disagreement))

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
        kept = self.samples.changed(lambda masks: modes.without_small_parts(masks, smallest))
        return follow.union(kept, self.regions) if self.regions else kept

    @functools.cached_property
    def whole(self) -> Finding:
        """What the samples say of the whole image; with one point that is what they say of it."""
        return Finding(self.counted, self.distances, self._body)

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """One for each point; with one point or none, the whole image."""
        if len(self.points) < 2:
            return (self.whole,)
        each = zip(self.points, self.regions, strict=True)
        return tuple(Finding(self.counted, self.distances, self._body, at, region) for at, region in each)

    @property
    def distances(self) -> tuple[float, float, float]:
        """The spacing, that of slices at a right angle to them: it is less where a gantry was tilted."""
        between, *within = self.volume.spacing
        if self.volume.affine is not None and np.isfinite(self.volume.spacing).all():
            between = abs(np.linalg.det(self.volume.affine[:3, :3])) / np.prod(within)
        return float(between), *within

    @property
    def _body(self) -> bool:
        """Whether several slices were looked at, tiled or around one point."""
        looked = [len(region.slices) for region in self.regions] or [self.samples.shape[1]]
        return max(looked) > 1

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

    @property
    def marked_volume(self) -> dict[str, float] | None:
        """Quantiles and mean of the samples' volumes in mm^3, or voxels; without empty ones; None on a single slice."""
        return self.whole.marked_volume

    @property
    def diameter(self) -> dict[str, float]:
        """Quantiles and mean of the samples' longest diameters on a slice in mm, or pixels; without empty ones."""
        return self.whole.diameter

    @property
    def perpendicular(self) -> dict[str, float]:
        """Quantiles and mean of the longest diameters at a right angle to those."""
        return self.whole.perpendicular

    @property
    def marked_slices(self) -> float:
        """The median number of slices that a sample marks, without empty ones."""
        return self.whole.marked_slices

    def name_of(self, finding: Finding) -> str:
        """The title, with the point where there are several."""
        return self.title if finding.at is None else f'{self.title} at {text_of(finding.at)}'
