"""Knegt's pickle: read as the literature reads it, and nothing in it is run."""

import hashlib
import os
import pickle
import pickletools
import struct
import tracemalloc

import ml_collections
import numpy as np
import pytest

from ambdiff.data import sources, splits
from ambdiff.data.layouts import knegt_pickle, numpy_pickle
from ambdiff.data.lidc import database
from ambdiff.data.lidc import splits as lidc_splits
from ambdiff.errors import UserError

SERIES = 20


def settings(path, **changes):
    fields = {
        'path': str(path),
        'builder': '',
        'pattern': '',
        'image_size': 16,
        'fit': 'crop',
        'num_raters': 4,
        'num_classes': 1,
        'channels': 1,
        'neighbours': 0,
        'lidc_split': 'mose',
    }
    return ml_collections.ConfigDict(fields | changes)


def cases(dtype=np.float64, mask=np.uint8):
    """Two slices of each of SERIES series, as the file holds them."""
    rng = np.random.default_rng(0)
    known = sorted(database.patient_of_series())[:SERIES]
    return {
        f'slice-{number}-{uid}': {
            'image': rng.random((16, 16)).astype(dtype),
            'masks': [rng.integers(0, 2, (16, 16)).astype(mask) for _ in range(4)],
            'pixel_spacing': 0.7,
            'series_uid': uid,
        }
        for uid in known
        for number in range(2)
    }


def write(path, content, protocol=pickle.HIGHEST_PROTOCOL):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp('knegt') / 'data_lidc.pickle', cases())


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('dtype', [np.float64, np.float32, np.float16])
@pytest.mark.parametrize('mask', [np.uint8, bool, np.int64, np.float64])
def test_every_case_is_read_as_it_was_written(tmp_path, protocol, dtype, mask):
    expected = cases(dtype, mask)
    path = write(tmp_path / 'a.pickle', expected, protocol)
    seen = set()
    for split in ('train', 'validation', 'test'):
        source = sources.open_source(settings(path), split)
        for item in (source[i] for i in range(len(source))):
            case = expected[item['case']]
            np.testing.assert_allclose(item['image'][..., 0], case['image'].astype(np.float32))
            marked = {np.asarray(m, np.uint8).tobytes() for m in case['masks']}
            assert {m.tobytes() for m in item['masks']} == marked
            seen.add(item['case'])
    assert seen == set(expected)


@pytest.mark.parametrize('module', ['numpy.core', 'numpy._core'])
def test_files_of_older_and_newer_numpy_are_read(tmp_path, module):
    content = pickle.dumps(cases(), 3)
    other = content.replace(b'cnumpy._core.', b'cnumpy.core.').replace(b'cnumpy.core.', b'c' + module.encode() + b'.')
    (tmp_path / 'a.pickle').write_bytes(other)
    assert module.encode() in other
    assert len(sources.open_source(settings(tmp_path / 'a.pickle'), 'train')) == 2 * 12


def test_splits_are_by_series_as_the_public_loaders_draw_them_and_patients_are_named(file):
    known = database.patient_of_series()
    opened = {split: sources.open_source(settings(file), split) for split in ('train', 'validation', 'test')}
    names = {split: {source[i]['case'] for i in range(len(source))} for split, source in opened.items()}
    # train_test_split holds out the first ceil(n / 5) of RandomState(0)'s permutation of the sorted series.
    series = np.array(sorted(known)[:SERIES])
    order = np.random.RandomState(0).permutation(SERIES)
    assert {name.rsplit('-', 1)[1] for name in names['test']} == set(series[order[:4]])
    rest = series[order[4:]]
    order = np.random.RandomState(0).permutation(16)
    assert {name.rsplit('-', 1)[1] for name in names['validation']} == set(rest[order[:4]])
    assert {name.rsplit('-', 1)[1] for name in names['train']} == set(rest[order[4:]])
    item = opened['train'][0]
    assert item['present'].all()
    assert item['patient'] == known[item['case'].rsplit('-', 1)[1]]


