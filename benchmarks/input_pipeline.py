"""How fast examples are read, and whether memory stays flat: every layout and builder, from files made here.

  python benchmarks/input_pipeline.py [--cases=600] [--examples=6000] [--batch=32] [--layouts=lidc,hdf5]

Each layout is read in a process of its own, as training reads it: shuffled, batched, prefetched, 128x128 with four
masks, over several epochs. The files are made in a temporary folder; their images are noise: nothing compresses.

Seconds are of the wall. The processor's time an example (of all threads) is what other work on the machine does not
change: 1000 / it is what one idle core can do. Memory is the process's resident set, in MiB: after opening, after a
quarter of the examples, at the end. A layout whose speed is below TARGET, or whose memory still grows by more than
GROWTH MiB after the first quarter, is marked.
"""

import argparse
import multiprocessing
import os
import pathlib
import pickle
import sqlite3
import tempfile
import time

import h5py
import numpy as np
from PIL import Image

from ambdiff.config import default
from ambdiff.data import pipeline, sources
from ambdiff.data.shuffle import Shuffled

SIZE = 128
TARGET = 2000  # examples/s, on two cores
GROWTH = 30  # MiB


def discs(rng, cases, size):
    """Images uint8 [n, size, size] of noise and masks uint8 [n, 4, size, size] of discs, a third of them empty."""
    images = rng.integers(0, 256, (cases, size, size)).astype(np.uint8)
    rows, columns = np.mgrid[:size, :size] - size / 2
    radius = rng.uniform(4, 20, (cases, 4, 1, 1)) * (rng.random((cases, 4, 1, 1)) > 0.35)
    return images, (np.hypot(rows, columns) < radius).astype(np.uint8)


def write_hdf5(folder, cases, rng):
    images, masks = discs(rng, cases, SIZE)
    with h5py.File(folder / 'data_lidc.hdf5', 'w') as file:
        file['train/images'] = images / np.float32(255) - np.float32(0.5)
        file['train/labels'] = np.moveaxis(masks, 1, 3)
        file['train/uids'] = np.arange(cases)
    return {'path': folder / 'data_lidc.hdf5'}


def write_knegt(folder, cases, rng):
    images, masks = discs(rng, cases * 5 // 4, SIZE)
    content = {
        f'case{i}': {'image': image / 255.0, 'masks': list(mask), 'series_uid': f'1.2.{i}'}
        for i, (image, mask) in enumerate(zip(images, masks, strict=True))
    }
    (folder / 'data_lidc.pickle').write_bytes(pickle.dumps(content, 4))
    return {'path': folder / 'data_lidc.pickle'}


def write_hpunet(folder, cases, rng):
    images, masks = discs(rng, cases, 180)
    for i, (image, given) in enumerate(zip(images, masks, strict=True)):
        patient = f'LIDC-IDRI-{i // 10:04d}'
        for part in ('images', 'gt'):
            (folder / 'train' / part / patient).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f'train/images/{patient}/z-{i}.0_c0.png')
        for rater, mask in enumerate(given):
            Image.fromarray(mask * 255).save(folder / f'train/gt/{patient}/z-{i}.0_c0_l{rater}.png')
    return {'path': folder}


def write_cimd(folder, cases, rng):
    images, masks = discs(rng, cases, SIZE)
    for i, (image, given) in enumerate(zip(images, masks, strict=True)):
        case = folder / 'training' / str(i)
        case.mkdir(parents=True)
        Image.fromarray(image).save(case / f'image_{i}.jpg')
        for rater, mask in enumerate(given):
            Image.fromarray(mask * 255).save(case / f'label{rater}_.jpg')
    return {'path': folder}


def write_cases(folder, cases, rng):
    images, masks = discs(rng, cases, SIZE)
    for i, (image, given) in enumerate(zip(images, masks, strict=True)):
        case = folder / f'case{i}'
        case.mkdir()
        Image.fromarray(image).save(case / 'image.png')
        for rater, mask in enumerate(given):
            Image.fromarray(mask * 255).save(case / f'mask_{rater}.png')
    return {'path': folder, 'intensity': 'full_range'}


