"""Packing: which segment pairs share a row."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from data_pipeline.config import DataConfig, Packing
from data_pipeline.planning.pairs import pair_lengths

SPECIAL_TOKENS_PER_PAIR = 3  # [CLS] A [SEP] B [SEP]
_COUNTED = 1 << 14  # rows counted at a time, to bound memory


def pack_pairs(
    lengths: Int64[np.ndarray, " pairs"], *, row_length: int, max_pairs_per_row: int
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " rows"]]:
    """Assign pairs to rows by best-fit decreasing.

    Pairs are placed from the longest to the shortest. Each goes into the fullest row that can still
    hold it; among equally full rows, into the one that was filled last.

    Returns:
        order: the pairs, grouped by row.
        sizes: the number of pairs in each row.

    Example: for rows of 10, the lengths `[4, 6, 9, 3, 3, 4]` give the rows `[2], [1, 0], [5, 3, 4]`
    with 9, 10 and 10 positions.
    """
    by_length = np.argsort(
        (row_length - lengths).astype(np.min_scalar_type(row_length)), kind="stable"
    )
    counts = np.bincount(lengths, minlength=row_length + 1)
    rows = _OpenRows(len(lengths), row_length, max_pairs_per_row)
    for length in np.flatnonzero(counts)[::-1].tolist():
        rows.add(length, int(counts[length]))
    sizes = rows.sizes[: rows.count]
    starts = np.cumsum(sizes) - sizes
    order = np.empty(len(lengths), np.int64)
    order[starts[rows.row_of] + rows.slot_of] = by_length
    return order, sizes


class _OpenRows:
    """Rows that pairs are added to, from the longest pair to the shortest.

    Pairs of the same length are added together. Rows with the same number of free positions are on
    a stack, in arrays. A bit mask records which numbers of free positions occur. The best number
    of free positions for a pair remains the best until those rows cannot hold another pair, so all
    rows needed from a stack take their pairs at once.
    """

    def __init__(self, num_pairs: int, row_length: int, max_pairs: int) -> None:
        self._row_length, self._max_pairs = row_length, max_pairs
        self._stacks: list[list[np.ndarray]] = [[] for _ in range(row_length + 1)]
        self._occurring = 0
        self._added = 0
        self.count = 0
        self.sizes = np.zeros(num_pairs, np.int64)  # number of pairs in each row
        self.row_of = np.empty(num_pairs, np.int64)  # row of each pair, in the order of adding
        self.slot_of = np.empty(num_pairs, np.int64)  # index of each pair within its row

    def add(self, length: int, num_pairs: int) -> None:
        """Add pairs of one length, which must not exceed any earlier length."""
        while num_pairs:
            fitting = self._occurring >> length << length
            if fitting:
                free = (fitting & -fitting).bit_length() - 1
                rows = self._stacks[free].pop()[::-1]
            else:
                free = self._row_length
                most = min(free // length, self._max_pairs)
                rows = np.arange(self.count, self.count - (-num_pairs // most))
                self.count = int(rows[-1]) + 1
            taken = np.minimum(free // length, self._max_pairs - self.sizes[rows])
            ends = np.cumsum(taken)
            used = min(int(np.searchsorted(ends, num_pairs)) + 1, len(rows))
            if used < len(rows):
                self._stacks[free].append(rows[used:][::-1])
            if fitting and not self._stacks[free]:
                self._occurring ^= 1 << free
            rows, taken = rows[:used], taken[:used]
            taken[-1] -= max(int(ends[used - 1]) - num_pairs, 0)
            num_pairs -= self._place(rows, taken)
            self._push(rows, free - taken * length)

    def _place(self, rows: np.ndarray, taken: np.ndarray) -> int:
        """Add the next pairs to rows, `taken` consecutive pairs to each; return how many."""
        total = int(taken.sum())
        here = slice(self._added, self._added + total)
        of = np.repeat(rows, taken)
        self.row_of[here] = of
        firsts = np.repeat(np.cumsum(taken) - taken, taken)
        self.slot_of[here] = self.sizes[of] + np.arange(total) - firsts
        self.sizes[rows] += taken
        self._added += total
        return total

    def _push(self, rows: np.ndarray, free: np.ndarray) -> None:
        """Put the rows that can hold more on the stacks of their free positions."""
        is_open = (free > 0) & (self.sizes[rows] < self._max_pairs)
        rows, free = rows[is_open], free[is_open]
        for positions in np.unique(free).tolist():
            self._stacks[positions].append(rows[free == positions])
            self._occurring |= 1 << positions


def arrange_rows(
    pairs: Iterator[np.ndarray], config: DataConfig, *, together: int
) -> Iterator[tuple[np.ndarray, Int64[np.ndarray, " rows"]]]:
    """Assign pairs to rows.

    Args:
        pairs: blocks of records of type `PAIR`.
        config: the length of rows, the kind of packing and its limit.
        together: number of pairs that are packed together, which bounds the memory.

    Yields:
        Pairs grouped by row, and the number of pairs in each row.
    """
    for window in _windows(pairs, together):
        if config.packing is Packing.PACKED:
            order, sizes = pack_pairs(
                row_positions(window, config),
                row_length=config.max_seq_length,
                max_pairs_per_row=config.max_pairs_per_row,
            )
            yield window[order], sizes
        else:
            yield window, np.ones(len(window), np.int64)


def row_positions(pairs: np.ndarray, config: DataConfig) -> Int64[np.ndarray, " pairs"]:
    """Return how many positions each pair takes in a row, special tokens included."""
    return pair_lengths(pairs, config.max_num_tokens) + SPECIAL_TOKENS_PER_PAIR


def _windows(blocks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the same pairs in windows of `size`; the last window may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= size:
            joined = np.concatenate(held)
            whole = count // size * size
            yield from joined[:whole].reshape(-1, size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def count_sequences(
    pairs: np.ndarray, row_starts: Int64[np.ndarray, " starts"], config: DataConfig
) -> Int64[np.ndarray, " sequences"]:
    """Count rows by their sequences: entry k is the number of rows with k values of `sequence_ids`.

    A row has one sequence per pair, plus one for its padding if it is not full.

    Args:
        pairs: records of type `PAIR`, grouped by row.
        row_starts: the first pair of each row, and the end of the last row.
        config: the length of rows.

    Example: rows of 10 with pairs of 9, of 4 and 6, and of 4, 3 and 3 positions have 2, 2 and 3
    sequences: `[0, 0, 2, 1]`.
    """
    counts = np.zeros(0, np.int64)
    for first in range(0, len(row_starts) - 1, _COUNTED):
        starts = row_starts[first : first + _COUNTED + 1]
        positions = row_positions(pairs[starts[0] : starts[-1]], config)
        filled = np.add.reduceat(positions, starts[:-1] - starts[0])
        sequences = np.diff(starts) + (filled < config.max_seq_length)
        counts = add_counts(counts, np.bincount(sequences))
    return counts


def add_counts(
    first: Int64[np.ndarray, " n"], second: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " most"]:
    """Add counts, padding the shorter array with zeros. Example: `[1, 2] + [5]` is `[6, 2]`."""
    total = np.zeros(max(len(first), len(second)), np.int64)
    total[: len(first)] += first
    total[: len(second)] += second
    return total
