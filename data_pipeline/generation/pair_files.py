"""Files of pairs: a table with both texts in columns, or two files with aligned lines."""

from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import InputError
from data_pipeline.generation.examples import TextPair
from data_pipeline.generation.pair_tables import read_pair_table
from data_pipeline.generation.parallel_text import read_parallel_text
from data_pipeline.sources.tables import is_table, read_rows


class PairColumns(NamedTuple):
    """Names of the columns of a table; without an id, rows are numbered from 0."""

    source: str
    target: str
    id: str | None


def read_pair_files(
    split: str, sources: Path, targets: str | None, columns: PairColumns
) -> list[TextPair]:
    """Read a split from a table, or from a file of lines and another one with its targets.

    Args:
        split: its name in the settings: train, dev or test; test may lack targets.
        sources: the table, or the file of sources.
        targets: the file of targets, if sources are lines.
        columns: the columns of a table.

    Raises:
        InputError: targets are missing, or given in two places; or a file is missing or malformed.
    """
    if is_table(sources):
        if targets is not None:
            raise InputError(
                f"--config.targets.{split}_file is for files of lines: {sources} has its targets "
                f"in the column {columns.target} (--config.targets.column)"
            )
        target: str | None = columns.target
        if split == "test" and not _has_column(sources, columns):
            target = None
        return read_pair_table(sources, columns.source, target, columns.id)
    if targets is None and split != "test":
        raise InputError(
            f"--config.targets.{split}_file is missing: a target for each line of {sources}"
        )
    return read_parallel_text(sources, None if targets is None else Path(targets))


def _has_column(table: Path, columns: PairColumns) -> bool:
    """Return True if the first row of a table has a target column."""
    first = next(read_rows(table, [columns.source]), None)
    return first is not None and columns.target in first.cells
