"""The files that fuzz_readers.py starts from: sound ones of each format, and odd ones that are made as such."""

import contextlib
import io
import itertools
import json
import pathlib
import pickle
import shutil
import sqlite3
import struct
import tempfile

import h5py
import nibabel
import numpy as np
import pydicom
from fuzz_damage import TEXTS, dump, odd_json, png_chunks, some_bytes
from PIL import Image

from ambdiff.config import default


def picture(kind, rng, **options):
    noise, file = rng.integers(0, 256, (24, 20, 3), np.uint8), io.BytesIO()
    shapes = {'1': noise[..., 0] > 128, 'L': noise[..., 0], 'I;16': noise[..., 0].astype(np.uint16) * 257, 'RGB': noise}
    image = Image.fromarray(shapes.get(kind, noise))
    image = image.convert(kind) if kind in ('P', 'LA', 'RGBA', 'CMYK', 'F') else image
    image.save(file, **options)
    return file.getvalue()


def dicom(packed):
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = pydicom.uid.CTImageStorage, '1.2.3'
    file = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    fields = {
        'SOPClassUID': pydicom.uid.CTImageStorage, 'SOPInstanceUID': '1.2.3', 'SeriesInstanceUID': '1.2',
        'Modality': 'CT', 'ImageType': ['ORIGINAL', 'PRIMARY'], 'ImagePositionPatient': [0, 0, 1],
        'ImageOrientationPatient': [1, 0, 0, 0, 1, 0], 'PixelSpacing': [0.7, 0.7], 'SliceThickness': 1,
        'RescaleSlope': 1, 'RescaleIntercept': -1024, 'PhotometricInterpretation': 'MONOCHROME2',
        'SamplesPerPixel': 1, 'PixelRepresentation': 0, 'BitsAllocated': 16, 'BitsStored': 12, 'HighBit': 11,
        'Rows': 20, 'Columns': 24, 'NumberOfFrames': 1, 'PixelPaddingValue': 0,
    }  # fmt: skip
    for name, value in fields.items():
        setattr(file, name, value)
    file.PixelData = (np.arange(480, dtype=np.uint16) * 8).tobytes()
    file['PixelData'].VR = 'OW'
    if packed:
        file.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def hdf5(rng):
    buffer = io.BytesIO()
    with h5py.File(buffer, 'w') as file:
        for number, group in enumerate(('train', 'val', 'test')):
            packed = {'chunks': (2, 12, 12), 'compression': 'gzip'} if rng.random() < 0.5 else {}
            file.create_dataset(f'{group}/images', data=rng.random((4, 12, 12), np.float32) - 0.5, **packed)
            file.create_dataset(f'{group}/labels', data=rng.integers(0, 2, (4, 12, 12, 4), np.uint8))
            file.create_dataset(f'{group}/uids', data=np.arange(4) + 10 * number)
        kinds = ('f2', 'f8', 'i1', 'u8', 'c8', 'S3', '?', 'S0', h5py.string_dtype(), h5py.vlen_dtype(np.int8))
        for _ in range(rng.integers(0, 3)):
            name = f'train/{rng.choice(["images", "labels", "uids"])}'
            if name in file:
                del file[name]
            shape = tuple(rng.choice([0, 1, 4, 12, 4096, 10**6], rng.integers(0, 5)).tolist())
            try:
                file.create_dataset(name, shape, kinds[rng.integers(len(kinds))], chunks=True if shape else None)
            except (ValueError, TypeError, OSError):
                file.create_group(name) if name not in file else None
    return buffer.getvalue()


def knegt(rng):
    content = {
        f'case{n}': {
            'image': rng.random((8, 8)), 'masks': [rng.integers(0, 2, (8, 8)) for _ in range(4)],
            'series_uid': f'1.2.{n}', 'pixel_spacing': 0.7,
        }
        for n in range(12)
    }  # fmt: skip
    return pickle.dumps(content, int(rng.integers(2, 6)))


def csv(rng):
    cells = (
        'case0',
        'case1',
        'p',
        '1',
        '2.5',
        '1,5',
        '"',
        '"a"',
        '',
        ' ',
        ';',
        '\0',
        'train',
        'val',
        *TEXTS[2:9],
    )
    line = lambda: str(rng.choice([',', ';', '\t'])).join(str(rng.choice(cells)) for _ in range(rng.integers(0, 6)))
    head = str(rng.choice(['case,patient,split', 'x,y', 'X;Y;file', 'sep=;\nx;y', '\ufeffx\ty\tz', '']))
    text = str(rng.choice(['\n', '\r\n', '\r'])).join([head, *(line() for _ in range(rng.integers(0, 8)))])
    return text.encode(str(rng.choice(['utf-8', 'utf-16', 'latin-1'])), 'replace')


