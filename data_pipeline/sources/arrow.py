"""Columns of Parquet and Arrow files, read in batches of rows."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from data_pipeline.errors import InputError
from data_pipeline.sources.compression import DAMAGE
from data_pipeline.sources.text_files import InputFile, ReadingProgress, open_bytes

ARROW = ".arrow"  # the streaming format, as `datasets` writes it; all other files are Parquet

_ROWS_PER_READ = 256
_FIRST_ROWS = 100


def read_column(file: InputFile, column: str, progress: ReadingProgress) -> Iterator[str]:
    """Read the texts of a column, skipping rows without text.

    Raises:
        InputError: the file has another format, or the column is missing or holds no text.
    """
    with _open(file, progress) as table:
        schema = _schema(table)
        if column not in schema.names:
            names = ", ".join(map(repr, schema.names))
            raise InputError(
                f"{file.name}: no column {column!r} among {names}; --text_column names it"
            )
        kind = schema.field(column).type
        if not _is_text(kind):
            raise InputError(f"{file.name}: column {column!r} holds {kind}, not text")
        for batch in _batches(table, [column]):
            yield from (text for text in batch.column(column).to_pylist() if text is not None)
    progress.finish(file.size)


def read_columns(file: InputFile, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Read some columns of each row: text as it is, other values as JSON, null as "".

    Raises:
        InputError: the file has another format, or a column is missing.
    """
    with _open(file, ReadingProgress()) as table:
        names = _schema(table).names
        for column in columns:
            if column not in names:
                found = ", ".join(map(repr, names)) or "none"
                raise InputError(f"{file.name}: no column {column!r} among {found}")
        for batch in _batches(table, list(columns)):
            for row in batch.to_pylist():
                yield {name: _as_text(value) for name, value in row.items()}


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def read_first_rows(file: InputFile) -> list[Mapping[str, str]]:
    """Read the text columns of the first rows; other columns are skipped.

    Raises:
        InputError: the file has another format.
    """
    with _open(file, ReadingProgress()) as table:
        names = [field.name for field in _schema(table) if _is_text(field.type)]
        batch = next(_batches(table, names), None) if names else None
        rows = [] if batch is None else batch.slice(0, _FIRST_ROWS).to_pylist()
        return [{name: value or "" for name, value in row.items()} for row in rows]


@contextlib.contextmanager
def _open(file: InputFile, progress: ReadingProgress) -> Iterator[Any]:
    is_arrow = Path(file.name).suffix == ARROW
    with open_bytes(file, progress) as stream:
        try:
            if is_arrow:
                yield pyarrow.ipc.open_stream(stream)
            else:
                # Parquet is read from its end, so the stream must be seekable.
                whole = stream if stream.seekable() else pyarrow.BufferReader(stream.read())
                yield pyarrow.parquet.ParquetFile(whole)
        except (pyarrow.ArrowException, MemoryError, *DAMAGE) as error:  # of lengths that it claims
            kind = "Arrow" if is_arrow else "Parquet"
            raise InputError(f"{file.name} is not a complete {kind} file: {error}") from None


def _schema(table: Any) -> pyarrow.Schema:
    return table.schema_arrow if isinstance(table, pyarrow.parquet.ParquetFile) else table.schema


def _batches(table: Any, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """Yield batches of rows with some columns.

    The batches of an Arrow stream have the size with which they were written. They are validated,
    since reading a damaged one would go beyond its memory.
    """
    if isinstance(table, pyarrow.parquet.ParquetFile):
        yield from table.iter_batches(batch_size=_ROWS_PER_READ, columns=columns)
        return
    for batch in table:
        selected = batch.select(columns)
        selected.validate(full=True)
        yield selected


def _is_text(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
