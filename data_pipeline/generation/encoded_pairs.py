"""Encoded pairs of source and target, and their batches, with both sides padded in proportion."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from data_pipeline.finetuning.encoded_examples import EncodedExamples


class PairShape(NamedTuple):
    """The ratio of source lengths to target lengths, and the limits of both.

    The two sides of a batch are padded to lengths in a fixed ratio. So one number, a source length,
    determines both, and pairs with similar lengths on both sides share a batch.

    Attributes:
        sources_per_target: number of source tokens per target token.
        longest_source: maximum length to which sources are padded, in tokens.
        longest_target: maximum length to which targets are padded, in tokens.
    """

    sources_per_target: float
    longest_source: int
    longest_target: int

    def source_length(self, length: int) -> int:
        """Return the length of sources in a batch of this length."""
        return min(length, self.longest_source)

    def target_length(self, length: int) -> int:
        """Return the length of targets in a batch of this length: a multiple of 8, or the maximum.

        Example: with two source tokens per target token, 24 for a length of 40.
        """
        targets = -(-length / self.sources_per_target // 8) * 8
        return min(int(targets), self.longest_target)


class EncodedPairs(NamedTuple):
    """The pairs of a split.

    Attributes:
        sources: the sources, as the encoder reads them.
        target_ids: concatenated targets, each from its start token to its end token; a pair without
            a target has only the start token.
        target_starts: where each target starts, and where the last one ends.
        pad_id: the id of the padding after targets.
        shape: the shape of batches, the same for all splits of a task.
    """

    sources: EncodedExamples
    target_ids: Int32[np.ndarray, " tokens"]
    target_starts: Int64[np.ndarray, " bounds"]
    pad_id: int
    shape: PairShape

    @property
    def lengths(self) -> Int64[np.ndarray, " examples"]:
        """The length of a batch that fits both sides of each pair."""
        targets = np.diff(self.target_starts) - 1
        needed = np.ceil(targets * self.shape.sources_per_target).astype(np.int64)
        return np.maximum(self.sources.lengths, needed)

    @property
    def choices(self) -> None:
        """None: a pair is a single row."""
        return None

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Everything that the pairs consist of, by name."""
        targets = {"target_ids": self.target_ids, "target_starts": self.target_starts}
        return {**self.sources.arrays, **targets}

    def take(
        self, rows: Int64[np.ndarray, " rows"], *, length: int, batch_size: int
    ) -> dict[str, np.ndarray]:
        """Return a batch of pairs.

        Example: the target ``2 7 9 3`` (with 2 as start and 3 as end) at a target length of 4 gives
        `decoder_input_ids` ``2 7 9 0``, `labels` ``7 9 3 0`` and `label_weights` ``1 1 1 0``.

        Args:
            rows: numbers of pairs, at least one.
            length: the length of the batch; see `PairShape`.
            batch_size: rows in the batch; missing ones are copies of the first, with weight 0.

        Returns:
            The ids, mask and segments of `EncodedExamples.take`, and the three arrays above.
        """
        batch = self.sources.take(
            rows, length=self.shape.source_length(length), batch_size=batch_size
        )
        weights = batch.pop("weights")
        rows = np.concatenate([rows, np.repeat(rows[:1], batch_size - len(rows))])
        starts, ends = self.target_starts[rows][:, None], self.target_starts[rows + 1][:, None]
        places = starts + np.arange(self.shape.target_length(length))
        inside = places + 1 < ends  # there is a token after this one
        pad = np.int32(self.pad_id)
        inputs = np.where(inside, self.target_ids.take(places, mode="clip"), pad)
        inputs[:, 0] = self.target_ids[starts[:, 0]]  # even if there is no target
        return batch | {
            "decoder_input_ids": inputs,
            "labels": np.where(inside, self.target_ids.take(places + 1, mode="clip"), pad),
            "label_weights": (inside * weights[:, None]).astype(np.float32),
        }
