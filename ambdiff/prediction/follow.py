"""From a point to the finding around it, through the slices on either side.

A point in a volume is looked at on its own slice and on those within `REACH` of it, or on as many as are asked for, by
the crop at the same row and column. Sample i has the same start, level and orientation on all of them, so that its
masks are the sections of one body. Of each sample that is kept which hangs together in space, across faces, edges and
corners of voxels, with what it marks on the point's own slice inside the point's crop:

  - what it marks elsewhere, such as a vessel two slices on that no mark leads to, is dropped;
  - a sample that marks nothing on the point's slice is the answer "nothing", whatever it marks on others.

A sample is followed as far as its marks go on, one slice left empty ends it. Where the regions around several points of
an image overlap, each point is told by its own body, and the masks that are written are their union. On a single slice
nothing is dropped.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are first used

from ambdiff.prediction.samples import Samples

REACH = 20.0  # mm to either side of a point's slice: a nodule is one up to 30 mm across, larger ones are masses
_BLIND = 8  # slices to either side where their distance is unknown
_TOUCHING = np.ones((3, 3, 3))


class Region(NamedTuple):
    """Where is looked around a point.

    Attributes:
      slice: that of the point.
      top: row where the crop begins.
      left: column where the crop begins.
      bottom: row where it has ended.
      right: column where it has ended.
      first: slice where the region begins.
      last: slice where it has ended.
    """

    slice: int
    top: int
    left: int
    bottom: int
    right: int
    first: int
    last: int

    @property
    def slices(self) -> range:
        """Those of the region."""
        return range(self.first, self.last)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right)."""
        return self[1:5]


def slices(at: int, count: int, wanted: int, distance: float) -> range:
    """The slices to look at around one of them.

    Args:
      at: the point's slice.
      count: of the volume.
      wanted: how many at most, the point's in their middle (of an even number one more lies above); 0: as `REACH` says.
      distance: of slices in mm; NaN where unknown.
    """
    each_way = _BLIND if not distance > 0 else int(REACH / distance + 1e-6)
    below, above = ((wanted - 1) // 2, wanted // 2) if wanted else (each_way, each_way)
    return range(max(at - below, 0), min(at + above + 1, count))


def cut(samples: Samples, region: Region) -> Samples:
    """The samples around a point by the rule of the module docstring, as those of an image of the region's size."""
    here = samples.cut(region.slices, region.box)
    if len(region.slices) > 1:
        for number in range(len(here)):
            mask = here[number]
            parts, _ = scipy.ndimage.label(mask, _TOUCHING)
            kept = np.unique(parts[region.slice - region.first])
            mask *= np.isin(parts, kept[kept > 0])
            for z in here.slices:
                here.put(z, number, mask[z])
    return here


def union(samples: Samples, regions: Sequence[Region]) -> Samples:
    """Samples of an image with nothing but what any of the points keeps; as they are where one slice is looked at."""
    if all(len(region.slices) == 1 for region in regions):
        return samples
    kept = Samples(len(samples), samples.shape[1:], samples.slices, samples.num_classes)
    for region in regions:
        here = cut(samples, region)
        top, left, bottom, right = region.box
        for z in region.slices:
            masks = kept.on_slice(z)
            inside = masks[:, top:bottom, left:right]
            np.maximum(inside, here.on_slice(z - region.first), out=inside)
            kept.put(z, slice(None), masks)
    return kept
