"""The builder of a user's own ultrasound: a folder a case, pictures or volumes, any number of raters."""

import nibabel
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny
from PIL import Image

from ambdiff.data import folder, sources
from ambdiff.data.bone_us import scans
from ambdiff.data.example import SPLITS
from ambdiff.data.files import intensity
from ambdiff.data.files.cases import Case
from ambdiff.errors import UserError

NAMES = [f'case{number:02d}' for number in range(10)]


def picture(number, gain=0, height=40, width=48):
    """Log-compressed speckle with a bright line: uint8."""
    rng = np.random.default_rng(number)
    decibel = 20 * np.log10(rng.rayleigh(size=(height, width)) + 1e-3) + 100 + gain
    decibel[20:23, 8:40] += 60
    return np.clip(decibel, 0, 255).astype(np.uint8)


def outline(rater, height=40, width=48):
    """A band of its own thickness for every rater; the last one marks nothing."""
    mask = np.zeros((height, width), np.uint8)
    if rater < 3:
        mask[20 - rater : 23 + rater, 8:40] = 1
    return mask


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def write_case(folder, number, raters=4, ending='png', scale=255):
    save(folder / f'image.{ending}', picture(number))
    for rater in range(raters):
        save(folder / f'mask_{"abcd"[rater]}.{ending}', outline(rater) * np.uint8(scale))


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """Ten cases: PNG with masks of 0 and 255 or 0 and 1, JPEG, and a sweep of three frames as NIfTI."""
    root = tmp_path_factory.mktemp('ultrasound')
    for number, name in enumerate(NAMES[:-1]):
        write_case(root / name, number, ending=('png', 'jpg')[number % 3 == 1], scale=(255, 1)[number % 3 == 2])
    sweep = root / NAMES[-1]
    sweep.mkdir()
    frames = np.stack([picture(number) for number in (20, 21, 22)])
    # The file's axes are columns, rows, frames; without orientation codes none is turned.
    for name, values in [('image', frames), *((f'mask_{r}', np.stack([outline(r)] * 3)) for r in range(4))]:
        nifti = nibabel.Nifti1Image(values.transpose(2, 1, 0), None)
        nifti.header.set_zooms((0.2, 0.3, 1))
        nibabel.save(nifti, sweep / f'{name}.nii.gz')
    return root


def settings(path, build_dir, **changes):
    data = tiny.config(path).data
    data.update(builder='bone_us', build_dir=str(build_dir), intensity='b_mode')
    data.update({'image_size': 64} | changes)
    return data


@pytest.fixture(scope='module')
def opened(tree, tmp_path_factory):
    data = settings(tree, tmp_path_factory.mktemp('built'))
    return {split: sources.open_source(data, split) for split in SPLITS}


