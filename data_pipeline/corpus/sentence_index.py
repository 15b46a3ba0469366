"""Addresses of sentences, and sentences of documents, across all shards of a split."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64, UInt32

from data_pipeline.corpus.splits import Split, group_by_part


class SentenceIndex:
    """Token addresses of sentences, and sentence numbers of documents.

    Both are numbered across shards. The number one past the last is allowed and denotes the end.

    Example: with two shards, the first with sentences of 3 and 4 tokens in one document, the second
    with a sentence of 5 tokens, `addresses([0, 1, 2, 3])` is `[0, 3, 7, 12]` and
    `first_sentences([0, 1, 2])` is `[0, 2, 3]`.
    """

    def __init__(self, split: Split) -> None:
        self._shards = split.shards
        self._token_starts = split.token_starts
        self._sentence_starts = split.sentence_starts
        self._document_starts = split.document_starts

    def addresses(self, sentences: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the address of the first token of each sentence."""
        return _look_up(
            sentences,
            self._sentence_starts,
            lambda shard: self._shards[shard].sentence_offsets,
            self._token_starts,
        )

    def first_sentences(self, documents: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the number of the first sentence of each document."""
        return _look_up(
            documents,
            self._document_starts,
            lambda shard: self._shards[shard].document_offsets,
            self._sentence_starts,
        )


def _look_up(
    numbers: Int64[np.ndarray, " n"],
    starts: Int64[np.ndarray, " boundaries"],
    offsets: Callable[[int], UInt32[np.ndarray, " boundaries_here"]],
    offset_starts: Int64[np.ndarray, " boundaries"],
) -> Int64[np.ndarray, " n"]:
    """Return the offset of each number, across all shards.

    Args:
        numbers: numbers of sentences or documents.
        starts: the first number of each shard.
        offsets: maps a shard to the offsets of its own numbers.
        offset_starts: what is added to the offsets of each shard.
    """
    found = np.empty(len(numbers), np.int64)
    for shard, here in group_by_part(starts, numbers):
        found[here] = offsets(shard)[numbers[here] - starts[shard]] + offset_starts[shard]
    return found
