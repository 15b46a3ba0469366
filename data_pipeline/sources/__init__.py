"""Documents and examples from files, records, tables, data sets and installed packages."""

from data_pipeline.sources.documents import Document, FileEnd, Source, SourceFormat
from data_pipeline.sources.tables import TableRow, read_rows
from data_pipeline.sources.text_files import EncodingErrors, InputFile, ReadingProgress

__all__ = [
    "Document",
    "EncodingErrors",
    "FileEnd",
    "InputFile",
    "ReadingProgress",
    "Source",
    "SourceFormat",
    "TableRow",
    "read_rows",
]
