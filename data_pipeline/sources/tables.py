"""Rows of tsv, csv and jsonl files, by column name, each with its file and line."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from albert_jax.input_files import require_unicode
from data_pipeline.errors import InputError, raise_input_error
from data_pipeline.sources.json_text import parse_object
from data_pipeline.sources.text_files import (
    MAX_LINE_BYTES,
    EncodingErrors,
    InputFile,
    ReadingProgress,
    decode_lines,
    find_file,
    read_lines,
)

# The csv module's default limit, which applies to the whole process, is 131,072 characters.
csv.field_size_limit(MAX_LINE_BYTES)

FORMATS = ("tsv", "csv", "jsonl")
_FIRST_ROWS = 100


class TableRow(NamedTuple):
    """A row of a table.

    Attributes:
        place: file and line, for messages.
        number: number among all UTF-8 rows of the file, including malformed rows, from 0.
        cells: column name -> text of the cell.
    """

    place: str
    number: int
    cells: Mapping[str, str]


def read_rows(
    path: Path,
    columns: Sequence[str],
    *,
    header: Sequence[str] | None = None,
    on_malformed: Callable[[str], object] = raise_input_error,
) -> Iterator[TableRow]:
    """Read the rows of a table in order, skipping blank lines.

    The suffix determines the format: `.tsv` (cells separated by tabs; quotes are ordinary
    characters), `.csv` (commas; quoted cells, which may span lines) or `.jsonl` (one object per
    line; values other than text become JSON, null becomes empty). Each may be compressed
    (`.tsv.gz`).

    Args:
        path: the file.
        columns: columns that each row must have.
        header: names of all columns, for a tsv without a header line.
        on_malformed: called with the file, line and fault of each row that is not UTF-8, lacks a
            column or has the wrong number of cells. If it returns, the row is skipped.

    Raises:
        InputError: the file does not exist, its format is unknown, its header lacks a column, or
            `on_malformed` raises it.

    Example: a tsv with the lines `id<tab>text` and `7<tab>Fine.` has one row, numbered 0, at
    `file.tsv:2`, with cells `{"id": "7", "text": "Fine."}`.
    """
    file = find_file(path)
    kind = table_format(path)
    if kind == "jsonl":
        yield from _read_objects(file, columns, on_malformed)
        return
    if kind == "csv":
        # A bad line may be part of a cell, so it cannot be skipped.
        records = _split_csv(file, decode_lines(file))
    else:
        records = _split_tsv(decode_lines(file, on_malformed))
    if header is None:
        number, header = next(records, (1, []))
        _check_columns(f"{file.name}:{number}", header, columns)
    for count, (number, cells) in enumerate(records):
        place = f"{file.name}:{number}"
        if len(cells) == len(header):
            yield TableRow(place, count, dict(zip(header, cells, strict=True)))
        else:
            on_malformed(f"{place}: expected {len(header)} columns, found {len(cells)}")


def read_column(
    file: InputFile,
    kind: str,
    column: str,
    encoding_errors: EncodingErrors,
    progress: ReadingProgress,
) -> Iterator[str]:
    """Read the nonempty cells of a column of a table with a header.

    Args:
        file: the file, with any name.
        kind: `csv` or `tsv`; see `read_rows`.
        column: the column.
        encoding_errors: treatment of lines that are not UTF-8; a csv cannot skip lines.
        progress: the reading progress.

    Raises:
        InputError: the header lacks the column, or a row has too few or too many cells.
    """
    records = _read_records(file, kind, encoding_errors, progress)
    number, header = next(records, (1, []))
    _check_delimiter(f"{file.name}:{number}", kind, header)
    try:
        _check_columns(f"{file.name}:{number}", header, [column])
    except InputError as error:
        raise InputError(f"{error}; --text_column names it") from None
    place = header.index(column)
    for number, cells in records:
        if len(cells) != len(header):
            hint = "; quotes are plain characters in a tsv" if kind == "tsv" else ""
            raise InputError(
                f"{file.name}:{number}: expected {len(header)} columns as in the header, found "
                f"{len(cells)}{hint}"
            )
        if cells[place]:
            yield cells[place]


def read_first_rows(file: InputFile, kind: str) -> Iterator[Mapping[str, str]]:
    """Read the first rows of a table with a header; see `read_column` for the arguments."""
    records = _read_records(file, kind, EncodingErrors.REPLACE, ReadingProgress())
    number, header = next(records, (1, []))
    _check_delimiter(f"{file.name}:{number}", kind, header)
    for _, cells in itertools.islice(records, _FIRST_ROWS):
        yield dict(zip(header, cells, strict=False))


def find_text_column(rows: Sequence[Mapping[str, str]], place: str) -> str:
    """Return the name of the text column: `text`, or else the one with the longest cells.

    Raises:
        InputError: there are no columns or no rows.
    """
    lengths: dict[str, int] = {}
    for row in rows:
        for name, cell in row.items():
            lengths[name] = lengths.get(name, 0) + len(cell)
    if not lengths:
        raise InputError(f"{place} has no rows with text")
    return "text" if "text" in lengths else max(lengths, key=lambda name: lengths[name])


def _check_delimiter(place: str, kind: str, header: Sequence[str]) -> None:
    """Reject a header that is read as one column but appears to have several."""
    separator, others = (",", "\t;") if kind == "csv" else ("\t", ",;")
    for other in others:
        if len(header) == 1 and other in header[0]:
            raise InputError(
                f"{place}: the columns of a {kind} are separated by {separator!r}, the header has "
                f"{other!r} in it: {header[0][:60]!r}; --format may be csv (',') or tsv ('\\t')"
            )


def _read_records(
    file: InputFile, kind: str, encoding_errors: EncodingErrors, progress: ReadingProgress
) -> Iterator[tuple[int, list[str]]]:
    if kind == "tsv":
        return _split_tsv(read_lines(file, encoding_errors, progress))
    if encoding_errors is EncodingErrors.SKIP:
        raise InputError(
            f"{file.name}: a line of a csv may be part of a cell and cannot be skipped: "
            "--encoding_errors may be refuse or replace"
        )
    return _split_csv(file, read_lines(file, encoding_errors, progress))


def format_tsv(rows: Iterable[Sequence[str]]) -> str:
    """Format rows as tsv; cells with tabs, line ends or quotes are quoted as in csv.

    Example: the rows `["id", "label"]` and `["7", "a<tab>b"]` give the lines `id<tab>label` and
    `7<tab>"a<tab>b"`.
    """
    return "".join("\t".join(map(_quote, cells)) + "\n" for cells in rows)


def _quote(cell: str) -> str:
    if not set(cell) & set('\t\n\r"'):
        return cell
    return '"' + cell.replace('"', '""') + '"'


def table_format(path: Path) -> str:
    """Return the format that a file's suffix denotes.

    Raises:
        InputError: the suffix does not denote a format.
    """
    for suffix in path.suffixes[-2:]:
        if suffix[1:] in FORMATS:
            return suffix[1:]
    raise InputError(f"{path}: the name must end in .{', .'.join(FORMATS)} (or those and .gz)")


def is_table(path: Path) -> bool:
    """Return True if a file has the suffix of a table, compressed or not."""
    return any(suffix[1:] in FORMATS for suffix in path.suffixes[-2:])


def _check_columns(place: str, found: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if found.count(column) > 1:
            raise InputError(f"{place}: more than one column {column!r}")
        if column not in found:
            names = ", ".join(map(repr, found)) or "none"
            raise InputError(f"{place}: no column {column!r} among {names}")


def _split_tsv(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        line = line.rstrip("\r\n")
        if line:
            yield number, line.split("\t")


def _split_csv(
    file: InputFile, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in lines), strict=True)
    first = 1
    try:
        for cells in reader:
            if cells:
                yield first, cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file.name}:{first}: this is not csv: {error}") from None


def _read_objects(
    file: InputFile, columns: Sequence[str], on_malformed: Callable[[str], object]
) -> Iterator[TableRow]:
    lines = ((n, line) for n, line in decode_lines(file, on_malformed) if line.strip())
    for count, (number, line) in enumerate(lines):
        place = f"{file.name}:{number}"
        try:
            record = parse_object(line, file.name, number)
            require_unicode(record, place, error=InputError)
            _check_columns(place, list(record), columns)
        except InputError as error:
            on_malformed(str(error))
            continue
        yield TableRow(place, count, {name: _as_text(value) for name, value in record.items()})


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
