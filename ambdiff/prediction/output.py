"""What predict writes for a case, in the input's own geometry: masks, maps, DICOM-SEG, summary and page.

A case's folder is filled under a temporary name and then renamed: it is there as a whole or not at all.

  samples.nii.gz          NIfTI and DICOM: uint8, the file's own axes, the last axis N      samples_00.png .. pictures
  probability.nii.gz      float32, share of the samples that mark a voxel                   probability.png, 255 = 1
  disagreement.nii.gz     float32, entropy in bits                                          disagreement.png, 255 = most
  segmentation.dcm        DICOM only: one segment an answer
  summary.json            what was found, and what it was found with
  index.html              the case as a page
Pictures of several pages (TIFF) get .tif files of as many pages.
"""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ambdiff import modes
from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.modes import Mode

FORMAT = 'ambdiff prediction 2'
PARTIAL = '.partial-'  # what starts the name of a folder that is being filled
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def finished(folder: pathlib.Path) -> dict | None:
    """The summary of a case that was written before, None if there is none or one of its files has gone.

    Raises:
      UserError: the folder is there, but no case of ours.
    """
    if not folder.exists():
        return None
    try:
        summary = json.loads((folder / 'summary.json').read_text('utf-8'))
        if summary['format'] == FORMAT:
            return summary if all((folder / name).is_file() for name in ('index.html', *summary['files'])) else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f'{folder} is in the way: it is no result of ambdiff.predict; move it or give another --output=')


def all_finished(output: pathlib.Path) -> list[pathlib.Path]:
    """The folders of all finished cases in an output, of earlier runs as well."""
    folders = []
    for path in sorted(output.glob('*/summary.json')):
        with contextlib.suppress(UserError):  # a folder of the user's own
            if not path.parent.name.startswith('.') and finished(path.parent):
                folders.append(path.parent)
    return folders


def replace_folder(partial: pathlib.Path, folder: pathlib.Path) -> None:
    """Gives a filled folder its name; one of that name goes first."""
    if folder.exists():
        old = folder.with_name(f'.old-{folder.name}')
        os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old)
    else:
        os.replace(partial, folder)


def summarize(samples: np.ndarray, found: Sequence[Mode], spacing: tuple[float, float]) -> dict:
    """What `samples` [N, Z, H, W] say, as JSON: empty_share, area, modes."""
    areas = modes.areas(samples, spacing)
    return {
        'empty_share': float((areas == 0).mean()),
        'area': {
            'unit': 'mm^2' if modes.known(spacing) else 'px',
            'of': 'the slice where most is drawn; empty samples count as 0',
            **modes.area_quantiles(areas),
            'mean': float(areas.mean()),
        },
        'modes': [
            {
                'share': mode.share,
                'words': text,
                'empty': mode.empty,
                'area': float(areas[mode.medoid]),
                'sample': mode.medoid,
                'samples': list(mode.members),
            }
            for mode, text in zip(found, modes.words(samples, found, spacing), strict=True)
        ],
    }


def write_masks(folder: pathlib.Path, volume: Volume, samples: np.ndarray, num_classes: int) -> list[str]:
    """Writes samples [N, Z, H, W] uint8 and their maps; returns the names of the files."""
    maps = {'probability': modes.probability(samples), 'disagreement': modes.disagreement(samples)}
    if volume.kind != 'picture':
        _write_nifti(folder / 'samples.nii.gz', volume, np.moveaxis(samples, 0, -1))
        for name, values in maps.items():
            _write_nifti(folder / f'{name}.nii.gz', volume, values)
        return ['samples.nii.gz', *(f'{name}.nii.gz' for name in maps)]
    suffix = '.png' if samples.shape[1] == 1 else '.tif'
    names = []
    digits = max(2, len(str(len(samples) - 1)))
    for number, sample in enumerate(samples):
        names.append(f'samples_{number:0{digits}}{suffix}')
        # Foreground white, so that a mask shows in any viewer; labels as they are.
        _write_picture(folder / names[-1], sample * 255 if num_classes == 1 else sample)
    for name, values in maps.items():
        most = math.log2(num_classes + 1) if name == 'disagreement' else 1.0
        names.append(f'{name}{suffix}')
        _write_picture(folder / names[-1], np.rint(values / most * 255).astype(np.uint8))
    return names


def _write_picture(path: pathlib.Path, pages: np.ndarray) -> None:
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, **({'save_all': True, 'append_images': rest, 'compression': 'tiff_deflate'} if rest else {}))


