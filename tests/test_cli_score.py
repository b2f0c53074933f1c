"""ambdiff score: masks of any program, in any of the forms that are read, give evaluate's own figures."""

import json

import nibabel
import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from PIL import Image

import ambdiff
from ambdiff.cli import entry
from ambdiff.evaluation import files, scores
from ambdiff.evaluation.cases import Cases

SIZE, NUMBER = 20, 3  # 20 is no multiple of 8: bits of a row have unused ones


def invoke(*arguments):
    return CliRunner().invoke(entry.ambdiff, [str(a) for a in arguments])


def scored(folder, *arguments):
    """What metrics.json holds after `ambdiff score`."""
    done = invoke('score', *arguments, '-o', folder)
    assert done.exit_code == 0, (done.output, done.exception)
    assert {path.name for path in folder.iterdir()} == {'metrics.json', 'per_image.csv', 'masks.npz', 'report.html'}
    return json.loads((folder / 'metrics.json').read_text())


def agrees(found, expected):
    for part in ('metrics', 'stderr'):
        assert found[part].keys() == expected[part].keys()
        for key, value in expected[part].items():
            assert (found[part][key] is None) == (value is None), key
            assert value is None or abs(found[part][key] - value) < 1e-6, key


@pytest.fixture(scope='module')
def masks():
    """(names, patients, raters [n, 2, H, W], samples [n, N, H, W]) bool; one rater and one sample draw nothing."""
    rng = np.random.default_rng(0)
    names = [f'scan_{number}' for number in range(4)]
    disc = lambda: tiny.disc((SIZE, SIZE), rng.uniform(7, 13, 2), rng.uniform(2, 5))
    raters = np.stack([[disc() for _ in range(2)] for _ in names])
    samples = np.stack([[disc() for _ in range(NUMBER)] for _ in names])
    raters[1, 0] = samples[2, 1] = False
    return names, ['a', 'a', 'b', 'c'], raters, samples


@pytest.fixture(scope='module')
def evaluated(masks, tmp_path_factory):
    """The folder that evaluate writes for these masks."""
    folder = tmp_path_factory.mktemp('run') / 'evaluation'
    write_evaluation(folder, *masks, draws='dependent')
    return folder


def write_evaluation(folder, names, patients, raters, samples, draws='independent'):
    present = np.ones(raters.shape[:2], bool)
    images = np.random.default_rng(1).random((len(names), *raters.shape[2:], 1)).astype(np.float32)
    found = scores.compute(raters, present, samples, patients=patients, draws=draws, num_classes=1, seed=0)
    result = {'samples_per_image': samples.shape[1], **found.as_json()}
    cases = Cases(images, raters.astype(np.uint8), present, names, patients)
    files.write(folder, result, found, cases, samples, 1, {}, '')


def save(path, mask, white=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * white).save(path)


def in_folders(root, names, stacks, stem):
    for name, stack in zip(names, stacks, strict=True):
        for number, mask in enumerate(stack):
            save(root / name / f'{stem}_{number}.png', mask)


@pytest.fixture(scope='module')
def rater_folders(masks, tmp_path_factory):
    root = tmp_path_factory.mktemp('raters')
    in_folders(root, masks[0], masks[2], 'mask')
    return root


@pytest.fixture(scope='module')
def expected(masks):
    _, patients, raters, samples = masks
    present = np.ones(raters.shape[:2], bool)
    found = scores.compute(raters, present, samples, patients=patients, draws='independent', num_classes=1, seed=0)
    return json.loads(json.dumps(files.without_nan(found.as_json())))


def table(path, names, patients):
    path.write_text('case,patient\n' + ''.join(f'{n},{p}\n' for n, p in zip(names, patients, strict=True)))
    return path


def test_masks_of_evaluate_give_its_own_figures(evaluated, tmp_path):
    found = scored(tmp_path / 'out', f'--samples={evaluated / "masks.npz"}')
    told = json.loads((evaluated / 'metrics.json').read_text())
    agrees(found, told)
    assert found['draws'] == 'dependent' and found['metrics']['ged_unbiased'] is None
    assert found['stderr_clustered_by'] == 'patient' and found['num_patients'] == 3
    assert found['baselines']['other_patients'] is None and found['config'] is None
    assert (tmp_path / 'out' / 'per_image.csv').read_text() == (evaluated / 'per_image.csv').read_text()
    with np.load(tmp_path / 'out' / 'masks.npz') as again, np.load(evaluated / 'masks.npz') as first:
        assert all((again[name] == first[name]).all() for name in first.files)


