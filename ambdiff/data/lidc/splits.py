"""The ways the literature divides LIDC-IDRI, as named rules over series.

patient  80/10/10 of the patients, in an order fixed by a hash of the patient's name, as `lidc_simulated`: the only rule
         here under which no patient is in two splits
mose     64/16/20 of the sorted series UIDs by two draws of `train_test_split(test_size=0.2, random_state=0)` (MoSE,
         Gao et al., 2023): the very lists of MoSE where the series are those of Knegt's pickle
phiseg   the same two draws as PHiSeg (2019) and CCDM (2023) make them. They set no seed and published no list, so
         nobody can have theirs again; ours are drawn once, with seed 1

Eight patients of LIDC-IDRI have two annotated series: 'mose' and 'phiseg' may put them in two splits.
"""

from collections.abc import Mapping

import numpy as np

from ambdiff.data import splits
from ambdiff.data.example import SPLITS
from ambdiff.errors import UserError

RULES = ('patient', 'mose', 'phiseg')
_SEEDS = {'mose': 0, 'phiseg': 1}


def divide(rule: str, patient_of: Mapping[str, str]) -> dict[str, str]:
    """The split of each series: {series: 'train' | 'validation' | 'test'}.

    Args:
      rule: one of RULES.
      patient_of: the patient of every series of the data set. The result depends on all of them, so a part of the
        data set is divided as the whole is only if the whole is given.

    Raises:
      UserError: no such rule.
    """
    if rule == 'patient':
        split = splits.by_patient(patient_of.values())
        return {series: split[patient] for series, patient in patient_of.items()}
    if rule not in _SEEDS:
        raise UserError(f"config.data.lidc_split is '{rule}'; choose {', '.join(RULES)}")
    rest, test = _train_test(sorted(patient_of), _SEEDS[rule])
    train, validation = _train_test(rest, _SEEDS[rule])
    parts = dict(zip(SPLITS, (train, validation, test), strict=True))
    return {series: name for name, part in parts.items() for series in part}


def _train_test(items: list[str], seed: int) -> tuple[list[str], list[str]]:
    """scikit-learn's train_test_split(items, test_size=0.2, random_state=seed)."""
    order = np.random.RandomState(seed).permutation(len(items))
    held = int(np.ceil(0.2 * len(items)))
    return [items[i] for i in order[held:]], [items[i] for i in order[:held]]
