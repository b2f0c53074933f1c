"""The pictures of a finding on its page: one slice as `pages.case` shows it, several as one volume to turn through."""

import functools

import numpy as np

from ambdiff import modes
from ambdiff.pages import case, figures, volume
from ambdiff.pages.viewer import Frame
from ambdiff.prediction import follow, points
from ambdiff.prediction.finding import Finding
from ambdiff.prediction.result import Result


def pictures(name: str, prediction: Result, finding: Finding) -> tuple[str, str]:
    """(HTML of a finding's pictures, the address of a small one); name starts the ids of its elements."""
    looked = _Looked(prediction, finding)
    body = _volume(name, looked) if finding.volumes is not None else _slice(name, looked)
    return body, looked.thumbnail()


class _Looked:
    """The slices that were looked at for a finding, with what is marked on them."""

    def __init__(self, prediction: Result, finding: Finding):
        self.prediction, self.finding, region = prediction, finding, finding.region
        self.box = region.box if region else None
        self._first = region.first if region else 0
        # As sampled: parts that are too small to count are shown.
        self.samples = follow.cut(prediction.samples, region) if region else prediction.samples
        self.slices = [z for z in sorted(prediction.images) if region is None or z in region.slices]
        held = dict(zip(self.samples.slices, self.samples.pixels().T, strict=True))
        none = np.zeros(len(self.samples), np.int64)
        self.pixels = np.stack([held.get(z - self._first, none) for z in self.slices], 1)

    @property
    def best(self) -> int:
        """The slice on which the samples mark most; where they mark nothing that of the point, or the middle one."""
        if self.pixels.any():
            return self.slices[int(self.pixels.sum(0).argmax())]
        regions = [self.finding.region] if self.finding.region else self.prediction.regions
        return regions[0].slice if regions else self.slices[len(self.slices) // 2]

    def masks(self, z: int) -> np.ndarray:
        """Of all samples on a slice of the image, [N, H, W] bool."""
        return self._placed(self.samples.on_slice(z - self._first) > 0)

    def marked(self, z: int) -> np.ndarray:
        """Where any sample marks a slice, [H, W] bool."""
        return self._placed(self.samples.marked(z - self._first))

    def raters(self, z: int) -> np.ndarray:
        """Of all raters on a slice, [M, H, W] bool; around a point what lies inside its crop."""
        width = self.prediction.samples.shape[3]
        masks = np.unpackbits(self.prediction.raters[:, z], axis=-1, count=width).astype(bool)
        if self.box:
            top, left, bottom, right = self.box
            masks = self._placed(masks[:, top:bottom, left:right])
        return masks

    def at(self, z: int) -> str:
        """What a click into a slice says."""
        return f'--at={points.pattern(self.prediction.volume, z)}'

    def thumbnail(self) -> str:
        """The address of a small picture."""
        top, left, tall, wide = case.crop(self.marked(self.best))
        pixels = figures.pictures(self.prediction.images[self.best])[0][top : top + tall, left : left + wide]
        return figures.jpeg_uri(pixels, 64)

    def _placed(self, masks: np.ndarray) -> np.ndarray:
        """Masks [.., h, w] of the region in the whole slice."""
        if not self.box:
            return masks
        top, left, bottom, right = self.box
        whole = np.zeros((*masks.shape[:-2], *self.prediction.samples.shape[2:]), bool)
        whole[..., top:bottom, left:right] = masks
        return whole


def _slice(name: str, looked: _Looked) -> str:
    prediction, finding, z = looked.prediction, looked.finding, looked.best
    title = _title(looked, f'Slice {z} of 0 to {prediction.samples.shape[1] - 1}')
    picture = case.view(
        f'{name}-0',
        prediction.images[z],
        looked.raters(z),
        looked.masks(z),
        prediction.volume.spacing[1:],
        prediction.window,
        finding.groups,
        focus=looked.box,
        at=looked.at(z),
        words=[answer.words for answer in finding.modes],
    )
    return f'<section class="view">{title}{picture}</section>'


def _volume(name: str, looked: _Looked) -> str:
    prediction, finding = looked.prediction, looked.finding
    numbers = volume.shown(looked.pixels.sum(0))
    slices = [looked.slices[number] for number in numbers]
    union = functools.reduce(np.logical_or, (looked.marked(z) | looked.raters(z).any(0) for z in slices))
    spacing, box = prediction.volume.spacing, looked.box
    around = (*box[:2], box[2] - box[0], box[3] - box[1]) if box and not union.any() else case.crop(union)
    frame = Frame(*around, spacing[1:])

    def load(index: int) -> volume.Slice:
        z = slices[index]
        title = f'{z} of 0 to {prediction.samples.shape[1] - 1}'
        return volume.Slice(prediction.images[z], looked.raters(z), looked.masks(z), title, looked.at(z))

    area, unit = modes.pixel_area(spacing[1:])
    voxel, voxels = modes.voxel_volume(prediction.distances)
    of_raters = np.stack([looked.raters(z).sum((1, 2)) for z in looked.slices], 1)
    sizes = volume.Sizes(
        of_raters[:, numbers] * area,
        looked.pixels[:, numbers] * area,
        of_raters.sum(1) * voxel,
        finding.volumes,
        (unit.replace('^2', '²'), voxels.replace('^3', '³')),
    )
    texts = [answer.words for answer in finding.modes]
    unseen = int((looked.pixels.sum(0) > 0).sum() - (looked.pixels[:, numbers].sum(0) > 0).sum())
    scores = {} if unseen or not len(of_raters) else _agreement(looked, slices, frame)
    left_out = f'<p class="read">{unseen} more slices on which samples mark something are in the files alone.</p>'
    picture = volume.view(f'{name}-0', load, sizes, frame, prediction.window, finding.groups, texts, scores)
    return f'<section class="view">{_title(looked, "")}{picture}{left_out if unseen else ""}</section>'


def _agreement(looked: _Looked, slices: list[int], frame: Frame) -> dict[str, float]:
    """Scores of the volume inside of what is shown, which holds all that anybody marked."""
    inside = (slice(None), slice(frame.top, frame.top + frame.tall), slice(frame.left, frame.left + frame.wide))
    stacked = lambda masks: np.concatenate([masks(z)[inside] for z in slices], 1)
    return case.agreement(stacked(looked.raters), stacked(looked.masks))


def _title(looked: _Looked, of_slice: str) -> str:
    """A heading where there are several slices or a point."""
    parts = [of_slice] if of_slice and looked.prediction.samples.shape[1] > 1 else []
    if looked.box:
        top, left, bottom, right = looked.box
        parts.append(f'around column {(left + right) // 2}, row {(top + bottom) // 2}')
    text = ', '.join(parts)
    return f'<h4 class="slice">{text[:1].upper()}{text[1:]}</h4>' if text else ''
