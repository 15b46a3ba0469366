"""Encoded pairs of source and target, and their batches: both sides padded to lengths that fit."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from data_pipeline.finetuning.encoded_examples import EncodedExamples


class PairShape(NamedTuple):
    """How much longer sources are than targets, and how long either may be.

    The two sides of a batch are padded to lengths of one proportion, so that one number, a length
    of sources, says both, and pairs of similar lengths on both sides share a batch.

    Attributes:
        sources_per_target: tokens of sources for each token of targets.
        longest_source: tokens to which sources are padded at most.
        longest_target: likewise of targets.
    """

    sources_per_target: float
    longest_source: int
    longest_target: int

    def source_length(self, length: int) -> int:
        """Return the length of sources in a batch of a length."""
        return min(length, self.longest_source)

    def target_length(self, length: int) -> int:
        """Return the length of targets in a batch of a length, a multiple of 8 or the longest.

        Example: with two tokens of sources for each of targets, 24 for a length of 40.
        """
        targets = -(-length / self.sources_per_target // 8) * 8
        return min(int(targets), self.longest_target)


class EncodedPairs(NamedTuple):
    """The pairs of a split.

    Attributes:
        sources: as an encoder reads them.
        target_ids: end to end, each from the start token to the token that ends it; a pair without
            a target has the start token alone.
        target_starts: where each target starts, and where the last one ends.
        pad_id: padding behind targets.
        shape: of batches; the same for all splits of a task.
    """

    sources: EncodedExamples
    target_ids: Int32[np.ndarray, " tokens"]
    target_starts: Int64[np.ndarray, " bounds"]
    pad_id: int
    shape: PairShape

    @property
    def lengths(self) -> Int64[np.ndarray, " examples"]:
        """The length of a batch that has room for both sides of each pair."""
        targets = np.diff(self.target_starts) - 1
        needed = np.ceil(targets * self.shape.sources_per_target).astype(np.int64)
        return np.maximum(self.sources.lengths, needed)

    @property
    def choices(self) -> None:
        """A pair is one row."""
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

        Example: the target ``2 7 9 3`` (2 starts it, 3 ends it) at a target length of 4 gives
        `decoder_input_ids` ``2 7 9 0``, `labels` ``7 9 3 0`` and `label_weights` ``1 1 1 0``.

        Args:
            rows: numbers of pairs, at least one.
            length: the length of the batch; see `PairShape`.
            batch_size: rows of the batch; missing ones are copies of the first, with weight 0.

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
        inside = places + 1 < ends  # there is a token after it
        pad = np.int32(self.pad_id)
        inputs = np.where(inside, self.target_ids.take(places, mode="clip"), pad)
        inputs[:, 0] = self.target_ids[starts[:, 0]]  # also where there is no target
        return batch | {
            "decoder_input_ids": inputs,
            "labels": np.where(inside, self.target_ids.take(places + 1, mode="clip"), pad),
            "label_weights": (inside * weights[:, None]).astype(np.float32),
        }
