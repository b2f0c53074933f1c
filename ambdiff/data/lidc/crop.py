"""Crops of CT slices around nodules: HU and the masks of four readers on the same grid.

The window is centred on the middle of the box of all outlines in the slice, moved as little as keeps it inside
the slice; a slice smaller than the window is continued by its edge. Resampled, pixel (size // 2, size // 2) lies on the
middle, HU are interpolated linearly between pixel centres, and a mask has the value of the nearest pixel's.

Outlines are pixel indices of the slice as stored, so rows and columns stay as stored whatever ImageOrientationPatient
says; a slice is told by the z of ImagePositionPatient alone, as in pylidc. Slices beside it are cut at the same place,
in the order in which prediction reads a series: along the normal of its slices.
"""

import numpy as np
from scipy.ndimage import map_coordinates

from ambdiff.data.files import dicom, dicom_file, neighbours
from ambdiff.data.lidc import outlines, tree
from ambdiff.errors import UserError


def crop(hu: np.ndarray, given: list[outlines.Outline], size: int, scale: float = 1.0):
    """The crop around the outlines in a slice.

    Args:
      hu: the slice, [H, W], or with others of its size beside it, [H, W, K].
      given: its outlines.
      size: pixels a side of the result.
      scale: pixels of the slice a pixel of the result; 1 crops without resampling.

    Returns:
      HU float32 [size, size] or [size, size, K]; masks uint8 [4, size, size]; float32 [2], the row and column of the
      slice where the centre of the result's first pixel lies.
    """
    low = np.min([o.points.min(0) for o in given], axis=0)
    high = np.max([o.points.max(0) for o in given], axis=0)
    half = size // 2
    first, last = half * scale, np.array(hu.shape[:2]) - 1 - (size - 1 - half) * scale
    middle = (low + high) // 2
    middle = np.where(first <= last, np.clip(middle, first, np.maximum(first, last)), middle)
    corner = middle - half * scale
    rows, columns = (start + scale * np.arange(size) for start in corner)
    if scale == 1:
        corner = corner.astype(int)
        rows, columns = (np.clip(x.astype(int), 0, n - 1) for x, n in zip((rows, columns), hu.shape[:2], strict=True))
        return hu[np.ix_(rows, columns)].astype(np.float32), outlines.rasterise(given, corner, size), np.float32(corner)
    grid = np.meshgrid(rows, columns, indexing='ij')
    layers = np.moveaxis(hu.astype(np.float32).reshape(*hu.shape[:2], -1), -1, 0)
    image = np.stack([map_coordinates(layer, grid, order=1, mode='nearest') for layer in layers], -1)
    image = image.reshape(size, size, *hu.shape[2:])
    nearest = [np.rint(x).astype(int) for x in (rows, columns)]
    start = np.array([x[0] for x in nearest])
    masks = outlines.rasterise(given, start, int(max(x[-1] - x[0] for x in nearest)) + 1)
    return image, masks[:, nearest[0][:, None] - start[0], nearest[1][None] - start[1]], np.float32(corner)


def crop_series(
    nodules: list[outlines.Nodule], files: list[tree.File], size: int, spacing: float, each_side: int = 0
) -> dict[str, np.ndarray]:
    """The crops of one series; one slice is decoded at a time, with those beside it.

    Args:
      nodules: of the series.
      files: its slices by ascending z.
      size: pixels a side of a crop.
      spacing: mm a pixel that slices are resampled to; 0 = native pixels.
      each_side: k, the slices on either side that are cut too (`neighbours`).

    Returns:
      case text [n]; image float32 [n, size, size], with k > 0 [n, size, size, 2 k + 1], in HU; masks uint8
      [n, 4, size, size / 8] of packed bits; z float32 [n] in mm; spacing float32 [n, 2]; corner float32 [n, 2].

    Raises:
      UserError: a slice with outlines or one beside it is missing or cannot be read, or slices differ in size or
        spacing.
    """
    z = np.array([f.z for f in files])
    within = 0.5 * tree.spacing_between(files)
    outlined = {}
    for nodule in nodules:
        for k, found in nodule.slices.items():
            place = int(np.abs(z - nodule.heights[k]).argmin())
            if not abs(z[place] - nodule.heights[k]) < within:
                raise UserError(
                    f'{files[0].path.parent}: no slice at z = {nodule.heights[k]:g} mm, where {nodule.name} is '
                    'outlined; the series is not complete, download it again'
                )
            outlined.setdefault(place, []).append((f'{nodule.name}_z{k:03d}', nodule.heights[k], found))
    wanted = {near for place in outlined for near in neighbours.places(place, each_side, len(files))}
    headers, notes = dicom.sort_slices([files[place].path for place in sorted(wanted)], mend=True)
    header_of = {header.file: header for header in headers}
    rank = {header.file: number for number, header in enumerate(headers)}
    decoded, crops = {}, []
    for place in sorted(outlined):
        near = [files[other].path for other in neighbours.places(place, each_side, len(files))]
        for path in near:
            _check(path, header_of.get(path), path == files[place].path, notes)
        decoded = {path: decoded[path] if path in decoded else _hu(header_of[path]) for path in dict.fromkeys(near)}
        header, hu = header_of[files[place].path], decoded[files[place].path]
        if each_side:
            hu = np.stack([decoded[path] for path in sorted(near, key=rank.get)], -1)
        scale = spacing / header.spacing[0] if spacing else 1.0
        for case, height, found in outlined[place]:
            if max(o.points.max() for o in found) >= max(hu.shape[:2]):
                raise UserError(f'{header.file}: {case} is outlined outside of its {hu.shape[0]}x{hu.shape[1]} pixels')
            image, masks, corner = crop(hu, found, size, scale)
            # A contour of a few pixels has no interior: nobody marked anything here.
            if masks.any():
                crops.append(
                    (case, image, np.packbits(masks, axis=-1), height, np.multiply(header.spacing, scale), corner)
                )
    columns = list(zip(*crops, strict=True)) or [[]] * 6
    return {
        'case': np.array(columns[0], dtype=np.str_),
        'image': np.array(columns[1], np.float32).reshape(-1, size, size, *[2 * each_side + 1] * bool(each_side)),
        'masks': np.array(columns[2], np.uint8).reshape(-1, outlines.NUM_READERS, size, -(-size // 8)),
        'z': np.array(columns[3], np.float32),
        'spacing': np.array(columns[4], np.float32).reshape(-1, 2),
        'corner': np.array(columns[5], np.float32).reshape(-1, 2),
    }


def _check(path, header, outlined, notes):
    """Refuses a file that is no CT slice as those of the data set."""
    if header is None:
        what = 'outlined' if outlined else 'beside an outlined slice'
        raise UserError(f'{path}: {what}, but no slice of this series; {"; ".join(notes)}')
    if header.units != 'HU' or header.shape[2] != 1:
        raise UserError(f'{path}: not a CT slice with RescaleSlope and RescaleIntercept')
    if not np.isfinite(header.spacing).all() or abs(header.spacing[0] / header.spacing[1] - 1) > 1e-3:
        raise UserError(f'{path}: PixelSpacing {header.spacing}; slices of LIDC-IDRI have square pixels')


def _hu(header):
    """The values [H, W] of a slice."""
    return dicom_file.decode([header])[0][..., 0]
