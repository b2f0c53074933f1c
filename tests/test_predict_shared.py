"""Several processes share one output: each case is made once, none is lost, the dead are replaced."""

import collections
import contextlib
import csv
import os
import threading

import numpy as np
import pytest
import tiny
from PIL import Image

from ambdiff import predict, sampling
from ambdiff.prediction import claims
from ambdiff.prediction.crop_sampler import CropSampler

NAMES = 'abcdef'


@pytest.fixture
def folder(tmp_path):
    """Six pictures of one crop each."""
    (tmp_path / 'in').mkdir()
    for number, name in enumerate(NAMES):
        picture = np.where(tiny.disc((tiny.SIZE, tiny.SIZE), (8, 8)), 200 + number, 9)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / 'in' / f'{name}.png')
    return tmp_path / 'in'


@pytest.fixture
def seen(monkeypatch):
    """(case, thread) of each crop sampled, one crop at a time."""
    seen = []

    def sample(model, settings, crops, numbers, names):
        seen.extend((name, threading.get_ident()) for name in names)
        return tiny.sample_bright(model, settings, crops, numbers, names)

    class OneByOne(sampling.Sampler):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.chunk = 1

    monkeypatch.setattr(sampling, 'Sampler', OneByOne)
    monkeypatch.setattr(CropSampler, 'sample_crops', sample)
    monkeypatch.setattr(claims, 'PAUSE', 0.01)
    return seen


def run(weights, folder, output):
    """As a process of its own would, but for its signals."""
    flags = (f'--checkpoint={weights}', f'--input={folder}', f'--output={output}', '--num_samples=4', '--num_steps=2')
    return predict.predict(predict.parse_flags([*flags, '--shared']))


def die(held, name):
    """What is left of a killed process's claim: the file, without a lock."""
    path, lock = held._mine.pop(claims.short_digest(name))
    lock.release()
    return path


def rows(output):
    with (output / 'predictions.csv').open(newline='') as file:
        return {row['input']: row['error'] for row in csv.DictReader(file)}


def test_two_processes_make_each_case_once_and_both_know_of_all(weights, seen, folder, tmp_path, monkeypatch):
    both, sample = threading.Barrier(2, timeout=60), CropSampler.sample_crops
    first = threading.local()

    def together(*arguments):
        if not hasattr(first, 'done'):
            first.done = both.wait()  # each has a case before either goes on
        return sample(*arguments)

    monkeypatch.setattr(CropSampler, 'sample_crops', together)
    status = []
    work = [threading.Thread(target=lambda: status.append(run(weights, folder, tmp_path / 'out'))) for _ in range(2)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert status == [0, 0]
    assert collections.Counter(name for name, _ in seen) == dict.fromkeys((f'{name}.png' for name in NAMES), 1)
    assert len({thread for _, thread in seen}) == 2
    assert rows(tmp_path / 'out') == dict.fromkeys((f'{name}.png' for name in NAMES), '')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir() if path.is_dir()) == list(NAMES)


def test_a_case_of_a_process_that_dies_is_made_by_another_after_its_own(weights, seen, folder, tmp_path, monkeypatch):
    output = tmp_path / 'out'
    with claims.sharing(output, NAMES) as other:
        assert other.take('a')

        def wait():
            assert {name for name, _ in seen} == {f'{name}.png' for name in NAMES[1:]}, 'nobody waits with work to do'
            die(other, 'a')

        monkeypatch.setattr(claims, 'wait', wait)
        assert run(weights, folder, output) == 0
        assert len(seen) == 6 and 'a.png' in rows(output)


def test_a_case_that_another_process_could_not_predict_is_named_and_not_tried_again(
    weights, seen, folder, tmp_path, capfd
):
    with claims.sharing(tmp_path / 'out', NAMES) as other:
        assert other.take('c')
        other.fail('c', 'c.png: is odd')
        assert run(weights, folder, tmp_path / 'out') == 2
    assert 'c.png: is odd' in capfd.readouterr().err
    assert rows(tmp_path / 'out')['c.png'] == 'c.png: is odd' and len(seen) == 5
    assert run(weights, folder, tmp_path / 'out') == 0, 'a later run tries it'


def test_an_output_is_shared_or_held_by_one(weights, bright, folder, tmp_path, capfd):
    with claims.sharing(tmp_path / 'out', NAMES):
        assert tiny.run_predict(weights, folder, tmp_path / 'out') == 2
    assert 'being written by another run' in capfd.readouterr().err and not bright
    assert tiny.run_predict(weights, folder, tmp_path / 'out') == 0


@pytest.fixture
def hosts(tmp_path):
    """Claims of two processes on one host, and of one on another."""
    made = [claims.Claims(tmp_path, host) for host in ('one', 'one', 'other')]
    made[0].folder.mkdir()
    yield made
    for one in made:
        for key in list(one._mine):
            one._release(key)


def test_a_case_has_one_owner_until_it_is_let_go(hosts):
    one, same, other = hosts
    assert one.take('a') and not same.take('a') and not other.take('a') and same.take('b')
    one.release('a')
    assert other.take('a') and not one.take('a')


def test_the_dead_are_known_at_once_on_their_host_and_by_their_silence_on_another(hosts):
    one, same, other = hosts
    assert one.take('a') and one.take('b') and one.take('c')
    die(one, 'a')
    assert not other.take('a') and same.take('a')
    path = die(one, 'b')
    long_ago = path.stat().st_mtime - 1000
    os.utime(path, (long_ago, long_ago))
    assert other.take('b') and not same.take('b')


def test_what_a_dead_process_had_is_taken_over_by_one_alone(tmp_path, hosts):
    for attempt in range(20):
        name = f'case {attempt}'
        assert hosts[0].take(name)
        die(hosts[0], name)
        takers, took, start = [claims.Claims(tmp_path, 'one') for _ in range(4)], [], threading.Barrier(4, timeout=60)

        def take(taker, name=name, took=took, start=start):
            start.wait()
            took.append(taker.take(name))

        threads = [threading.Thread(target=take, args=(taker,)) for taker in takers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(took) == 1
        with contextlib.suppress(KeyError):
            for taker in takers:
                taker.release(name)