@pytest.mark.parametrize('rule', lidc_splits.RULES)
def test_every_series_is_in_one_split_and_the_rules_differ(rule):
    patient_of = {f'1.2.{i}': f'p{i // 2}' for i in range(100)}
    split = lidc_splits.divide(rule, patient_of)
    assert split.keys() == patient_of.keys()
    sizes = [list(split.values()).count(name) for name in ('train', 'validation', 'test')]
    assert sizes == ([80, 10, 10] if rule == 'patient' else [64, 16, 20])
    assert bool(splits.shared_patients({s: (patient_of[s], split[s]) for s in split})) == (rule != 'patient')
    assert split == lidc_splits.divide(rule, dict(reversed(patient_of.items())))
    assert all(split != lidc_splits.divide(other, patient_of) for other in lidc_splits.RULES if other != rule)


def test_the_mose_split_is_the_one_that_scikit_learn_draws():
    """The digests are of scikit-learn 1.9.1's train_test_split, twice, on these 875 ids."""
    ids = sorted({f'1.3.6.{i * 7919 % 100003}' for i in range(875)})
    split = lidc_splits.divide('mose', {i: i for i in ids})
    found = []
    for name in ('train', 'validation', 'test'):
        part = sorted(i for i in ids if split[i] == name)
        found.append((len(part), hashlib.sha256(','.join(part).encode()).hexdigest()[:16]))
    assert found == [(560, '78eb17507375eb05'), (140, '7be434c2cd75353e'), (175, '49b05c35c7b1836c')]


class Runs:
    """What an attacker pickles: loading it calls `call(argument)`."""

    def __init__(self, call, *arguments):
        self.made = call, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize(
    'call', [(os.system, 'touch {}'), (eval, 'open({!r}, "w")'), (exec, 'open({!r}, "w")'), (os.mkdir, '{}')]
)
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path, protocol, call):
    target = tmp_path / 'ran'
    function, argument = call
    bad = {**cases(), 'x': Runs(function, argument.format(str(target)))}
    path = write(tmp_path / 'bad.pickle', bad, protocol)
    with pytest.raises(UserError, match=r'bad\.pickle: refused, nothing was run: .*only NumPy arrays') as caught:
        sources.open_source(settings(path), 'train')
    assert '\n' not in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize(
    'name',
    [
        b'cnumpy\nload\n',
        b'cnumpy.core.multiarray\nfromfile\n',
        b'cbuiltins\ngetattr\n',
        b'cnumpy\nndarray.tofile\n',
        b'cnumpy._core.multiarray\n_reconstruct.__globals__\n',
    ],
)
def test_no_name_but_those_of_an_array_can_be_reached(tmp_path, name):
    (tmp_path / 'a').write_bytes(b'\x80\x04' + name + b'.')
    with pytest.raises(UserError, match='only NumPy arrays and builtins'):
        numpy_pickle.load(tmp_path / 'a', lambda x: x)


def test_a_pickle_cannot_change_what_it_names(tmp_path):
    # BUILD on the stand-in of a function, then of the type of arrays.
    for name in (b'cnumpy\ndtype\n', b'cnumpy\nndarray\n'):
        (tmp_path / 'a').write_bytes(b'\x80\x04' + name + b'}\x8c\x01xK\x01sb.')
        with pytest.raises(UserError, match='refused, nothing was run: it sets the state'):
            numpy_pickle.load(tmp_path / 'a', lambda x: x)