def write_flat(root, names, samples):
    for name, stack in zip(names, samples, strict=True):
        for number, mask in enumerate(stack):
            save(root / f'{name}_{number}.png', mask, 1)


def write_plain(root, names, samples):
    root.mkdir()
    np.savez(root / 'any.npz', **dict(zip(names, samples.astype(np.uint8) * 255, strict=True)))


def write_nifti(root, names, samples):
    root.mkdir()
    for name, stack in zip(names, samples, strict=True):  # columns, rows, slices, samples
        nifti = nibabel.Nifti1Image(stack.transpose(2, 1, 0)[:, :, None].astype(np.uint8), None)
        nifti.to_filename(root / f'{name}.nii.gz')


def write_predicted(root, names, samples):
    in_folders(root, names, samples, 'samples')
    for name in names:
        save(root / name / 'probability.png', np.eye(SIZE), 77)


@pytest.mark.parametrize('write', [write_flat, write_plain, write_nifti, write_predicted])
def test_samples_in_any_form_give_the_same_figures(write, masks, rater_folders, expected, tmp_path):
    names, patients, _, samples = masks
    write(tmp_path / 'drawn', names, samples)
    place = tmp_path / 'drawn' / 'any.npz' if write is write_plain else tmp_path / 'drawn'
    patients = table(tmp_path / 'patients.csv', names, patients)
    agrees(
        scored(tmp_path / 'out', f'--raters={rater_folders}', f'--samples={place}', f'--patients={patients}'), expected
    )


def test_the_voxels_of_a_volume_count_together_whatever_the_sizes_of_the_cases(tmp_path):
    rng = np.random.default_rng(2)
    volumes = {'a': (3, 12, 10), 'b': (5, 8, 9)}
    for name, (depth, height, width) in volumes.items():
        for kind, count in (('mask', 2), ('sample', 2)):
            for number in range(count):
                stack = np.zeros((width, height, depth), np.uint8)
                stack[2:6, 3 : 4 + rng.integers(1, 3), : rng.integers(1, depth)] = 1
                (tmp_path / 'in' / name).mkdir(parents=True, exist_ok=True)
                nibabel.Nifti1Image(stack, None).to_filename(tmp_path / 'in' / name / f'{kind}_{number}.nii.gz')
    found = scored(tmp_path / 'out', f'--raters={tmp_path / "in"}', f'--samples={tmp_path / "in"}')
    read = lambda name, kind: [
        np.asarray(nibabel.load(tmp_path / 'in' / name / f'{kind}_{number}.nii.gz').dataobj) for number in range(2)
    ]
    each = [ambdiff.score(read(name, 'mask'), read(name, 'sample'), volume=True) for name in volumes]
    for key in ('ged', 'hm_iou', 'd_max', 's_c', 'ci', 'ged_ideal'):
        assert found['metrics'][key] == pytest.approx(np.mean([one[key] for one in each]), abs=1e-6)


def test_raters_of_a_data_set_are_read_at_the_size_of_the_samples_and_its_training_masks_are_a_baseline(tmp_path):
    data = tiny.write_hdf5(tmp_path / 'data.hdf5')
    drawn = {f'test-{number:05d}': np.ones((2, 16, 16), bool) for number in range(8)}
    np.savez(tmp_path / 'drawn.npz', **drawn)
    given = [f'--raters={data}', f'--samples={tmp_path / "drawn.npz"}']
    found = scored(tmp_path / 'out', *given, f'--train={data}')
    assert found['num_images'] == 8 and found['stderr_clustered_by'] == 'patient'
    assert 0 < found['baselines']['other_patients']['ged'] < found['metrics']['ged']


def test_the_first_samples_and_the_cases_of_both_sides_are_taken_on_request(masks, rater_folders, tmp_path):
    names, _, raters, samples = masks
    for name, stack, count in zip(names[:3], samples, (2, 3, 3), strict=False):
        for number in range(count):
            save(tmp_path / 'drawn' / name / f'sample_{number}.png', stack[number])
    given = [f'--raters={rater_folders}', f'--samples={tmp_path / "drawn"}']
    found = scored(tmp_path / 'out', *given, '-n', '2', '--only_common')
    one = [ambdiff.score(r, s[:2])['ged'] for r, s in zip(raters[:3], samples[:3], strict=True)]
    assert found['metrics']['ged'] == pytest.approx(np.mean(one), abs=1e-6) and found['samples_per_image'] == 2


