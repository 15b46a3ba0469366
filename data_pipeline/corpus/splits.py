"""Splits of a corpus: memory-mapped shards, addressed by token, sentence and document."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt32

from data_pipeline.memory_maps import LazySequence, MappedDirectory, affordable_maps
from data_pipeline.verification import DamageError, Files

TRAIN, VALIDATION = "train", "validation"

# Bytes of text in a window: the shards that an epoch reads together. Two windows must fit on the
# disk of a host that copies shards from a store. Consecutive rows come from the whole window.
WINDOW_BYTES = 16 * 10**9

# The files of a shard, all little-endian; offsets count within the shard and end with the total.
TOKENS_FILE = "tokens.bin"  # uint16, or uint32 for vocabularies of more than 65,536 tokens
SENTENCE_OFFSETS_FILE = "sentence_offsets.bin"  # uint32: first token of each sentence
DOCUMENT_OFFSETS_FILE = "document_offsets.bin"  # uint32: first sentence of each document
DOCUMENT_SOURCES_FILE = "document_sources.bin"  # uint8: index into the metadata's sources
SHARD_FILES = (TOKENS_FILE, SENTENCE_OFFSETS_FILE, DOCUMENT_OFFSETS_FILE, DOCUMENT_SOURCES_FILE)
OFFSET_DTYPE = np.dtype("<u4")
SOURCE_DTYPE = np.dtype("u1")


@dataclasses.dataclass
class ShardSize:
    """The amount of text in a shard."""

    tokens: int = 0
    sentences: int = 0
    documents: int = 0


class Shard:
    """The arrays of one shard, each memory-mapped on first use.

    With S sentences in D documents, sentence s is
    `tokens[sentence_offsets[s]:sentence_offsets[s + 1]]`, and document d consists of the sentences
    from `document_offsets[d]` up to `document_offsets[d + 1]`.

    Args:
        directory: the directory of the corpus or of a split.
        name: the name of the shard's directory within it.
        vocab_size: number of tokens in the vocabulary.
    """

    def __init__(self, directory: MappedDirectory, name: str, vocab_size: int) -> None:
        self._directory, self._name = directory, name
        self._token_dtype = token_dtype_for(vocab_size)

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """Ids without special tokens: uint16 or uint32 [tokens]."""
        return self._map(TOKENS_FILE, self._token_dtype)

    @functools.cached_property
    def sentence_offsets(self) -> UInt32[np.ndarray, " boundaries"]:
        """The first token of each sentence, and the end."""
        return self._map(SENTENCE_OFFSETS_FILE, OFFSET_DTYPE)

    @functools.cached_property
    def document_offsets(self) -> UInt32[np.ndarray, " boundaries"]:
        """The first sentence of each document, and the end."""
        return self._map(DOCUMENT_OFFSETS_FILE, OFFSET_DTYPE)

    @functools.cached_property
    def document_sources(self) -> UInt8[np.ndarray, " documents"]:
        """The source of each document, as an index into the metadata's sources."""
        return self._map(DOCUMENT_SOURCES_FILE, SOURCE_DTYPE)

    def _map(self, file: str, dtype: np.dtype) -> np.ndarray:
        return self._directory.map(f"{self._name}/{file}", dtype)


Shards = Sequence[Shard] | LazySequence[Shard]


def map_shards(
    directory: MappedDirectory, name: str, sizes: Sequence[ShardSize], vocab_size: int
) -> LazySequence[Shard]:
    """Return the shards of a split, opened when read; a bounded number of them stays open.

    Args:
        directory: the directory of the corpus.
        name: the name of the split.
        sizes: the sizes of its shards.
        vocab_size: number of tokens in the vocabulary.
    """
    return LazySequence(
        len(sizes),
        lambda number: Shard(directory, f"{name}/{shard_name(number)}", vocab_size),
        max_open=affordable_maps(len(SHARD_FILES)),
    )


