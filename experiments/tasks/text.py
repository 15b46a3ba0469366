"""Classes or scores of texts and pairs of texts: GLUE, and one's own files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.config import AlbertConfig, HeadConfig, ProblemType
from albert_jax.durable_files import write_atomically
from albert_jax.tasks.batches import ClassificationBatch
from albert_jax.tasks.models import AlbertForSequenceClassification
from albert_jax.tasks.objectives import classification_objective
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.encoding import encode_texts
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.glue import read_glue, read_glue_tfds, write_glue_submission
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS, GlueTask
from data_pipeline.finetuning.labeled_text import TextColumns, discover_labels, read_labeled_text
from data_pipeline.finetuning.metrics import (
    class_scores,
    compute_metrics,
    confusion_matrix,
    constant_baseline,
)
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.config import DataSource, FinetuneConfig, TaskDataConfig, TaskName
from experiments.tasks.task import FinetuningTask, Outputs, Scores

DIAGNOSTIC = "ax"  # GLUE's examples without a training set of their own
_SCORE = "score"  # what the only label of a regression is called


class Texts(NamedTuple):
    """What was read.

    Attributes:
        labels: names of the classes in the order of their numbers; empty for a regression.
        metrics: the deciding one first.
        train: what is trained on.
        labeled: splits that are scored, at least one.
        unlabeled: splits that are only told.
        glue: the task of GLUE, if it is one.
        malformed: rows that were left out, in words.
    """

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train: list[TextExample]
    labeled: dict[str, list[TextExample]]
    unlabeled: dict[str, list[TextExample]]
    glue: GlueTask | None = None
    malformed: tuple[str, ...] = ()


def open_text_task(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    """Reads and encodes the texts of a run.

    Args:
        config: says which.
        model: the encoder.
        tokenizer: that of the encoder.
        compute: fields of the model that say how it computes.

    Raises:
        InputError: a file is missing or malformed.
    """
    texts = read_texts(config)

    def encode(examples: Sequence[TextExample]) -> EncodedExamples:
        return encode_texts(
            tokenizer,
            examples,
            max_seq_length=config.data.max_seq_length,
            regression=not texts.labels,
        )

    head = HeadConfig(
        labels=texts.labels or (_SCORE,),
        problem_type=ProblemType.SINGLE_LABEL if texts.labels else ProblemType.REGRESSION,
        classifier_dropout_prob=config.dropout.classifier,
    )
    network = AlbertForSequenceClassification(model, head, **compute)

    def score(split: str, outputs: Outputs) -> Scores:
        return score_texts(texts, texts.labeled[split], decide(head, outputs))

    def write(split: str, outputs: Outputs, directory: Path) -> list[Path]:
        return write_texts(texts, head, split, outputs, directory)

    return FinetuningTask(
        train=encode(texts.train),
        labeled={name: encode(examples) for name, examples in texts.labeled.items()},
        unlabeled={name: encode(examples) for name, examples in texts.unlabeled.items()},
        model=network,
        head=head,
        objective=classification_objective(network),
        to_batch=ClassificationBatch.from_numpy,
        metrics=texts.metrics,
        score=score,
        write=write,
        notes=texts.malformed,
    )


def read_texts(config: FinetuneConfig) -> Texts:
    """The examples that a run is about.

    Raises:
        InputError: a file is missing or malformed, or there is no file to train or to evaluate on.
    """
    if config.task is TaskName.TEXT:
        return _read_own(config.data)
    task, data = GLUE_TASKS[config.task], config.data
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
    if config.task is TaskName.MNLI and data.diagnostic_dir is not None:
        splits[DIAGNOSTIC] = read(GLUE_TASKS[DIAGNOSTIC], "test", data.diagnostic_dir)
    return Texts(
        labels=task.labels,
        metrics=task.metrics,
        train=splits["train"],
        labeled={name: splits[name] for name in task.dev_splits},
        unlabeled={n: x for n, x in splits.items() if n != "train" and n not in task.dev_splits},
        glue=task,
        malformed=tuple(malformed),
    )


def _read_own(data: TaskDataConfig) -> Texts:
    for name in ("train_file", "dev_file"):
        if getattr(data, name) is None:
            raise InputError(f"--config.data.{name} is missing: a .tsv, .csv or .jsonl")
    train_file, dev_file = Path(data.train_file or ""), Path(data.dev_file or "")
    regression = data.problem_type is ProblemType.REGRESSION
    labels: tuple[str, ...] = ()
    if not regression and data.labels is None:
        labels = discover_labels(train_file, data.label_column)
    elif not regression:
        labels = tuple(name.strip() for name in (data.labels or "").split(","))
    columns = TextColumns(
        data.text_column, data.text_pair_column, data.label_column, data.id_column
    )
    unlabeled = {}
    if data.test_file is not None:
        bare = columns._replace(label=None)
        unlabeled["test"] = read_labeled_text(Path(data.test_file), bare, labels)
    return Texts(
        labels=labels,
        metrics=("pearson", "spearman") if regression else ("accuracy", "matthews"),
        train=read_labeled_text(train_file, columns, labels),
        labeled={"dev": read_labeled_text(dev_file, columns, labels)},
        unlabeled=unlabeled,
    )


def decide(head: HeadConfig, outputs: Outputs) -> np.ndarray:
    """The number of the likeliest class of each example, or its score."""
    logits = np.stack([row["logits"] for row in outputs])
    return logits[:, 0] if head.problem_type is ProblemType.REGRESSION else logits.argmax(axis=1)


def score_texts(texts: Texts, examples: Sequence[TextExample], predictions: np.ndarray) -> Scores:
    """How well a labeled split was told.

    Args:
        texts: the task.
        examples: the split.
        predictions: numbers of classes, or scores.
    """
    labels = np.array([example.label for example in examples])
    figures = compute_metrics(texts.metrics, predictions, labels)
    baseline = constant_baseline(texts.metrics, labels, len(texts.labels))
    if not texts.labels:
        return Scores(figures, baseline)
    confusion = confusion_matrix(predictions, labels, len(texts.labels))
    f1 = class_scores(confusion).f1.tolist()
    return Scores(figures, baseline, texts.labels, confusion, f1)


def write_texts(
    texts: Texts, head: HeadConfig, split: str, outputs: Outputs, directory: Path
) -> list[Path]:
    """Writes what was told of a split: the file that GLUE's server takes, or one's own.

    Of one's own files, `test_predictions.tsv` has the columns id, prediction and, for each class,
    its probability. Nothing is written of labeled splits.
    """
    if split not in texts.unlabeled:
        return []
    ids = [example.id for example in texts.unlabeled[split]]
    predictions = decide(head, outputs)
    if split == DIAGNOSTIC:
        task = GLUE_TASKS[DIAGNOSTIC]
        return [write_glue_submission(task, "test", ids, predictions, directory)]
    if texts.glue is not None:
        return [write_glue_submission(texts.glue, split, ids, predictions, directory)]
    path = directory / f"{split}_predictions.tsv"
    write_atomically(path, "\n".join(_table(head, ids, predictions, outputs)) + "\n")
    return [path]


def _table(
    head: HeadConfig, ids: Sequence[str], predictions: np.ndarray, outputs: Outputs
) -> list[str]:
    if head.problem_type is ProblemType.REGRESSION:
        rows = zip(ids, predictions, strict=True)
        return ["id\tprediction", *(f"{id}\t{score:.6f}" for id, score in rows)]
    lines = ["\t".join(["id", "prediction", *head.labels])]
    for id, number, row in zip(ids, predictions, outputs, strict=True):
        shares = (f"{share:.6f}" for share in softmax(row["logits"]))
        lines.append("\t".join([id, head.labels[number], *shares]))
    return lines


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of a row's classes."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()
