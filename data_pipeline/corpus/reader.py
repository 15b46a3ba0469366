"""A corpus directory: its files, its metadata, and tokens read from it at any address."""

import dataclasses
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt32

from albert_jax.durable_files import hash_file
from data_pipeline.errors import InputError
from data_pipeline.remote import is_remote, stage

if TYPE_CHECKING:
    from data_pipeline.tokenizers.tokenizer import Tokenizer

FORMAT_VERSION = 1
METADATA_FILE = "metadata.json"
TOKENIZER_DIRECTORY = "tokenizer"
TRAIN, VALIDATION = "train", "validation"

# The files of a shard, all little endian; offsets count within the shard and end with the total.
TOKENS_FILE = "tokens.bin"  # uint16, or uint32 above 65,536 pieces
SENTENCE_OFFSETS_FILE = "sentence_offsets.bin"  # uint32: first token of each sentence
DOCUMENT_OFFSETS_FILE = "document_offsets.bin"  # uint32: first sentence of each document
DOCUMENT_SOURCES_FILE = "document_sources.bin"  # uint8: which of the metadata's sources
OFFSET_DTYPE = np.dtype("<u4")
SOURCE_DTYPE = np.dtype("u1")


class CorpusError(InputError):
    """A directory is no corpus, or an incomplete or damaged one, or one of another version."""


class Shard(NamedTuple):
    """One shard's arrays, memory-mapped: S sentences in D documents.

    Sentence s holds `tokens[sentence_offsets[s]:sentence_offsets[s + 1]]`, document d the sentences
    `document_offsets[d]` up to `document_offsets[d + 1]`.
    """

    tokens: np.ndarray  # uint16 or uint32 [tokens], piece ids without special tokens
    sentence_offsets: UInt32[np.ndarray, " sentences+1"]
    document_offsets: UInt32[np.ndarray, " documents+1"]
    document_sources: UInt8[np.ndarray, " documents"]


@dataclasses.dataclass(frozen=True)
class SourceMetadata:
    """One source of a corpus, with what was kept of it."""

    name: str
    weight: float  # how often its training text is wanted, relative to the other sources
    counts: Mapping[str, Mapping[str, int]]  # split -> documents, sentences, tokens


@dataclasses.dataclass(frozen=True)
class CorpusMetadata:
    """What `metadata.json` says of a corpus.

    Attributes:
        format_version: of the directory's layout.
        fingerprint: SHA-256 over the names and hashes of all files: equal for equal content.
        vocab_size: pieces of the tokenizer.
        sources: where the documents came from; `Shard.document_sources` counts through them.
        splits: split -> shards, documents, sentences, tokens.
        files: path within the corpus -> bytes and sha256.
        settings: how it was built.
        report: what was found while building: dropped documents, unknown rate, and so on.
        versions: of Python and the libraries that shaped the text.
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

    def to_json(self) -> str:
        """The text of `metadata.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "CorpusMetadata":
        """Reads `metadata.json`.

        Raises:
            CorpusError: another format version, or not such a file at all.
        """
        try:
            fields = json.loads(text)
            version = fields["format_version"]
        except (ValueError, TypeError, KeyError):
            raise CorpusError("it is not the metadata of a corpus") from None
        if version != FORMAT_VERSION:
            raise CorpusError(
                f"it has format version {version!r}, and this program reads {FORMAT_VERSION}: "
                "build the corpus again"
            )
        try:
            fields["sources"] = tuple(SourceMetadata(**source) for source in fields["sources"])
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise CorpusError(f"it is damaged: {error}") from None


class Split:
    """The documents of one side of a corpus, their tokens addressed through all shards.

    Attributes:
        shards: in order; at least 0.
        num_documents, num_sentences, num_tokens: totals.
        token_starts: int64 [shards + 1], the address of each shard's first token, and the end.
    """

    def __init__(self, shards: tuple[Shard, ...]) -> None:
        self.shards = shards
        self.num_documents = sum(len(shard.document_sources) for shard in shards)
        self.num_sentences = sum(len(shard.sentence_offsets) - 1 for shard in shards)
        lengths = [len(shard.tokens) for shard in shards]
        self.token_starts: Int64[np.ndarray, " shards+1"] = np.cumsum([0, *lengths], dtype=np.int64)
        self.num_tokens = int(self.token_starts[-1])

    def read(self, addresses: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """The tokens at these addresses, `token_starts[shard] + offset` each.

        Example: shards that hold the tokens `[7, 8, 9]` and `[5, 6]`: `read([4, 0, 3])` is
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


class Corpus(NamedTuple):
    """An open corpus: where it lies, what it says of itself, and its `train` and `validation`."""

    path: Path
    metadata: CorpusMetadata
    splits: Mapping[str, Split]

    def load_tokenizer(self) -> "Tokenizer":
        """The tokenizer that the corpus was encoded with."""
        # Reading tokens needs no tokenizer library.
        from data_pipeline.tokenizers.loading import load_tokenizer

        return load_tokenizer(self.path / TOKENIZER_DIRECTORY)


def open_corpus(path: str | Path, *, verify: bool = True) -> Corpus:
    """Opens a corpus; a remote one (`gs://...`) is first copied to the local cache.

    Args:
        path: the corpus directory.
        verify: whether to compare every file with its SHA-256 (about a second a gigabyte), beside
            its size.

    Raises:
        CorpusError: there is no whole corpus of this version; the message names directory and file.
    """
    local = stage(str(path), METADATA_FILE, read_file_hashes) if is_remote(path) else Path(path)
    metadata = _read_metadata(local, path)
    check_files(local, metadata.files, verify=verify)
    return Corpus(local, metadata, open_splits(local, metadata))


def open_splits(path: Path, metadata: CorpusMetadata) -> dict[str, Split]:
    """Maps all shards of a corpus directory into memory."""
    token_dtype = token_dtype_for(metadata.vocab_size)
    return {
        name: Split(
            tuple(
                map_shard(shard_directory(path / name, number), token_dtype)
                for number in range(counts["shards"])
            )
        )
        for name, counts in metadata.splits.items()
    }


def token_dtype_for(vocab_size: int) -> np.dtype:
    """How tokens are stored: uint16 as long as they fit."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def shard_directory(split_directory: Path, number: int) -> Path:
    """Where shard `number` of a split lies."""
    return split_directory / f"shard-{number:05d}"


