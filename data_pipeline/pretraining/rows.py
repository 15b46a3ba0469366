"""Rows of text by number: through the epoch's order, the plan and the pairs' draws to their pieces.

This is the NumPy half of the way to a batch; it knows nothing of masks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from data_pipeline import randomness
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus, Split
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.errors import InputError
from data_pipeline.pretraining.pairs import Segments, sample_segments
from data_pipeline.pretraining.plan import open_plan


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


class _PlannedPairs(NamedTuple):
    """The pairs of some rows, and where each belongs."""

    pairs: np.ndarray  # records of type PAIR
    numbers: Int64[np.ndarray, " pairs"]  # in the plan
    epochs: Int64[np.ndarray, " pairs"]
    rows: Int64[np.ndarray, " pairs"]  # which of the rows asked for
    slots: Int64[np.ndarray, " pairs"]  # which pair of that row


class RowReader:
    """Reads rows of a split: row g is row `permutation(g mod R)` of the plan in epoch `g // R`.

    R is the plan's number of rows; the permutation is drawn from the seed and the epoch, and a
    pair's split, swap and truncation from the seed, the epoch and the pair. Reading has no state
    and costs the same for every g.

    Args:
        corpus: the corpus to read.
        split: which of its splits.
        config: how rows are made.
        seed: of all draws.
        cls_id: the piece [CLS].
        sep_id: the piece [SEP].

    Raises:
        InputError: the split is empty or too small, or its plan cannot be written.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        config: DataConfig,
        *,
        seed: int,
        cls_id: int,
        sep_id: int,
    ) -> None:
        if split not in corpus.splits or not corpus.splits[split].num_documents:
            raise InputError(f"the corpus {corpus.path} holds no document for {split}")
        self.plan = open_plan(corpus, split, config)
        self._config = config
        self._seed = seed
        self._split = corpus.splits[split]
        self._index = SentenceIndex(self._split)
        self._cls_id, self._sep_id = cls_id, sep_id

    def read(self, numbers: Int64[np.ndarray, " rows"], *, total: int | None = None) -> Rows:
        """The rows of these numbers; those from `total` on, if it is given, are empty."""
        planned = self._find_pairs(numbers, total)
        segments = sample_segments(
            planned.pairs,
            planned.numbers,
            planned.epochs,
            index=self._index,
            max_num_tokens=self._config.max_num_tokens,
            objective=self._config.sentence_objective,
            key=randomness.derive_key(self._seed, "pairs"),
        )
        return lay_out_rows(
            segments,
            planned.rows,
            planned.slots,
            self._split,
            shape=(len(numbers), self._config.max_seq_length, self.plan.max_pairs),
            cls_id=self._cls_id,
            sep_id=self._sep_id,
        )

    def _find_pairs(self, numbers: Int64[np.ndarray, " rows"], total: int | None) -> _PlannedPairs:
        epochs = numbers // self.plan.num_rows
        held = np.ones(len(numbers), bool) if total is None else numbers < total
        found = [
            self._find_in_epoch(epoch, np.flatnonzero((epochs == epoch) & held), numbers)
            for epoch in np.unique(epochs).tolist()
        ]
        return _PlannedPairs(*map(np.concatenate, zip(*found, strict=True)))

    def _find_in_epoch(self, epoch: int, rows: np.ndarray, numbers: np.ndarray) -> _PlannedPairs:
        variant = self.plan.variant_of(epoch)
        key = randomness.derive_key(self._seed, "order", epoch)
        planned = randomness.permute(
            numbers[rows] % self.plan.num_rows, self.plan.num_rows, key=key
        )
        starts = variant.row_starts[planned]
        sizes = variant.row_starts[planned + 1] - starts
        slots = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs = np.repeat(starts, sizes) + slots
        return _PlannedPairs(
            pairs=variant.pairs[pairs],
            numbers=pairs,
            epochs=np.full(len(pairs), epoch),
            rows=np.repeat(rows, sizes),
            slots=slots,
        )
