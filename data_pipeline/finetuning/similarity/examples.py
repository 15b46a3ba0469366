"""Examples of similar texts, and the files and data sets that hold them."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import InputError
from data_pipeline.finetuning.labels import parse_label
from data_pipeline.sources.tables import TableRow, is_table, read_rows, table_format

# Our names of splits -> their possible names in a data set.
_SPLITS = {"train": ("train",), "dev": ("validation", "dev"), "test": ("test",)}


class PairFormat(StrEnum):
    """The columns of similar texts."""

    COLUMNS = "columns"  # named in settings; without a second text, a text is its own positive
    STSB = "sts-b"  # pairs with scores: sentence1, sentence2, score
    NLI = "nli"  # SNLI, MNLI: entailments, with contradictions as hard negatives


class SimilarityExample(NamedTuple):
    """Two texts that are alike, or alike to the degree given by a score.

    Attributes:
        anchor: a text.
        positive: a text that is alike, or the second text of a scored pair.
        negative: a text that only looks alike; None if there is none.
        score: how alike the two texts are, on any scale; None for a pair that is alike.
    """

    anchor: str
    positive: str
    negative: str | None = None
    score: float | None = None


class PairColumns(NamedTuple):
    """Names of columns; None for columns that do not exist.

    Attributes:
        anchor: the first text.
        positive: the second text; None to use the first text again.
        negative: a text that is not alike; its cells may be empty.
        score: how alike the first two texts are.
    """

    anchor: str
    positive: str | None
    negative: str | None = None
    score: str | None = None


STSB_COLUMNS = PairColumns("sentence1", "sentence2", score="score")


def read_pairs(
    path: str, split: str, columns: PairColumns, *, flag: str
) -> list[SimilarityExample]:
    """Read the examples of a file or a data set.

    Args:
        path: a tsv (no quoting), csv or jsonl, possibly compressed; or a name that `find_shards`
            accepts.
        split: train, dev or test, for a data set with several splits.
        columns: the columns to read.
        flag: the flag that gives the path, for messages.

    Raises:
        InputError: there are no rows, a column is missing, or a row has an empty text or no score.

    Example: with the columns `question` and `answer`, the jsonl line `{"question": "When?",
    "answer": "In 1066."}` gives `SimilarityExample("When?", "In 1066.")`.
    """
    names = [name for name in columns if name is not None]
    examples = [_to_example(row, columns) for row in read_examples(path, split, names, flag=flag)]
    if not examples:
        raise InputError(f"{flag}={path} has no row")
    return examples


def _to_example(row: TableRow, columns: PairColumns) -> SimilarityExample:
    for column in (columns.anchor, columns.positive):
        if column is not None and not row.cells[column].strip():
            raise InputError(f"{row.place}: {column} is empty")
    negative = "" if columns.negative is None else row.cells[columns.negative]
    score = None
    if columns.score is not None:
        score = float(parse_label(row.cells[columns.score], (), row.place))
    return SimilarityExample(
        row.cells[columns.anchor],
        row.cells[columns.positive or columns.anchor],
        negative if negative.strip() else None,
        score,
    )


def read_examples(
    path: str, split: str, columns: Sequence[str], *, flag: str
) -> Iterator[TableRow]:
    """Yield the rows of a table or of a Hugging Face data set; see `read_pairs`."""
    if is_table(Path(path)):
        yield from read_rows(Path(path), columns)
        return
    if Path(path).is_file():
        table_format(Path(path))  # raises an error, since the name has no suffix of a table
    # Imported here, since pyarrow takes a while to import and tables do not need it.
    # Imported here, as pyarrow takes a while to import and tables do not need it.
    from data_pipeline.sources import arrow
    from data_pipeline.sources.huggingface import find_shards

    count = 0
    for file in find_shards(path, _SPLITS[split], flag=flag):
        for cells in arrow.read_columns(file, columns):
            yield TableRow(f"{file.name}, row {count}", count, cells)
            count += 1
