"""User-provided pairs, read from a tsv, csv or jsonl with named columns."""

from pathlib import Path

from data_pipeline.errors import InputError
from data_pipeline.generation.examples import TextPair, make_pair
from data_pipeline.sources.tables import read_rows


def read_pair_table(
    path: Path, source_column: str, target_column: str | None, id_column: str | None
) -> list[TextPair]:
    """Read the pairs of a file.

    A row with an empty source and an empty target is not a pair; if one is empty, see `make_pair`.

    Args:
        path: a tsv (cells separated by tabs, no quoting), csv or jsonl, possibly compressed.
        source_column: name of the column of sources.
        target_column: name of the column of targets; None if they are neither required nor read.
        id_column: name of the column of unique ids; None to number the rows from 0.

    Raises:
        InputError: the file is missing, has no pair or lacks a column; or a row is malformed, has
            an empty or repeated id, or only its target is empty. The message names file and line.

    Example: with the columns `article` and `summary`, the jsonl line `{"article": "It rained.",
    "summary": "Rain."}` gives `TextPair("0", "It rained.", "Rain.")`.
    """
    columns = [name for name in (source_column, target_column, id_column) if name is not None]
    pairs: dict[str, TextPair] = {}
    for row in read_rows(path, columns):
        id = str(row.number) if id_column is None else row.cells[id_column]
        if not id.strip():
            raise InputError(f"{row.place}: {id_column} is empty")
        if id in pairs:
            raise InputError(f"{row.place}: the id {id!r} is repeated")
        target = None if target_column is None else row.cells[target_column]
        pair = make_pair(id, row.cells[source_column], target, row.place)
        if pair is not None:
            pairs[id] = pair
    if not pairs:
        raise InputError(f"{path} has no row with text")
    return list(pairs.values())
