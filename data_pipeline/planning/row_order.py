"""The order in which a run reads rows: permutations without arrays, of all rows or by window.

Row g of a run, counted over all batches, is a function of g and the seed only. Finding it costs the
same for every g.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from data_pipeline import randomness

_OPEN_EPOCHS = 4  # whose windows are cached; a batch reads at most two epochs unless it is huge


def shuffle_rows(
    numbers: Int64[np.ndarray, " rows"], rows_per_epoch: int, *, seed: int
) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]:
    """Return the epoch, and the row within it, of each row of a run.

    With R rows per epoch, row g is row `permutation(g mod R)` of epoch `g // R`. The permutation is
    a function of the seed and the epoch.
    """
    epochs = numbers // rows_per_epoch
    shuffled = np.empty_like(numbers)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        key = randomness.derive_key(seed, "order", epoch)
        inside = numbers[here] % rows_per_epoch
        shuffled[here] = randomness.permute(inside, rows_per_epoch, key=key)
    return epochs, shuffled


class Places(NamedTuple):
    """Where the rows of a run are."""

    epochs: Int64[np.ndarray, " rows"]
    shards: Int64[np.ndarray, " rows"]
    rows: Int64[np.ndarray, " rows"]  # number within the shard


class Windows(NamedTuple):
    """The windows of an epoch, in reading order.

    Attributes:
        shards: the shards of all windows, grouped by window.
        shard_starts: number of rows before each of these shards, and of all rows.
        window_starts: number of rows before each window, and of all rows.
    """

    shards: Int64[np.ndarray, " shards"]
    shard_starts: Int64[np.ndarray, " shards+1"]
    window_starts: Int64[np.ndarray, " windows+1"]

    def shards_of(self, window: int) -> Int64[np.ndarray, " shards_here"]:
        """Return the shards of a window that have rows, in the order of the corpus."""
        first, last = self.window_starts[window : window + 2]
        starts = self.shard_starts[:-1]
        has_rows = np.diff(self.shard_starts) > 0
        return self.shards[(starts >= first) & (starts < last) & has_rows]


class RowOrder:
    """The order of the rows of shards: by window, with a permutation of the rows inside each.

    An epoch divides the shards into W windows with equal numbers of shards: of every W consecutive
    shards, each window gets one. So every window is a sample of the whole corpus, whatever the
    order of its sources, and a different one in each epoch. Within a window, one keyed permutation
    covers the rows of all of its shards. An epoch ends after R rows, the smallest number of rows of
    any variant of the plan; an epoch of a variant with more rows leaves out the last ones in its
    order.

    Args:
        rows: number of rows of each shard, in each variant of the plan; epochs use the variants in
            turn.
        num_windows: number of windows, at most the number of shards.
        seed: the seed of the run.

    Attributes:
        num_rows: R, the number of rows in an epoch.
    """

    def __init__(
        self, rows: Int64[np.ndarray, "variants shards"], num_windows: int, *, seed: int
    ) -> None:
        self._rows, self._num_windows, self._seed = rows, num_windows, seed
        self.num_rows = int(rows.sum(axis=1).min())
        self.windows = functools.lru_cache(_OPEN_EPOCHS)(self._divide)

    def find(self, numbers: Int64[np.ndarray, " rows"]) -> Places:
        """Return where the rows with these numbers in the run are."""
        places = Places(numbers // self.num_rows, *(np.empty_like(numbers) for _ in range(2)))
        for epoch in np.unique(places.epochs).tolist():
            windows = self.windows(epoch)
            in_epoch = np.flatnonzero(places.epochs == epoch)
            inside = numbers[in_epoch] % self.num_rows
            window_of = np.searchsorted(windows.window_starts, inside, side="right") - 1
            for window in np.unique(window_of).tolist():
                here = window_of == window
                first, end = windows.window_starts[window : window + 2].tolist()
                key = randomness.derive_key(self._seed, "order", epoch, window)
                shuffled = first + randomness.permute(inside[here] - first, end - first, key=key)
                place = np.searchsorted(windows.shard_starts, shuffled, side="right") - 1
                places.shards[in_epoch[here]] = windows.shards[place]
                places.rows[in_epoch[here]] = shuffled - windows.shard_starts[place]
        return places

    def window_of(self, number: int) -> tuple[int, int]:
        """Return the epoch in which the row with this number is read, and the window in it."""
        epoch, inside = divmod(number, self.num_rows)
        starts = self.windows(epoch).window_starts
        return epoch, int(np.searchsorted(starts, inside, side="right")) - 1

    def window_after(self, window: tuple[int, int]) -> tuple[int, int]:
        """Return the epoch and the window that follow those returned by `window_of`."""
        epoch, number = window
        return (epoch, number + 1) if number + 1 < self._num_windows else (epoch + 1, 0)

    def _divide(self, epoch: int) -> Windows:
        rows = self._rows[epoch % len(self._rows)]
        key = randomness.derive_key(self._seed, "windows", epoch)
        window_of = assign_windows(len(rows), self._num_windows, key=key)
        shards = np.argsort(window_of, kind="stable")
        shard_starts = np.cumsum([0, *rows[shards]])
        first_shards = np.searchsorted(window_of[shards], np.arange(self._num_windows + 1))
        return Windows(shards, shard_starts, shard_starts[first_shards])


def count_windows(text_bytes: int, window_bytes: int, num_shards: int) -> int:
    """Return the number of windows for a text, each of about `window_bytes`."""
    return max(1, min(round(text_bytes / window_bytes), num_shards))


def assign_windows(num_shards: int, num_windows: int, *, key: int) -> Int64[np.ndarray, " shards"]:
    """Assign shards to windows at random: of W consecutive shards, each gets another window.

    Example: 5 shards and 2 windows may give `[1, 0, 0, 1, 1]`: each window has one of shards 0 and
    1, one of 2 and 3, and one of 4 and a sixth shard that does not exist.
    """
    groups = -(-num_shards // num_windows)
    bits = randomness.random_bits(key, np.arange(groups * num_windows)).view(np.uint64)[:, 0]
    order = np.argsort(bits.reshape(groups, num_windows), axis=1, kind="stable")
    return order.ravel()[:num_shards]
