"""Fine-tuning batches of rows with similar lengths; any step costs the same."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from data_pipeline import randomness
from data_pipeline.finetuning.encoded_examples import (
    ExampleRows,
    affordable_lengths,
    choose_lengths,
)


class FinetuningDataset:
    """Training batches; the batch of step k depends only on the examples, the arguments and k.

    An epoch reads each example once. Examples are sorted by padded length, shuffled within each
    length by a permutation of the epoch, and cut into batches of `global_batch_size`. The order of
    the batches is another permutation of the epoch. So each batch has a single length, that of its
    longest row, and the remainder of one length goes into the first batch of the next length. Only
    the last batch of the longest rows may be short; it is filled with rows of weight 0. A run of
    few steps pads to fewer lengths, since the step is compiled for each; its batches hold the same
    examples.

    Args:
        examples: the training examples.
        seed: the seed of the order.
        global_batch_size: number of examples in a step.
        num_lengths: maximum number of lengths to which rows are padded.
        num_steps: number of steps of the whole run; None: many.
        max_examples: draw at most this many examples, which make up an epoch; None: use all. With
            the same seed, a smaller draw is a subset of a larger one.
    """

    def __init__(
        self,
        examples: ExampleRows,
        *,
        seed: int,
        global_batch_size: int,
        num_lengths: int,
        num_steps: int | None = None,
        max_examples: int | None = None,
    ) -> None:
        self.lengths = choose_lengths(examples.lengths, num_lengths)
        self._padded = self.lengths
        if num_steps is not None:
            count = affordable_lengths(num_lengths, num_steps)
            self._padded = choose_lengths(examples.lengths, count)
        self._examples, self._seed, self._batch_size = examples, seed, global_batch_size
        drawn = np.arange(len(examples.lengths))
        if max_examples is not None:
            key = randomness.derive_key(seed, "examples")
            drawn = np.sort(randomness.permute(drawn[:max_examples], len(drawn), key=key))
        bucket = np.searchsorted(self.lengths, examples.lengths[drawn])
        self._by_bucket = [drawn[bucket == b] for b in range(len(self.lengths))]
        sizes = [len(rows) for rows in self._by_bucket]
        self._ends = np.cumsum(sizes)  # where each length ends in the sorted epoch
        self.steps_per_epoch = -(-len(bucket) // global_batch_size)

    @property
    def batch_lengths(self) -> list[int]:
        """The lengths of an epoch's batches, shortest first; the same in every epoch."""
        return [self._length(batch) for batch in range(self.steps_per_epoch)]

    def batch(
        self, step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the batch of a step.

        Args:
            step: counted from 0.
            rows: the rows of the global batch to return; None means all.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        key = randomness.derive_key(self._seed, "batches", epoch)
        batch = int(randomness.permute(np.array([place]), self.steps_per_epoch, key=key)[0])
        start = batch * self._batch_size
        places = np.arange(start, min(start + self._batch_size, int(self._ends[-1])))
        chosen = self._examples_at(epoch, places)
        fields = self._examples.take(
            chosen, length=self._length(batch), batch_size=self._batch_size
        )
        return fields if rows is None else {name: array[rows] for name, array in fields.items()}

    def batches(
        self, start_step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the batches from a step onward, without end."""
        step = start_step
        while True:
            yield self.batch(step, rows)
            step += 1

    def _length(self, batch: int) -> int:
        last = min((batch + 1) * self._batch_size, int(self._ends[-1])) - 1
        longest = self.lengths[int(np.searchsorted(self._ends, last, side="right"))]
        return self._padded[int(np.searchsorted(self._padded, longest))]

    def _examples_at(
        self, epoch: int, places: Int64[np.ndarray, " places"]
    ) -> Int64[np.ndarray, " places"]:
        """Return the examples at these places of an epoch, sorted by length and shuffled."""
        buckets = np.searchsorted(self._ends, places, side="right")
        chosen = np.zeros_like(places)
        for bucket in np.unique(buckets):
            here, members = buckets == bucket, self._by_bucket[bucket]
            key = randomness.derive_key(self._seed, "rows", epoch, bucket)
            inside = places[here] - (self._ends[bucket] - len(members))
            chosen[here] = members[randomness.permute(inside, len(members), key=key)]
        return chosen


class EvaluationBatch(NamedTuple):
    """A batch of examples with their indices.

    Attributes:
        rows: indices of the examples in the first rows of the batch; the other rows have weight 0.
        fields: as returned by `ExampleRows.take`.
    """

    rows: Int64[np.ndarray, " rows"]
    fields: dict[str, np.ndarray]


def evaluation_batches(
    examples: ExampleRows, *, batch_size: int, lengths: Sequence[int]
) -> Iterator[EvaluationBatch]:
    """Yield every example once, shortest first.

    Args:
        examples: the examples to evaluate on.
        batch_size: number of rows in every batch.
        lengths: the lengths to which rows are padded, in ascending order.
    """
    order = np.argsort(examples.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        length = lengths[int(np.searchsorted(lengths, examples.lengths[rows[-1]]))]
        yield EvaluationBatch(rows, examples.take(rows, length=length, batch_size=batch_size))
