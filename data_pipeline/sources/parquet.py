"""Texts in a column of Parquet files, read in batches of rows."""

from collections.abc import Iterator

import pyarrow
import pyarrow.parquet

from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import InputFile, ReadingProgress, open_bytes

_ROWS_PER_READ = 256


def read_column(file: InputFile, column: str, progress: ReadingProgress) -> Iterator[str]:
    """Read the texts of a column; rows without one are left out.

    Raises:
        InputError: it is not a Parquet file, or the column is missing or holds no text.
    """
    with open_bytes(file, progress) as stream:
        try:
            table = pyarrow.parquet.ParquetFile(stream)
            schema = table.schema_arrow
            if column not in schema.names:
                names = ", ".join(map(repr, schema.names))
                raise InputError(
                    f"{file.name}: no column {column!r} among {names}; --text_column names it"
                )
            kind = schema.field(column).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise InputError(f"{file.name}: column {column!r} holds {kind}, not text")
            for batch in table.iter_batches(batch_size=_ROWS_PER_READ, columns=[column]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file.name} is not a complete Parquet file: {error}") from None
    progress.finish(file.size)
