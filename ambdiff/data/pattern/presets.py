"""The patterns of public data sets, by name: one row each. docs/data/NAME.md is the card of each."""

import dataclasses
from collections.abc import Mapping

from ambdiff.data.pattern.grammar import Known, Pattern, parse


@dataclasses.dataclass(frozen=True)
class Preset:
    """A data set.

    Attributes:
      pattern: as `ambdiff.data.pattern.grammar` understands it.
      fields: of the config's data group, what it takes to read it.
      known: its known faults.
    """

    pattern: str
    fields: Mapping[str, object]
    known: tuple[Known, ...] = ()


_MRI = {'intensity': 'percentile', 'fit': 'resize'}


def _ct(low, high):
    return {'intensity': 'hu_window', 'hu_window': (float(low), float(high)), 'fit': 'resize'}


PRESETS = {
    'qubiq': Preset(
        'image=image.nii[.gz],mask=task{structure}_seg{rater}.nii[.gz],classes=01,drop=*,patient={patient}-*',
        {**_MRI, 'num_raters': 7},
    ),
    'curvas': Preset(
        'image=image.nii[.gz],mask=annotation_{rater}.nii[.gz],classes=1:2:3',
        {**_ct(-160, 240), 'num_raters': 3, 'num_classes': 3},
        (Known('UKCHLL007', '2', by_index=True), Known('UKCHLL082', '3', lacks='1', called='pancreas')),
    ),
    'mbhseg': Preset(
        'image=image.nii[.gz],mask=label_annot_{rater}.nii[.gz],classes=1:2:3:4:5',
        {**_ct(0, 100), 'num_raters': 4, 'num_classes': 5},
    ),
    'msseg': Preset(
        'image=(Raw_Data/|Preprocessed_Data/|)(3DFLAIR|FLAIR|FLAIR_preprocessed).nii[.gz],'
        'mask=[Masks/]ManualSegmentation_{rater}.nii[.gz]',
        {**_MRI, 'num_raters': 7},
    ),
    'wmh': Preset(
        'image=training/{case}/(pre/|orig/)FLAIR.nii[.gz],'
        'mask=training/{case}/wmh.nii[.gz]:additional_annotations/observer_{rater}/training/{case}/result.nii[.gz],'
        'classes=1,drop=2',
        {**_MRI, 'num_raters': 3},
    ),
    'refuge': Preset(
        'image={case}/{name}.jpg,mask={case}/{name}_seg_{structure}_{rater}.png,classes=disc:cup',
        {'intensity': 'full_range', 'fit': 'resize', 'channels': 3, 'num_raters': 7, 'num_classes': 2},
    ),
    'npc170': Preset(
        'image={case}.h5#t1:{case}.h5#t1c:{case}.h5#t2,mask={case}.h5#label_a{rater},patient={patient}_slice_*',
        {**_MRI, 'channels': 3, 'num_raters': 4},
    ),
    'scgm': Preset(
        'image={case}-image.nii[.gz],mask={case}-mask-r{rater}.nii[.gz],classes=1:2',
        {**_MRI, 'num_raters': 4, 'num_classes': 2},
    ),
    'riga': Preset(
        'image={case}prime.(jpg|tif|jpeg|tiff|png),mask={case}-{rater}.(jpg|tif|jpeg|tiff|png),drawn=disc:cup',
        {'intensity': 'full_range', 'fit': 'resize', 'channels': 3, 'num_raters': 6, 'num_classes': 2},
        (Known('MagrabiFemale/image48', no_image=True), Known('MagrabiaMale/ImageXY', no_image=True)),
    ),
    'kits21': Preset(
        'image=imaging.nii[.gz],mask=segmentations/{structure}_instance-{instance}_annotation-{rater}.nii[.gz],'
        'classes=kidney:tumor:cyst,drop=*',
        {**_ct(-80, 300), 'num_raters': 3, 'num_classes': 3},
    ),
}


def pattern_of(text: str) -> Pattern:
    """The Pattern of config.data.pattern.

    Raises:
      UserError: what cannot be understood, and the cure.
    """
    patterns = {name: preset.pattern for name, preset in PRESETS.items()}
    return parse(text, patterns, {name: preset.known for name, preset in PRESETS.items()})
