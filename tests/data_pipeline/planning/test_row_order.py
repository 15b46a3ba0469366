"""The order of rows: windows of shards, every row once an epoch, and neighbors apart."""

import numpy as np
import pytest
from scipy import stats

from data_pipeline.planning.row_order import RowOrder, assign_windows, count_windows

ROWS = np.array(
    [[40, 7, 0, 23, 31, 5, 12, 9, 18, 30, 44], [41, 6, 2, 20, 30, 7, 12, 9, 19, 31, 44]]
)


def find_epoch(order: RowOrder, epoch: int) -> list[tuple[int, int]]:
    """Return shard and row of all rows of an epoch, in their order."""
    places = order.find(epoch * order.num_rows + np.arange(order.num_rows))
    assert (places.epochs == epoch).all()
    return list(zip(places.shards.tolist(), places.rows.tolist(), strict=True))


@pytest.mark.parametrize("num_windows", [1, 3, 4, 11])
def test_an_epoch_reads_window_by_window_every_row_once(num_windows):
    order = RowOrder(ROWS, num_windows, seed=3)
    assert order.num_rows == ROWS[0].sum() < ROWS[1].sum()
    for epoch in range(4):
        rows = ROWS[epoch % 2]
        found = find_epoch(order, epoch)
        everything = {(shard, row) for shard, count in enumerate(rows) for row in range(count)}
        assert len(set(found)) == len(found) and set(found) <= everything
        windows = [order.window_of(epoch * order.num_rows + row) for row in range(order.num_rows)]
        assert {one for one, _ in windows} == {epoch}
        numbers = [number for _, number in windows]
        assert numbers == sorted(numbers)
        for number, (shard, _) in zip(numbers, found, strict=True):
            assert shard in order.windows(epoch).shards_of(number)
        # If a variant has more rows than an epoch, rows at the end of its order are left out.
        left_out = {shard for shard, _ in everything - set(found)}
        assert left_out <= set(order.windows(epoch).shards_of(num_windows - 1).tolist())
        assert (epoch % 2 == 1) == bool(left_out)


def test_any_row_is_found_alone_and_orders_differ():
    order = RowOrder(ROWS, 4, seed=3)
    numbers = np.random.default_rng(0).integers(0, 9 * order.num_rows, 300)
    together = order.find(numbers)
    for at in range(0, 300, 7):
        alone = RowOrder(ROWS, 4, seed=3).find(numbers[at : at + 1])
        assert [field[0] for field in alone] == [field[at] for field in together]
    epochs = [find_epoch(order, 0), find_epoch(order, 2), find_epoch(RowOrder(ROWS, 4, seed=4), 0)]
    for one, other in ((0, 1), (0, 2)):
        same = np.mean([a == b for a, b in zip(epochs[one], epochs[other], strict=True)])
        assert same < 0.05


def test_a_window_is_a_sample_of_all_of_the_corpus():
    """One of every W consecutive shards is in each window, and every place is as likely."""
    counts = np.zeros((11, 4), int)
    for key in range(1500):
        windows = assign_windows(11, 4, key=key)
        assert sorted(windows[:4]) == sorted(windows[4:8]) == [0, 1, 2, 3]
        assert len(set(windows[8:])) == 3
        counts[np.arange(11), windows] += 1
    assert stats.chisquare(counts, axis=1).pvalue.min() > 1e-4
    assert assign_windows(5, 1, key=0).tolist() == [0] * 5


def test_the_number_of_windows():
    sizes = (0, 16, 23, 25, 463)
    assert [count_windows(size, 16, num_shards=1800) for size in sizes] == [1, 1, 1, 2, 29]
    assert count_windows(1000, 16, num_shards=7) == 7


def meetings(order: RowOrder, batch: int, epochs: range) -> list[np.ndarray]:
    """Return, for each epoch, in which batch each row of each shard is read."""
    found = []
    for epoch in epochs:
        places = order.find(epoch * order.num_rows + np.arange(order.num_rows))
        table = np.full((len(order._rows[0]), order._rows.max()), -1)
        table[places.shards, places.rows] = np.arange(order.num_rows) // batch
        found.append(table)
    return found


def test_neighbors_meet_as_often_as_rows_of_one_permutation_of_their_window():
    """Rows that follow each other in a shard, as those of a document do, in one batch.

    Two rows of a window of n rows are in one batch of b with probability (b - 1) / (n - 1), where b
    divides n. This holds in each epoch, whatever happened in those before.
    """
    shards, per_shard, num_windows, batch, epochs = 24, 60, 4, 12, 60
    rows = np.full((1, shards), per_shard)
    tables = meetings(RowOrder(rows, num_windows, seed=1), batch, range(epochs))
    window = shards // num_windows * per_shard
    together = np.array([(table[:, 1:] == table[:, :-1]) for table in tables])
    probability = (batch - 1) / (window - 1)
    num_pairs = shards * (per_shard - 1)
    # Each epoch, and each pair of neighbors over the epochs.
    for axis, trials in (((1, 2), num_pairs), (0, epochs)):
        times = together.sum(axis=axis).ravel()
        statistic = ((times - trials * probability) ** 2).sum() / (
            trials * probability * (1 - probability)
        )
        assert 1e-4 < stats.chi2(len(times)).sf(statistic) < 1 - 1e-4
    # Meeting in one epoch says nothing of the next one.
    again = (together[1:] & together[:-1]).sum()
    expected = (epochs - 1) * num_pairs * probability**2
    assert 1e-4 < stats.poisson(expected).cdf(again) < 1 - 1e-4
    # Rows of two shards meet where the shards share a window: one epoch in W, or never if they are
    # among W consecutive ones.
    meet = [np.array([table[0] == table[other] for table in tables]).sum() for other in (1, 4)]
    expected = epochs * per_shard * probability / num_windows
    assert meet[0] == 0 and meet[1] == pytest.approx(expected, rel=0.6)


def test_places_of_a_row_are_uniform_over_the_epochs():
    order = RowOrder(np.full((1, 8), 8), 4, seed=2)
    firsts = [order.find(np.array([epoch * order.num_rows])) for epoch in range(1280)]
    counts = np.bincount([int(one.shards[0] * 8 + one.rows[0]) for one in firsts], minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-4
