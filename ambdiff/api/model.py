"""`ambdiff.load`, and the model that it gives: images in, predictions out."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from ambdiff import methods, packaged
from ambdiff.api import choices, images
from ambdiff.api.prediction import Prediction
from ambdiff.data.files import neighbours
from ambdiff.errors import UserError
from ambdiff.prediction import failure, flow, inputs, points
from ambdiff.prediction.crop_sampler import CropSampler
from ambdiff.prediction.inputs import Input
from ambdiff.prediction.result import Result, Settings
from ambdiff.text import printable

# True shows a bar; a function is told (how many are done, how many there are).
Progress = bool | Callable[[int, int], object] | None


def load(name_or_path: str | os.PathLike[str]) -> 'Model':
    """Weights, ready to sample masks.

    Args:
      name_or_path: a name of weights that come along ('lidc_small'), a .safetensors file, the folder of a run, or that
        of one of its steps.

    Raises:
      UserError: no such weights, or they are damaged or of another version; a ValueError of one sentence.

    >>> import ambdiff
    >>> ambdiff.load('lidc_smal')
    Traceback (most recent call last):
    ambdiff.errors.UserError: there are no weights 'lidc_smal' here: did you mean lidc_small?
    """
    return Model(packaged.weights(name_or_path))


class Model:
    """Weights with what they were trained for; `load` makes one.

    What is compiled is kept: for a number of samples, of steps and of crops it is compiled once.

    Attributes:
      name: of the weights.
      num_steps: that they are meant to be sampled with, where their method takes steps.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._inner = CropSampler(str(path))
        self.name: str = path.stem if path.suffix == '.safetensors' else path.name
        self.num_steps: int = self._inner.config.sample.num_steps

    def __repr__(self) -> str:
        config = self._inner.config
        data, size, channels = config.data, config.data.image_size, config.data.channels
        shape = '[H, W] or [H, W, 1]' if channels == 1 else f'[H, W, {channels}]'
        spacing = f'{data.spacing:g} mm a pixel' if data.spacing else 'of their own spacing'
        evaluations = methods.create(config).evaluations
        kinds = 'one class' if data.num_classes == 1 else f'labels of {data.num_classes} classes'
        return (
            f'<ambdiff.Model {self.name}: {config.method.name}, trained for {self._inner.weights["step"]} steps\n'
            f'  trained on: {self._trained_on()}\n'
            f'  input: {shape}, {images.stored(data)}, or 0 to 1 with scaled=True; any size, seen in crops of '
            f'{size}x{size} pixels {spacing}\n'
            f'  masks: {kinds}, {evaluations:g} network evaluations a mask at N = {config.sample.num_samples}>'
        )

    @overload
    def sample(
        self,
        image: ArrayLike,
        num_samples: int = 16,
        num_steps: int | None = None,
        seed: int = 0,
        at: choices.Points | None = None,
        scaled: bool = False,
        batched: Literal[False] = False,
        progress: Progress = None,
        spacing: float | Sequence[float] | None = None,
        smallest_part: int = 1,
    ) -> Prediction: ...

    @overload
    def sample(
        self,
        image: ArrayLike | Sequence[ArrayLike],
        num_samples: int = 16,
        num_steps: int | None = None,
        seed: int = 0,
        at: choices.Points | Sequence[choices.Points | None] | None = None,
        scaled: bool = False,
        *,
        batched: Literal[True],
        progress: Progress = None,
        spacing: float | Sequence[float] | None = None,
        smallest_part: int = 1,
    ) -> list[Prediction]: ...

    def sample(
        self,
        image,
        num_samples=16,
        num_steps=None,
        seed=0,
        at=None,
        scaled=False,
        batched=False,
        progress=None,
        spacing=None,
        smallest_part=1,
    ):
        """Samples N masks of an image, each of which one of the raters might have made.

        The masks follow from the image's values, the weights, the number of steps, N and the seed alone: not from the
        images beside it or the number of devices. A file with the same values gives other samples, for there its bytes
        count (`predict`).

        Args:
          image: [H, W] or [H, W, C] of any size, values as stored (`repr` of the model says which: HU for
            lidc_small). NumPy, JAX, a CPU tensor or nested lists.
          num_samples: N, 1 to 1000.
          num_steps: of methods that take steps, network evaluations a mask; None: what the weights are meant for.
          seed: 0 to 2^32 - 1.
          at: (x, y), the column and the row in pixels counted from 0 that a crop is cut around, or a list of several;
            pixels outside the crops are unmarked. None: overlapping tiles cover the image. With batched=True one (x, y)
            for all images, or an entry (a point, a list of points, None) for each.
          scaled: the values are in [0, 1], as the network takes them.
          batched: several images, [B, H, W] or [B, H, W, C] or a list of images of any sizes.
          progress: True shows a bar; a function is called with (crops done, crops in all).
          spacing: (row, column) distance of pixels in mm, or one number for both; None: unknown, areas are in pixels.
          smallest_part: connected parts of a mask of fewer pixels do not count for answers, areas and empty shares.

        Returns:
          The prediction, with batched=True a list of one for each image.

        Raises:
          UserError: what was given cannot be meant; a ValueError of one sentence with the cure.
        """
        settings = self._settings(num_samples, num_steps, seed, smallest_part, slices=1)
        distance = choices.spacing(spacing)
        if batched:
            given = _images(image)
            places = choices.points_of_each(at, len(given))
        else:
            given, places = [image], [choices.points(at)]
        names = [f'image[{row}]' if batched else 'image' for row in range(len(given))]
        planned = [
            self._planned(images.volume(one, name, self._inner.config.data, scaled, distance), name, settings, place)
            for one, name, place in zip(given, names, places, strict=True)
        ]
        watched = _Watched(self._inner, _shown(progress, 'crop'), sum(len(image.plan.crops) for image in planned))
        found = [_or_raise(result) for result in flow.predictions(watched, settings, planned)]
        return found if batched else found[0]

    def predict(
        self,
        path: str | os.PathLike[str],
        at: str | choices.Points | None = None,
        num_samples: int = 16,
        num_steps: int | None = None,
        seed: int = 0,
        progress: Progress = None,
        smallest_part: int = 1,
        slices: int | None = None,
        at_mm: str | choices.Points | None = None,
    ) -> Iterator[Prediction]:
        """Samples N masks of every image in a file or a folder, as the command `ambdiff predict`: the same masks.

        Args:
          path: a PNG, JPEG, TIFF, NIfTI or DICOM file, or a folder of them with all below it. Raters' masks that lie
            beside an image (docs/data/folder.md) are shown with it.
          at: as of `sample`, with slices (x, y, z), in NIfTI indices of the file; or as the command takes it, 'x,y;x,y'
            or a CSV file.
          num_samples: N, 1 to 1000.
          num_steps: as of `sample`.
          seed: 0 to 2^32 - 1.
          progress: True shows a bar; a function is called with (cases done, cases in all).
          smallest_part: as of `sample`.
          slices: of a volume to look at around a point, the point's in their middle; None: all within 20 mm of it, 8 on
            either side where their distance is unknown.
          at_mm: instead of `at`: (x, y, z) in mm of the file's world, LPS for DICOM and RAS for NIfTI, a list of
            several, or 'x,y,z;x,y,z'.

        Returns:
          One prediction after the other, so that a large folder never lies in memory. A case that cannot be predicted
          is a warning (`warnings.warn`) in one line, and the others go on.

        Raises:
          UserError: at once where an argument or the path cannot be meant; at the end where no case could be predicted.
        """
        settings = self._settings(num_samples, num_steps, seed, smallest_part, slices or 0)
        if not isinstance(path, str | os.PathLike):
            raise UserError(f'path is {type(path).__name__}: give a file or folder, and arrays to model.sample(ARRAY)')
        found = inputs.find([pathlib.Path(path)])
        sources = [item.source for item in found.inputs]
        if at is not None and at_mm is not None:
            raise UserError('at and at_mm say both where to look: give one of them')
        if isinstance(at, str) or isinstance(at_mm, str):
            chosen = points.parse(at or '', sources, at_mm or '')
        else:
            place = choices.points(at) if at_mm is None else choices.points_mm(at_mm)
            chosen = dict.fromkeys(sources, place)
        items = [item for item in found.inputs if item.source in chosen]
        return self._predictions(items, found.faults, chosen, settings, _shown(progress, 'case'))

    def _predictions(self, items, faults, chosen, settings: Settings, show) -> Iterator[Prediction]:
        failed = [f'{printable(source)}: {reason}' for source, reason in faults.items()]
        if not items:
            raise UserError(failed[-1])
        for reason in failed:
            warnings.warn(reason, stacklevel=2)
        planned = (
            failure.guarded(item, 'read', lambda item=item: self._read(item, chosen[item.source], settings))
            for item in items
        )
        done = 0
        for result in flow.predictions(self._inner, settings, planned):
            done += 1
            show(done, len(items))
            if not isinstance(result, failure.Failure):
                yield Prediction.of(result)
                continue
            failed.append(result.reason)
            if len(failed) < len(items) + len(faults):
                warnings.warn(result.reason, stacklevel=2)
            else:
                several = f'none of {len(failed)} cases could be predicted, the last since ' if len(failed) > 1 else ''
                raise UserError(f'{several}{result.reason}')

    def _read(self, item: Input, place, settings: Settings) -> flow.Planned:
        data = self._inner.config.data
        follows_from = flow.settings_of(item, self._inner, settings, place)
        return flow.plan(item, item.read(neighbours.own_channels(data)), self._inner, settings, place, follows_from)

    def _planned(self, image, name: str, settings: Settings, place) -> flow.Planned:
        follows_from = {
            'input_sha256': images.sha256(image),
            'weights_sha256': self._inner.weights['sha256'],
            **dataclasses.asdict(settings),
            **flow.points_said(place),
        }
        try:
            item = Input(name=name, source=name, files=())
            return flow.plan(item, image, self._inner, settings, place, follows_from)
        except UserError as error:
            raise UserError(f'{name}: {error}') from error

    def _settings(self, num_samples, num_steps, seed, smallest_part, slices) -> Settings:
        most = self._inner.config.diffusion.num_steps
        steps = self.num_steps if num_steps is None else num_steps
        settings = Settings(
            choices.whole(num_samples, 'num_samples', 1, choices.MOST_SAMPLES),
            choices.whole(steps, 'num_steps', 1, most, ', the steps of the weights'),
            choices.whole(seed, 'seed', 0, choices.MOST_SEED),
            choices.whole(smallest_part, 'smallest_part', 1, choices.MOST_PIXELS),
            choices.whole(slices, 'slices', 0, choices.MOST_SLICES),
        )
        self._inner.sampler(settings)  # told before anything is read if it cannot be
        return settings

    def _trained_on(self) -> str:
        """What the card beside the weights says first, else what their config names."""
        card = self._path.with_suffix('.md')
        if self._path.is_file() and card.is_file():
            lines = [line for line in card.read_text('utf-8').splitlines() if line.strip()]
            if said := next((line for line in lines if not line.startswith('#')), ''):
                return printable(said)
        data = self._inner.config.data
        return printable(data.builder or pathlib.PurePath(data.path).name) or 'not said in the weights'