class Split:
    """The documents of one split of a corpus, with token addresses that span all shards.

    Args:
        shards: the shards, in order; there may be none.
        sizes: the sizes of the shards.

    Attributes:
        shards, sizes: as given.
        num_documents, num_sentences, num_tokens: totals.
        token_starts, sentence_starts, document_starts: int64 [shards + 1], the number of each
            shard's first token, sentence and document, and the end.
    """

    def __init__(self, shards: Shards, sizes: Sequence[ShardSize]) -> None:
        self.shards = shards
        self.sizes = tuple(sizes)
        self.token_starts = _running_total([size.tokens for size in sizes])
        self.sentence_starts = _running_total([size.sentences for size in sizes])
        self.document_starts = _running_total([size.documents for size in sizes])
        self.num_tokens = int(self.token_starts[-1])
        self.num_sentences = int(self.sentence_starts[-1])
        self.num_documents = int(self.document_starts[-1])

    def alone(self, number: int) -> "Split":
        """Return one of the shards as a separate split."""
        return Split([self.shards[number]], [self.sizes[number]])

    def read(self, addresses: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Read the tokens at addresses of the form `token_starts[shard] + offset`.

        Example: with shards that hold the tokens `[7, 8, 9]` and `[5, 6]`, `read([4, 0, 3])` is
        `[6, 7, 5]`.

        Raises:
            IndexError: an address is negative or past the end.
        """
        if len(addresses) and (addresses.min() < 0 or addresses.max() >= self.num_tokens):
            raise IndexError(f"token addresses must be from 0 to {self.num_tokens - 1}")
        tokens = np.empty(len(addresses), np.int32)
        for number, here in group_by_part(self.token_starts, addresses):
            tokens[here] = self.shards[number].tokens[addresses[here] - self.token_starts[number]]
        return tokens


def token_dtype_for(vocab_size: int) -> np.dtype:
    """Return the dtype of stored tokens: uint16 if every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def read_shard_size(files: Files, shard: str, vocab_size: int) -> ShardSize:
    """Return the amount of text in a shard, derived from the sizes of its files.

    Args:
        files: the files of the corpus, as in its metadata.
        shard: the shard's directory within the corpus.
        vocab_size: number of tokens in the vocabulary.

    Raises:
        DamageError: a file is not in the metadata, or its size is inconsistent with the others.
    """
    token_bytes = token_dtype_for(vocab_size).itemsize
    for file in SHARD_FILES:
        if f"{shard}/{file}" not in files:
            raise DamageError(f"it does not name {shard}/{file}")
    sizes = {file: files[f"{shard}/{file}"]["bytes"] for file in SHARD_FILES}
    size = ShardSize(
        tokens=sizes[TOKENS_FILE] // token_bytes,
        sentences=sizes[SENTENCE_OFFSETS_FILE] // OFFSET_DTYPE.itemsize - 1,
        documents=sizes[DOCUMENT_SOURCES_FILE],
    )
    whole = {
        TOKENS_FILE: size.tokens * token_bytes,
        SENTENCE_OFFSETS_FILE: (size.sentences + 1) * OFFSET_DTYPE.itemsize,
        DOCUMENT_OFFSETS_FILE: (size.documents + 1) * OFFSET_DTYPE.itemsize,
    }
    for file, expected in whole.items():
        if sizes[file] != expected:
            raise DamageError(f"{shard}/{file} cannot have {sizes[file]:,} bytes")
    return size


def shard_name(number: int) -> str:
    """Return the name of a shard's directory."""
    return f"shard-{number:05d}"


def _running_total(counts: list[int]) -> Int64[np.ndarray, " n"]:
    return np.cumsum([0, *counts], dtype=np.int64)


def group_by_part(
    starts: Int64[np.ndarray, " boundaries"], indices: Int64[np.ndarray, " n"]
) -> Iterator[tuple[int, slice | Int64[np.ndarray, " here"]]]:
    """Yield each part that some of the indices fall into, and the positions of these indices.

    The index one past the last belongs to the last part. A single sort finds all parts, however
    many there are.

    Example: `starts` of `[0, 3, 5]` and `indices` of `[4, 0, 5]` give part 0 at `[1]` and part 1 at
    `[0, 2]`.
    """
    if len(starts) == 2:
        yield 0, slice(None)
        return
    part = np.minimum(np.searchsorted(starts, indices, side="right") - 1, len(starts) - 2)
    # NumPy sorts 16-bit integers in linear time.
    part = part.astype(np.min_scalar_type(len(starts)))
    order = np.argsort(part, kind="stable")
    boundaries = np.flatnonzero(np.diff(part[order])) + 1
    for here in np.split(order, boundaries) if len(order) else ():
        yield int(part[here[0]]), here
