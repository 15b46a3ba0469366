"""Packing: which segment pairs share a row, and the files of rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from data_pipeline.config import DataConfig, Packing
from data_pipeline.planning.pairs import pair_lengths

SPECIAL_TOKENS_PER_PAIR = 3  # [CLS] A [SEP] B [SEP]
_WINDOW = 1 << 16  # pairs that are packed together, which bounds the memory
_COUNTED = 1 << 14  # rows that are counted together, likewise


def pack_pairs(
    lengths: Int64[np.ndarray, " pairs"], *, row_length: int, max_pairs_per_row: int
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " rows"]]:
    """Assign pairs to rows by best-fit decreasing.

    The longest pair comes first, and each goes into the fullest row that still holds it. Open rows
    are grouped by their free positions, and the set of free positions that occur is one bit mask,
    so that finding the best row takes the same few steps however many rows are open.

    Returns:
        order: the pairs, those of a row together.
        sizes: the number of pairs of each row.

    Example, rows of 10: lengths `[4, 6, 9, 3, 3, 4]` give the rows `[2], [1, 0], [5, 3, 4]` of
    9, 10 and 10 positions.
    """
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]
    occurring = 0
    rows: list[list[int]] = []
    by_length = np.argsort(-lengths, kind="stable")
    for pair, length in zip(by_length.tolist(), lengths[by_length].tolist(), strict=True):
        enough = occurring >> length << length
        if enough:
            free = (enough & -enough).bit_length() - 1
            row = open_rows[free].pop()
            if not open_rows[free]:
                occurring ^= 1 << free
            rows[row].append(pair)
        else:
            free, row = row_length, len(rows)
            rows.append([pair])
        free -= length
        if free and len(rows[row]) < max_pairs_per_row:
            open_rows[free].append(row)
            occurring |= 1 << free
    order = np.fromiter((pair for row in rows for pair in row), np.int64, len(lengths))
    return order, np.fromiter((len(row) for row in rows), np.int64, len(rows))


def write_rows(pairs: Iterator[np.ndarray], config: DataConfig, stem: Path) -> dict[str, int]:
    """Assign pairs to rows, and write the pairs of all rows and the first pair of each.

    Args:
        pairs: blocks of records of type `PAIR`.
        config: length of rows, packing and its bound.
        stem: of the names of the two files, `STEM.pairs.bin` and `STEM.row_starts.bin`.

    Returns:
        rows; filled, the number of their positions; max_pairs, the most pairs in a row.
    """
    counts = {"rows": 0, "filled": 0, "max_pairs": 1}
    with (
        open(f"{stem}.pairs.bin", "wb") as pairs_file,
        open(f"{stem}.row_starts.bin", "wb") as starts_file,
    ):
        num_pairs = 0
        # Not `tofile`, which says nothing of what a full disk does not take.
        starts_file.write(bytes(8))
        for window in _windows(pairs):
            lengths = pair_lengths(window, config.max_num_tokens) + SPECIAL_TOKENS_PER_PAIR
            if config.packing is Packing.PACKED:
                order, sizes = pack_pairs(
                    lengths,
                    row_length=config.max_seq_length,
                    max_pairs_per_row=config.max_pairs_per_row,
                )
                window = window[order]
            else:
                sizes = np.ones(len(window), np.int64)
            pairs_file.write(window.tobytes())
            starts_file.write((num_pairs + np.cumsum(sizes)).astype("<i8").tobytes())
            num_pairs += len(window)
            counts["rows"] += len(sizes)
            counts["filled"] += int(lengths.sum())
            counts["max_pairs"] = max(counts["max_pairs"], int(sizes.max()))
    return counts


def _windows(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same pairs, `_WINDOW` at a time; the last window may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= _WINDOW:
            joined = np.concatenate(held)
            whole = count // _WINDOW * _WINDOW
            yield from joined[:whole].reshape(-1, _WINDOW)
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def count_sequences(
    pairs: np.ndarray, row_starts: Int64[np.ndarray, " starts"], config: DataConfig
) -> Int64[np.ndarray, " sequences"]:
    """Count rows by their sequences: entry k is the number of rows with k values of `sequence_ids`.

    A row has one for each of its pairs, and one for the padding behind them if it is not full.

    Args:
        pairs: records of type `PAIR`, those of a row together.
        row_starts: the first pair of each row, and the end of the last.
        config: length of rows.

    Example: rows of 10 with pairs of 9, of 4 and 6, and of 4, 3 and 3 positions have 2, 2 and 3
    sequences: `[0, 0, 2, 1]`.
    """
    counts = np.zeros(0, np.int64)
    for first in range(0, len(row_starts) - 1, _COUNTED):
        starts = row_starts[first : first + _COUNTED + 1]
        lengths = pair_lengths(pairs[starts[0] : starts[-1]], config.max_num_tokens)
        filled = np.add.reduceat(lengths + SPECIAL_TOKENS_PER_PAIR, starts[:-1] - starts[0])
        sequences = np.diff(starts) + (filled < config.max_seq_length)
        found = np.bincount(sequences, minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    return counts