@pytest.mark.parametrize(
    'bomb',
    [
        b'\x80\x05\x96' + struct.pack('<Q', 1 << 36) + b'x',  # bytearray of 64 GiB
        b'\x80\x05\x8e' + struct.pack('<Q', 1 << 36) + b'x',  # bytes
        b'\x80\x05\x95' + struct.pack('<Q', 1 << 36) + b'x',  # frame
        b'\x80\x02}r\xff\xff\xff\x7f',  # memo number 2^31 - 1
        b'\x80\x02\x8b\xff\xff\xff\x7fx',  # integer of 2 GiB
    ],
)
def test_a_claim_larger_than_the_file_takes_no_memory(tmp_path, bomb):
    (tmp_path / 'a').write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(UserError, match='damaged or truncated'):
        numpy_pickle.load(tmp_path / 'a', lambda x: x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_an_array_that_claims_more_than_its_bytes_is_refused(tmp_path):
    content = pickle.dumps({'a': np.zeros((16, 16))}, 3)
    claim = pickle.dumps((16, 16), 3)[2:-3]
    assert claim in content
    huge = content.replace(claim, b'J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86')
    assert list(pickletools.genops(huge))  # it is well formed
    (tmp_path / 'a').write_bytes(huge)
    with pytest.raises(UserError, match='claims the shape'):
        numpy_pickle.load(tmp_path / 'a', lambda x: x)
    for odd in (np.zeros(3, 'f8,i4'), np.array([{}], object), np.array(['text'])):
        write(tmp_path / 'a', odd)
        with pytest.raises(UserError, match=r'only (arrays of numbers|NumPy arrays)'):
            numpy_pickle.load(tmp_path / 'a', lambda x: x)


@pytest.mark.parametrize('share', [0.01, 0.3, 0.7, 0.999])
def test_a_truncated_pickle_is_one_line(tmp_path, file, share):
    content = file.read_bytes()
    path = tmp_path / 'cut.pickle'
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r'cut\.pickle: the pickle is damaged or truncated.*download it again'):
        sources.open_source(settings(path), 'train')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image': np.full((16, 16), 2.0)}, r'values from 2 to 2.*\[0, 1\]'),
        ({'image': np.full((16, 16), np.nan)}, r'\[0, 1\]'),
        ({'image': np.zeros((16, 16, 3))}, r'its image is \[16, 16, 3\]'),
        ({'image': 'text'}, 'image holds a str'),
        ({'masks': [np.zeros((16, 16), np.uint8)] * 5}, 'has 5 masks.*num_raters=5'),
        ({'masks': [np.zeros((16, 15), np.uint8)] * 4}, r'mask 0 is \[16, 15\], but its image \[16, 16\]'),
        ({'masks': [np.full((16, 16), 7)] * 4}, 'mask 0 holds other values'),
        ({'series_uid': ''}, 'series_uid should be text'),
    ],
)
def test_a_faulty_case_is_named(tmp_path, change, message):
    content = cases()
    name = sorted(content)[5]
    content[name] |= change
    path = write(tmp_path / 'a.pickle', content)
    with pytest.raises(UserError, match=message) as caught:
        sources.open_source(settings(path), 'train')
    assert name[:60] in str(caught.value)


def test_masks_may_be_one_array(tmp_path):
    content = cases()
    for case in content.values():
        case['masks'] = np.stack(case['masks'])
    a = sources.open_source(settings(write(tmp_path / 'a', content)), 'test')
    knegt_pickle._read.cache_clear()
    b = sources.open_source(settings(write(tmp_path / 'b', cases())), 'test')
    for i in range(len(a)):
        np.testing.assert_array_equal(a[i]['masks'], b[i]['masks'])


def test_a_missing_rater_is_marked_and_no_empty_answer(tmp_path):
    content = cases()
    short = sorted(content)[0]
    content[short]['masks'] = content[short]['masks'][:3]
    path = write(tmp_path / 'a', content)
    found = {}
    for split in ('train', 'validation', 'test'):
        source = sources.open_source(settings(path), split)
        found |= {item['case']: item for item in (source[i] for i in range(len(source)))}
    assert sum(found[short]['present']) == 3
    assert not found[short]['masks'][~found[short]['present']].any()
    assert all(item['present'].all() for case, item in found.items() if case != short)


def test_the_split_of_every_case_is_written_out(file, tmp_path):
    sources.write_splits(settings(file), tmp_path)
    table = splits.read_table(tmp_path / 'splits.csv')
    source = sources.open_source(settings(file), 'validation')
    assert {source[i]['case'] for i in range(len(source))} == {c for c, (_, s) in table.items() if s == 'validation'}
    assert len(table) == 2 * SERIES


