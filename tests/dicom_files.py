"""DICOM files for the tests: slices and series as scanners write them, and as they should not be."""

import warnings
import zlib

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)


def write(path, stored, **elements):
    """A CT slice of stored values [H, W]; elements replace or, where None, remove what it has."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = elements.get('SOPClassUID', CTImageStorage)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    frames = {'NumberOfFrames': len(stored)} if stored.ndim == 3 and 'SamplesPerPixel' not in elements else {}
    rows, columns = stored.shape[1:] if frames else stored.shape[:2]
    settings = {
        'SOPClassUID': CTImageStorage,
        'SOPInstanceUID': meta.MediaStorageSOPInstanceUID,
        'SeriesInstanceUID': '1.2.3',
        'Modality': 'CT',
        'Rows': rows,
        'Columns': columns,
        'SamplesPerPixel': 1,
        'PhotometricInterpretation': 'MONOCHROME2',
        'BitsAllocated': 8 * stored.itemsize,
        'BitsStored': 8 * stored.itemsize,
        'HighBit': 8 * stored.itemsize - 1,
        'PixelRepresentation': int(np.issubdtype(stored.dtype, np.signedinteger)),
        'RescaleSlope': 1,
        'RescaleIntercept': -1024,
        'PixelSpacing': [0.7, 0.7],
        'ImageOrientationPatient': list(AXIAL),
        'ImagePositionPatient': [0, 0, 0],
    }
    for name, value in (settings | frames | elements).items():
        if value is not None:
            setattr(file, name, value)
    file.PixelData = stored.tobytes() + bytes(stored.nbytes % 2)
    file['PixelData'].VR = 'OW' if stored.itemsize == 2 else 'OB'
    file.save_as(path, enforce_file_format=True)
    return path


def series(folder, count=5, orientation=AXIAL, gap=2.5, shape=(4, 6), **elements):
    """Files named out of order; slice k holds 100 k + the pixel's number, at k * gap along the normal."""
    folder.mkdir(exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    pixels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    for k in range(count):
        write(
            folder / f'{(k * 3) % 7}_{k}.dcm',
            pixels + np.uint16(100 * k),
            **{
                'ImageOrientationPatient': list(orientation),
                'ImagePositionPatient': (np.array([-10, 20, 30]) + k * gap * normal).tolist(),
                **elements,
            },
        )
    return folder


def deflated_bomb(path, slice_, preamble=True):
    """A slice deflated as a whole, followed by zeros that a few kilobytes say."""
    header = pydicom.dcmread(slice_)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    start = 144 + int.from_bytes(whole[140:144], 'little')
    values = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(values + b'\xfc\xff\xfc\xffOB\0\0' + (1 << 26).to_bytes(4, 'little') + bytes(1 << 26))
    path.write_bytes(whole[0 if preamble else 132 : start] + body + packer.flush())


STORED = np.arange(24, dtype=np.uint16).reshape(4, 6)
HU = STORED - 1024.0


def odd(path, *, stored=STORED, base=None, **elements):
    """A slice with elements (VR, value) that pydicom would not write by itself."""
    header = pydicom.dcmread(write(path, stored, **(base or {})))
    for name, (vr, value) in elements.items():
        tag = pydicom.datadict.tag_for_keyword(name)
        if vr == 'DS':
            raw = pydicom.dataelem.RawDataElement(tag, 'DS', len(value), value.encode(), 0, False, True)
            header[tag] = raw
        else:
            header.add(pydicom.DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        header.save_as(path)
    return path


def values(read):
    return read.values[..., 0]
