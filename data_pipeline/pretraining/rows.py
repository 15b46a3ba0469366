"""Rows of text before masking: their layout, and a reader that finds them by number.

This is the NumPy half of making a batch. It does not depend on masks.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from data_pipeline import randomness
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.corpus.splits import Split
from data_pipeline.errors import InputError
from data_pipeline.planning.pairs import Segments, sample_segments
from data_pipeline.planning.plan import open_plan


class Rows(NamedTuple):
    """Rows of text before masking; fields that go into a batch have the same names there."""

    input_ids: Int32[np.ndarray, "rows length"]
    token_type_ids: Int32[np.ndarray, "rows length"]
    position_ids: Int32[np.ndarray, "rows length"]
    sequence_ids: Int32[np.ndarray, "rows length"]
    sentence_order_positions: Int32[np.ndarray, "rows pairs"]
    sentence_order_labels: Int32[np.ndarray, "rows pairs"]
    sentence_order_weights: Float32[np.ndarray, "rows pairs"]
    pair_lengths: Int64[np.ndarray, "rows pairs"]  # special tokens included; 0: no pair


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
    """Lay pairs out in rows as `[CLS] A [SEP] B [SEP]`, one after another, and read their text.

    Args:
        segments: the pairs.
        rows: the row of each pair.
        slots: the index of each pair within its row, from 0.
        split: the text that the segments point into.
        shape: the number of rows, of positions per row, and of pair slots per row.
        cls_id: the id of [CLS].
        sep_id: the id of [SEP].

    Example: the segments `41` and `52` in slot 0, `63 64` and `75` in slot 1, 12 positions::

        input_ids                 2 41  3 52  3   2 63 64  3 75  3   0
        token_type_ids            0  0  0  1  1   0  0  0  0  1  1   0
        position_ids              0  1  2  3  4   0  1  2  3  4  5   0
        sequence_ids              1  1  1  1  1   2  2  2  2  2  2   0
        sentence_order_positions  0  5
    """
    num_rows, length, num_pairs = shape
    table = functools.partial(_scatter, rows, slots, (num_rows, num_pairs))
    first = table(segments.lengths[:, 0] + 2)  # [CLS] A [SEP]
    second = table(segments.lengths[:, 1] + 1)  # B [SEP]
    pair_lengths = first + second
    starts = np.cumsum(pair_lengths, axis=1) - pair_lengths
    flat_starts = starts + length * np.arange(num_rows)[:, None]
    cls = flat_starts[rows, slots]
    middle = cls + first[rows, slots]  # the first token of B
    end = middle + second[rows, slots]

    # A row is a sequence of runs: the two parts of each pair in turn, then padding. Within a run,
    # the address of a token in the split is its flat position plus a constant.
    runs = np.zeros((num_rows, 2 * num_pairs + 1), np.int64)
    runs[:, :-1:2], runs[:, 1::2] = first, second
    runs[:, -1] = length - pair_lengths.sum(axis=1)
    shifts = np.zeros_like(runs)
    shifts[rows, 2 * slots] = segments.starts[:, 0] - (cls + 1)
    shifts[rows, 2 * slots + 1] = segments.starts[:, 1] - middle
    origins = np.zeros_like(runs)
    origins[:, :-1:2] = origins[:, 1::2] = flat_starts
    parts = np.arange(2 * num_pairs, dtype=np.int32)
    ordinals, types = np.append(parts // 2 + 1, np.int32(0)), np.append(parts % 2, np.int32(0))

    spread = functools.partial(_spread, runs)
    positions = np.arange(num_rows * length)
    sequence_ids = spread(ordinals)
    present = sequence_ids > 0
    # The addresses of special tokens and padding point at unrelated text, perhaps in absent shards.
    is_text = present.copy()
    is_text[cls] = is_text[middle - 1] = is_text[end - 1] = False
    text = np.flatnonzero(is_text)
    input_ids = np.zeros(num_rows * length, np.int32)
    input_ids[text] = split.read(text + spread(shifts)[text])
    input_ids[cls] = cls_id
    input_ids[middle - 1] = input_ids[end - 1] = sep_id
    position_ids = ((positions - spread(origins)) * present).astype(np.int32)
    return Rows(
        input_ids=input_ids.reshape(num_rows, length),
        token_type_ids=spread(types).reshape(num_rows, length),
        position_ids=position_ids.reshape(num_rows, length),
        sequence_ids=sequence_ids.reshape(num_rows, length),
        sentence_order_positions=(starts * (pair_lengths > 0)).astype(np.int32),
        sentence_order_labels=table(segments.labels),
        sentence_order_weights=table(segments.weights),
        pair_lengths=pair_lengths,
    )


def _scatter(
    rows: np.ndarray, slots: np.ndarray, shape: tuple[int, int], values: np.ndarray
) -> np.ndarray:
    """Return a table of the values by row and slot, 0 where there is no pair."""
    table = np.zeros(shape, values.dtype)
    table[rows, slots] = values
    return table


def _spread(runs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Repeat one value per run over the positions of the run."""
    return np.repeat(np.broadcast_to(values, runs.shape).ravel(), runs.ravel())


def rows_of_batch(
    rows: Int64[np.ndarray, " rows"] | None, batch_size: int
) -> Int64[np.ndarray, " rows"]:
    """Validate and return the requested rows of a batch; None means all."""
    if rows is None:
        return np.arange(batch_size)
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= batch_size:
        raise ValueError(f"rows of a batch must be numbers from 0 to {batch_size - 1}, got {rows}")
    return rows.astype(np.int64)


class RowReader:
    """Reads rows of a split by their number in a run, in the order of the plan.

    A pair's split, swap and truncation are functions of the seed, the epoch and the pair. Reading
    is stateless and costs the same for every row.

    Args:
        corpus: the corpus to read.
        split: the name of the split.
        config: how rows are made.
        seed: the seed of all random numbers.
        cls_id: the id of [CLS].
        sep_id: the id of [SEP].

    Raises:
        InputError: the split is empty or too small.
        FieldError: its plan cannot be written.
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
            raise InputError(f"the corpus {corpus.path} has no documents for {split}")
        self.plan = open_plan(corpus, split, config)
        self._config = config
        self._seed = seed
        self._split = corpus.splits[split]
        self._index = SentenceIndex(self._split)
        self._cls_id, self._sep_id = cls_id, sep_id

    def read(self, numbers: Int64[np.ndarray, " rows"], *, total: int | None = None) -> Rows:
        """Read the rows with these numbers; if `total` is given, rows from `total` on are empty."""
        present = np.flatnonzero(numbers < (np.inf if total is None else total))
        planned = self.plan.find_pairs(numbers[present], seed=self._seed)
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
            present[planned.rows],
            planned.slots,
            self._split,
            shape=(len(numbers), self._config.max_seq_length, self.plan.max_pairs),
            cls_id=self._cls_id,
            sep_id=self._sep_id,
        )
