"""Examples of text classification and regression: GLUE, and one's own files."""

from pathlib import Path
from typing import NamedTuple

from albert_jax.config import ProblemType
from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.glue import read_glue, read_glue_tfds
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS, GlueTask
from data_pipeline.finetuning.labeled_text import TextColumns, discover_labels, read_labeled_text
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import required_files
from experiments.tasks.task_settings import DataSource, TaskDataConfig, TaskName

DIAGNOSTIC = "ax"  # GLUE's diagnostic examples, which have no training set


class TextData(NamedTuple):
    """The examples of a run.

    Attributes:
        labels: names of the classes in the order of their numbers; empty for a regression.
        metrics: names of metrics, the deciding one first.
        train: the training split.
        labeled: other splits with labels, at least one.
        unlabeled: splits without labels.
        glue: the GLUE task, if it is one.
        malformed: a message for each group of rows that were skipped.
    """

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train: list[TextExample]
    labeled: dict[str, list[TextExample]]
    unlabeled: dict[str, list[TextExample]]
    glue: GlueTask | None = None
    malformed: tuple[str, ...] = ()


def read_text_data(config: FinetuneConfig) -> TextData:
    """Read the examples of a run.

    Raises:
        InputError: a file is missing or malformed, or no file is named for training or evaluation.
    """
    if config.task is TaskName.TEXT:
        return _read_own_files(config.data)
    return _read_glue(GLUE_TASKS[config.task], config.data, config.task is TaskName.MNLI)


def _read_glue(task: GlueTask, data: TaskDataConfig, has_diagnostic: bool) -> TextData:
    splits: dict[str, list[TextExample]] = {}
    malformed: list[str] = []

    def read(task: GlueTask, split: str, directory: str) -> list[TextExample]:
        if data.source is DataSource.TFDS:
            found = read_glue_tfds(task, split, directory or None)
        else:
            found = read_glue(task, Path(directory), split, data.malformed)
        malformed.extend(found.malformed)
        return found.examples

    if data.source is DataSource.FILES and not data.dir:
        raise InputError("--config.data.dir is missing: the directory of the task's official files")
    for split, file in task.splits.items():
        optional = split in task.test_splits and data.source is DataSource.FILES
        if not optional or (Path(data.dir) / file.name).exists():
            splits[split] = read(task, split, data.dir)
    if has_diagnostic and data.diagnostic_dir is not None:
        splits[DIAGNOSTIC] = read(GLUE_TASKS[DIAGNOSTIC], "test", data.diagnostic_dir)
    train = splits.pop("train")
    return TextData(
        labels=task.labels,
        metrics=task.metrics,
        train=train,
        labeled={name: splits.pop(name) for name in task.dev_splits},
        unlabeled=splits,
        glue=task,
        malformed=tuple(malformed),
    )


def _read_own_files(data: TaskDataConfig) -> TextData:
    train_file, dev_file = required_files(data, "a .tsv, .csv or .jsonl")
    regression = data.problem_type is ProblemType.REGRESSION
    labels = data.label_names
    if labels is None:
        labels = () if regression else discover_labels(train_file, data.label_column)
    columns = TextColumns(
        data.text_column, data.text_pair_column, data.label_column, data.id_column
    )
    unlabeled = {}
    if data.test_file is not None:
        without_label = columns._replace(label=None)
        unlabeled["test"] = read_labeled_text(Path(data.test_file), without_label, labels)
    return TextData(
        labels=labels,
        metrics=("pearson", "spearman") if regression else ("accuracy", "matthews"),
        train=read_labeled_text(train_file, columns, labels),
        labeled={"dev": read_labeled_text(dev_file, columns, labels)},
        unlabeled=unlabeled,
    )