def _write_nifti(path: pathlib.Path, volume: Volume, values: np.ndarray) -> None:
    """[Z, H, W, ...] as NIfTI in the file's axes; DICOM has none, so columns, rows, slices."""
    import nibabel

    axes = volume.file_axes if volume.kind == 'nifti' else (2, 1, 0)
    flipped = [axis for axis, flip in enumerate(volume.file_flips) if flip]
    image = nibabel.Nifti1Image(np.moveaxis(np.flip(values, flipped), (0, 1, 2), axes), None)
    zooms = [1.0] * image.ndim
    for axis, step in zip(axes, volume.spacing, strict=True):
        zooms[axis] = step if np.isfinite(step) and step > 0 else 1.0
    image.header.set_zooms(zooms)
    image.header.set_xyzt_units('mm' if np.isfinite(volume.spacing).any() else 'unknown')
    forms = volume.forms  # of a NIfTI, so that the result lies on it in every program, whichever of them that asks
    if volume.kind == 'dicom' and volume.affine is not None:
        forms = ((volume.affine[:, [2, 1, 0, 3]], 1),) * 2
    for form, write in zip(forms, (image.set_sform, image.set_qform), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # shear, which a qform cannot hold; the sform does
            write(*(form or (None, 0)), update_affine=False)
    nibabel.save(image, path)


def write_segmentation(
    path: pathlib.Path, volume: Volume, samples: np.ndarray, found: Sequence[Mode], words: Sequence[str], case: dict
) -> None:
    """A DICOM-SEG with one binary segment an answer, its most typical sample, on the slices where any is drawn.

    The empty answer is a segment without a pixel. case: name and input_sha256, from which the UIDs follow.

    Raises:
      UserError: the source lacks what a segmentation needs.
    """
    import highdicom
    import pydicom
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    several = len(set(volume.files)) < len(volume.files)
    if several and len(set(volume.files)) > 1:
        raise UserError('no DICOM-SEG for more than one file of several frames; samples.nii.gz has the masks')
    drawn = (samples > 0).any((0, 2, 3))
    drawn[0] |= not drawn.any()
    slices = np.flatnonzero(drawn)
    uid = lambda what: pydicom.uid.generate_uid(entropy_srcs=[what, json.dumps(case, sort_keys=True)])
    method = highdicom.AlgorithmIdentificationSequence(
        name='ambdiff', version=case['version'], family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=f'{mode.share:.0%}: {text}'[:64],
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type='AUTOMATIC',
            algorithm_identification=method,
            tracking_id=f'{case["name"][:50]} answer {number}',
            tracking_uid=uid(f'answer {number}'),
        )
        for number, (mode, text) in enumerate(zip(found, words, strict=True), 1)
    ]
    pixels = np.stack([samples[mode.medoid][slices] > 0 for mode in found], -1).astype(np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # oddities of the source's header
            sources = [pydicom.dcmread(file) for file in dict.fromkeys(volume.files[index] for index in slices)]
            places = [_plane(sources[0], volume.frames[index]) for index in slices] if several else None
            segmentation = Segmentation(
                source_images=sources,
                pixel_array=pixels,
                segmentation_type='BINARY',
                segment_descriptions=segments,
                plane_positions=places,
                series_instance_uid=uid('series'),
                series_number=9000,
                sop_instance_uid=uid('instance'),
                instance_number=1,
                manufacturer='ambdiff',
                manufacturer_model_name='ambdiff.predict',
                software_versions=case['version'],
                device_serial_number='0',
                series_description='Plausible masks, research only',
                content_label='PLAUSIBLE_MASKS',
                omit_empty_frames=False,
            )
            segmentation.save_as(path)
    except Exception as error:  # highdicom names no type for what a header may lack
        raise UserError(
            f'no DICOM-SEG: the source lacks what it needs ({" ".join(str(error).split())[:160]})'
        ) from error


def _plane(source, frame):
    """Where a frame of an enhanced object lies, as highdicom takes it."""
    from highdicom import PlanePositionSequence

    return PlanePositionSequence.from_sequence(source.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence)


def write_table(output: pathlib.Path, folders: list[pathlib.Path], failed: dict[str, str]) -> None:
    """predictions.csv: a line a case, those that failed with the reason; whole or not at all."""
    text = io.StringIO()
    quantiles = [f'p{q * 100:02.0f}' for q in modes.QUANTILES]
    columns = ['case', 'input', 'num_samples', 'empty_share', 'area_unit', *(f'area_{q}' for q in quantiles)]
    columns += ['modes', 'mode_1_share', 'mode_1_area', 'in_words', 'warnings', 'error']
    writer = csv.DictWriter(text, columns, restval='')
    writer.writeheader()
    # A spreadsheet would take some names for formulas.
    plain = lambda name: f"'{name}" if name[:1] in ('=', '+', '-', '@') else name
    for folder in folders:
        summary = json.loads((folder / 'summary.json').read_text('utf-8'))
        first = summary['modes'][0]
        writer.writerow(
            {
                'case': summary['case'],
                'input': plain(summary['input']),
                'num_samples': summary['num_samples'],
                'empty_share': f'{summary["empty_share"]:.4f}',
                'area_unit': summary['area']['unit'],
                **{f'area_{q}': f'{summary["area"][q]:.2f}' for q in quantiles},
                'modes': len(summary['modes']),
                'mode_1_share': f'{first["share"]:.4f}',
                'mode_1_area': f'{first["area"]:.2f}',
                'in_words': '; '.join(f'{mode["share"]:.0%}: {mode["words"]}' for mode in summary['modes']),
                'warnings': '; '.join(summary['warnings']),
            }
        )
    for source, reason in failed.items():
        writer.writerow({'input': plain(source), 'error': reason})
    partial = output / f'{PARTIAL}predictions.csv'
    partial.write_text(text.getvalue(), 'utf-8')
    os.replace(partial, output / 'predictions.csv')


@contextlib.contextmanager
def alone(output: pathlib.Path):
    """Holds the folder for one run, and clears what an interrupted one left."""
    try:
        import fcntl
    except ImportError:  # not on Windows, which has no such lock
        fcntl = None
    with (output / '.lock').open('w') as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f'--output={output} is being written by another run; wait or name another') from None
        for left in [*output.glob(f'{PARTIAL}*'), *output.glob('.old-*')]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
