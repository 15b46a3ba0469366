"""Shards of a split: cutting the documents of blocks into shards, and writing each shard."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.durable_files import sync
from data_pipeline.building.splits.blocks import DocumentSizes, EncodedDocuments
from data_pipeline.corpus.splits import (
    DOCUMENT_OFFSETS_FILE,
    DOCUMENT_SOURCES_FILE,
    OFFSET_DTYPE,
    SENTENCE_OFFSETS_FILE,
    SHARD_FILES,
    SOURCE_DTYPE,
    TOKENS_FILE,
    ShardSize,
    token_dtype_for,
)

MAX_SHARD_BYTES = 256 * 10**6


class Piece(NamedTuple):
    """Documents of a block that go into one shard, numbered among those of its split."""

    block: int
    first: int
    last: int


def cut_shards(
    totals: Iterable[ShardSize],
    sizes_of: Callable[[int], DocumentSizes],
    vocab_size: int,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Iterator[list[Piece]]:
    """Cut the documents of blocks into shards, each filled before the next one begins.

    `sizes_of` is called only for blocks in which a shard ends.

    Args:
        totals: the amount of text of the split in each block.
        sizes_of: maps the number of a block to the sizes of its documents in the split.
        vocab_size: number of tokens in the vocabulary.
        max_shard_bytes: upper bound on the total size of the files of a shard.

    Yields:
        The pieces of each shard.

    Raises:
        ValueError: a single document is larger than a shard.
    """
    pieces: list[Piece] = []
    size = ShardSize()
    for number, total in enumerate(totals):
        if not total.documents:
            continue
        whole = _sum(size, total)
        if (
            shard_bytes(whole.tokens, whole.sentences, whole.documents, vocab_size)
            <= max_shard_bytes
        ):
            pieces.append(Piece(number, 0, total.documents))
            size = whole
            continue
        token_ends, sentence_ends = (np.cumsum(sizes) for sizes in sizes_of(number))
        first = first_token = first_sentence = 0
        while first < total.documents:
            bytes_needed = shard_bytes(
                size.tokens + token_ends[first:] - first_token,
                size.sentences + sentence_ends[first:] - first_sentence,
                size.documents + np.arange(1, total.documents - first + 1),
                vocab_size,
            )
            last = first + int(np.searchsorted(bytes_needed, max_shard_bytes, side="right"))
            if last == first:
                if not pieces:
                    needed = int(bytes_needed[0])
                    raise ValueError(f"a document needs {needed:,} bytes, more than a shard has")
                yield pieces
                pieces, size = [], ShardSize()
                continue
            pieces.append(Piece(number, first, last))
            token, sentence = int(token_ends[last - 1]), int(sentence_ends[last - 1])
            more = ShardSize(token - first_token, sentence - first_sentence, last - first)
            size = _sum(size, more)
            first, first_token, first_sentence = last, token, sentence
    if pieces:
        yield pieces


def shard_bytes(tokens: Any, sentences: Any, documents: Any, vocab_size: int) -> Any:
    """Return the size in bytes of a shard's files for this much text; elementwise for arrays."""
    offsets = (sentences + 1 + documents + 1) * OFFSET_DTYPE.itemsize
    token_bytes = tokens * token_dtype_for(vocab_size).itemsize
    return token_bytes + offsets + documents * SOURCE_DTYPE.itemsize


def _sum(one: ShardSize, other: ShardSize) -> ShardSize:
    return ShardSize(
        one.tokens + other.tokens,
        one.sentences + other.sentences,
        one.documents + other.documents,
    )


def write_shard(
    directory: Path, pieces: Iterable[EncodedDocuments], vocab_size: int
) -> dict[str, dict[str, Any]]:
    """Write documents, one piece after the other, as the files of a shard, and sync them.

    Args:
        directory: the directory of the shard, which is created.
        pieces: the documents of the shard, in order.
        vocab_size: number of tokens in the vocabulary.

    Returns:
        The bytes and SHA-256 of each file, by name.
    """
    directory.mkdir(parents=True)
    files = {name: (directory / name).open("wb") for name in SHARD_FILES}
    digests = {name: hashlib.sha256() for name in SHARD_FILES}
    sizes = dict.fromkeys(SHARD_FILES, 0)

    def write(name: str, array: np.ndarray, dtype: np.dtype) -> None:
        data = array.astype(dtype).tobytes()
        files[name].write(data)
        digests[name].update(data)
        sizes[name] += len(data)

    try:
        for name in (SENTENCE_OFFSETS_FILE, DOCUMENT_OFFSETS_FILE):
            write(name, np.zeros(1), OFFSET_DTYPE)
        tokens = sentences = 0
        for piece in pieces:
            sentence_ends = np.cumsum(piece.sentence_lengths, dtype=np.int64)
            document_ends = np.cumsum(piece.sentence_counts, dtype=np.int64)
            write(TOKENS_FILE, piece.tokens, token_dtype_for(vocab_size))
            write(SENTENCE_OFFSETS_FILE, tokens + sentence_ends, OFFSET_DTYPE)
            write(DOCUMENT_OFFSETS_FILE, sentences + document_ends, OFFSET_DTYPE)
            write(DOCUMENT_SOURCES_FILE, piece.sources, SOURCE_DTYPE)
            tokens += len(piece.tokens)
            sentences += len(piece.sentence_lengths)
    finally:
        for file in files.values():
            file.close()
    for name in SHARD_FILES:
        sync(directory / name)
    return {
        name: {"bytes": sizes[name], "sha256": digests[name].hexdigest()} for name in SHARD_FILES
    }