def pattern(rng):
    """The text of a pattern with pieces taken out, doubled or put in."""
    text = 'image={case}/(a|b)/{name}[_x].png:{case}.h5#t1,mask={case}/{structure}_*_{rater}.png,classes=a:b+c,drop=*'
    pieces = ('{case}', '{', '}', '[', ']', '(', ')', '|', '*', '#', ':', ',', '=', '..', '/', '\\', '?', '+', 'é')
    for _ in range(rng.integers(0, 5)):
        place, length = int(rng.integers(len(text))), int(rng.integers(0, 12))
        text = text[:place] + str(rng.choice(pieces)) * int(rng.integers(0, 9)) + text[place + length :]
    return text.encode()


def safetensors(rng):
    header = {
        '__metadata__': {'format': 'ambdiff', 'config': default().to_json(), 'step': '3'},
        'unet/a': {'dtype': 'F32', 'shape': [2, 2], 'data_offsets': [0, 16]},
    }  # fmt: skip
    if rng.random() < 0.5:
        saved = json.loads(header['__metadata__']['config'])
        header['__metadata__']['config'] = dump(odd_json(saved, rng)).decode()
    else:
        header = odd_json(header, rng)
    content = dump(header)
    return struct.pack('<Q', len(content)) + content + np.ones(4, np.float32).tobytes()


_XML = (
    '<LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader><SeriesInstanceUid>1.2.3</SeriesInstanceUid>'
    '</ResponseHeader><readingSession><unblindedReadNodule><noduleID>1</noduleID><characteristics><subtlety>3</subtlety>'
    '<texture>5</texture></characteristics><roi><imageZposition>-10.5</imageZposition><inclusion>TRUE</inclusion>'
    '<edgeMap><xCoord>10</xCoord><yCoord>11</yCoord></edgeMap><edgeMap><xCoord>20</xCoord><yCoord>30</yCoord></edgeMap>'
    '<edgeMap><xCoord>12</xCoord><yCoord>30</yCoord></edgeMap></roi></unblindedReadNodule></readingSession></LidcReadMessage>'
)


def odd_xml(rng):
    text = _XML
    for _ in range(rng.integers(1, 4)):
        kind = rng.random()
        if kind < 0.6:
            old = str(rng.choice(['3', '-10.5', 'TRUE', '10', '30', '1.2.3', 'roi', 'http', '<edgeMap>', 'xmlns']))
            text = text.replace(old, str(rng.choice([*TEXTS, '99999999', '<a/>', '&amp;', '511', '16383'])), 1)
        elif kind < 0.8:
            cut = int(rng.integers(len(text)))
            text = text[:cut] + text[cut : cut + 200] * int(rng.integers(0, 4)) + text[cut + 200 :]
        else:
            text = f'<?xml version="1.0" encoding="{rng.choice(["x", "utf-16", "cp037"])}"?>{text}'
    return text.encode('utf-8', 'replace')


def sqlite(path, rng):
    path.unlink(missing_ok=True)
    base = sqlite3.connect(path)
    base.executescript(
        'CREATE TABLE scans (id, series_instance_uid, patient_id, slice_thickness, pixel_spacing);'
        'CREATE TABLE annotations (id INTEGER, scan_id, subtlety, texture, spiculation, calcification);'
        'CREATE TABLE contours (id INTEGER PRIMARY KEY, annotation_id, inclusion, image_z_position, coords);'
        'CREATE TABLE zvals (id INTEGER PRIMARY KEY, scan_id, val);'
    )
    base.execute("INSERT INTO scans VALUES (1, '1.2.3', 'patient', 1.0, 0.7)")
    base.executemany('INSERT INTO zvals (scan_id, val) VALUES (1, ?)', [(k,) for k in range(4)])
    base.executemany('INSERT INTO annotations VALUES (?, 1, 3, 3, 3, 3)', [(k,) for k in range(4)])
    rows = itertools.product(range(4), range(3))
    insert = 'INSERT INTO contours (annotation_id, inclusion, image_z_position, coords) VALUES (?, 1, ?, ?)'
    base.executemany(insert, [(a, z, '10,10\n10,30\n30,30\n30,10') for a, z in rows])
    odd = (
        None,
        b'\xff',
        -1,
        2**62,
        1e308,
        float('inf'),
        'x',
        '1,2',
        '5,5\n5',
        '1e9,0\n0,0',
        '-3,4\n600,4\n9,9',
        *TEXTS[:6],
    )
    for _ in range(rng.integers(1, 4)):
        columns = {
            'scans': 'id series_instance_uid patient_id slice_thickness pixel_spacing',
            'annotations': 'id scan_id subtlety calcification', 'zvals': 'scan_id val',
            'contours': 'annotation_id inclusion image_z_position coords',
        }  # fmt: skip
        name = str(rng.choice(list(columns)))
        column, value = str(rng.choice(columns[name].split())), odd[int(rng.integers(len(odd)))]
        value = value.encode('utf-8', 'replace').decode() if isinstance(value, str) else value
        odd_column = f'odd{rng.integers(10**9)}'
        with contextlib.suppress(sqlite3.OperationalError):  # the column has been renamed already
            if rng.random() < 0.9:
                base.execute(f'UPDATE {name} SET {column} = ? WHERE rowid % 3 = 1', (value,))
            else:
                base.execute(f'ALTER TABLE {name} RENAME COLUMN {column} TO {odd_column}')
    base.commit()
    base.close()
    if rng.random() < 0.4:
        path.write_bytes(some_bytes(path.read_bytes(), rng))


