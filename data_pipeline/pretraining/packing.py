"""Segment pairs into rows of fixed length: which pairs share a row, and the layout of the row."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from data_pipeline.corpus.splits import Split
from data_pipeline.pretraining.pairs import Segments

SPECIAL_TOKENS_PER_PAIR = 3  # [CLS] A [SEP] B [SEP]


def pack_pairs(
    lengths: Int64[np.ndarray, " pairs"], *, row_length: int, max_pairs_per_row: int
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " rows"]]:
    """Best-fit decreasing: longest pair first, each into the fullest row that still holds it.

    Rows are kept by the room they have left, and which rooms exist is one bit mask, so finding
    the best row takes the same few steps however many rows are open.

    Returns:
        order: the pairs, those of a row together.
        sizes: how many pairs each row holds.

    Example, rows of 10: lengths `[4, 6, 9, 3, 3, 4]` give the rows `[2], [1, 0], [5, 3, 4]` of
    9, 10 and 10 positions.
    """
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]
    rooms = 0
    rows: list[list[int]] = []
    by_length = np.argsort(-lengths, kind="stable")
    for pair, length in zip(by_length.tolist(), lengths[by_length].tolist(), strict=True):
        enough = rooms >> length << length
        if enough:
            room = (enough & -enough).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms ^= 1 << room
            rows[row].append(pair)
        else:
            room, row = row_length, len(rows)
            rows.append([pair])
        room -= length
        if room and len(rows[row]) < max_pairs_per_row:
            open_rows[room].append(row)
            rooms |= 1 << room
    order = np.fromiter((pair for row in rows for pair in row), np.int64, len(lengths))
    return order, np.fromiter((len(row) for row in rows), np.int64, len(rows))


def budget_predictions(
    lengths: Int64[np.ndarray, "rows pairs"], *, masked_lm_prob: float, slots: int
) -> Int32[np.ndarray, "rows pairs"]:
    """How many pieces to predict in each pair.

    A pair of n positions, special tokens counted, asks for `max(1, round(n * masked_lm_prob))`,
    halves rounded to even, as in the released generator. Where the pairs of a row together ask for
    more than its slots, the slots are shared out in proportion: with c the running sum of what is
    asked and C its total, pair i gets `floor(slots c_i / C) - floor(slots c_{i-1} / C)`, so all
    slots are used and no pair gets more than it asked for. A pair of length 0 is absent.

    Example at 0.15: lengths `[[512, 0], [10, 30]]` with 20 slots give `[[20, 0], [2, 4]]`.
    """
    if masked_lm_prob == 0:
        return np.zeros(lengths.shape, np.int32)
    asked = np.maximum(1, np.rint(lengths * masked_lm_prob)).astype(np.int64) * (lengths > 0)
    running = np.cumsum(asked, axis=1)
    total = np.maximum(running[:, -1:], 1)
    shared = np.diff(running * slots // total, axis=1, prepend=0)
    return np.where(total > slots, shared, asked).astype(np.int32)


class Rows(NamedTuple):
    """Rows of text before masking; the fields that a batch keeps bear its names."""

    input_ids: Int32[np.ndarray, "rows length"]
    token_type_ids: Int32[np.ndarray, "rows length"]
    position_ids: Int32[np.ndarray, "rows length"]
    sequence_ids: Int32[np.ndarray, "rows length"]
    sentence_order_positions: Int32[np.ndarray, "rows pairs"]
    sentence_order_labels: Int32[np.ndarray, "rows pairs"]
    sentence_order_weights: Float32[np.ndarray, "rows pairs"]
    pair_lengths: Int64[np.ndarray, "rows pairs"]  # special tokens counted; 0: no pair


def lay_out_rows(
    segments: Segments,
    rows: Int64[np.ndarray, " segments"],
    slots: Int64[np.ndarray, " segments"],
    split: Split,
    *,
    shape: tuple[int, int, int],
    cls_id: int,
    sep_id: int,
) -> Rows:
    """Lays pairs into rows as `[CLS] A [SEP] B [SEP]`, one after another, and reads their text.

    Args:
        segments: the pairs.
        rows: which row each goes to.
        slots: which pair of its row each is, from 0.
        split: the text that the segments address.
        shape: how many rows, how many positions a row, how many pairs a row at most.
        cls_id: the piece [CLS].
        sep_id: the piece [SEP].

    Example: the segments `41` and `52` in slot 0, `63 64` and `75` in slot 1, 12 positions::

        input_ids                 2 41  3 52  3   2 63 64  3 75  3   0
        token_type_ids            0  0  0  1  1   0  0  0  0  1  1   0
        position_ids              0  1  2  3  4   0  1  2  3  4  5   0
        sequence_ids              1  1  1  1  1   2  2  2  2  2  2   0
        sentence_order_positions  0  5
    """
    num_rows, length, num_pairs = shape
    first, second = np.zeros((2, num_rows, num_pairs), np.int64)
    first[rows, slots] = segments.lengths[:, 0] + 2  # [CLS] A [SEP]
    second[rows, slots] = segments.lengths[:, 1] + 1  # B [SEP]
    pair_lengths = first + second
    starts = np.cumsum(pair_lengths, axis=1) - pair_lengths

    flat_starts = starts + length * np.arange(num_rows)[:, None]

    # A row is a sequence of runs: both parts of each pair, then padding. Within a run the address
    # of a token is its flat position plus a constant.
    runs = np.zeros((num_rows, 2 * num_pairs + 1), np.int64)
    runs[:, :-1:2], runs[:, 1::2] = first, second
    runs[:, -1] = length - pair_lengths.sum(axis=1)
    cls = flat_starts[rows, slots]
    middle = cls + first[rows, slots]  # where B begins
    end = middle + second[rows, slots]
    shifts = np.zeros_like(runs)
    shifts[rows, 2 * slots] = segments.starts[:, 0] - (cls + 1)
    shifts[rows, 2 * slots + 1] = segments.starts[:, 1] - middle
    origins = np.zeros_like(runs)
    origins[:, :-1:2] = origins[:, 1::2] = flat_starts
    ordinals = np.append(np.arange(2 * num_pairs, dtype=np.int32) // 2 + 1, np.int32(0))
    types = np.append(np.arange(2 * num_pairs, dtype=np.int32) % 2, np.int32(0))

    def spread(values: np.ndarray) -> np.ndarray:
        return np.repeat(np.broadcast_to(values, runs.shape).ravel(), runs.ravel())

    positions = np.arange(num_rows * length)
    sequence_ids = spread(ordinals)
    # The special tokens at the ends of a run may point outside the text.
    addresses = np.clip(positions + spread(shifts), 0, split.num_tokens - 1)
    input_ids = split.read(addresses)
    input_ids[cls] = cls_id
    input_ids[middle - 1] = input_ids[end - 1] = sep_id
    present = sequence_ids > 0
    labels, weights = np.zeros(starts.shape, np.int32), np.zeros(starts.shape, np.float32)
    labels[rows, slots], weights[rows, slots] = segments.labels, segments.weights
    row_shape = (num_rows, length)
    return Rows(
        input_ids=(input_ids * present).reshape(row_shape),
        token_type_ids=spread(types).reshape(row_shape),
        position_ids=((positions - spread(origins)) * present).astype(np.int32).reshape(row_shape),
        sequence_ids=sequence_ids.reshape(row_shape),
        sentence_order_positions=(starts * (pair_lengths > 0)).astype(np.int32),
        sentence_order_labels=labels,
        sentence_order_weights=weights,
        pair_lengths=pair_lengths,
    )
