"""Opening a corpus: checking its files and mapping its shards into memory."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax.input_files import is_remote, read_text
from data_pipeline.corpus.metadata import (
    METADATA_FILE,
    CorpusError,
    CorpusMetadata,
)
from data_pipeline.corpus.splits import TRAIN, VALIDATION, WINDOW_BYTES, Split, map_shards
from data_pipeline.corpus.staging import FileStage, StagedDirectory
from data_pipeline.memory_maps import MappedDirectory
from data_pipeline.remote import open_path, stage
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer
from data_pipeline.verification import Files, find_damaged_files


class Corpus(NamedTuple):
    """An open corpus: its directory, its metadata, and its `train` and `validation` splits.

    Attributes:
        path: the directory of the corpus, or of its local copy.
        stage: for a large corpus on a store, the stage that copies its training shards as they are
            read; None if all files are local.
    """

    path: Path
    metadata: CorpusMetadata
    splits: Mapping[str, Split]
    stage: FileStage | None = None

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer that the corpus was encoded with."""
        return load_tokenizer(self.path / TOKENIZER_DIRECTORY)

    def __reduce__(
        self,
    ) -> tuple[Callable[..., "Corpus"], tuple[Path, CorpusMetadata, FileStage | None]]:
        """Pickle only what worker processes need to map the corpus."""
        return map_corpus, (self.path, self.metadata, self.stage)


def open_corpus(path: str | Path, *, verify: bool = True) -> Corpus:
    """Open a corpus; a remote one (`gs://...`) is first copied to the local cache.

    If a remote corpus is larger than two windows of a plan, only its tokenizer and held-out text
    are copied first. Its training shards are copied, and verified, as they are read.

    Args:
        path: the corpus directory.
        verify: True to check the SHA-256 of every file (about a second per gigabyte) in addition to
            its size. One process per host does so, while the others wait for it.

    Raises:
        CorpusError: there is no complete corpus of a supported version; the message names the
            directory and the file.
    """
    local = stage(str(path), METADATA_FILE, _files_to_copy) if is_remote(path) else Path(path)
    metadata = read_metadata(local, name=path)
    if is_remote(path) and (later := _files_for_later(metadata)):
        return map_corpus(local, metadata, FileStage(str(path), local, later))
    check_files(local, metadata.files, verify=verify)
    corpus = map_corpus(local, metadata)
    if metadata.unsealed_fingerprint:  # no other check would notice a changed vocab_size
        vocab_size = corpus.load_tokenizer().vocab_size
        if vocab_size != metadata.vocab_size:
            raise CorpusError(
                f"corpus {path} is damaged: its metadata says that there are {metadata.vocab_size} "
                f"tokens in the vocabulary, and the tokenizer has {vocab_size}"
            )
    return corpus


def _files_for_later(metadata: CorpusMetadata) -> Files:
    """Return the files that are copied from a store on first use: the training shards, if large."""
    shards = {name: one for name, one in metadata.files.items() if name.startswith(f"{TRAIN}/")}
    size = sum(record["bytes"] for record in shards.values())
    is_large = metadata.plans_by_shard and size > 2 * WINDOW_BYTES
    return shards if is_large else {}


def _files_to_copy(metadata_text: str) -> Files:
    """Return the files that are copied from a store right away."""
    metadata = CorpusMetadata.from_json(metadata_text)
    later = _files_for_later(metadata)
    return {name: record for name, record in metadata.files.items() if name not in later}


def map_corpus(path: Path, metadata: CorpusMetadata, file_stage: FileStage | None = None) -> Corpus:
    """Map a corpus into memory without checking its files."""
    splits = {}
    for name in metadata.splits:
        directory = (
            StagedDirectory(file_stage) if file_stage and name == TRAIN else MappedDirectory(path)
        )
        sizes = metadata.shard_sizes(name)
        splits[name] = Split(map_shards(directory, name, sizes, metadata.vocab_size), sizes)
    return Corpus(path, metadata, splits, file_stage)


def check_files(path: Path, files: Files, *, verify: bool) -> None:
    """Check files against the names, the sizes and, if `verify`, the hashes in the metadata.

    Raises:
        CorpusError: a file is missing, differs, or is not in the metadata.
    """
    for damage in find_damaged_files(path, files, hashes=False).values():
        raise CorpusError(f"corpus {path} is damaged: {damage}")
    for name in list_files(path):
        if name not in files:
            raise CorpusError(f"corpus {path} is damaged: its metadata does not name {name}")
    if verify:
        for damage in find_damaged_files(path, files).values():
            raise CorpusError(f"corpus {path} is damaged: {damage}")


def list_files(
    path: Path, parts: Sequence[str] = (TOKENIZER_DIRECTORY, TRAIN, VALIDATION)
) -> list[str]:
    """Return the files of a corpus except its metadata, as sorted paths within it.

    Hidden files, such as those left by file managers and network file systems, are ignored.

    Args:
        path: the corpus.
        parts: the directories of the corpus to list.
    """
    found = [
        f"{os.path.relpath(directory, path)}/{name}"
        for part in parts
        for directory, _, names in os.walk(path / part)
        for name in names
        if not name.startswith(".")
    ]
    return sorted(found, key=lambda name: name.split("/"))


def read_metadata(path: str | Path, *, name: str | Path | None = None) -> CorpusMetadata:
    """Read only the metadata of a corpus, local or remote.

    Args:
        path: the corpus directory.
        name: what messages call it; by default the path.

    Raises:
        CorpusError: there is no complete corpus of a supported version.
    """
    name, directory = name or path, open_path(path)
    if not directory.is_dir():
        raise CorpusError(f"{name} is not a corpus: there is no such directory")
    if not (directory / METADATA_FILE).exists():
        raise CorpusError(
            f"{name} is not a corpus: it has no {METADATA_FILE}, which data_pipeline.build_corpus "
            "writes last"
        )
    file = f"corpus {name}: {METADATA_FILE}"
    text = read_text(directory / METADATA_FILE, error=CorpusError, name=file)
    try:
        return CorpusMetadata.from_json(text)
    except CorpusError as error:
        raise CorpusError(f"{file}: {error}") from None
