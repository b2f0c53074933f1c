"""Crops of CT slices around nodules: HU and the masks of four readers on the same grid.

The window is centred on the middle of the box of all outlines in the slice, moved as little as keeps it inside
the slice; a slice smaller than the window is continued by its edge. Resampled, pixel (size // 2, size // 2) lies on the
middle, HU are interpolated linearly between pixel centres, and a mask has the value of the nearest pixel's.

Outlines are pixel indices of the slice as stored, so rows and columns stay as stored whatever ImageOrientationPatient
says; a slice is told by the z of ImagePositionPatient alone, as in pylidc.
"""

import numpy as np
from scipy.ndimage import map_coordinates

from ambdiff.data.files import dicom, dicom_file
from ambdiff.data.lidc import outlines, tree
from ambdiff.errors import UserError


def crop(hu: np.ndarray, given: list[outlines.Outline], size: int, scale: float = 1.0):
    """The crop around the outlines in a slice.

    Args:
      hu: the slice, [H, W].
      given: its outlines.
      size: pixels a side of the result.
      scale: pixels of the slice a pixel of the result; 1 crops without resampling.

    Returns:
      HU float32 [size, size]; masks uint8 [4, size, size]; float32 [2], the row and column of the slice where the
      centre of the result's first pixel lies.
    """
    low = np.min([o.points.min(0) for o in given], axis=0)
    high = np.max([o.points.max(0) for o in given], axis=0)
    half = size // 2
    first, last = half * scale, np.array(hu.shape) - 1 - (size - 1 - half) * scale
    middle = (low + high) // 2
    middle = np.where(first <= last, np.clip(middle, first, np.maximum(first, last)), middle)
    corner = middle - half * scale
    rows, columns = (start + scale * np.arange(size) for start in corner)
    if scale == 1:
        corner = corner.astype(int)
        rows, columns = (np.clip(x.astype(int), 0, n - 1) for x, n in zip((rows, columns), hu.shape, strict=True))
        return hu[np.ix_(rows, columns)].astype(np.float32), outlines.rasterise(given, corner, size), np.float32(corner)
    grid = np.meshgrid(rows, columns, indexing='ij')
    image = map_coordinates(hu.astype(np.float32), grid, order=1, mode='nearest')
    nearest = [np.rint(x).astype(int) for x in (rows, columns)]
    start = np.array([x[0] for x in nearest])
    masks = outlines.rasterise(given, start, int(max(x[-1] - x[0] for x in nearest)) + 1)
    return image, masks[:, nearest[0][:, None] - start[0], nearest[1][None] - start[1]], np.float32(corner)


def crop_series(
    nodules: list[outlines.Nodule], files: list[tree.File], size: int, spacing: float
) -> dict[str, np.ndarray]:
    """The crops of one series; one slice is decoded at a time.

    Args:
      nodules: of the series.
      files: its slices by ascending z.
      size: pixels a side of a crop.
      spacing: mm a pixel that slices are resampled to; 0 = native pixels.

    Returns:
      case text [n]; image float32 [n, size, size] in HU; masks uint8 [n, 4, size, size / 8] of packed bits; z float32
      [n] in mm; spacing float32 [n, 2]; corner float32 [n, 2].

    Raises:
      UserError: a slice with outlines is missing or cannot be read, or slices differ in size or spacing.
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
    headers, notes = dicom.sort_slices([files[place].path for place in sorted(outlined)], mend=True)
    header_of = {header.file: header for header in headers}
    crops = []
    for place in sorted(outlined):
        header = header_of.get(files[place].path)
        if header is None:
            raise UserError(f'{files[place].path}: outlined, but no slice of this series; {"; ".join(notes)}')
        if header.units != 'HU' or header.shape[2] != 1:
            raise UserError(f'{header.file}: not a CT slice with RescaleSlope and RescaleIntercept')
        if not np.isfinite(header.spacing).all() or abs(header.spacing[0] / header.spacing[1] - 1) > 1e-3:
            raise UserError(f'{header.file}: PixelSpacing {header.spacing}; slices of LIDC-IDRI have square pixels')
        hu = dicom_file.decode([header])[0][..., 0]
        scale = spacing / header.spacing[0] if spacing else 1.0
        for case, height, found in outlined[place]:
            if max(o.points.max() for o in found) >= max(hu.shape):
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
        'image': np.array(columns[1], np.float32).reshape(-1, size, size),
        'masks': np.array(columns[2], np.uint8).reshape(-1, outlines.NUM_READERS, size, -(-size // 8)),
        'z': np.array(columns[3], np.float32),
        'spacing': np.array(columns[4], np.float32).reshape(-1, 2),
        'corner': np.array(columns[5], np.float32).reshape(-1, 2),
    }
