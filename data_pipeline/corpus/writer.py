"""Writing a corpus directory: shards that only grow, and the metadata that makes them a corpus."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.durable_files import hash_file, hash_text, sync, write_atomically
from data_pipeline.corpus.reader import (
    DOCUMENT_OFFSETS_FILE,
    DOCUMENT_SOURCES_FILE,
    FORMAT_VERSION,
    METADATA_FILE,
    OFFSET_DTYPE,
    SENTENCE_OFFSETS_FILE,
    SOURCE_DTYPE,
    TOKENIZER_DIRECTORY,
    TOKENS_FILE,
    TRAIN,
    VALIDATION,
    CorpusMetadata,
    SourceMetadata,
    map_shard,
    shard_directory,
    token_dtype_for,
)
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.tokenizer import Tokenizer

MAX_SHARD_BYTES = 256 * 10**6
_DOCUMENTS_AT_ONCE = 4096


class EncodedDocuments(NamedTuple):
    """D documents of S sentences together, laid end to end.

    Example: two documents, the first of two sentences: `[[[5, 6], [7]], [[8]]]` is tokens
    `[5, 6, 7, 8]`, sentence_lengths `[2, 1, 1]`, sentence_counts `[2, 1]`.
    """

    tokens: np.ndarray  # whole numbers [tokens]
    sentence_lengths: np.ndarray  # whole numbers [S], tokens of each sentence, at least 1
    sentence_counts: np.ndarray  # whole numbers [D], sentences of each document, at least 1
    sources: np.ndarray  # whole numbers [D]


@dataclasses.dataclass
class ShardSize:
    """How much a shard holds, or how much documents would add to one."""

    tokens: int = 0
    sentences: int = 0
    documents: int = 0


class SplitWriter:
    """Appends documents to the shards of one split.

    All files only grow, so the lengths that `position` gives name a state to which a later writer
    returns by cutting off what came after.
    """

    def __init__(
        self,
        directory: Path,
        vocab_size: int,
        *,
        position: Mapping[str, int] | None = None,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        """Starts a split, or continues it from what an earlier writer's `position` returned."""
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
        """Writes documents, into the present shard as far as they fit, then into new ones.

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
        """Puts everything on the disk and says how much of it there is."""
        for name, file in self._files.items():
            file.flush()
            sync(self._shard_path / name)
        return {"shard": self._number, **dataclasses.asdict(self._size)}

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()
        self._files = {}

    @property
    def _shard_path(self) -> Path:
        return shard_directory(self.path, self._number)

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
            np.zeros(1, OFFSET_DTYPE).tofile(self._shard_path / name)
        self._open_shard()

    def _open_shard(self) -> None:
        size = self._size
        lengths = {
            TOKENS_FILE: size.tokens * self._token_dtype.itemsize,
            SENTENCE_OFFSETS_FILE: (size.sentences + 1) * OFFSET_DTYPE.itemsize,
            DOCUMENT_OFFSETS_FILE: (size.documents + 1) * OFFSET_DTYPE.itemsize,
            DOCUMENT_SOURCES_FILE: size.documents * SOURCE_DTYPE.itemsize,
        }
        for name, length in lengths.items():
            file = (self._shard_path / name).open("ab")
            if file.tell() < length:
                raise InputError(f"{file.name} is shorter than when it was last saved: remove it")
            file.truncate(length)
            self._files[name] = file

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


def keep_sentences(documents: EncodedDocuments, kept: np.ndarray) -> EncodedDocuments:
    """The documents with only the sentences of a mask, and without those that have none left.

    Example: of `[[[5, 6], [7]], [[8]]]` with the mask `[True, False, False]` `[[[5, 6]]]` is left.
    """
    document_of = np.repeat(np.arange(len(documents.sources)), documents.sentence_counts)
    counts = np.bincount(document_of[kept], minlength=len(documents.sources))
    return EncodedDocuments(
        documents.tokens[np.repeat(kept, documents.sentence_lengths)],
        documents.sentence_lengths[kept],
        counts[counts > 0],
        documents.sources[counts > 0],
    )


def read_back(directory: Path, vocab_size: int) -> Iterator[EncodedDocuments]:
    """What a `SplitWriter` wrote, some documents at a time."""
    for path in sorted(directory.glob("shard-*")):
        shard = map_shard(path, token_dtype_for(vocab_size))
        for first in range(0, len(shard.document_sources), _DOCUMENTS_AT_ONCE):
            sentences = shard.document_offsets[first : first + _DOCUMENTS_AT_ONCE + 1]
            tokens = shard.sentence_offsets[sentences[0] : sentences[-1] + 1]
            yield EncodedDocuments(
                shard.tokens[tokens[0] : tokens[-1]],
                np.diff(tokens),
                np.diff(sentences),
                shard.document_sources[first : first + _DOCUMENTS_AT_ONCE],
            )


def describe_files(
    directory: Path,
    *,
    vocab_size: int,
    sources: Mapping[str, float],
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
) -> CorpusMetadata:
    """Hashes and counts what lies in the directory; `write_metadata` then makes it a corpus.

    Args:
        directory: holds the tokenizer and the splits, complete.
        vocab_size: pieces of the tokenizer.
        sources: name -> weight, in the order that the documents number them.
        settings: how the corpus was built.
        versions: of libraries.
    """
    counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in sources}
    splits = {}
    for split in (TRAIN, VALIDATION):
        shards = sorted((directory / split).glob("shard-*"))
        per_source = _count_by_source(shards, vocab_size, len(sources))
        for name, numbers in zip(sources, per_source.tolist(), strict=True):
            counts[name][split] = dict(
                zip(("documents", "sentences", "tokens"), numbers, strict=True)
            )
        totals = per_source.sum(axis=0).tolist()
        splits[split] = {
            "shards": len(shards),
            "documents": totals[0],
            "sentences": totals[1],
            "tokens": totals[2],
        }
    paths = sorted(
        path
        for name in (TOKENIZER_DIRECTORY, TRAIN, VALIDATION)
        for path in (directory / name).rglob("*")
        if path.is_file()
    )
    files = {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }
        for path in paths
    }
    return CorpusMetadata(
        format_version=FORMAT_VERSION,
        fingerprint=hash_text(
            "".join(f"{file['sha256']} {name}\n" for name, file in files.items())
        ),
        vocab_size=vocab_size,
        sources=tuple(
            SourceMetadata(name, weight, counts[name]) for name, weight in sources.items()
        ),
        splits=splits,
        files=files,
        settings=settings,
        report={},
        versions=versions,
    )


def write_metadata(directory: Path, metadata: CorpusMetadata) -> None:
    """Makes the directory a corpus, which it becomes whole or not at all."""
    write_atomically(directory / METADATA_FILE, metadata.to_json())


def write_split(
    directory: Path,
    documents: Iterable[Sequence[Sequence[int]]],
    vocab_size: int,
    *,
    source: int = 0,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes documents, each a sequence of sentences of piece ids, as one split."""
    writer = SplitWriter(directory, vocab_size, max_shard_bytes=max_shard_bytes)
    for document in documents:
        tokens = np.fromiter(itertools.chain.from_iterable(document), np.int64)
        lengths = np.array([len(sentence) for sentence in document])
        writer.append(
            EncodedDocuments(tokens, lengths, np.array([len(document)]), np.array([source]))
        )
    writer.close()


