"""Where sentences and documents begin, addressed through all the shards of a corpus split."""

from typing import Any

import numpy as np
from jaxtyping import Int64

from data_pipeline.corpus.reader import Split


class SentenceIndex:
    """Token addresses of sentences, and sentence numbers of documents.

    Both are numbered through the shards; the number one past the last is allowed and means the end.

    Example: two shards, the first with sentences of 3 and 4 tokens in one document, the second with
    a sentence of 5: `addresses([0, 1, 2, 3])` is `[0, 3, 7, 12]`, `first_sentences([0, 1, 2])` is
    `[0, 2, 3]`.
    """

    def __init__(self, split: Split) -> None:
        self._sentence_offsets = [shard.sentence_offsets for shard in split.shards]
        self._document_offsets = [shard.document_offsets for shard in split.shards]
        self._tokens = np.asarray(split.token_starts, np.int64)
        self._sentences = _running_total([len(part) - 1 for part in self._sentence_offsets])
        self._documents = _running_total([len(part) - 1 for part in self._document_offsets])

    def addresses(self, sentences: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The token address at which each sentence begins."""
        return _look_up(self._sentence_offsets, self._sentences, self._tokens, sentences)

    def first_sentences(self, documents: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The number of the first sentence of each document."""
        return _look_up(self._document_offsets, self._documents, self._sentences, documents)


def _running_total(counts: list[int]) -> Int64[np.ndarray, " n"]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _look_up(
    parts: list[Any], starts: np.ndarray, added: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    part = np.minimum(np.searchsorted(starts, indices, side="right") - 1, len(parts) - 1)
    values = np.empty(len(indices), np.int64)
    for number in np.unique(part):
        here = part == number
        values[here] = parts[number][indices[here] - starts[number]] + added[number]
    return values
