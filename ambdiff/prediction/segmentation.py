"""DICOM-SEG of an image's distinct answers, which refers to the slices it was made from."""

import json
import math
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np

from ambdiff.data.files.volume import Volume
from ambdiff.errors import UserError
from ambdiff.modes import Mode
from ambdiff.prediction.samples import Samples

_MAX_PIXELS = 1 << 28  # of all segments; highdicom takes several bytes for each


def write(
    path: pathlib.Path, volume: Volume, samples: Samples, found: Sequence[Mode], words: Sequence[str], about: dict
) -> None:
    """A DICOM-SEG with one binary segment an answer, its most typical sample, on the slices where any marks a pixel.

    The empty answer is a segment without a pixel. about: name, version and what the samples follow from, from which
    the UIDs follow.

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
    slices = [z for z in samples.slices if samples.marked(z).any()] or [0]
    if (takes := len(found) * len(slices) * math.prod(samples.shape[2:])) > _MAX_PIXELS:
        raise UserError(
            f'no DICOM-SEG: {len(found)} answers on {len(slices)} slices would take {takes / 2**30:.1f} GiB; '
            'samples.nii.gz has the masks'
        )
    uid = lambda what: pydicom.uid.generate_uid(entropy_srcs=[what, json.dumps(about, sort_keys=True)])
    method = highdicom.AlgorithmIdentificationSequence(
        name='ambdiff', version=about['version'], family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=f'{mode.share:.0%}: {text}'.replace('³', '^3')[:64],  # the source's characters may be ASCII
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type='AUTOMATIC',
            algorithm_identification=method,
            tracking_id=f'{about["name"][:50]} answer {number}',
            tracking_uid=uid(f'answer {number}'),
        )
        for number, (mode, text) in enumerate(zip(found, words, strict=True), 1)
    ]
    pixels = np.stack([samples.whole(mode.medoid)[slices] > 0 for mode in found], -1).astype(np.uint8)
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
                software_versions=about['version'],
                device_serial_number='0',
                series_description='Plausible masks, research only',
                content_label='PLAUSIBLE_MASKS',
                omit_empty_frames=False,
            )
            segmentation.ContentCreatorName = ''  # readers want it, though nobody created it
            segmentation.save_as(path)
    except Exception as error:  # highdicom names no type for what a header may lack
        raise UserError(
            f'no DICOM-SEG: the source lacks what it needs ({" ".join(str(error).split())[:160]})'
        ) from error


def _plane(source, frame):
    """Where a frame of an enhanced object lies, as highdicom takes it."""
    from highdicom import PlanePositionSequence

    return PlanePositionSequence.from_sequence(source.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence)