def tree(folder, rng, layout):
    """A folder of cases of which some files are damaged, renamed, linked, or of another kind."""
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(3):
        for name in ('image', 'a', 'b'):
            if layout == 'hpunet':
                split = ('train', 'val', 'test')[number]
                part = (
                    f'images/p{number}/z-1_c0.png' if name == 'image' else f'gt/p{number}/z-1_c0_l{name == "b":d}.png'
                )
                path = folder / split / part
            else:
                path = folder / f'case{number}' / ('image.png' if name == 'image' else f'mask_{name}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), 255 if name != 'image' else 99, np.uint8)).save(path)
    every = sorted(path for path in folder.rglob('*'))
    if layout == 'cases' and rng.random() < 0.4:
        (folder / 'patients.csv').write_bytes(csv(rng))
    for path in (every[k] for k in rng.integers(0, len(every), rng.integers(1, 4))):
        kind = rng.random()
        other = every[int(rng.integers(len(every)))]
        names = ('image.png', 'mask_a.png', 'mask2.png', 'Thumbs.db', 'image', 'x\ny', 'image.nii.gz', 'mask_c.tif')
        if not path.exists():
            continue
        if kind < 0.3 and path.is_file():
            maker = (png_chunks, some_bytes)[int(rng.integers(2))]
            path.write_bytes(maker(path.read_bytes(), rng))
        elif kind < 0.5:
            target = path.with_name(str(rng.choice(names)))
            path.rename(target) if not target.exists() else None
        elif kind < 0.6:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif kind < 0.8:
            link = path.parent / str(rng.choice(['image.png', 'mask_c.png', 'mask_d', 'other']))
            if not (link.exists() or link.is_symlink()):
                link.symlink_to(other)
        elif path.is_file():
            path.write_bytes(bytes(rng.choice([b'', b'II*\0', b'\x1f\x8b', b'{}', bytes(132) + b'DICM'])))
    return folder


def pngs(rng):
    modes = ('1', 'L', 'I;16', 'RGB', 'RGBA', 'LA', 'P')
    return [*(picture(mode, rng, format='PNG') for mode in modes), picture('P', rng, format='PNG', transparency=1)]


def tiffs(rng):
    pages = [Image.fromarray(rng.integers(0, 256, (24, 20), np.uint8)) for _ in range(3)]
    found = [
        picture(mode, rng, format='TIFF', compression=packing)
        for mode, packing in itertools.product(('1', 'L', 'I;16', 'RGB', 'RGBA', 'P', 'F', 'CMYK'), (None, 'tiff_lzw'))
    ]
    found.append(picture('L', rng, format='TIFF', save_all=True, append_images=pages))
    return [*found, picture('RGB', rng, format='TIFF', compression='jpeg')]


def niftis(rng):
    values = rng.integers(-1000, 1000, (7, 6, 5), np.int16)
    image = nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 2.0, 1.0]))
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name in ('a.nii', 'a.nii.gz'):
            nibabel.save(image, pathlib.Path(folder) / name)
            found.append((pathlib.Path(folder) / name).read_bytes())
    return found


def sqlite_file(folder, rng):
    sqlite(folder / 'a.sqlite', rng)
    return folder / 'a.sqlite'


def json_folder(folder, rng):
    config = json.loads(default().to_json())
    (folder / 'ema').mkdir(exist_ok=True)
    (folder / 'ema' / 'd').write_bytes(b'x')
    content = odd_json(config if rng.random() < 0.5 else {'ema/d': [1, 2363233923]}, rng)
    data = dump(content) if rng.random() < 0.8 else some_bytes(dump(content), rng)
    for name in ('manifest.json', 'summary.json'):
        (folder / name).write_bytes(data)
    return folder / 'manifest.json'
