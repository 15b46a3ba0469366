"""Encoded examples: ids concatenated in memory, and returned as rows of one length."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

# Number of batches over which padding to one more length saves the time to compile for it: about
# ten on a CPU, hundreds on a GPU.
BATCHES_PER_LENGTH = 50
# Padding values other than 0.
_PADDING = {"p_mask": 1}


@runtime_checkable
class ExampleRows(Protocol):
    """The examples of a split, from which batches are taken."""

    @property
    def lengths(self) -> Int64[np.ndarray, " examples"]:
        """The length to which a batch must be padded for each example."""

    @property
    def choices(self) -> int | None:
        """Number of rows in an example; None if it is a single row."""

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Everything that the examples consist of, by name."""

    def take(
        self, rows: Int64[np.ndarray, " rows"], *, length: int, batch_size: int
    ) -> dict[str, np.ndarray]:
        """Return a batch of examples; see `EncodedExamples.take`."""


class EncodedExamples(NamedTuple):
    """The examples of a split, each with one sequence of ids, or with one for each choice.

    Attributes:
        sequences: fields of the batch with one value per token, concatenated.
        starts: where each sequence starts, and where the last one ends.
        values: fields of the batch with one value, or one row of values, per example.
        choices: number of sequences per example; None if an example is a single sequence.
    """

    sequences: Mapping[str, np.ndarray]
    starts: Int64[np.ndarray, " bounds"]
    values: Mapping[str, np.ndarray]
    choices: int | None = None

    @property
    def lengths(self) -> Int64[np.ndarray, " examples"]:
        """Number of tokens in each example, or in its longest choice if it has several."""
        lengths = np.diff(self.starts)
        return lengths if self.choices is None else lengths.reshape(-1, self.choices).max(axis=1)

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Everything that the examples consist of, by name."""
        return {"starts": self.starts, **self.sequences, **self.values}

    def take(
        self, rows: Int64[np.ndarray, " rows"], *, length: int, batch_size: int
    ) -> dict[str, np.ndarray]:
        """Return a batch of examples.

        Example: sequences of input ids `2 7 3` and `2 3`, no values, rows `[1]`, length 4 and batch
        size 2 give `input_ids` `[[2, 3, 0, 0], [2, 3, 0, 0]]`, `attention_mask`
        `[[1, 1, 0, 0], [1, 1, 0, 0]]` and `weights` `[1, 0]`.

        Args:
            rows: indices of examples, at least one.
            length: the length to which rows are padded.
            batch_size: rows in the batch; missing ones are copies of the first, with weight 0.

        Returns:
            The fields of `sequences` and `values`, `attention_mask` and `weights`.
        """
        weights = (np.arange(batch_size) < len(rows)).astype(np.float32)
        rows = np.concatenate([rows, np.repeat(rows[:1], batch_size - len(rows))])
        sequence = rows
        if self.choices is not None:
            sequence = rows[:, None] * self.choices + np.arange(self.choices)
        starts = self.starts[sequence][..., None]
        inside = np.arange(length) < self.starts[sequence + 1][..., None] - starts
        places = np.where(inside, starts + np.arange(length), 0)
        batch = {
            name: np.where(inside, flat[places], flat.dtype.type(_PADDING.get(name, 0)))
            for name, flat in self.sequences.items()
        }
        batch |= {name: values[rows] for name, values in self.values.items()}
        return batch | {"attention_mask": inside.astype(np.int32), "weights": weights}


def join_sequences(
    sequences: Mapping[str, Sequence[np.ndarray]],
    values: Mapping[str, np.ndarray],
    choices: int | None = None,
) -> EncodedExamples:
    """Join sequences, given as separate arrays, of which there must be at least one.

    Args:
        sequences: for each field, an int32 array for each sequence.
        values: as in `EncodedExamples`.
        choices: as in `EncodedExamples`.
    """
    lengths = [len(ids) for ids in sequences["input_ids"]]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    flat = {name: np.concatenate(arrays).astype(np.int32) for name, arrays in sequences.items()}
    return EncodedExamples(flat, starts, values, choices)


def fingerprint(splits: Iterable[ExampleRows]) -> str:
    """Return the SHA-256 of the content of splits, as hexadecimal digits."""
    digest = hashlib.sha256()
    for split in splits:
        for name, array in split.arrays.items():
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def affordable_lengths(num_lengths: int, num_batches: int) -> int:
    """Return how many lengths are worth compiling for: one, plus one for every 50 batches.

    Example: with a maximum of 5 lengths, 20 batches are worth 1, 120 are worth 3, and 200 all 5.
    """
    return min(num_lengths, 1 + num_batches // BATCHES_PER_LENGTH)


def choose_lengths(lengths: Int64[np.ndarray, " examples"], count: int) -> list[int]:
    """Choose the lengths to pad rows to: at most `count` multiples of 8 with the least padding.

    Example: for lengths `5 6 7 8 100`, the best two are `[8, 104]`, and the best one is `[104]`.

    Args:
        lengths: the lengths of the examples.
        count: maximum number of lengths to choose; the step is compiled for each.

    Returns:
        Lengths in ascending order; the last one fits the longest example.
    """
    needed = np.bincount(-(-lengths // 8))
    sizes = np.flatnonzero(needed)  # in units of 8
    examples = np.concatenate([[0], np.cumsum(needed[sizes])])
    # costs[n]: minimum number of positions for the n shortest sizes, with the lengths so far.
    costs = np.full(len(sizes) + 1, np.inf)
    costs[0] = 0
    choices = []
    for _ in range(min(count, len(sizes))):
        # One more length covers the sizes from n to m.
        added = np.where(
            examples[None, :] >= examples[:, None],
            (examples[None, :] - examples[:, None]) * np.concatenate([[0], sizes])[None, :],
            np.inf,
        )
        through = costs[:, None] + added
        choices.append(through.argmin(axis=0))
        costs = through.min(axis=0)
    chosen, end = [], len(sizes)
    for best in reversed(choices):
        if best[end] < end:
            chosen.append(int(sizes[end - 1]) * 8)
        end = int(best[end])
    return chosen[::-1]
