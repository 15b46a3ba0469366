"""Blocks of documents; most are parts of the input (files, byte ranges) that workers read."""

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipeline.building.selection.documents import (
    SelectedDocuments,
    Selection,
    start_once,
)
from data_pipeline.errors import InputError
from data_pipeline.sources.articles import Document
from data_pipeline.sources.compression import COMPRESSED_SUFFIXES
from data_pipeline.sources.documents import Source, SourceFormat
from data_pipeline.sources.ranges import can_be_cut, count_lines_before, find_documents
from data_pipeline.sources.text_files import (
    InputFile,
    ReadingProgress,
    Span,
)

# Compressed text and tables with compressed columns expand several times when read.
_EXPANSION = 4

# The tokenizer caches words, so larger blocks need fewer lookups.
_BLOCK_CHARACTERS = 4 << 20


class Part(NamedTuple):
    """Whole files of one source, or a range of one file."""

    source: int
    files: tuple[InputFile, ...]  # a `span` holds the two offsets of a range
    size: int  # bytes, as stored


class DocumentBlock(NamedTuple):
    """Documents of one source, the unit of work of a worker process.

    Attributes:
        number: the number of the block.
        source: the number of the source of its documents.
        documents: the documents, if the main process has to read them in sequence.
        places: the file of each document.
        part: the part of the input that the worker reads, or None.
        faults: faults counted while reading the documents.
        bytes_read: bytes of the whole input up to the end of this block.
    """

    number: int
    source: int
    documents: list[Document]
    places: list[str]
    part: Part | None
    faults: Counter[str]
    bytes_read: int

    def select(
        self, sources: Sequence[Source], selection: Selection
    ) -> tuple[SelectedDocuments, Counter[str]]:
        """Return the selected documents, and the counts of faults."""
        documents, places, faults = self.documents, self.places, self.faults
        if self.part is not None:
            progress = ReadingProgress()
            read = read_part(sources[self.source], self.part, progress)
            placed = [(document, progress.file) for document in read]
            documents = [document for document, _ in placed]
            places = [place for _, place in placed]
            faults = progress.faults()
        return start_once(selection).select(documents, places, self.source), faults


def cut_into_parts(
    source: Source, number: int, files: Sequence[InputFile], size: int
) -> list[Part]:
    """Cut the files of a source into parts, in reading order.

    A file is not cut if its format does not show where documents begin. It then belongs to a
    single part, however large it is.

    Args:
        source: the source.
        number: the number of the source.
        files: the files of the source.
        size: approximate bytes of text in a part; shorter neighboring files share a part.
    """
    if source.continues:
        return [Part(number, tuple(files), sum(file.size for file in files))]
    parts: list[Part] = []
    group: list[InputFile] = []
    expanded = 0

    def close() -> None:
        nonlocal expanded
        if group:
            parts.append(Part(number, tuple(group), sum(file.size for file in group)))
        group.clear()
        expanded = 0

    for file in files:
        if can_be_cut(source, file) and file.size > size:
            close()
            for start in range(0, file.size, size):
                span = Span(start, min(start + size, file.size))
                parts.append(Part(number, (file._replace(span=span),), span.end - span.start))
            continue
        if expanded and expanded + text_bytes(source, file) > size:
            close()
        group.append(file)
        expanded += text_bytes(source, file)
    close()
    return parts


def text_bytes(source: Source, file: InputFile) -> int:
    """Estimate the bytes of text in a file."""
    compressed = source.format in (SourceFormat.PARQUET, SourceFormat.HUGGINGFACE)
    expands = compressed or Path(file.name).suffix in COMPRESSED_SUFFIXES
    return file.size * (_EXPANSION if expands else 1)


def read_part(source: Source, part: Part, progress: ReadingProgress) -> Iterator[Document]:
    """Read the documents of a part, in order.

    Raises:
        InputError: a file is not in the source's format; the message names file and line.
    """
    files = [find_documents(source, file) for file in part.files]
    try:
        yield from source.read(files, progress)
    except InputError:
        # Lines before a range are counted only now, for the error message.
        numbered = [count_lines_before(file) for file in files]
        if numbered != files:
            for _ in source.read(numbered, ReadingProgress()):
                pass
        raise


def read_blocks(
    sources: Sequence[Source], files: Sequence[list[InputFile]]
) -> Iterator[DocumentBlock]:
    """Read all documents of all sources in blocks, whose boundaries are always the same.

    Workers read whatever can be cut into parts. Large files that cannot be cut are read here.
    """
    bytes_before = number = 0
    for source_number, (source, inputs) in enumerate(zip(sources, files, strict=True)):
        for is_here, group in itertools.groupby(inputs, functools.partial(_is_read_here, source)):
            found = list(group)
            blocks = (_read_here if is_here else _read_by_workers)(source, source_number, found)
            for block in blocks:
                bytes_read = bytes_before + block.bytes_read
                yield block._replace(number=number, bytes_read=bytes_read)
                number += 1
            bytes_before += sum(file.size for file in found)


def _is_read_here(source: Source, file: InputFile) -> bool:
    if source.format is SourceFormat.DOCSTRINGS or can_be_cut(source, file):
        return False
    is_large = text_bytes(source, file) > _BLOCK_CHARACTERS
    return is_large or source.continues or source.format is SourceFormat.TFDS


def _read_by_workers(
    source: Source, number: int, files: list[InputFile]
) -> Iterator[DocumentBlock]:
    bytes_read = 0
    for part in cut_into_parts(source, number, files, _BLOCK_CHARACTERS):
        bytes_read += part.size
        yield DocumentBlock(0, number, [], [], part, Counter(), bytes_read)


def _read_here(source: Source, number: int, files: list[InputFile]) -> Iterator[DocumentBlock]:
    progress, before = ReadingProgress(), Counter[str]()
    documents = ((document, progress.file) for document in source.read(files, progress))
    while True:
        batch = take(documents)
        faults = progress.faults() - before
        before = progress.faults()
        if not batch and not faults:
            return
        texts, places = [document for document, _ in batch], [place for _, place in batch]
        yield DocumentBlock(0, number, texts, places, None, faults, progress.bytes_read)


def take(documents: Iterable[tuple[Document, str]]) -> list[tuple[Document, str]]:
    """Take documents until they reach about the size of a block."""
    batch: list[tuple[Document, str]] = []
    size = 0
    for document, place in documents:
        batch.append((document, place))
        size += sum(map(len, document))
        if size >= _BLOCK_CHARACTERS:
            break
    return batch
