"""Classification and regression of texts and pairs of texts: GLUE, and one's own files."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from albert_jax.config import AlbertConfig, HeadConfig, ProblemType
from albert_jax.durable_files import write_atomically
from albert_jax.tasks.batches import ClassificationBatch
from albert_jax.tasks.models import AlbertForSequenceClassification
from albert_jax.tasks.objectives import classification_objective
from data_pipeline.errors import InputError
from data_pipeline.finetuning import encoding
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.glue import write_glue_submission
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from data_pipeline.finetuning.metrics import (
    class_f1,
    compute_metrics,
    confusion_matrix,
    constant_baseline,
)
from data_pipeline.sources.tables import format_tsv
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.raw_inputs import (
    EncodedInput,
    PredictionOptions,
    RawInput,
    encode_texts,
    read_texts,
)
from experiments.tasks.task import FinetuningTask, Outputs, RawPrediction, Result, Scores, TaskKind
from experiments.tasks.text_examples import DIAGNOSTIC, TextData, read_text_data

_SCORE = "score"  # the name of the only label of a regression


def _open(
    config: FinetuneConfig, model: AlbertConfig, tokenizer: AlbertTokenizer, **compute: Any
) -> FinetuningTask:
    data = read_text_data(config)

    def encode(examples: Sequence[TextExample]) -> EncodedExamples:
        return encoding.encode_texts(
            tokenizer,
            examples,
            max_seq_length=config.data.max_seq_length,
            regression=not data.labels,
        )

    head = HeadConfig(
        labels=data.labels or (_SCORE,),
        problem_type=ProblemType.SINGLE_LABEL if data.labels else ProblemType.REGRESSION,
        classifier_dropout_prob=config.dropout.classifier,
    )
    network = AlbertForSequenceClassification(model, head, **compute)
    return FinetuningTask(
        train=encode(data.train),
        labeled={name: encode(examples) for name, examples in data.labeled.items()},
        unlabeled={name: encode(examples) for name, examples in data.unlabeled.items()},
        model=network,
        head=head,
        objective=TEXT.objective(network),
        to_batch=TEXT.batch.from_numpy,
        metrics=data.metrics,
        score=lambda split, outputs: score_texts(
            data, data.labeled[split], predict_labels(head, outputs)
        ),
        write=lambda split, outputs, directory: write_texts(data, head, split, outputs, directory),
        notes=data.malformed,
    )


def predict_labels(head: HeadConfig, outputs: Outputs) -> np.ndarray:
    """Return the number of the most probable class of each example, or its score."""
    logits = np.stack([row["logits"] for row in outputs])
    return logits[:, 0] if head.problem_type is ProblemType.REGRESSION else logits.argmax(axis=1)


def score_texts(data: TextData, examples: Sequence[TextExample], predictions: np.ndarray) -> Scores:
    """Compute the metrics of a labeled split.

    Args:
        data: the data, which name the metrics and the classes.
        examples: the split.
        predictions: class numbers, or scores.
    """
    labels = np.array([example.label for example in examples])
    metrics = compute_metrics(data.metrics, predictions, labels)
    baseline = constant_baseline(data.metrics, labels, len(data.labels))
    if not data.labels:
        return Scores(metrics, baseline)
    confusion = confusion_matrix(predictions, labels, len(data.labels))
    f1 = class_f1(predictions, labels, len(data.labels)).tolist()
    return Scores(metrics, baseline, data.labels, confusion, f1)


def write_texts(
    data: TextData, head: HeadConfig, split: str, outputs: Outputs, directory: Path
) -> list[Path]:
    """Write the predictions of an unlabeled split: a submission to GLUE, or a table.

    The table, `test_predictions.tsv`, has the columns id, prediction and, for each class, its
    probability. Nothing is written for labeled splits.
    """
    if split not in data.unlabeled:
        return []
    ids = [example.id for example in data.unlabeled[split]]
    predictions = predict_labels(head, outputs)
    if split == DIAGNOSTIC:
        task = GLUE_TASKS[DIAGNOSTIC]
        return [write_glue_submission(task, "test", ids, predictions, directory)]
    if data.glue is not None:
        return [write_glue_submission(data.glue, split, ids, predictions, directory)]
    path = directory / f"{split}_predictions.tsv"
    write_atomically(path, format_tsv(_table(head, ids, predictions, outputs)))
    return [path]


def _table(
    head: HeadConfig, ids: Sequence[str], predictions: np.ndarray, outputs: Outputs
) -> list[list[str]]:
    if head.problem_type is ProblemType.REGRESSION:
        scores = zip(ids, predictions, strict=True)
        return [["id", "prediction"], *([id, f"{score:.6f}"] for id, score in scores)]
    rows = [["id", "prediction", *head.labels]]
    for id, number, row in zip(ids, predictions, outputs, strict=True):
        probabilities = (f"{probability:.6f}" for probability in softmax(row["logits"]))
        rows.append([id, head.labels[number], *probabilities])
    return rows


def _encode(
    texts: Sequence[RawInput],
    model: Any,
    tokenizer: AlbertTokenizer,
    options: PredictionOptions,
    *,
    scores: bool,
) -> list[EncodedInput]:
    regression = model.head.problem_type is ProblemType.REGRESSION
    if regression is not scores:
        found, task = ("a score", "score") if regression else ("labels", "classify")
        raise InputError(f"--model={options.model} gives {found}: use --task={task}")
    length = model.config.max_position_embeddings
    rows = encode_texts(texts, tokenizer, max_length=length, truncate=options.truncate)
    return [EncodedInput(text, [row]) for text, row in zip(texts, rows, strict=True)]


def _decode_label(
    encoded: EncodedInput, outputs: Outputs, model: Any, options: PredictionOptions
) -> Result:
    logits = np.asarray(outputs[0]["logits"], np.float64)
    several = model.head.problem_type is ProblemType.MULTI_LABEL
    values = expit(logits) if several else softmax(logits)
    probabilities = dict(zip(model.head.labels, values.tolist(), strict=True))
    label: Any = model.head.labels[int(logits.argmax())]
    if several:
        label = [name for name, probability in probabilities.items() if probability > 0.5]
    return {**encoded.example.fields, "label": label, "probabilities": probabilities}


def _decode_score(
    encoded: EncodedInput, outputs: Outputs, model: Any, options: PredictionOptions
) -> Result:
    return {**encoded.example.fields, "score": float(outputs[0]["logits"][0])}


def _format_texts(result: Result) -> str:
    return "\n".join(result[name] for name in ("text", "text_pair") if name in result)


def _format_label(result: Result) -> str:
    ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])
    return "\n".join([_format_texts(result), *(f"  {p:7.1%}  {name}" for name, p in ranked)])


def _format_score(result: Result) -> str:
    return f"{_format_texts(result)}\n  {result['score']:.3f}"


TEXT = TaskKind(
    models=(AlbertForSequenceClassification,),
    batch=ClassificationBatch,
    objective=classification_objective,
    open=_open,
    predictions={
        "classify": RawPrediction(
            read_texts, functools.partial(_encode, scores=False), _decode_label, _format_label
        ),
        "score": RawPrediction(
            read_texts, functools.partial(_encode, scores=True), _decode_score, _format_score
        ),
    },
)
