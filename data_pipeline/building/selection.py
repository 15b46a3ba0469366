"""Selection of the documents of a build: those that quality filters keep."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from data_pipeline.building.deduplication import hash_documents
from data_pipeline.building.filters import DocumentFilter, FilterChain, Rejections
from data_pipeline.sources.documents import Document


class SelectedDocuments(NamedTuple):
    """The documents that are left of some, and counts of the others."""

    documents: list[Document]
    hashes: UInt64[np.ndarray, " documents"]  # see `hash_documents`
    rejected: Rejections


class Selection(NamedTuple):
    """The choice of documents, the same in all passes, in a form that can be sent to processes."""

    sources: tuple[str, ...]  # their names
    filters: tuple[DocumentFilter, ...] = ()

    def start(self) -> "Selector":
        """Import the filters."""
        return Selector(self)


class Selector:
    """A selection that was started."""

    def __init__(self, selection: Selection) -> None:
        """Import the filters."""
        self._sources = selection.sources
        self._filters = FilterChain(selection.filters)

    def select(
        self, documents: Sequence[Document], files: Sequence[str], source: int
    ) -> SelectedDocuments:
        """Select some documents of one source.

        Args:
            documents: as they were read.
            files: name of the file of each.
            source: number of their source.

        Raises:
            InputError: a filter failed.
        """
        kept, rejected = self._filters.select(documents, files, self._sources[source])
        return SelectedDocuments(kept, hash_documents(kept), rejected)
