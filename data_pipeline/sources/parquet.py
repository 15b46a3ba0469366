"""Texts out of a column of Parquet files, a batch of rows at a time."""

from collections.abc import Iterator

import pyarrow
import pyarrow.parquet

from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import InputFile, Reading, open_bytes

_ROWS = 256


def read_column(file: InputFile, column: str, reading: Reading) -> Iterator[str]:
    """The texts of a column; rows without one are passed over.

    Raises:
        InputError: it is no Parquet file, or the column is missing or holds no text.
    """
    with open_bytes(file, reading) as stream:
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
            for batch in table.iter_batches(batch_size=_ROWS, columns=[column]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file.name} is no whole Parquet file: {error}") from None
    reading.finish(file.size)
