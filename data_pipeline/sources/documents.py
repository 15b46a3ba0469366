"""Documents from text files, records, Wikipedia extracts, TFDS and installed packages."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.sources.articles import Document, read_articles, split_paragraphs
from data_pipeline.sources.docstrings import find_documented_files, read_documentation
from data_pipeline.sources.json_text import parse_object
from data_pipeline.sources.tables import find_text_column, read_column, read_first_rows
from data_pipeline.sources.text_files import (
    EncodingErrors,
    InputFile,
    ReadingProgress,
    find_files,
    read_lines,
)

_logger = logging.getLogger(__name__)

# Documents longer than this are cut between paragraphs to bound memory use.
MAX_DOCUMENT_CHARACTERS = 8 << 20

_TEXT = "text"  # the text column unless another one is named


class SourceFormat(StrEnum):
    """Format of the files of a source."""

    TEXT = "text"  # one paragraph per line, a blank line between documents
    SENTENCES = "sentences"  # one sentence per line, a blank line between documents
    JSONL = "jsonl"  # one JSON object per line; one of its fields holds the document
    CSV = "csv"  # a header, then one document per row, in one of the columns; quoted cells
    TSV = "tsv"  # the same with tabs; quotes are ordinary characters
    PARQUET = "parquet"  # the document in one of the columns
    HUGGINGFACE = "huggingface"  # a data set saved or cached by `datasets`: a directory or name
    WIKIEXTRACTOR = "wikiextractor"  # WikiExtractor's <doc ...> blocks or JSON lines
    TFDS = "tfds"  # a prepared TensorFlow data set, by name
    DOCSTRINGS = "docstrings"  # the documentation of the installed Python packages; no files


class FileEnd(StrEnum):
    """Whether a document ends with its file, or continues in the next file as in the release."""

    ENDS_DOCUMENT = "ends_document"
    CONTINUES = "continues"


@dataclasses.dataclass(frozen=True)
class Source:
    """A body of text: where it is and in which format.

    Attributes:
        name: the name used in reports.
        weight: how often its text is read in training, relative to other sources.
        format: the format of its files.
        inputs: globs, directories or names of data sets; empty for installed documentation.
        text_column: the field or column that holds the text; None: see `with_text_column`.
        split: the split to read of TFDS and Hugging Face data sets.
        encoding_errors: how to treat lines that are not valid UTF-8.
        file_end: what the end of a text file means.
        tfds_data_dir: the directory of TFDS data sets; None for the TFDS default.
    """

    name: str
    format: SourceFormat
    inputs: tuple[str, ...] = ()
    weight: float = 1.0
    text_column: str | None = None
    split: str = "train"
    encoding_errors: EncodingErrors = EncodingErrors.REFUSE
    file_end: FileEnd = FileEnd.ENDS_DOCUMENT
    tfds_data_dir: str | None = None

    def find_inputs(self) -> list[InputFile]:
        """Find the files of the source, in reading order.

        Raises:
            InputError: no file was found.
        """
        if self.format is SourceFormat.DOCSTRINGS:
            return find_documented_files()
        if self.format is SourceFormat.TFDS:
            from data_pipeline.sources.tfds import find_data_sets

            return find_data_sets(self.inputs, self.split, self.tfds_data_dir)
        if self.format is SourceFormat.HUGGINGFACE:
            from data_pipeline.sources.huggingface import find_shards

            return [file for name in self.inputs for file in find_shards(name, self.split)]
        return [
            file for pattern in self.inputs for file in find_files(pattern, f"--input={pattern}")
        ]

    def with_text_column(self, files: Sequence[InputFile]) -> "Source":
        """Return the source with its text column set: the given one, or `text`.

        If a file with a header or a schema has no column `text`, another one is chosen: the only
        column that holds text, or the one with the longest texts. A log line names it.

        Raises:
            InputError: no file has any text, or one is not in the source's format.
        """
        if self.text_column is not None:
            return self
        column = _TEXT
        tables: Iterable[list[Mapping[str, str]]] | None = None
        if self.format in (SourceFormat.CSV, SourceFormat.TSV):
            tables = (list(read_first_rows(file, self.format)) for file in files)
        elif self.format in (SourceFormat.HUGGINGFACE, SourceFormat.PARQUET):
            from data_pipeline.sources import arrow

            tables = map(arrow.read_first_rows, files)
        if tables is not None:  # some of which may be empty
            column = find_text_column(next(filter(None, tables), []), files[0].name)
        if column != _TEXT:
            _logger.info(
                "%s: reading the column %r, which has the longest texts; --text_column names "
                "another one",
                self.name,
                column,
            )
        return dataclasses.replace(self, text_column=column)

    def read(self, files: Sequence[InputFile], progress: ReadingProgress) -> Iterator[Document]:
        """Read the documents of files, in order.

        Raises:
            InputError: a file is not in the source's format; the message names file and line.
        """
        if self.format in (SourceFormat.TEXT, SourceFormat.SENTENCES):
            documents = self._read_text(files, progress)
        else:
            readers = {
                SourceFormat.JSONL: self._read_jsonl,
                SourceFormat.CSV: self._read_table,
                SourceFormat.TSV: self._read_table,
                SourceFormat.PARQUET: self._read_arrow,
                SourceFormat.HUGGINGFACE: self._read_arrow,
                SourceFormat.WIKIEXTRACTOR: self._read_wikiextractor,
                SourceFormat.TFDS: self._read_tfds,
                SourceFormat.DOCSTRINGS: _read_docstrings,
            }
            read = readers[self.format]
            documents = (document for file in files for document in read(file, progress))
        return _cut_long(documents, progress)

    @property
    def continues(self) -> bool:
        """True if a document may continue in the next file."""
        is_text = self.format in (SourceFormat.TEXT, SourceFormat.SENTENCES)
        return is_text and self.file_end is FileEnd.CONTINUES

    @property
    def _column(self) -> str:
        return self.text_column or _TEXT

    def _lines(self, file: InputFile, progress: ReadingProgress) -> Iterator[tuple[int, str]]:
        lines = read_lines(file, self.encoding_errors, progress)
        return ((number, line.strip()) for number, line in lines)

    def _read_text(
        self, files: Sequence[InputFile], progress: ReadingProgress
    ) -> Iterator[Document]:
        document: Document = []
        size = 0
        for file in files:
            for _, line in self._lines(file, progress):
                if line and size <= 2 * MAX_DOCUMENT_CHARACTERS:
                    document.append(line)
                    size += len(line)
                elif document:
                    yield document
                    document, size = ([line], len(line)) if line else ([], 0)
            if document and self.file_end is FileEnd.ENDS_DOCUMENT:
                yield document
                document, size = [], 0
        if document:
            yield document

    def _read_jsonl(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        for number, line in self._lines(file, progress):
            if line:
                record = parse_object(line, file.name, number)
                yield split_paragraphs(self._text_of(record, file, number, progress))

    def _read_table(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        for text in read_column(file, self.format, self._column, self.encoding_errors, progress):
            yield split_paragraphs(text)

    def _read_arrow(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        from data_pipeline.sources import arrow

        for text in arrow.read_column(file, self._column, progress):
            yield split_paragraphs(text)

    def _read_tfds(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        from data_pipeline.sources.tfds import read_texts

        for text in read_texts(file, self._column, self.split, self.tfds_data_dir, progress):
            yield split_paragraphs(text)

    def _read_wikiextractor(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        def text_of(record: dict[str, Any], number: int) -> str:
            return self._text_of(record, file, number, progress)

        return read_articles(self._lines(file, progress), file.name, text_of)

    def _text_of(
        self, record: dict[str, Any], file: InputFile, number: int, progress: ReadingProgress
    ) -> str:
        text = record.get(self._column)
        if not isinstance(text, str):
            what = (
                f"{self._column!r} is not text"
                if self._column in record
                else f"no field {self._column!r} among {', '.join(map(repr, record)) or 'none'}"
            )
            raise InputError(f"{file.name}:{number}: {what}; --text_column names the field")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            # JSON escapes can encode lone surrogates, which UTF-8 cannot represent.
            if self.encoding_errors is EncodingErrors.REFUSE:
                surrogate = f"{text[error.start]!a}"
                raise InputError(f"{file.name}:{number}: {surrogate} is not Unicode text") from None
            progress.replaced_lines += 1
            text = text.encode("utf-8", "replace").decode()
        return text


def _read_docstrings(file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
    progress.start(file)
    yield from read_documentation(file)
    progress.finish(file.size)


def _cut_long(documents: Iterable[Document], progress: ReadingProgress) -> Iterator[Document]:
    """Drop empty documents, and cut those longer than MAX_DOCUMENT_CHARACTERS."""
    for document in documents:
        if sum(map(len, document)) <= MAX_DOCUMENT_CHARACTERS:
            if document:
                yield document
            continue
        progress.cut_documents += 1
        part: Document = []
        size = 0
        for paragraph in document:
            if part and size + len(paragraph) > MAX_DOCUMENT_CHARACTERS:
                yield part
                part, size = [], 0
            part.append(paragraph)
            size += len(paragraph)
        yield part
