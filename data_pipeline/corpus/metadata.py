"""Metadata of a corpus: `metadata.json`, which names, counts and hashes its files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.durable_files import hash_file, hash_text, write_atomically
from data_pipeline.corpus.splits import TRAIN, VALIDATION, open_shard
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY

FORMAT_VERSION = 2
_WHOLE_SENTENCES_VERSION = 1  # read as well; see `cuts_long_sentences`
METADATA_FILE = "metadata.json"

_COUNTED = ("documents", "sentences", "tokens")


class CorpusError(InputError):
    """A directory that holds no corpus, an incomplete or damaged one, or one of another version."""


@dataclasses.dataclass(frozen=True)
class SourceMetadata:
    """One source of a corpus, and the text kept from it."""

    name: str
    weight: float  # how often its training text is read, relative to the other sources
    counts: Mapping[str, Mapping[str, int]]  # split -> documents, sentences, tokens


@dataclasses.dataclass(frozen=True)
class CorpusMetadata:
    """The content of `metadata.json`.

    Attributes:
        format_version: of the directory's layout.
        fingerprint: SHA-256 over the format version and the names and hashes of all files: equal
            for equal batches.
        vocab_size: tokens in the vocabulary.
        sources: where the documents came from; `Shard.document_sources` indexes them.
        splits: split -> shards, documents, sentences, tokens.
        files: path within the corpus -> bytes and sha256.
        settings: of the build.
        report: statistics of the build: dropped documents, unknown rate, and so on.
        versions: of Python and the libraries that affect the text.
    """

    format_version: int
    fingerprint: str
    vocab_size: int
    sources: tuple[SourceMetadata, ...]
    splits: Mapping[str, Mapping[str, int]]
    files: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    report: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def cuts_long_sentences(self) -> bool:
        """True if plans cut sentences that are longer than a row, so that all of them is read.

        Plans of a corpus of before leave them whole and truncate them, so that a run on it keeps
        its batches.
        """
        return self.format_version > _WHOLE_SENTENCES_VERSION

    def to_json(self) -> str:
        """Return the text of `metadata.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "CorpusMetadata":
        """Parse the text of `metadata.json`.

        Raises:
            CorpusError: it has another format version, or is not the metadata of a corpus.
        """
        try:
            fields = json.loads(text)
            version = fields["format_version"]
        except (ValueError, TypeError, KeyError):
            raise CorpusError("it is not the metadata of a corpus") from None
        if version not in (_WHOLE_SENTENCES_VERSION, FORMAT_VERSION):
            raise CorpusError(
                f"it has format version {version!r}, and this program reads "
                f"{_WHOLE_SENTENCES_VERSION} and {FORMAT_VERSION}: build the corpus again"
            )
        try:
            fields["sources"] = tuple(SourceMetadata(**source) for source in fields["sources"])
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise CorpusError(f"it is damaged: {error}") from None

    def save(self, directory: Path) -> None:
        """Write `metadata.json`, which makes the directory a corpus."""
        write_atomically(directory / METADATA_FILE, self.to_json())


def parse_file_hashes(metadata_text: str) -> dict[str, str]:
    """Return path -> SHA-256 of every file named in the text of a `metadata.json`."""
    files = CorpusMetadata.from_json(metadata_text).files
    return {name: file["sha256"] for name, file in files.items()}


def describe_corpus(
    directory: Path,
    *,
    vocab_size: int,
    sources: Mapping[str, float],
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
) -> CorpusMetadata:
    """Count the text of a finished directory and hash its files; the report is left empty.

    Args:
        directory: holds the tokenizer and both splits, complete.
        vocab_size: tokens in the vocabulary.
        sources: name -> weight, in the order in which documents number them.
        settings: of the build.
        versions: of libraries.
    """
    counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in sources}
    splits = {}
    for split in (TRAIN, VALIDATION):
        shards = sorted((directory / split).glob("shard-*"))
        per_source = _count_by_source(shards, vocab_size, len(sources))
        for name, numbers in zip(sources, per_source.tolist(), strict=True):
            counts[name][split] = dict(zip(_COUNTED, numbers, strict=True))
        totals = per_source.sum(axis=0).tolist()
        splits[split] = {"shards": len(shards), **dict(zip(_COUNTED, totals, strict=True))}
    files = _describe_files(directory)
    hashes = "".join(f"{file['sha256']} {name}\n" for name, file in files.items())
    return CorpusMetadata(
        format_version=FORMAT_VERSION,
        fingerprint=hash_text(f"format {FORMAT_VERSION}\n{hashes}"),
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


def _describe_files(directory: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(
        path
        for name in (TOKENIZER_DIRECTORY, TRAIN, VALIDATION)
        for path in (directory / name).rglob("*")
        if path.is_file()
    )
    return {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }
        for path in paths
    }


def _count_by_source(shards: Sequence[Path], vocab_size: int, num_sources: int) -> np.ndarray:
    """Count the documents, sentences and tokens of each source: int64 [sources, 3]."""
    counts = np.zeros((num_sources, 3), np.int64)
    for directory in shards:
        shard = open_shard(directory, vocab_size)
        sentences = np.diff(shard.document_offsets)
        tokens = np.diff(shard.sentence_offsets[shard.document_offsets])
        for column, weights in enumerate((None, sentences, tokens)):
            counts[:, column] += np.bincount(
                shard.document_sources, weights, minlength=num_sources
            ).astype(np.int64)
    return counts
