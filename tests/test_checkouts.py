"""benchmarks/checkouts.py: what it makes of runs, with stand-ins for them."""

import math
import pathlib
import types

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'


@pytest.fixture
def checkouts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import checkouts

    return checkouts


def stand_in(checkouts, place, slower):
    """A checkout whose every process starts in 3 s; an image trained on takes 0.1 s, a file 0.2 s, times `slower`."""
    ran = []

    class StandIn(checkouts.Checkout):
        def run(self, *words, cache='cache'):
            ran.append(words)
            if steps := [word for word in words if str(word).startswith('--config.train.num_steps=')]:
                return checkouts.Run(3 + slower * int(steps[0].partition('=')[2]) * 32 * 0.1, 900.0 * slower)
            (given,) = [word for word in words if str(word).startswith('--input=')]
            count = {'few': 10, 'more': 50}.get(given.rpartition('/')[2], 0)
            return checkouts.Run(3 + slower * count * 0.2 + 5 * (cache == 'empty'), 400.0)

    made = StandIn(BENCHMARKS.parent, place, types.SimpleNamespace(batch=32, data='data.hdf5'))
    made.ran = ran
    return made


def test_a_rate_from_two_lengths_is_free_of_what_both_runs_take(checkouts):
    assert checkouts.rate((10, 3 + 10 * 0.25), (50, 3 + 50 * 0.25)) == pytest.approx(4)
    assert math.isnan(checkouts.rate((10, 5.0), (50, 4.9)))


def test_turns_give_rates_peaks_and_paired_ratios(checkouts, tmp_path):
    both = [stand_in(checkouts, tmp_path / str(slower), slower) for slower in (2, 1)]
    inputs = {'one': pathlib.Path('one.png'), 'many': [(10, tmp_path / 'few'), (50, tmp_path / 'more')], 'batch': 32}
    parts = ['start', 'train', 'memory', 'files']
    before, after = values = checkouts.measured(both, inputs, parts, 2)
    assert before['training images/s'] == pytest.approx([5, 5]) and after['training images/s'] == pytest.approx(
        [10, 10]
    )
    assert before['files/s of predict'] == pytest.approx([2.5, 2.5])
    assert (before['memory of training [MiB]'], after['memory of training [MiB]']) == ([1800, 1800], [900, 900])
    assert (after['first mask, cold [s]'], after['first mask, warm [s]']) == ([8, 8], [3, 3])
    assert '| training images/s | 5 (5 to 5) | 10 (10 to 10) | 2 (2 to 2) |' in checkouts.table(['old', 'new'], values)
    # Of a turn, two starts, two trainings and two folders: memory asks for nothing anew.
    assert len(both[0].ran) == 2 * 6


def test_a_ratio_is_of_neighbouring_runs_and_a_lost_one_is_left_out(checkouts):
    assert checkouts.ratios([1, 2, 4], [2, 6, 2]) == [2, 3, 0.5]
    assert checkouts.spread([2, 3, 0.5, math.nan]) == '2 (0.5 to 3)'
    assert checkouts.spread([math.nan]) == 'nothing measured'
