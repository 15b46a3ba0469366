"""Splits of a corpus: memory-mapped shards, addressed by token, sentence and document."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt32

TRAIN, VALIDATION = "train", "validation"

# The files of a shard, all little endian; offsets count within the shard and end with the total.
TOKENS_FILE = "tokens.bin"  # uint16, or uint32 for vocabularies of more than 65,536 tokens
SENTENCE_OFFSETS_FILE = "sentence_offsets.bin"  # uint32: first token of each sentence
DOCUMENT_OFFSETS_FILE = "document_offsets.bin"  # uint32: first sentence of each document
DOCUMENT_SOURCES_FILE = "document_sources.bin"  # uint8: index into the metadata's sources
OFFSET_DTYPE = np.dtype("<u4")
SOURCE_DTYPE = np.dtype("u1")


class Shard(NamedTuple):
    """The memory-mapped arrays of one shard: S sentences in D documents.

    Sentence s is `tokens[sentence_offsets[s]:sentence_offsets[s + 1]]`, document d the sentences
    `document_offsets[d]` up to `document_offsets[d + 1]`.
    """

    tokens: np.ndarray  # uint16 or uint32 [tokens], ids without special tokens
    sentence_offsets: UInt32[np.ndarray, " sentences+1"]
    document_offsets: UInt32[np.ndarray, " documents+1"]
    document_sources: UInt8[np.ndarray, " documents"]


class Split:
    """The documents of one split of a corpus, with token addresses that run through all shards.

    Attributes:
        shards: in order; may be empty.
        num_documents, num_sentences, num_tokens: totals.
        token_starts: int64 [shards + 1], the address of each shard's first token, and the end.
    """

    def __init__(self, shards: tuple[Shard, ...]) -> None:
        self.shards = shards
        self.num_documents = sum(len(shard.document_sources) for shard in shards)
        self.num_sentences = sum(len(shard.sentence_offsets) - 1 for shard in shards)
        self.token_starts = _running_total([len(shard.tokens) for shard in shards])
        self.num_tokens = int(self.token_starts[-1])

    def read(self, addresses: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Read the tokens at these addresses, `token_starts[shard] + offset` each.

        Example: with shards of the tokens `[7, 8, 9]` and `[5, 6]`, `read([4, 0, 3])` is
        `[6, 7, 5]`.

        Raises:
            IndexError: an address is negative or past the end.
        """
        if len(addresses) and (addresses.min() < 0 or addresses.max() >= self.num_tokens):
            raise IndexError(f"token addresses must be from 0 to {self.num_tokens - 1}")
        if len(self.shards) == 1:
            return self.shards[0].tokens[addresses].astype(np.int32)
        tokens = np.empty(len(addresses), np.int32)
        shard_of = np.searchsorted(self.token_starts, addresses, side="right") - 1
        for number in np.unique(shard_of):
            here = shard_of == number
            tokens[here] = self.shards[number].tokens[addresses[here] - self.token_starts[number]]
        return tokens


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
        self._token_starts = np.asarray(split.token_starts, np.int64)
        self._sentence_starts = _running_total([len(part) - 1 for part in self._sentence_offsets])
        self._document_starts = _running_total([len(part) - 1 for part in self._document_offsets])

    def addresses(self, sentences: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the address of the first token of each sentence."""
        return _look_up(
            self._sentence_offsets, self._sentence_starts, self._token_starts, sentences
        )

    def first_sentences(self, documents: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the number of the first sentence of each document."""
        return _look_up(
            self._document_offsets, self._document_starts, self._sentence_starts, documents
        )


def open_split(directory: Path, num_shards: int, vocab_size: int) -> Split:
    """Map all shards of a split into memory."""
    paths = (shard_directory(directory, number) for number in range(num_shards))
    return Split(tuple(open_shard(path, vocab_size) for path in paths))


def open_shard(directory: Path, vocab_size: int) -> Shard:
    """Map the files of one shard into memory."""

    def read(name: str, dtype: np.dtype) -> np.ndarray:
        # A plain view of the mapping: indexing np.memmap itself is slower.
        return np.asarray(np.memmap(directory / name, dtype, mode="r"))

    return Shard(
        read(TOKENS_FILE, token_dtype_for(vocab_size)),
        read(SENTENCE_OFFSETS_FILE, OFFSET_DTYPE),
        read(DOCUMENT_OFFSETS_FILE, OFFSET_DTYPE),
        read(DOCUMENT_SOURCES_FILE, SOURCE_DTYPE),
    )


def token_dtype_for(vocab_size: int) -> np.dtype:
    """Return the dtype of stored tokens: uint16 if every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def shard_directory(split_directory: Path, number: int) -> Path:
    """Return the directory of a shard."""
    return split_directory / f"shard-{number:05d}"


def _running_total(counts: list[int]) -> Int64[np.ndarray, " n"]:
    return np.cumsum([0, *counts], dtype=np.int64)


def _look_up(
    offsets: Sequence[np.ndarray],
    starts: Int64[np.ndarray, " boundaries"],
    added: Int64[np.ndarray, " boundaries"],
    indices: Int64[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """Look up indices in the offsets of all shards, and add where the shard's targets begin."""
    part = np.minimum(np.searchsorted(starts, indices, side="right") - 1, len(offsets) - 1)
    values = np.empty(len(indices), np.int64)
    for number in np.unique(part):
        here = part == number
        values[here] = offsets[number][indices[here] - starts[number]] + added[number]
    return values
