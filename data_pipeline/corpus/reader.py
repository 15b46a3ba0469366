"""Opening a corpus: its files are checked, its shards mapped into memory."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.durable_files import hash_file
from data_pipeline.corpus.metadata import (
    METADATA_FILE,
    CorpusError,
    CorpusMetadata,
    parse_file_hashes,
)
from data_pipeline.corpus.splits import Split, open_split
from data_pipeline.remote import is_remote, stage
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer


class Corpus(NamedTuple):
    """An open corpus: its directory, its metadata, and its `train` and `validation` splits."""

    path: Path
    metadata: CorpusMetadata
    splits: Mapping[str, Split]

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer that the corpus was encoded with."""
        return load_tokenizer(self.path / TOKENIZER_DIRECTORY)


def open_corpus(path: str | Path, *, verify: bool = True) -> Corpus:
    """Open a corpus; a remote one (`gs://...`) is first copied to the local cache.

    Args:
        path: the corpus directory.
        verify: True to compare every file with its SHA-256 (about a second a gigabyte), besides
            its size.

    Raises:
        CorpusError: there is no complete corpus of this version; the message names directory and
            file.
    """
    local = stage(str(path), METADATA_FILE, parse_file_hashes) if is_remote(path) else Path(path)
    metadata = _read_metadata(local, path)
    check_files(local, metadata.files, verify=verify)
    return map_corpus(local, metadata)


def map_corpus(path: Path, metadata: CorpusMetadata) -> Corpus:
    """Map a corpus into memory without checking its files."""
    splits = {
        name: open_split(path / name, counts["shards"], metadata.vocab_size)
        for name, counts in metadata.splits.items()
    }
    return Corpus(path, metadata, splits)


def check_files(path: Path, files: Mapping[str, Mapping[str, Any]], *, verify: bool) -> None:
    """Compare files with the sizes and, if `verify`, the hashes in the metadata.

    Raises:
        CorpusError: a file is missing or differs.
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
        raise CorpusError(f"{path} is not a corpus: there is no such directory")
    try:
        text = (local / METADATA_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CorpusError(
            f"{path} is not a corpus: it has no {METADATA_FILE}, which data_pipeline.build_corpus "
            "writes last"
        ) from None
    except UnicodeDecodeError:
        raise CorpusError(f"corpus {path}: {METADATA_FILE} is damaged") from None
    try:
        return CorpusMetadata.from_json(text)
    except CorpusError as error:
        raise CorpusError(f"corpus {path}: {METADATA_FILE}: {error}") from None