def test_every_file_becomes_an_example_and_patients_are_kept_apart(opened):
    cases = [item['case'] for source in opened.values() for item in source]
    assert sorted(cases) == NAMES[:-1] + [f'{NAMES[-1]}_z{frame:03d}' for frame in range(3)]
    patients = [set(source.patients) for source in opened.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == len(NAMES)
    assert {split: {item['patient'] for item in source} for split, source in opened.items()} == {
        split: set(source.patients) for split, source in opened.items()
    }


def test_images_and_masks_are_those_of_the_files(opened):
    for source in opened.values():
        for item in source:
            number = int(item['case'][4:6]) if '_z' not in item['case'] else 20 + int(item['case'][-1])
            unit = intensity.to_unit(picture(number)[None, ..., None], 'b_mode')[0, ..., 0]
            found = item['image'][12:52, 8:56, 0]
            if number in (1, 4, 7):  # JPEG
                assert np.corrcoef(found.ravel(), unit.ravel())[0, 1] > 0.97
            else:
                np.testing.assert_allclose(found, unit, atol=0.5 / 255 + 1e-6)
            inside = sorted(m[12:52, 8:56].sum() for m in item['masks'])
            assert inside == sorted(outline(rater).sum() for rater in range(4))
            assert item['image'].shape == (64, 64, 1) and item['masks'].shape == (4, 64, 64)
            if '_z' in item['case']:
                np.testing.assert_allclose(item['spacing'], [0.3, 0.2], rtol=1e-5)


def test_normalising_takes_out_gain_and_keeps_the_bone_apart_from_tissue():
    quiet, loud = (intensity.to_unit(picture(3, gain)[None, ..., None], 'b_mode')[0, ..., 0] for gain in (0, 30))
    np.testing.assert_allclose(quiet, loud, atol=0.02)
    assert quiet[20:23, 8:40].mean() > quiet[:15].mean() + 0.2
    assert (quiet[20:23, 8:40] == 1).mean() < 0.1  # not cut off


def test_a_table_of_patients_keeps_their_cases_together(tree, tmp_path):
    table = tree / 'patients.csv'
    table.write_text('case,patient\n' + ''.join(f'{name},p{number // 3}\n' for number, name in enumerate(NAMES)))
    try:
        opened = {split: sources.open_source(settings(tree, tmp_path), split) for split in SPLITS}
        for source in opened.values():
            assert {item['patient'] for item in source} == set(source.patients)
        assert sorted(p for source in opened.values() for p in source.patients) == ['p0', 'p1', 'p2', 'p3']
        sources.write_splits(settings(tree, tmp_path), tmp_path)
        rows = (tmp_path / 'splits.csv').read_text().split()
        assert rows[0] == 'case,patient,split' and len(rows) == 1 + len(NAMES)
    finally:
        table.unlink()


def test_a_case_with_fewer_raters_has_slots_that_are_missing_and_not_empty(tmp_path):
    for number, name in enumerate(NAMES):
        write_case(tmp_path / 'in' / name, number, raters=2 if number == 3 else 4)
    opened = [sources.open_source(settings(tmp_path / 'in', tmp_path / 'out'), split) for split in SPLITS]
    present = {item['case']: item['present'] for source in opened for item in source}
    masks = {item['case']: item['masks'] for source in opened for item in source}
    assert present.pop('case03').sum() == 2 and all(slots.all() for slots in present.values())
    assert sorted(mask.any() for mask in masks['case03']) == [False, False, True, True]


def test_faulty_cases_are_one_line_that_names_the_file(tmp_path):
    root, out = tmp_path / 'in', tmp_path / 'out'
    for number, name in enumerate(NAMES[:4]):
        write_case(root / name, number)

    def fails(match, **changes):
        with pytest.raises(UserError, match=match) as raised:
            sources.open_source(settings(root, out, **changes), 'train')
        assert '\n' not in str(raised.value)

    with pytest.raises(UserError, match=r'no data: config.data.path is empty; .*bone_us\.py:simulated'):
        sources.open_source(settings('', out), 'train')
    fails(r'has 4 masks, but config.data.num_raters is 3', num_raters=3)
    fails(r'channels is 3; bone_us has 1', channels=3)
    mask = root / 'case02' / 'mask_b.png'
    save(mask, outline(1)[:-1])
    fails(r'case02/mask_b\.png: 39x48 pixels, but image\.png is 40x48')
    save(mask, picture(1))
    fails(r'case02/mask_b\.png: not a mask of yes and no')
    save(mask, outline(1))
    content = (root / 'case03' / 'image.png').read_bytes()
    (root / 'case03' / 'image.png').write_bytes(content[: len(content) // 2])
    fails(r'case03/image\.png: truncated or damaged')
    (root / 'case03' / 'image.png').write_bytes(content)
    save(root / 'case03' / 'image.tif', picture(3))
    fails(r'case03: 2 files image\.\*')


def test_a_build_that_was_interrupted_goes_on_with_the_cases_it_has_not_read(tree, tmp_path, monkeypatch):
    whole, read = Case.read, []

    def dies(case, data):
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(case.name)
        return whole(case, data)

    monkeypatch.setattr(Case, 'read', dies)
    with pytest.raises(KeyboardInterrupt):
        sources.open_source(settings(tree, tmp_path), 'train')
    monkeypatch.setattr(Case, 'read', lambda case, data: read.append(case.name) or whole(case, data))
    sources.open_source(settings(tree, tmp_path), 'train')
    assert sorted(read) == NAMES


@pytest.mark.parametrize(('make', 'name'), [(scans.BoneUs, '64_resize'), (folder.Folder, '64_crop_full_range')])
def test_tensorflow_datasets_builds_it_from_manual_dir(tree, tmp_path, make, name):
    builder = make(data_dir=tmp_path, config=name, file_format='array_record')
    config = tfds.download.DownloadConfig(manual_dir=tree)
    builder.download_and_prepare(download_dir=tmp_path / 'downloads', download_config=config)
    assert sum(split.num_examples for split in builder.info.splits.values()) == 9 + 3
    record = builder.as_data_source(split='train')[0]
    assert record['image'].shape == (64, 64, 1) and record['masks'].shape == (4, 64, 64)
    again = make(data_dir=tmp_path, config=name, file_format='array_record')
    assert len(again.as_data_source(split='train')) == builder.info.splits['train'].num_examples
