"""Writing the shards of a corpus split, which only grow."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from albert_jax.durable_files import sync
from data_pipeline.corpus.splits import (
    DOCUMENT_OFFSETS_FILE,
    DOCUMENT_SOURCES_FILE,
    OFFSET_DTYPE,
    SENTENCE_OFFSETS_FILE,
    SOURCE_DTYPE,
    TOKENS_FILE,
    Shard,
    ShardSize,
    shard_name,
    token_dtype_for,
)
from data_pipeline.errors import InputError
from data_pipeline.memory_maps import MappedDirectory

MAX_SHARD_BYTES = 256 * 10**6
_DOCUMENTS_PER_READ = 4096


class EncodedDocuments(NamedTuple):
    """D documents of S sentences together, laid end to end.

    Example: two documents, the first of two sentences: `[[[5, 6], [7]], [[8]]]` is tokens
    `[5, 6, 7, 8]`, sentence_lengths `[2, 1, 1]`, sentence_counts `[2, 1]`.
    """

    tokens: np.ndarray  # integers [tokens]
    sentence_lengths: np.ndarray  # integers [S], tokens of each sentence, at least 1
    sentence_counts: np.ndarray  # integers [D], sentences of each document, at least 1
    sources: np.ndarray  # integers [D]

    def select_sentences(self, mask: Bool[np.ndarray, " sentences"]) -> "EncodedDocuments":
        """Keep the sentences of a mask, and the documents that have any of them.

        Example: of `[[[5, 6], [7]], [[8]]]` the mask `[True, False, False]` keeps `[[[5, 6]]]`.
        """
        document_of = np.repeat(np.arange(len(self.sources)), self.sentence_counts)
        counts = np.bincount(document_of[mask], minlength=len(self.sources))
        return EncodedDocuments(
            self.tokens[np.repeat(mask, self.sentence_lengths)],
            self.sentence_lengths[mask],
            counts[counts > 0],
            self.sources[counts > 0],
        )


class SplitWriter:
    """Writer of the shards of one split.

    All files only grow, so the lengths returned by `position` name a state, to which a later writer
    returns by truncating the files.
    """

    def __init__(
        self,
        directory: Path,
        vocab_size: int,
        *,
        position: Mapping[str, int] | None = None,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        """Start a split, or continue it from the `position` of an earlier writer."""
        self.path = directory
        self._token_dtype = token_dtype_for(vocab_size)
        self._max_shard_bytes = max_shard_bytes
        position = dict(position or {})
        self._number = position.pop("shard", -1)
        self._size = ShardSize(**position)
        self._files: dict[str, Any] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._remove_later_shards()
        if self._number >= 0:
            self._open_shard()

    def append(self, documents: EncodedDocuments) -> None:
        """Write documents, into the current shard as far as they fit, then into new ones.

        Raises:
            ValueError: a document alone is larger than a shard.
        """
        sentence_ends = np.cumsum(documents.sentence_counts, dtype=np.int64)
        token_totals = np.cumsum(documents.sentence_lengths, dtype=np.int64)
        token_ends = token_totals[sentence_ends - 1] if len(sentence_ends) else sentence_ends
        first = first_sentence = first_token = 0
        while first < len(sentence_ends):
            sizes = self._bytes(
                self._size.tokens + token_ends[first:] - first_token,
                self._size.sentences + sentence_ends[first:] - first_sentence,
                self._size.documents + np.arange(1, len(sentence_ends) - first + 1),
            )
            last = first + int(np.searchsorted(sizes, self._max_shard_bytes, side="right"))
            if self._number < 0 or last == first:
                if self._number >= 0 and self._size.documents == 0:
                    raise ValueError(f"a document needs {sizes[0]:,} bytes, more than a shard has")
                self._start_shard()
                continue
            sentence, token = int(sentence_ends[last - 1]), int(token_ends[last - 1])
            self._write(
                EncodedDocuments(
                    documents.tokens[first_token:token],
                    documents.sentence_lengths[first_sentence:sentence],
                    documents.sentence_counts[first:last],
                    documents.sources[first:last],
                )
            )
            first, first_sentence, first_token = last, sentence, token

    def position(self) -> dict[str, int]:
        """Sync all files to the disk, and return how much they hold."""
        for name, file in self._files.items():
            file.flush()
            sync(self._shard_path / name)
        return {"shard": self._number, **dataclasses.asdict(self._size)}

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files = {}

    @property
    def _shard_path(self) -> Path:
        return self.path / shard_name(self._number)

    def _bytes(self, tokens: Any, sentences: Any, documents: Any) -> Any:
        offsets = (sentences + 1 + documents + 1) * OFFSET_DTYPE.itemsize
        return tokens * self._token_dtype.itemsize + offsets + documents * SOURCE_DTYPE.itemsize

    def _start_shard(self) -> None:
        if self._files:
            self.position()
            self.close()
        self._number += 1
        self._size = ShardSize()
        self._shard_path.mkdir()
        for name in (SENTENCE_OFFSETS_FILE, DOCUMENT_OFFSETS_FILE):
            (self._shard_path / name).write_bytes(bytes(OFFSET_DTYPE.itemsize))
        self._open_shard()

    def _open_shard(self) -> None:
        size = self._size
        lengths = {
            TOKENS_FILE: size.tokens * self._token_dtype.itemsize,
            SENTENCE_OFFSETS_FILE: (size.sentences + 1) * OFFSET_DTYPE.itemsize,
            DOCUMENT_OFFSETS_FILE: (size.documents + 1) * OFFSET_DTYPE.itemsize,
            DOCUMENT_SOURCES_FILE: size.documents * SOURCE_DTYPE.itemsize,
        }
        self._files = {
            name: open_truncated(self._shard_path / name, length)
            for name, length in lengths.items()
        }

    def _remove_later_shards(self) -> None:
        for shard in self.path.glob("shard-*"):
            if shard.name > self._shard_path.name or self._number < 0:
                for file in shard.iterdir():
                    file.unlink()
                shard.rmdir()

    def _write(self, documents: EncodedDocuments) -> None:
        size = self._size
        sentence_offsets = size.tokens + np.cumsum(documents.sentence_lengths)
        document_offsets = size.sentences + np.cumsum(documents.sentence_counts)
        arrays = {
            TOKENS_FILE: documents.tokens.astype(self._token_dtype),
            SENTENCE_OFFSETS_FILE: sentence_offsets.astype(OFFSET_DTYPE),
            DOCUMENT_OFFSETS_FILE: document_offsets.astype(OFFSET_DTYPE),
            DOCUMENT_SOURCES_FILE: documents.sources.astype(SOURCE_DTYPE),
        }
        for name, array in arrays.items():
            self._files[name].write(array.tobytes())
        size.tokens += len(documents.tokens)
        size.sentences += len(documents.sentence_lengths)
        size.documents += len(documents.sentence_counts)


def open_truncated(path: Path, length: int) -> Any:
    """Open a file to append to, after cutting it to the length at which it was last saved.

    Raises:
        InputError: it is shorter than that.
    """
    file = path.open("ab")
    if file.tell() < length:
        raise InputError(f"{path} is shorter than when it was last saved: remove it")
    file.truncate(length)
    return file


def read_split(directory: Path, vocab_size: int) -> Iterator[EncodedDocuments]:
    """Read back the documents of a `SplitWriter`, some at a time."""
    mapped = MappedDirectory(directory)
    for number in range(len(list(directory.glob("shard-*")))):
        shard = Shard(mapped, shard_name(number), vocab_size)
        for first in range(0, len(shard.document_sources), _DOCUMENTS_PER_READ):
            sentences = shard.document_offsets[first : first + _DOCUMENTS_PER_READ + 1]
            tokens = shard.sentence_offsets[sentences[0] : sentences[-1] + 1]
            yield EncodedDocuments(
                shard.tokens[tokens[0] : tokens[-1]],
                np.diff(tokens),
                np.diff(sentences),
                shard.document_sources[first : first + _DOCUMENTS_PER_READ],
            )