class _Watched:
    """A model as the flow takes it that tells of the crops it has sampled."""

    def __init__(self, inner: CropSampler, show: Callable[[int, int], object], total: int):
        self._show, self._done, self._total = show, 0, total
        self.config, self.weights, self.sampler = inner.config, inner.weights, inner.sampler
        self._inner = inner

    def sample_crops(self, settings: Settings, crops: np.ndarray, numbers: np.ndarray, names: Sequence[str]):
        masks = self._inner.sample_crops(settings, crops, numbers, names)
        self._done += len(crops)
        self._show(self._done, self._total)
        return masks


def _images(given) -> list:
    """The images of an array [B, ..] or of a list."""
    if isinstance(given, str | bytes | os.PathLike):
        raise UserError('image is text: give arrays, and files to model.predict(PATH)')
    try:
        each = list(given)
    except TypeError as error:
        raise UserError(
            f'image is {type(given).__name__}: with batched=True give an array [B, H, W] or a list'
        ) from error
    if not each:
        raise UserError('image holds no image: with batched=True give one at least')
    return each


def _or_raise(result: Result | failure.Failure) -> Prediction:
    if isinstance(result, failure.Failure):
        raise UserError(result.reason)
    return Prediction.of(result)


def _shown(progress: Progress, unit: str) -> Callable[[int, int], object]:
    """What is called with (done, in all)."""
    if callable(progress):
        return progress
    if not progress:
        return lambda done, total: None
    import tqdm

    bar = tqdm.tqdm(unit=unit, desc='sampling')

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return show
