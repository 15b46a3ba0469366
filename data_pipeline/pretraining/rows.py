"""Rows of text by number: through the epoch's order, the plan and the pairs' draws to their pieces.

This is the NumPy half of the way to a batch; it knows nothing of masks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from data_pipeline import randomness
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.splits import SentenceIndex
from data_pipeline.errors import InputError
from data_pipeline.pretraining.packing import Rows, lay_out_rows
from data_pipeline.pretraining.pairs import draw_segments
from data_pipeline.pretraining.plan import open_plan


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
        segments = draw_segments(
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