def read_file_hashes(metadata_text: str) -> dict[str, str]:
    """Path -> SHA-256 of every file that the text of a `metadata.json` names."""
    files = CorpusMetadata.from_json(metadata_text).files
    return {name: file["sha256"] for name, file in files.items()}


def check_files(path: Path, files: Mapping[str, Mapping[str, Any]], *, verify: bool) -> None:
    """Compares files with the sizes and, if `verify`, the hashes that metadata gives them.

    Raises:
        CorpusError: one is missing or differs.
    """
    for name, expected in files.items():
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != expected["bytes"]:
            found = "is missing" if size is None else f"has {size:,} bytes"
            raise CorpusError(
                f"corpus {path} is damaged: {name} {found}, its metadata says "
                f"{expected['bytes']:,} bytes"
            )
    if verify:
        with ThreadPoolExecutor() as pool:
            hashes = pool.map(lambda name: hash_file(path / name), files)
            for (name, expected), found in zip(files.items(), hashes, strict=True):
                if found != expected["sha256"]:
                    raise CorpusError(
                        f"corpus {path} is damaged: the SHA-256 of {name} is not the one in its "
                        "metadata"
                    )


def _read_metadata(local: Path, path: str | Path) -> CorpusMetadata:
    if not local.is_dir():
        raise CorpusError(f"{path} is no corpus: there is no such directory")
    try:
        text = (local / METADATA_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CorpusError(
            f"{path} is no corpus: it has no {METADATA_FILE}, which data_pipeline.build_corpus "
            "writes last"
        ) from None
    except UnicodeDecodeError:
        raise CorpusError(f"corpus {path}: {METADATA_FILE} is damaged") from None
    try:
        return CorpusMetadata.from_json(text)
    except CorpusError as error:
        raise CorpusError(f"corpus {path}: {METADATA_FILE}: {error}") from None


def map_shard(directory: Path, token_dtype: np.dtype) -> Shard:
    """Maps the files of one shard into memory."""

    def read(name: str, dtype: np.dtype) -> np.ndarray:
        # A plain view of the mapping: indexing np.memmap itself is slower.
        return np.asarray(np.memmap(directory / name, dtype, mode="r"))

    return Shard(
        read(TOKENS_FILE, token_dtype),
        read(SENTENCE_OFFSETS_FILE, OFFSET_DTYPE),
        read(DOCUMENT_OFFSETS_FILE, OFFSET_DTYPE),
        read(DOCUMENT_SOURCES_FILE, SOURCE_DTYPE),
    )
