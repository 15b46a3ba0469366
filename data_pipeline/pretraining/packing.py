"""Packing: which segment pairs share a row."""

import numpy as np
from jaxtyping import Int64

SPECIAL_TOKENS_PER_PAIR = 3  # [CLS] A [SEP] B [SEP]


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
