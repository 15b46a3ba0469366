"""GLUE: examples from the official files or from TFDS, and submission files."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from albert_jax.durable_files import write_atomically
from data_pipeline.errors import InputError, raise_input_error
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.glue_tasks import Columns, GlueFile, GlueTask
from data_pipeline.finetuning.labels import parse_label
from data_pipeline.sources.tables import TableRow, format_tsv, read_rows

_SCORE_RANGE = (0.0, 5.0)  # of STS-B


class MalformedRows(StrEnum):
    """Treatment of a malformed row: raise an error, or skip and report it."""

    REFUSE = "refuse"
    SKIP = "skip"


class GlueExamples(NamedTuple):
    """The examples of a split.

    Attributes:
        examples: the examples, in file order.
        malformed: file, line and error of each skipped row.
    """

    examples: list[TextExample]
    malformed: list[str]


def read_glue(
    task: GlueTask,
    directory: Path,
    split: str,
    malformed: MalformedRows = MalformedRows.REFUSE,
) -> GlueExamples:
    """Read a split from the official file.

    Args:
        task: one of `GLUE_TASKS`.
        directory: the directory of the task's files.
        split: one of `task.splits`.
        malformed: treatment of malformed rows.

    Raises:
        InputError: the task has no such split; the file is missing, lacks a column or has no row;
            or a row is malformed: too few columns, an empty text, an unknown label, a score outside
            0 to 5, or a repeated id. The message names the file and the line.

    Example: the lines `sentence<tab>label` and `a fine film <tab>1` of SST-2's `train.tsv` give
    `TextExample("0", "a fine film ", None, 1)`.
    """
    file = _find_split(task, split)
    path = directory / file.name
    examples: dict[str, TextExample] = {}
    skipped: list[str] = []
    on_malformed: Callable[[str], object] = (
        raise_input_error if malformed is MalformedRows.REFUSE else skipped.append
    )
    columns = file.columns
    needed = [*columns.texts, *filter(None, (columns.label, columns.id))]
    for row in read_rows(path, needed, header=columns.header, on_malformed=on_malformed):
        try:
            example = _to_example(task, columns, row)
            if example.id in examples:
                raise InputError(f"{row.place}: the id {example.id} is repeated")
        except InputError as error:
            on_malformed(str(error))
            continue
        examples[example.id] = example
    if not examples:
        raise InputError(f"{path} has no {'well-formed ' if skipped else ''}row")
    return GlueExamples(list(examples.values()), skipped)


def _find_split(task: GlueTask, split: str) -> GlueFile:
    if split not in task.splits:
        raise InputError(f"{task.name} has no split {split!r}, only {', '.join(task.splits)}")
    return task.splits[split]


def _to_example(task: GlueTask, columns: Columns, row: TableRow) -> TextExample:
    for column in columns.texts:
        if not row.cells[column].strip():
            raise InputError(f"{row.place}: {column} is empty")
    texts = [row.cells[column] for column in columns.texts]
    label = None
    if columns.label is not None:
        label = parse_label(row.cells[columns.label], task.labels, row.place)
        if not task.labels and not _SCORE_RANGE[0] <= label <= _SCORE_RANGE[1]:
            raise InputError(f"{row.place}: the score must be from 0 to 5, found {label:g}")
    return TextExample(
        id=str(row.number) if columns.id is None else row.cells[columns.id],
        text_a=texts[0],
        text_b=texts[1] if len(texts) > 1 else None,
        label=label,
    )


def read_glue_tfds(task: GlueTask, split: str, data_dir: str | None = None) -> GlueExamples:
    """Read a split of a dataset that TFDS has prepared on this machine.

    Args:
        task: one of `GLUE_TASKS`.
        split: one of `task.splits`.
        data_dir: the directory of TFDS datasets; None for the TFDS default.

    Raises:
        InputError: there is no such split, it is not prepared, or it has other columns.
    """
    from data_pipeline.sources.tfds import read_examples

    file = _find_split(task, split)
    name, *columns = task.tfds
    found = read_examples(f"glue/{name}", file.tfds, [*columns, "label", "idx"], data_dir)
    # If TFDS uses our class names, match classes by name; otherwise its indices equal ours.
    indices = list(range(len(found.label_names)))
    if set(found.label_names) == set(task.labels):
        indices = [task.labels.index(label) for label in found.label_names]
    examples = []
    for record in found.records:
        texts = [record[column].decode() for column in columns]
        label = None
        if file.columns.label is not None:
            label = indices[record["label"]] if task.labels else float(record["label"])
        examples.append(
            TextExample(str(record["idx"]), texts[0], texts[1] if texts[1:] else None, label)
        )
    return GlueExamples(examples, [])


def write_glue_submission(
    task: GlueTask,
    split: str,
    ids: Sequence[str],
    predictions: Sequence[int | float] | Real[np.ndarray, " examples"],
    directory: Path,
) -> Path:
    """Write the predictions of a test split in the format of the benchmark's server.

    Args:
        task: one of `GLUE_TASKS`.
        split: one of `task.test_splits`.
        ids: the ids of the examples, in file order.
        predictions: class indices, or scores, which are clipped to the range from 0 to 5.
        directory: the directory to write to.

    Returns:
        The path of the file.

    Raises:
        InputError: predictions for this split are not submitted.

    Example: for RTE, ids `["0", "1"]` and predictions `[1, 0]`, the file `RTE.tsv` has the lines
    `index<tab>prediction`, `0<tab>not_entailment` and `1<tab>entailment`.
    """
    submission = _find_split(task, split).submission
    if submission is None:
        raise InputError(
            f"{task.name}: predictions of {split!r} are not submitted, only of "
            f"{', '.join(task.test_splits)}"
        )
    rows = [["index", "prediction"]]
    for id, prediction in zip(ids, predictions, strict=True):
        if task.labels:
            value = task.labels[int(prediction)]
        else:
            value = f"{min(max(prediction, _SCORE_RANGE[0]), _SCORE_RANGE[1]):.6f}"
        rows.append([id, value])
    path = directory / submission
    write_atomically(path, format_tsv(rows))
    return path
