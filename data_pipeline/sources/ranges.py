"""Byte ranges of files, each of which begins and ends at the boundary of a document.

A range is given by two offsets, chosen without reading the file. It consists of the documents that
begin at or after the first offset and before the second. Its reader searches for these boundaries;
the reader of the next range finds the same ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.sources.compression import COMPRESSED_SUFFIXES
from data_pipeline.sources.documents import Source, SourceFormat
from data_pipeline.sources.text_files import (
    MAX_LINE_BYTES,
    InputFile,
    ReadingProgress,
    Span,
    open_bytes,
)

# Recognizes lines that end a document; None where every line does.
_DOCUMENT_ENDS: dict[SourceFormat, Callable[[bytes], bool] | None] = {
    SourceFormat.TEXT: lambda line: not line.strip(),
    SourceFormat.SENTENCES: lambda line: not line.strip(),
    SourceFormat.JSONL: None,
    SourceFormat.WIKIEXTRACTOR: lambda line: line.strip() == b"</doc>",
}


def can_be_cut(source: Source, file: InputFile) -> bool:
    """Return True if documents can be found starting from the middle of a file."""
    is_compressed = Path(file.name).suffix in COMPRESSED_SUFFIXES
    return source.format in _DOCUMENT_ENDS and not is_compressed and not source.continues


def find_documents(source: Source, file: InputFile) -> InputFile:
    """Return the file with its span moved to the boundaries of documents."""
    if file.span is None:
        return file
    with open_bytes(file, ReadingProgress()) as stream:
        ends_document = _DOCUMENT_ENDS[source.format]
        # A WikiExtractor file of JSON lines has no </doc> lines; its first range is the whole file.
        if source.format is SourceFormat.WIKIEXTRACTOR and stream.read(1) != b"<":
            start, end = (0, file.size) if file.span.start == 0 else (file.size, file.size)
        else:
            start, end = (
                _next_document(stream, offset, file.size, ends_document)
                for offset in (file.span.start, file.span.end)
            )
    return file._replace(span=Span(start, end))


def _next_document(
    stream: Any, offset: int, size: int, ends_document: Callable[[bytes], bool] | None
) -> int:
    """Return where the first document at or after an offset begins."""
    if offset <= 0 or offset >= size:
        return max(0, min(offset, size))
    # Skip to the start of the next line, since the tail of a line could look like a blank line.
    stream.seek(offset - 1)
    position = offset - 1 + len(stream.readline(MAX_LINE_BYTES))
    while ends_document and (line := stream.readline(MAX_LINE_BYTES)):
        position += len(line)
        if ends_document(line):
            break
    return position


def count_lines_before(file: InputFile) -> InputFile:
    """Return the file with the number of lines before its span filled in."""
    if file.span is None or not file.span.start:
        return file
    lines, left = 0, file.span.start
    with open_bytes(file, ReadingProgress()) as stream:
        while left and (data := stream.read(min(left, MAX_LINE_BYTES))):
            lines += data.count(b"\n")
            left -= len(data)
    return file._replace(span=file.span._replace(lines_before=lines))
