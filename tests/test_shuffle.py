"""The order of training is grain's, and every epoch has every example once."""

import grain
import pytest

from ambdiff.data.shuffle import Shuffled


@pytest.mark.parametrize('length', [1, 2, 3, 17, 1000])
@pytest.mark.parametrize('seed', [0, 1, 2**31])
def test_the_order_is_that_of_grain_and_epochs_are_whole(length, seed):
    source = [f'example {i}' for i in range(length)]
    ours = Shuffled(source, seed)
    theirs = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    rows = 3 * length + 2
    assert [ours[row] for row in range(rows)] == [theirs[row] for row in range(rows)]
    for epoch in range(3):
        assert sorted(ours[row] for row in range(epoch * length, (epoch + 1) * length)) == sorted(source)
