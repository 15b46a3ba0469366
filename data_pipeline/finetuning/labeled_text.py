"""User-provided labeled texts, read from a tsv, csv or jsonl with named columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.labels import parse_label, sort_labels
from data_pipeline.sources.tables import TableRow, read_rows


class TextColumns(NamedTuple):
    """Names of the columns of a file; None for columns that it lacks.

    Attributes:
        text: the only text or the first one.
        text_pair: the second text.
        label: the name of the class, or the score of a regression.
        id: the unique name of the example; if None, examples are numbered from 0.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str | None = "label"
    id: str | None = None


def read_labeled_text(path: Path, columns: TextColumns, labels: Sequence[str]) -> list[TextExample]:
    """Read the examples of a file.

    Args:
        path: a tsv (cells separated by tabs, no quoting), csv or jsonl, possibly compressed.
        columns: the columns of the file; with `label=None`, labels are neither required nor read.
        labels: names of the classes in the order of their indices, as returned by
            `discover_labels`; empty for a regression.

    Raises:
        InputError: the file is missing, has no row or lacks a column; or a row is malformed, or has
            an empty text, an unknown label or a repeated id. The message names file and line.

    Example: with labels `("neg", "pos")`, the jsonl line `{"text": "Fine.", "label": "pos"}` gives
    `TextExample("0", "Fine.", None, 1)`.
    """
    needed = [column for column in columns if column is not None]
    examples: dict[str, TextExample] = {}
    for row in read_rows(path, needed):
        example = _to_example(row, columns, labels)
        if example.id in examples:
            raise InputError(f"{row.place}: the id {example.id!r} is repeated")
        examples[example.id] = example
    if not examples:
        raise InputError(f"{path} has no row")
    return list(examples.values())


def discover_labels(path: Path, column: str) -> tuple[str, ...]:
    """Return the names of the classes in a training file: integers by value, else alphabetically.

    Raises:
        InputError: the file is missing or malformed, a row has no label, or all labels are equal.
    """
    places: dict[str, str] = {}
    for row in read_rows(path, [column]):
        places.setdefault(row.cells[column].strip(), row.place)
    if "" in places:
        raise InputError(f"{places['']}: {column} is empty")
    if len(places) < 2:
        found = ", ".join(map(repr, places)) or "none"
        raise InputError(f"{path}: {column} must have at least two different labels, found {found}")
    return sort_labels(places)


def _to_example(row: TableRow, columns: TextColumns, labels: Sequence[str]) -> TextExample:
    for column in (columns.text, columns.text_pair, columns.id):
        if column is not None and not row.cells[column].strip():
            raise InputError(f"{row.place}: {column} is empty")
    return TextExample(
        id=str(row.number) if columns.id is None else row.cells[columns.id],
        text_a=row.cells[columns.text],
        text_b=None if columns.text_pair is None else row.cells[columns.text_pair],
        label=None
        if columns.label is None
        else parse_label(row.cells[columns.label], labels, row.place),
    )
