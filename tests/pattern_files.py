"""Small simulated trees, laid out as public data sets are downloaded: rater r marks a square of side 2 + r."""

import h5py
import nibabel
import numpy as np
from drawn_files import riga
from PIL import Image

from ambdiff.config import default
from ambdiff.data import sources
from ambdiff.data.pattern.presets import PRESETS

SIDE = 8
SLICES = 4


def square(rater, labels=(1,)):
    """[8, 8, 4], columns, rows, slices: in slices 1, 2 a square of side 2 + rater, its columns parted among labels."""
    mask = np.zeros((SIDE, SIDE, SLICES), np.uint8)
    for place, label in enumerate(labels):
        mask[1 + place : 3 + rater if place + 1 == len(labels) else 2 + place, 1 : 3 + rater, 1:3] = label
    return mask


def nifti(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0]) if affine is None else affine), path)


def scan(path, level=100, low=0):
    """A volume whose slices tell each other apart; with negative values, as CT has, where low is below 0."""
    values = np.broadcast_to(level + 10 * np.arange(SLICES), (SIDE, SIDE, SLICES)).astype(np.int16).copy()
    values[0, 0, 0] = low
    nifti(path, values)


def picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def qubiq(root):
    for part, names in (('Training', [f'case{n:02}' for n in range(4)]), ('Validation', ['case11'])):
        for name in names:
            scan(root / part / name / 'image.nii.gz')
            for rater in range(1, 4):
                nifti(root / part / name / f'task01_seg0{rater}.nii.gz', square(rater))
                nifti(root / part / name / f'task02_seg0{rater}.nii.gz', square(rater) * 0)


def curvas(root):
    for number in (7, 8, 9, 82):
        folder = root / 'training_set' / f'UKCHLL{number:03}'
        scan(folder / 'image.nii.gz', low=-900)
        for rater in range(1, 4):
            labels = (2, 3) if (number, rater) == (82, 3) else (1, 2, 3)
            # The header of one puts it elsewhere, mirrored.
            affine = np.diag([-1.0, -1.0, 3.0, 1.0]) if (number, rater) == (7, 2) else None
            nifti(folder / f'annotation_{rater}.nii.gz', square(rater, labels), affine)


def mbhseg(root):
    for number in range(3):
        folder = root / 'MBH_Train_2025_voxel-label' / f'ID_{number}'
        scan(folder / 'image.nii.gz', low=-900)
        for rater in range(1, 3 + (number > 0)):
            nifti(folder / f'label_annot_{rater}.nii.gz', square(rater, (2, 5)))
    scan(root / 'MBH_Train_2025_case-label' / 'ID_9.nii.gz', low=-900)


def msseg(root):
    for number in range(3):
        folder = root / 'Training' / '01' / f'patient{number}'
        scan(folder / 'Raw_Data' / '3DFLAIR.nii.gz')
        scan(folder / 'Raw_Data' / '3DT1.nii.gz')
        for rater in range(1, 4):
            nifti(folder / 'Masks' / f'ManualSegmentation_{rater}.nii.gz', square(rater))
        nifti(folder / 'Masks' / 'Consensus.nii.gz', square(1))


def wmh(root):
    for case in ('Utrecht/0', 'Utrecht/2', 'Amsterdam/GE3T/100'):
        for kind in ('orig', 'pre'):
            for name in ('FLAIR', 'T1'):
                scan(root / 'training' / case / kind / f'{name}.nii.gz', 100 if kind == 'pre' else 50)
        mask = square(0)
        mask[7, 7, 3] = 2
        nifti(root / 'training' / case / 'wmh.nii.gz', mask)
        for rater, observer in ((1, 'o3'), (2, 'o4')):
            if (case, observer) != ('Utrecht/2', 'o4'):
                place = root / 'additional_annotations' / f'observer_{observer}' / 'training' / case
                nifti(place / 'result.nii.gz', square(rater))


def refuge(root):
    for name in ('0001', '0002', '0003', '0826'):
        folder = root / ('Test-400' if name == '0826' else 'Training-400') / name
        pixels = np.full((SIDE, SIDE, 3), (200, 100, 50))
        pixels[:, 4:] = 50 * int(name[-1])
        picture(folder / f'{name}.jpg', pixels)
        for rater in range(1, 4):
            for structure, side in (('disc', 2 + rater), ('cup', rater)):
                mask = np.zeros((SIDE, SIDE))
                mask[1 : 1 + side, 1 : 1 + side] = 255
                picture(folder / f'{name}_seg_{structure}_{rater}.png', mask)


def npc170(root):
    folder = root / 'training_2d'
    folder.mkdir(parents=True)
    for sample in range(3):
        for place in range(2):
            with h5py.File(folder / f'Sample_{sample}_slice_{place}.h5', 'w') as file:
                for channel, name in enumerate(('t1', 't1c', 't2')):
                    file[name] = channel + 1.0 + np.arange(SIDE) ** (1 + sample + place / 2) + np.zeros((SIDE, 1))
                for rater in range(4):
                    file[f'label_a{rater + 1}'] = square(rater)[..., 1].T.astype(np.float32)


def scgm(root):
    for site in (1, 2):
        for number in range(2):
            name = f'site{site}-sc0{number}'
            scan(root / f'{name}-image.nii.gz')
            (root / f'{name}-levels.txt').write_text('1,C3')
            for rater in range(1, 5):
                nifti(root / f'{name}-mask-r{rater}.nii.gz', square(rater, (1, 2)))


def kits21(root):
    for number in range(3):
        folder = root / f'case_0000{number}'
        scan(folder / 'imaging.nii.gz', low=-900)
        for rater in range(1, 4):
            for instance in (1, 2):
                kidney = np.zeros((SIDE, SIDE, SLICES), np.uint8)
                kidney[4 * instance - 4 : 4 * instance - 2 + rater - 1, :2, 1] = 1
                nifti(folder / 'segmentations' / f'kidney_instance-{instance}_annotation-{rater}.nii.gz', kidney)
            tumor = np.zeros((SIDE, SIDE, SLICES), np.uint8)
            tumor[0, 0, 1] = 1
            nifti(folder / 'segmentations' / f'tumor_instance-1_annotation-{rater}.nii.gz', tumor)


MAKERS = {maker.__name__: maker for maker in (qubiq, curvas, mbhseg, msseg, wmh, refuge, npc170, scgm, kits21, riga)}


def settings(path, pattern, **changes):
    """The data group for a preset, at 8 x 8 pixels."""
    config = default()
    with config.unlocked():
        name = pattern.partition(',')[0]
        fields = PRESETS[name].fields if name in PRESETS else {'intensity': 'percentile', 'num_raters': 3}
        config.data.update(
            {'path': str(path), 'pattern': pattern, 'image_size': SIDE, **fields, 'fit': 'crop'} | changes
        )
    return config.data


def examples(path, pattern, split='train', **changes):
    """{case: example} of a split."""
    source = sources.open_source(settings(path, pattern, **changes), split)
    return {found['case']: found for found in (source[row] for row in range(len(source)))}


def everything(path, pattern, **changes):
    """{case: (split, example)} of all splits."""
    return {
        case: (split, found)
        for split in ('train', 'validation', 'test')
        for case, found in examples(path, pattern, split, **changes).items()
    }


def areas(example, label=1):
    """Pixels of a label in the masks of those who are there, ascending."""
    return sorted((example['masks'] == label).sum((1, 2))[example['present']].tolist())
