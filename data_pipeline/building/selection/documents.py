"""Selection of a build's documents by quality filters, and removal of near-duplicates."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from data_pipeline.building.selection.filters import DocumentFilter, FilterChain, Rejections
from data_pipeline.building.selection.hashes import contains, hash_documents
from data_pipeline.sources.documents import Document


class SelectedDocuments(NamedTuple):
    """The selected documents of a batch, and counts of the others."""

    documents: list[Document]
    hashes: UInt64[np.ndarray, " documents"]  # see `hash_documents`
    rejected: Rejections
    near_duplicates: dict[str, int]  # documents and characters dropped; characters before that


class Selection(NamedTuple):
    """Which documents to keep, the same in all passes; can be sent to other processes."""

    sources: tuple[str, ...]  # their names
    filters: tuple[DocumentFilter, ...] = ()
    near_duplicates: Path | None = None  # a file with the sorted hashes of the documents to drop


def start_once(selection: Selection) -> "Selector":
    """Start a selection, which imports the filters, once per process."""
    path = selection.near_duplicates
    status = path.stat() if path else None
    return _start(selection, (status.st_ino, status.st_mtime_ns) if status else None)


@functools.lru_cache(maxsize=1)
def _start(selection: Selection, version: tuple[int, int] | None) -> "Selector":
    del version  # of the file of near-duplicates; part of the cache key
    return Selector(selection)


class Selector:
    """A selection that has been started."""

    def __init__(self, selection: Selection) -> None:
        """Import the filters."""
        self._sources = selection.sources
        self._filters = FilterChain(selection.filters)
        path = selection.near_duplicates
        self._dropped = None if path is None else _map_hashes(path)

    def select(
        self, documents: Sequence[Document], files: Sequence[str], source: int
    ) -> SelectedDocuments:
        """Select among documents of one source.

        Args:
            documents: the documents as read.
            files: the file name of each document.
            source: the number of the source.

        Raises:
            InputError: a filter failed.
        """
        kept, rejected = self._filters.select(documents, files, self._sources[source])
        hashes = hash_documents(kept)
        if self._dropped is None:
            return SelectedDocuments(kept, hashes, rejected, {})
        is_dropped = contains(self._dropped, hashes)
        sizes = np.array([sum(map(len, document)) for document in kept], np.int64)
        counts = {
            "documents": int(is_dropped.sum()),
            "characters": int(sizes[is_dropped].sum()),
            "characters_before": int(sizes.sum()),
        }
        left = list(itertools.compress(kept, ~is_dropped))
        return SelectedDocuments(left, hashes[~is_dropped], rejected, counts)


def _map_hashes(path: Path) -> UInt64[np.ndarray, " n"]:
    """Memory-map a file of hashes, so that all processes share the memory."""
    if not path.stat().st_size:
        return np.zeros(0, np.uint64)
    return np.memmap(path, "<u8", mode="r")