def write_lidc(folder, cases, rng):
    """Ten series of CT slices, with one nodule that goes through all of them, outlined by four readers."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    tables = (
        'CREATE TABLE scans (id, series_instance_uid, patient_id, slice_thickness, pixel_spacing);'
        'CREATE TABLE annotations (id INTEGER, scan_id, subtlety, texture, spiculation, calcification);'
        'CREATE TABLE contours (id INTEGER PRIMARY KEY, annotation_id, inclusion, image_z_position, coords);'
        'CREATE TABLE zvals (id INTEGER PRIMARY KEY, scan_id, val);'
    )
    base = sqlite3.connect(folder / 'outlines.sqlite')
    base.executescript(tables)
    box = '\n'.join(f'{x},{y}' for x, y in ((80, 80), (80, 120), (120, 120), (120, 80)))
    slices = cases // 8
    for series in range(10):
        base.execute('INSERT INTO scans VALUES (?, ?, ?, 1.0, 0.7)', (series, f'1.2.{series}', f'patient{series}'))
        base.executemany('INSERT INTO zvals (scan_id, val) VALUES (?, ?)', [(series, k) for k in range(slices)])
        for reader in range(4):
            annotation = 4 * series + reader
            base.execute('INSERT INTO annotations VALUES (?, ?, 3, 3, 3, 3)', (annotation, series))
            rows = [(annotation, k, box) for k in range(slices)]
            insert = 'INSERT INTO contours (annotation_id, inclusion, image_z_position, coords) VALUES (?, 1, ?, ?)'
            base.executemany(insert, rows)
        for k in range(slices):
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID = CTImageStorage
            meta.MediaStorageSOPInstanceUID = f'1.2.{series}.{k}'
            file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
            fields = {
                'SOPClassUID': CTImageStorage,
                'SOPInstanceUID': meta.MediaStorageSOPInstanceUID,
                'SeriesInstanceUID': f'1.2.{series}',
                'PatientID': f'patient{series}',
                'Modality': 'CT',
                'InstanceNumber': k,
                'ImagePositionPatient': [0, 0, k],
                'ImageOrientationPatient': [1, 0, 0, 0, 1, 0],
                'PixelSpacing': [0.7, 0.7],
                'SliceThickness': 1,
                'RescaleSlope': 1,
                'RescaleIntercept': -1024,
                'PhotometricInterpretation': 'MONOCHROME2',
                'SamplesPerPixel': 1,
                'PixelRepresentation': 1,
                'BitsAllocated': 16,
                'BitsStored': 16,
                'HighBit': 15,
                'Rows': 200,
                'Columns': 200,
            }
            for name, value in fields.items():
                setattr(file, name, value)
            file.PixelData = rng.integers(0, 1400, (200, 200)).astype(np.int16).tobytes()
            file['PixelData'].VR = 'OW'
            file.save_as(folder / f'{series}-{k}.dcm', enforce_file_format=True)
    base.commit()
    base.close()
    outlines = folder / 'outlines.sqlite'
    return {'builder': 'lidc', 'path': folder, 'build_dir': folder / 'built', 'outlines': outlines}


def write_lidc_simulated(folder, cases, rng):
    del cases, rng  # all of the data set that demo.py builds: minutes, once
    return {'builder': 'lidc_simulated', 'build_dir': folder}


LAYOUTS = {
    'hdf5': write_hdf5,
    'knegt': write_knegt,
    'hpunet': write_hpunet,
    'cimd': write_cimd,
    'cases': write_cases,
    'lidc': write_lidc,
    'lidc_simulated': write_lidc_simulated,
}


def resident():
    """The process's resident set in MiB."""
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def measure(fields, examples, batch, results):
    """Reads as training does; puts (cases, seconds to open, examples/s, ms/example, MiB at three times)."""
    config = default()
    config.data.image_size = SIZE
    for name, value in fields.items():
        config.data[name] = str(value)
    began = time.perf_counter()
    source = sources.open_source(config.data, 'train')
    opened = time.perf_counter() - began
    shuffled = Shuffled(source, 0)
    load = lambda step: pipeline.batch(shuffled, range(step * batch, (step + 1) * batch))
    memory, steps = [resident()], examples // batch
    load(0)
    began, started = time.perf_counter(), time.process_time()
    for step, _ in enumerate(pipeline.prefetch(load, 0, steps)):
        if step in (steps // 4, steps - 1):
            memory.append(resident())
    wall, processor = time.perf_counter() - began, time.process_time() - started
    results.put((len(source), opened, steps * batch / wall, 1000 * processor / (steps * batch), memory))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', type=int, default=2000)
    parser.add_argument('--examples', type=int, default=10000)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--layouts', default='hdf5,knegt,hpunet,cimd,cases,lidc', help=f'of {", ".join(LAYOUTS)}')
    arguments = parser.parse_args()
    if unknown := set(arguments.layouts.split(',')) - set(LAYOUTS):
        parser.error(f'no layout {min(unknown)}; choose of {", ".join(LAYOUTS)}')
    print(f'{SIZE}x{SIZE}, four masks, batches of {arguments.batch}, {os.cpu_count()} cores')
    print('layout            cases   open s   examples/s   ms/example   MiB: opened   1/4   end')
    context = multiprocessing.get_context('spawn')
    for layout in arguments.layouts.split(','):
        with tempfile.TemporaryDirectory() as folder:
            fields = LAYOUTS[layout](pathlib.Path(folder), arguments.cases, np.random.default_rng(0))
            results = context.SimpleQueue()
            work = context.Process(target=measure, args=(fields, arguments.examples, arguments.batch, results))
            work.start()
            work.join()
            if work.exitcode:
                raise SystemExit(f'{layout} failed')
            cases, opened, speed, processor, (first, quarter, end) = results.get()
        marks = ' below the target' * (speed < TARGET) + ' memory grows' * (end - quarter > GROWTH)
        line = f'{layout:16} {cases:6d} {opened:8.2f} {speed:12.0f} {processor:12.2f}'
        line += f' {first:13.0f} {quarter:5.0f} {end:5.0f}'
        print(line + marks, flush=True)


if __name__ == '__main__':
    main()
