"""The way of images from files to predictions; `ambdiff.prediction` names its steps.

Crops of many images are sampled together. What fails for one image, in whatever step, is that image's fault: the
others go on.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ambdiff.data import sources
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.prediction import follow
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.prediction.crops import Plan
from ambdiff.prediction.failure import Failure, guarded
from ambdiff.prediction.inputs import Input
from ambdiff.prediction.merge import Merge
from ambdiff.prediction.points import Millimetres, Point, in_pixels
from ambdiff.prediction.result import Result, Settings
from ambdiff.prediction.unfinished import Unfinished
from ambdiff.prediction.watch import Watch
from ambdiff.runtime import memory
from ambdiff.text import printable


@dataclasses.dataclass(frozen=True)
class Planned:
    """An image that was read and cut into crops.

    Attributes:
      item: where it came from.
      volume: its geometry; the values are not kept, those of the slices looked at are in the plan.
      plan: its crops.
      points: those looked at; () for tiles.
      raters: the raters' masks, `Input.raters`.
      settings: what its samples follow from, `settings_of`.
      unfinished: where its finished slices are kept until all are; None: nowhere.
    """

    item: Input
    volume: Volume
    plan: Plan
    points: Sequence[Point]
    raters: np.ndarray
    settings: Mapping
    unfinished: Unfinished | None = None


def settings_of(item: Input, model: CropSampler, settings: Settings, points: Sequence[Point]) -> dict:
    """What an image's samples follow from: with equal settings they are equal.

    Raises:
      OSError: its files cannot be read.
    """
    return {
        'input_sha256': item.sha256(),
        **({'raters_sha256': item.masks_sha256()} if item.masks else {}),
        **({'anonymised': True} if item.hidden else {}),
        'weights_sha256': model.weights['sha256'],
        **dataclasses.asdict(settings),
        **points_said(points),
    }


def points_said(points: Sequence[Point]) -> dict:
    """The points as the settings hold them."""
    in_mm = any(isinstance(point, Millimetres) for point in points)
    return {'at_mm' if in_mm else 'at': [list(point) for point in points]}


def plan(
    item: Input,
    volume: Volume,
    model: CropSampler,
    settings: Settings,
    points: Sequence[Point],
    follows_from: Mapping,
) -> Planned:
    """Cuts an image into crops.

    Args:
      item: where it came from.
      volume: what was read.
      model: the weights, which say what crops they take.
      settings: how many samples there will be.
      points: to look at; none for tiles.
      follows_from: `settings_of` it.

    Raises:
      UserError: a point lies outside, a rater's mask does not fit, or the samples would not fit the memory.
    """
    data = model.config.data
    points = [in_pixels(point, volume) for point in points]
    planned = Plan(volume, data, points, settings.slices, settings.everywhere)
    raters = item.raters(volume, data.num_classes)
    need = planned.memory(settings.num_samples, data.num_classes)
    if need > (room := memory.available()):
        shape = 'x'.join(map(str, planned.shape[1:]))
        raise UserError(
            f'{settings.num_samples} samples of {len(planned.images)} slices of {shape} pixels take about '
            f'{need / 2**30:.1f} GiB of memory, and {room / 2**30:.1f} GiB are free; take fewer samples, or look at '
            'points'
        )
    # Only its geometry is needed from here on: a broadcast zero takes no memory.
    volume = dataclasses.replace(volume, values=np.broadcast_to(np.uint8(0), volume.values.shape))
    return Planned(item, volume, planned, points, raters, follows_from)


def predictions(
    model: CropSampler, settings: Settings, images: Iterable[Planned | Failure | None], watch: Watch | None = None
) -> Iterator[Result | Failure]:
    """What the model's samples say of each image, in order; failures as they come.

    Args:
      model: the weights.
      settings: how the samples are made.
      images: as they come; None: the next may take long, so those before it are not to wait for it.
      watch: is told how far they are.
    """
    watch = watch or Watch()
    chunk = model.sampler(settings).chunk
    waiting: collections.deque[_UnderWay] = collections.deque()
    crops: list[tuple[_UnderWay, np.ndarray]] = []
    for image in images:
        if isinstance(image, Failure):
            watch.ended(image.item)
            yield image
            continue
        if image is None:
            _sample(model, settings, crops, watch)
            crops.clear()
            yield from _finished(waiting, model, settings, watch)
            continue
        way = _UnderWay(image, model, settings)
        waiting.append(way)
        watch.begun(image.item, len({image.plan.crops[number][0] for number in way.merge.left}), len(way.merge.left))
        for crop in way.crops(watch):
            crops.append((way, crop))
            if len(crops) == chunk:
                _sample(model, settings, crops, watch)
                crops.clear()
        yield from _finished(waiting, model, settings, watch)
    _sample(model, settings, crops, watch)
    yield from _finished(waiting, model, settings, watch)


class _UnderWay:
    """An image some of whose crops are sampled, until all are or it has failed."""

    def __init__(self, image: Planned, model: CropSampler, settings: Settings):
        self.image, self._model, self._settings = image, model, settings
        # The content decides, whatever its name and the images beside it.
        self.number = np.uint32(int(image.settings['input_sha256'][:8], 16))
        done = image.unfinished.read() if image.unfinished else {}
        self.merge = Merge(image.plan, settings.num_samples, model.config.data.num_classes, done)
        self.failure: Failure | None = None

    def crops(self, watch: Watch) -> Iterator[np.ndarray]:
        """The crops to sample, as long as it has not failed."""
        cut = self.image.plan.cut(self.merge.left)
        if self._settings.screen is not None and not self.image.points:
            yield from self._screened(cut, watch)
            return
        while not self.failure and (crop := self.do('cut', lambda: next(cut, None))) is not None:
            yield crop

    def _screened(self, cut: Iterator[np.ndarray], watch: Watch) -> Iterator[np.ndarray]:
        """Those in which the first, cheap pass shows something; the others are left empty."""
        screener, item = self._model.screener(), self.image.item
        left = self.merge.left
        for first in range(0, len(left), screener.chunk):
            numbers = left[first : first + screener.chunk]
            crops = self.do('cut', lambda numbers=numbers: list(itertools.islice(cut, len(numbers))))
            if not crops:
                return
            before = screener.seconds
            same, names = np.full(len(crops), self.number), [item.title] * len(crops)
            look = lambda crops=crops, same=same, names=names: self._model.screen(
                self._settings, np.stack(crops), same, names
            )
            if (shares := self.do('sampled', look)) is None:
                return
            empty = shares <= self._settings.screen
            watch.screened(item, len(crops), int(empty.sum()), screener.seconds - before)
            for number, crop, nothing in zip(numbers, crops, empty, strict=True):
                if nothing:
                    self.do('merged', lambda number=number: self.leave_empty(number))
                elif self.failure:
                    return
                else:
                    yield crop

    def add(self, masks: np.ndarray) -> None:
        """The masks of its next crop that is not left empty."""
        self.merge.add(masks)
        self._keep()

    def leave_empty(self, number: int) -> None:
        """All masks of a crop are empty."""
        self.merge.leave_empty(number)
        self._keep()

    def _keep(self) -> None:
        if self.image.unfinished and not self.merge.done:
            self.image.unfinished.keep(self.merge)

    def notes(self) -> list[str]:
        """What had to be guessed or changed, a phrase each."""
        notes = list(self.image.plan.notes)
        if left_empty := self.merge.left_empty:
            notes.append(
                f'{left_empty} of {len(self.image.plan.crops)} tiles were not sampled, since at most '
                f'{self._settings.screen:.0%} of the masks of a first pass marked anything there (--screen)'
            )
        return notes

    def do(self, what: str, step: Callable):
        """What a step gives; None where it fails, which is noted."""
        given = guarded(self.image.item, what, step)
        if isinstance(given, Failure):
            self.failure = given
            return None
        return given


def _sample(
    model: CropSampler, settings: Settings, crops: Sequence[tuple[_UnderWay, np.ndarray]], watch: Watch
) -> None:
    """Samples crops, of several images together, and hands the masks on to their merging."""
    crops = [(way, crop) for way, crop in crops if not way.failure]
    if not crops:
        return

    def step() -> np.ndarray:
        numbers = np.stack([way.number for way, _ in crops])
        names = [way.image.item.title for way, _ in crops]
        return model.sample_crops(settings, np.stack([crop for _, crop in crops]), numbers, names)

    ways = list(dict.fromkeys(way for way, _ in crops))
    before = model.sampler(settings).seconds
    masks = ways[0].do('sampled', step) if len(ways) == 1 else guarded(ways[0].image.item, 'sampled', step)
    if isinstance(masks, Failure):
        for way in ways:  # which of them it is shows when each is sampled alone
            _sample(model, settings, [(other, crop) for other, crop in crops if other is way], watch)
    elif masks is not None:
        seconds = (model.sampler(settings).seconds - before) / len(crops)
        for way, count in collections.Counter(way for way, _ in crops).items():
            watch.sampled(way.image.item, count, seconds * count)
        for (way, _), mask in zip(crops, masks, strict=True):
            if not way.failure:
                way.do('merged', lambda way=way, mask=mask: way.add(mask))


def _finished(
    waiting: collections.deque, model: CropSampler, settings: Settings, watch: Watch
) -> Iterator[Result | Failure]:
    """The images at the head of the queue whose crops are all in."""
    while waiting and (waiting[0].failure or waiting[0].merge.done):
        way = waiting.popleft()
        image = way.image
        watch.ended(image.item)
        kept = way.failure or way.do('merged', lambda way=way: follow.union(way.merge.samples, way.image.plan.regions))
        yield way.failure or Result(
            name=image.item.name,
            title=image.item.title,
            samples=kept,
            volume=image.volume,
            images=image.plan.images,
            window=image.plan.window,
            points=image.points,
            regions=image.plan.regions,
            raters=image.raters,
            rater_names=image.item.rater_names,
            notes=[*_of_weights(model), *(image.item.told(printable(note)) for note in way.notes())],
            drawn_with=settings,
            weights=model.weights,
            draws=model.sampler(settings).draws,
            evaluations=model.sampler(settings).evaluations,
            settings=image.settings,
        )


def _of_weights(model: CropSampler) -> list[str]:
    """What must be said wherever samples of these weights show."""
    notice = sources.notice(model.config.data).rstrip('.')
    return [f'the weights learned from simulated data ({notice}): samples of real images are a trial'] if notice else []