def test_cases_that_share_an_array_cannot_grow_beyond_the_file(tmp_path):
    mask, image = np.zeros((512, 512), np.uint8), np.full((512, 512), 0.5, np.float32)
    content = {f'{n}': {'image': image, 'masks': [mask] * 4, 'series_uid': f'1.{n}'} for n in range(200)}
    path = write(tmp_path / 'shared.pickle', content)
    with pytest.raises(UserError, match=r'shared\.pickle: its cases share their arrays'):
        sources.open_source(settings(path), 'train')
    few = {name: content[name] for name in list(content)[:5]}  # readers who marked nothing may share one empty mask
    for value in few.values():
        value['image'] = image.copy()
    assert len(sources.open_source(settings(write(tmp_path / 'few.pickle', few)), 'train')) > 0


def test_bytes_that_are_made_into_an_array_again_and_again_are_refused(tmp_path):
    whole = pickle.dumps(np.full((256, 256), 3, np.uint8), 3)
    content = bytes([3]) * 256 * 256
    at = whole.index(content) - 5  # its bytes, by the memo instead
    end = at + 5 + len(content) + (2 if whole[at + 5 + len(content)] == pickle.BINPUT[0] else 0)
    again = whole[2:at] + b'h\xff' + whole[end:-1]
    once = b'\x80\x03]B' + len(content).to_bytes(4, 'little') + content + b'q\xff0'
    (tmp_path / 'a.pickle').write_bytes(once + (again + b'a') * 2 + b'.')
    assert len(numpy_pickle.load(tmp_path / 'a.pickle', np.copy)) == 2
    (tmp_path / 'b.pickle').write_bytes(once + (again + b'a') * 9 + b'.')
    with pytest.raises(UserError, match='refused, nothing was run: its arrays hold more bytes than the file'):
        numpy_pickle.load(tmp_path / 'b.pickle', np.copy)


@pytest.mark.parametrize('put', [b'}%bNs', b'}(%bNu', b'(%bNd', b'\x8f(%b\x90', b'(%b\x91'])
def test_a_key_that_takes_for_ever_to_hash_is_refused(tmp_path, put):
    nested = ()
    for _ in range(70):
        nested = (nested, nested)
    key = pickle.dumps(nested, 2)[2:-1]
    (tmp_path / 'a.pickle').write_bytes(b'\x80\x04' + put % key + b'.')
    with pytest.raises(UserError, match='refused, nothing was run: a key that is no text'):
        numpy_pickle.load(tmp_path / 'a.pickle', np.copy)


@pytest.mark.parametrize(
    'key', [b'K\x01', b'G' + bytes(8), b'N', b'(\x91', b'\x8a\x08' + b'\xff' * 7 + b'\x1f', b'C\x01a']
)
def test_keys_are_text_alone(tmp_path, key):
    (tmp_path / 'a.pickle').write_bytes(b'\x80\x04}' + key + b'Ns.')
    with pytest.raises(UserError, match='a key that is no text'):
        numpy_pickle.load(tmp_path / 'a.pickle', np.copy)


def test_an_array_of_sides_without_end_is_refused_at_once(tmp_path):
    content = pickle.dumps({'a': np.zeros((16, 16))}, 3)
    side = b'\x8b' + (1 << 20).to_bytes(4, 'little') + b'\x7f' * (1 << 20)
    huge = content.replace(pickle.dumps((16, 16), 3)[2:-3], side + b'2' + b'\x86')
    (tmp_path / 'a').write_bytes(huge)
    with pytest.raises(UserError, match='sides that no array has'):
        numpy_pickle.load(tmp_path / 'a', lambda x: x)


@pytest.mark.parametrize('where', ['name', 'series'])
def test_text_that_cannot_be_written_is_a_fault_of_its_case(tmp_path, where):
    content = cases()
    name = sorted(content)[0]
    if where == 'name':
        content['\ud800'] = content.pop(name)
    else:
        content[name]['series_uid'] = 'x\udfff'
    path = write(tmp_path / 'a.pickle', content)
    with pytest.raises(UserError, match=r'series_uid should be text') as caught:
        sources.open_source(settings(path), 'train')
    assert str(caught.value).encode()
    sources.write_splits(settings(path), tmp_path)
    assert len(splits.read_table(tmp_path / 'splits.csv')) == len(content) - 1