def write_corpus(
    path: Path,
    splits: Mapping[str, Iterable[Sequence[Sequence[int]]]],
    tokenizer: Tokenizer,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> CorpusMetadata:
    """Writes a small corpus from ids in memory.

    Example: `write_corpus(path, {"train": [[[5, 6], [7]]], "validation": [[[8], [9]]]}, tokenizer)`
    has one document of two sentences on each side.
    """
    path.mkdir(parents=True)
    tokenizer.save(path / TOKENIZER_DIRECTORY)
    for split in (TRAIN, VALIDATION):
        write_split(
            path / split,
            splits.get(split, ()),
            tokenizer.vocab_size,
            max_shard_bytes=max_shard_bytes,
        )
    metadata = describe_files(
        path,
        vocab_size=tokenizer.vocab_size,
        sources={"memory": 1.0},
        settings={},
        versions={},
    )
    write_metadata(path, metadata)
    return metadata


def _count_by_source(shards: Sequence[Path], vocab_size: int, num_sources: int) -> np.ndarray:
    """Documents, sentences and tokens of each source: int64 [sources, 3]."""
    counts = np.zeros((num_sources, 3), np.int64)
    for directory in shards:
        shard = map_shard(directory, token_dtype_for(vocab_size))
        sentences = np.diff(shard.document_offsets)
        tokens = np.diff(shard.sentence_offsets[shard.document_offsets])
        for column, weights in enumerate((None, sentences, tokens)):
            counts[:, column] += np.bincount(
                shard.document_sources, weights, minlength=num_sources
            ).astype(np.int64)
    return counts