@pytest.fixture
def bad(masks, rater_folders, evaluated, tmp_path):
    """Inputs with a fault each."""
    names, _, raters, samples = masks
    in_folders(tmp_path / 'drawn', names, samples, 'sample')
    in_folders(tmp_path / 'fewer', names[:3], samples[:3], 'sample')
    in_folders(tmp_path / 'uneven', names, samples, 'sample')
    (tmp_path / 'uneven' / names[1] / 'sample_2.png').unlink()
    in_folders(tmp_path / 'small', names, samples[:, :, :-4], 'sample')
    in_folders(tmp_path / 'grey', names, samples, 'sample')
    Image.fromarray(np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)).save(
        tmp_path / 'grey' / names[2] / 'sample_1.png'
    )
    in_folders(tmp_path / 'others', ['x', 'y'], samples[:2], 'sample')
    write_flat(tmp_path / 'unclear', [*names, 'scan'], [*samples, samples[0]])
    in_folders(tmp_path / 'with_scan', [*names, 'scan'], [*raters, raters[0]], 'mask')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('nothing\n')
    np.savez(tmp_path / 'nameless.npz', samples=samples)
    np.savez(tmp_path / 'plain.npz', scan_0=samples[0])
    np.savez(tmp_path / 'flat.npz', scan_0=samples[0, 0])
    np.savez(tmp_path / 'pickled.npz', scan_0=np.array([{}], object))
    table(tmp_path / 'short.csv', names[:2], 'ab')
    (tmp_path / 'wrong.csv').write_text('name,who\na,b\n')
    (tmp_path / 'cut.npz').write_bytes((evaluated / 'masks.npz').read_bytes()[:-200])
    return tmp_path


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ('--raters={raters}', '--samples is missing'),
        ('--samples=drawn', 'holds no raters’ masks beside the samples; name them by --raters='),
        ('--samples=plain.npz', '--samples=plain.npz: holds no raters’ masks'),
        ('--raters={raters} --samples=drawn --train=nowhere', '--train=nowhere: no such file or folder'),
        ('--raters={raters} --samples=drawn --patients=nowhere.csv', 'nowhere.csv: cannot be read (No such file'),
        ('--raters=drawn --samples={raters}', 'are they swapped?'),
        ('--raters={raters} --samples=nowhere', '--samples=nowhere: no such file or folder'),
        ('--raters={raters} --samples=file', 'is none of what is read'),
        ('--raters={raters} --samples=empty', 'holds no PNG'),
        ('--raters={raters} --samples=fewer', 'the case scan_3'),
        ('--raters={raters} --samples=uneven', 'the case scan_1 has 2 samples, scan_0 has 3'),
        ('--raters={raters} --samples=small', 'the case scan_0: samples are 16x20 pixels'),
        ('--raters={raters} --samples=grey', 'scan_2/sample_1.png: not a mask of yes and no'),
        ('--raters={raters} --samples=others', 'no case is on both sides'),
        ('--raters=with_scan --samples=unclear', 'put the masks of each case into a folder'),
        ('--raters={raters} --samples=nameless.npz', 'has no array `case`'),
        ('--raters=nameless.npz --samples=drawn', 'holds samples and no raters'),
        ('--raters={raters} --samples=flat.npz', '`scan_0` is [20, 20]'),
        ('--raters={raters} --samples=pickled.npz', 'damaged, or holds what is no plain array'),
        ('--raters={raters} --samples=cut.npz', 'is none of what is read'),
        ('--raters={raters} --samples=drawn --patients=short.csv', 'has no line for 2 cases (scan_2, scan_3)'),
        ('--raters={raters} --samples=drawn --patients=wrong.csv', 'has no column case and patient'),
        ('--raters={raters} --samples=drawn --train={raters}', 'is scored too'),
        ('--raters={raters} --samples=drawn -n 9', 'fewer than --num-samples=9'),
        ('--samples={npz} -n 2', 'of dependent ones'),
        ('--samples={npz} --draws=free', "'free' is not one of"),
        ('--samples={npz} --num-classes=0', '0 is not in the range'),
        ('--samples={npz} -o file', 'file is a file; name a folder'),
        ('--samples={npz} more', 'unexpected extra argument (more)'),
        ('--sample={npz}', 'did you mean --samples?'),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(given, said, bad, rater_folders, evaluated, monkeypatch):
    monkeypatch.chdir(bad)
    before = sorted(bad.rglob('*'))
    words = given.format(raters=rater_folders, npz=evaluated / 'masks.npz').split()
    done = invoke('score', *([] if '-o' in words else ['-o', 'out']), *words)
    assert done.exit_code == 2, (done.output, done.exception)
    (line,) = done.stderr.splitlines()
    assert line.startswith('ambdiff: ') and said in line, line
    assert sorted(bad.rglob('*')) == before
