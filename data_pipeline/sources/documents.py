"""Documents of text files, records, Wikipedia extracts, TFDS and installed documentation."""

import dataclasses
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.sources.docstrings import find_documented_files, read_documentation
from data_pipeline.sources.json_text import parse_object
from data_pipeline.sources.text_files import (
    EncodingErrors,
    InputFile,
    ReadingProgress,
    find_files,
    read_lines,
)

# Longer documents are cut between paragraphs, so that memory stays bounded.
MAX_DOCUMENT_CHARACTERS = 8 << 20

# The paragraphs of a document (or, in the sentences format, its sentences), none of them blank.
Document = list[str]


class SourceFormat(StrEnum):
    """Format of the files of a source."""

    TEXT = "text"  # a paragraph a line, a blank line between documents
    SENTENCES = "sentences"  # a sentence a line, a blank line between documents
    JSONL = "jsonl"  # a JSON object a line, the document in one of its fields
    PARQUET = "parquet"  # the document in one of the columns
    WIKIEXTRACTOR = "wikiextractor"  # <doc ...> blocks, or its JSON lines
    TFDS = "tfds"  # a prepared TensorFlow data set, by name
    DOCSTRINGS = "docstrings"  # the documentation in the installed Python packages; no files


class FileEnd(StrEnum):
    """Meaning of a file's end: the document ends, or continues in the next file as released."""

    ENDS_DOCUMENT = "ends_document"
    CONTINUES = "continues"


@dataclasses.dataclass(frozen=True)
class Source:
    """One body of text: its location and format.

    Attributes:
        name: for reports.
        weight: how often its text is read in training, relative to other sources.
        format: of its files.
        inputs: globs, or names of TFDS data sets; empty for installed documentation.
        text_column: the field of jsonl, parquet and TFDS records that holds the text.
        encoding_errors: treatment of lines that are not UTF-8.
        file_end: meaning of the end of a text file.
        tfds_data_dir: directory of TFDS data sets; None for the default of TFDS.
    """

    name: str
    format: SourceFormat
    inputs: tuple[str, ...] = ()
    weight: float = 1.0
    text_column: str = "text"
    encoding_errors: EncodingErrors = EncodingErrors.REFUSE
    file_end: FileEnd = FileEnd.ENDS_DOCUMENT
    tfds_data_dir: str | None = None

    def find_inputs(self) -> list[InputFile]:
        """Find the files of the source, in the order in which they are read.

        Raises:
            InputError: there are none.
        """
        if self.format is SourceFormat.DOCSTRINGS:
            return find_documented_files()
        if self.format is SourceFormat.TFDS:
            from data_pipeline.sources.tfds import find_data_sets

            return find_data_sets(self.inputs, self.tfds_data_dir)
        return [
            file for pattern in self.inputs for file in find_files(pattern, f"--input={pattern}")
        ]

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
                SourceFormat.PARQUET: self._read_parquet,
                SourceFormat.WIKIEXTRACTOR: self._read_wikiextractor,
                SourceFormat.TFDS: self._read_tfds,
                SourceFormat.DOCSTRINGS: _read_docstrings,
            }
            read = readers[self.format]
            documents = (document for file in files for document in read(file, progress))
        return _cut_long(documents, progress)

    def _lines(self, file: InputFile, progress: ReadingProgress) -> Iterator[tuple[int, str]]:
        return read_lines(file, self.encoding_errors, progress)

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

    def _read_parquet(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        from data_pipeline.sources.parquet import read_column

        for text in read_column(file, self.text_column, progress):
            yield split_paragraphs(text)

    def _read_tfds(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        from data_pipeline.sources.tfds import read_texts

        for text in read_texts(file, self.text_column, self.tfds_data_dir, progress):
            yield split_paragraphs(text)

    def _read_wikiextractor(self, file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
        """Read articles without the title line, which repeats the title in the tag."""
        document: Document | None = None
        title, opened = "", 0
        for number, line in self._lines(file, progress):
            if document is not None and line == "</doc>":
                yield without_title(document, title)
                document = None
            elif document is not None:
                if line:
                    document.append(html.unescape(line))
            elif line.startswith("<doc "):
                match = re.search(r'title="(.*?)"', line)
                title, opened = html.unescape(match[1]) if match else "", number
                document = []
            elif line.startswith("{"):
                record = parse_object(line, file.name, number)
                text = split_paragraphs(self._text_of(record, file, number, progress))
                yield without_title(text, str(record.get("title", "")))
            elif line:
                raise InputError(
                    f"{file.name}:{number}: expected <doc ...> or a JSON object, got {line[:40]!r}"
                )
        if document is not None:
            raise InputError(f"{file.name}:{opened}: this <doc> is not closed")

    def _text_of(
        self, record: dict[str, Any], file: InputFile, number: int, progress: ReadingProgress
    ) -> str:
        text = record.get(self.text_column)
        if not isinstance(text, str):
            what = (
                f"{self.text_column!r} is not text"
                if self.text_column in record
                else f"no field {self.text_column!r} among {', '.join(map(repr, record)) or 'none'}"
            )
            raise InputError(f"{file.name}:{number}: {what}; --text_column names the field")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            # JSON can spell out halves of surrogate pairs, which UTF-8 cannot hold.
            if self.encoding_errors is EncodingErrors.REFUSE:
                surrogate = f"{text[error.start]!a}"
                raise InputError(f"{file.name}:{number}: {surrogate} is not Unicode text") from None
            progress.replaced_lines += 1
            text = text.encode("utf-8", "replace").decode()
        return text


def split_paragraphs(text: str) -> Document:
    """Split a text into its lines, without blank ones.

    Example: `split_paragraphs("One.  \\n\\nTwo.\\n")` is `["One.", "Two."]`.
    """
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def without_title(document: Document, title: str) -> Document:
    """Drop the first paragraph of an article if it is the title."""
    return document[1:] if document and document[0] == title else document


def _read_docstrings(file: InputFile, progress: ReadingProgress) -> Iterator[Document]:
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
