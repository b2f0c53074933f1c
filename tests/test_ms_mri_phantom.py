"""The MRI phantom: contrasts of four sequences, two raters whose distribution is as stated."""

import numpy as np
import pytest

from ambdiff.data.ms_mri import phantom


@pytest.fixture(scope='module')
def patients():
    return [phantom.patient(f'patient{number}') for number in range(25)]


def test_a_patient_is_the_same_again(patients):
    again, z = phantom.patient('patient2'), patients[2].slices[1]
    np.testing.assert_array_equal(phantom.image(again, z, 64), phantom.image(patients[2], z, 64))
    one, other = (phantom.answers(p, z, 64, np.array([0, 1]), np.random.default_rng(1)) for p in (again, patients[2]))
    np.testing.assert_array_equal(one, other)
    assert (phantom.image(patients[3], patients[3].slices[0], 64) != phantom.image(again, z, 64)).any()


def test_lesions_have_the_contrast_of_each_sequence(patients):
    contrast, fluid = [], []
    for patient in patients:
        for z in patient.slices:
            image = phantom.image(patient, z, 128)
            distance = phantom._distances(patient, z, 128).min(0)
            keys = (1,), (3, round(z * 10) + 10**6)  # as `image` makes them
            draws = (np.random.default_rng((*patient.seed, *key)) for key in keys)
            shares, brain = phantom._tissues(patient, z, 128, *draws)
            white = image[(shares[2] > 0.95) & (distance > 3)].mean(0)
            core = (distance < -1.5) & (shares[0] < 0.1)
            if core.sum() > 20:
                contrast.append(image[core].mean(0) / white)
            fluid.append(image[(shares[0] > 0.9) & brain].mean(0) / white)
            assert (image[~brain] == 0).all() and (image[brain] > 0).mean() > 0.99
    assert phantom.SEQUENCES == ('flair', 't1', 't2', 'pd')
    flair, t1, t2, pd = np.median(contrast, 0)
    assert flair > 1.5 and t1 < 0.8 and t2 > 1.4 and pd > 1.15
    flair, t1, t2, pd = np.median(fluid, 0)
    assert flair < 0.4 and t1 < 0.3 and t2 > 1.8 and 0.8 < pd < 1.1


def test_every_slice_of_a_patient_cuts_a_lesion_of_his(patients):
    for patient in patients:
        assert patient.slices and list(patient.slices) == sorted(set(patient.slices))
        for z in patient.slices:
            assert len(phantom.areas(patient, z)) == len(phantom.lesions(patient, z)[0]) > 0


def test_lesions_are_missed_as_often_as_stated():
    rng = np.random.default_rng(0)
    tried = 0
    for number in range(60):
        patient = phantom.patient(f'single{number}')
        for z in patient.slices:
            if len(phantom.areas(patient, z)) != 1:
                continue
            tried += 1
            empty = ~phantom.answers(patient, z, 64, np.repeat([0, 1], 1500), rng).any((1, 2)).reshape(2, -1)
            np.testing.assert_allclose(empty.mean(1), phantom.miss_probability(patient, z)[:, 0], atol=0.05)
    assert tried >= 5


def test_small_and_faint_lesions_are_missed_most_and_by_the_conservative_rater(patients):
    for patient in patients:
        for z in patient.slices:
            conservative, liberal = phantom.miss_probability(patient, z)
            assert (conservative >= liberal).all() and (conservative <= 0.95).all()
            cut, _ = phantom.lesions(patient, z)
            score = phantom.areas(patient, z) / 70 - np.log(1.6 - patient.contrasts[cut])
            free = conservative < 0.95
            assert (np.diff(conservative[free][np.argsort(score[free])]) <= 1e-12).all()


def test_the_liberal_rater_draws_larger(patients):
    rng = np.random.default_rng(0)
    sizes = [
        phantom.answers(p, z, 64, np.repeat([0, 1], 8), rng).reshape(2, 8, -1).sum(2).mean(1)
        for p in patients
        for z in p.slices
    ]
    conservative, liberal = np.mean(sizes, 0)
    assert 1.5 < liberal / conservative < 3.5


def test_noise_is_rician():
    rng = np.random.default_rng(0)
    background = phantom._rician(rng, np.zeros((200, 200)), 0.05)
    assert background.mean() / background.std() == pytest.approx(1.91, abs=0.05)  # Rayleigh
    bright = phantom._rician(rng, np.ones((200, 200)), 0.05)
    assert bright.mean() == pytest.approx(1 + 0.05**2 / 2, abs=1e-3) and bright.std() == pytest.approx(0.05, abs=2e-3)
