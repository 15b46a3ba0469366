"""Objectives of fine-tuning: losses as sums and weights, and predictions for evaluation.

All are weighted by row, so that rows that only fill up a batch have no effect.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Float32, PyTree

from albert_jax.config import ProblemType
from albert_jax.tasks.batches import (
    ClassificationBatch,
    MultipleChoiceBatch,
    SpanBatch,
    TaggingBatch,
    TaskBatch,
)
from albert_jax.tasks.models import (
    AlbertForConditionalSpan,
    AlbertForMultipleChoice,
    AlbertForQuestionAnswering,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
)
from albert_jax.training.losses import Metrics, Ratio, cross_entropy
from albert_jax.training.objective import Objective, dropout_options

# The predictions of `conditional_span_objective`.
BEAM_OUTPUTS = (
    "start_log_probs",
    "start_indices",
    "end_log_probs",
    "end_indices",
    "answer_logits",
)


def _objective(
    model: nn.Module,
    losses: Sequence[str],
    loss: Callable[[Any, Any], Metrics],
    predict: Callable[[Any, Any], dict[str, Array]],
    *,
    weight: Callable[[Any], Float[Array, ""]] = lambda batch: batch.weights.sum(),
    inputs: Callable[[Any, bool], dict[str, Any]] = lambda batch, with_labels: {},
) -> Objective:
    """Build an objective from functions of the model's outputs.

    Args:
        model: a model of `albert_jax.tasks.models`.
        losses: the metrics that are minimized.
        loss: maps (outputs, batch) to metrics.
        predict: maps (outputs, batch) to predictions.
        weight: maps a batch to the denominator of the losses.
        inputs: maps (batch, True for the loss or False for predictions) to further arguments of the
            model.
    """

    def apply(params: PyTree, batch: TaskBatch, key: Array | None, with_labels: bool) -> Any:
        return model.apply(
            {"params": params},
            batch.input_ids,
            batch.attention_mask,
            batch.token_type_ids,
            **dropout_options(key),
            **inputs(batch, with_labels),
        )

    return Objective(
        lambda params, batch, key: loss(apply(params, batch, key, True), batch),
        lambda batch: dict.fromkeys(losses, weight(batch)),
        lambda params, batch: predict(apply(params, batch, None, False), batch),
    )


def _mean(values: Float[Array, "batch *others"], weights: Float[Array, " batch"]) -> Ratio:
    """Compute the mean over all axes, with rows weighted."""
    means = values.mean(axis=tuple(range(1, values.ndim)))
    return Ratio((weights * means).sum(), weights.sum().astype(values.dtype))


def _logits(outputs: Any, batch: TaskBatch) -> dict[str, Array]:
    return {"logits": outputs.logits}


def classification_objective(model: AlbertForSequenceClassification) -> Objective:
    """Return cross-entropy of classes, squared error of scores, or binary cross-entropy of labels.

    Metrics: `classification_loss` and `accuracy` (with several labels per example, the fraction of
    labels predicted correctly), or `regression_loss`. Predictions: `logits`.
    """
    problem = model.head.problem_type

    def loss(outputs: Any, batch: ClassificationBatch) -> Metrics:
        logits = outputs.logits
        if problem is ProblemType.REGRESSION:
            return {"regression_loss": _mean((logits[:, 0] - batch.labels) ** 2, batch.weights)}
        if problem is ProblemType.MULTI_LABEL:
            losses = optax.sigmoid_binary_cross_entropy(logits, batch.labels)
            hits = ((logits > 0) == (batch.labels > 0)).astype(logits.dtype)
            loss, accuracy = _mean(losses, batch.weights), _mean(hits, batch.weights)
        else:
            loss, accuracy = cross_entropy(logits, batch.labels, batch.weights)
        return {"classification_loss": loss, "accuracy": accuracy}

    kind = "regression" if problem is ProblemType.REGRESSION else "classification"
    return _objective(model, [f"{kind}_loss"], loss, _logits)


def multiple_choice_objective(model: AlbertForMultipleChoice) -> Objective:
    """Return cross-entropy over the choices of an example (RACE).

    Metrics: `choice_loss`, `accuracy`. Predictions: `logits`.
    """

    def loss(outputs: Any, batch: MultipleChoiceBatch) -> Metrics:
        loss, accuracy = cross_entropy(outputs.logits, batch.labels, batch.weights)
        return {"choice_loss": loss, "accuracy": accuracy}

    return _objective(model, ["choice_loss"], loss, _logits)


def tagging_objective(model: AlbertForTokenClassification) -> Objective:
    """Return cross-entropy over the first tokens of words, all words of a batch weighted equally.

    Metrics: `tagging_loss`, `word_accuracy`. Predictions: `tags`, each token's most probable tag.
    """

    def weights(batch: TaggingBatch) -> Float32[Array, "batch length"]:
        return jnp.asarray(batch.label_mask, jnp.float32) * batch.weights[:, None]

    def loss(outputs: Any, batch: TaggingBatch) -> Metrics:
        loss, accuracy = cross_entropy(outputs.logits, batch.labels, weights(batch))
        return {"tagging_loss": loss, "word_accuracy": accuracy}

    def predict(outputs: Any, batch: TaggingBatch) -> dict[str, Array]:
        return {"tags": outputs.logits.argmax(-1)}

    return _objective(
        model, ["tagging_loss"], loss, predict, weight=lambda batch: weights(batch).sum()
    )


def span_objective(model: AlbertForQuestionAnswering) -> Objective:
    """Return the mean cross-entropy of the answer's first and last token, over a row's tokens.

    A row without the answer points at [CLS] (position 0). Padding is masked, so that the loss does
    not depend on how far a row is padded.

    Metrics: `span_loss`, `start_accuracy`, `end_accuracy`. Predictions: `start_logits` and
    `end_logits`.
    """

    def predict(outputs: Any, batch: SpanBatch) -> dict[str, Array]:
        lowest = jnp.finfo(outputs.start_logits.dtype).min
        return {
            name: jnp.where(batch.attention_mask > 0, getattr(outputs, name), lowest)
            for name in ("start_logits", "end_logits")
        }

    def loss(outputs: Any, batch: SpanBatch) -> Metrics:
        start, end = predict(outputs, batch).values()
        start_loss, start_accuracy = cross_entropy(start, batch.start_positions, batch.weights)
        end_loss, end_accuracy = cross_entropy(end, batch.end_positions, batch.weights)
        return {
            "span_loss": Ratio((start_loss.sum + end_loss.sum) / 2, start_loss.weight),
            "start_accuracy": start_accuracy,
            "end_accuracy": end_accuracy,
        }

    return _objective(model, ["span_loss"], loss, predict)


def conditional_span_objective(model: AlbertForConditionalSpan) -> Objective:
    """Return the released objective of SQuAD 2.0: half of start plus end, half of answerability.

    The losses of start and end include rows without the answer: both then point at [CLS].

    Metrics: `span_loss` and `answerability_loss`, each already halved, and
    `answerability_accuracy`. Predictions: `start_log_probs` and `start_indices` of the most
    probable starts, `end_log_probs` and `end_indices` of the most probable ends for each start, and
    `answer_logits`.
    """

    def loss(outputs: Any, batch: SpanBatch) -> Metrics:
        starts, ends = outputs.start_log_probs, outputs.end_log_probs
        logits, impossible = outputs.answer_logits, batch.is_impossible
        positions = batch.start_positions[:, None], batch.end_positions[:, None]
        span = jnp.take_along_axis(starts, positions[0], axis=1)[:, 0]
        span += jnp.take_along_axis(ends, positions[1], axis=1)[:, 0]
        answerability = optax.sigmoid_binary_cross_entropy(logits, impossible.astype(logits.dtype))
        hits = ((logits > 0) == (impossible > 0)).astype(logits.dtype)
        return {
            "span_loss": _mean(-span / 2, batch.weights),
            "answerability_loss": _mean(answerability / 2, batch.weights),
            "answerability_accuracy": _mean(hits, batch.weights),
        }

    def predict(outputs: Any, batch: SpanBatch) -> dict[str, Array]:
        return {name: getattr(outputs, name) for name in BEAM_OUTPUTS}

    def inputs(batch: SpanBatch, with_labels: bool) -> dict[str, Any]:
        labels = {"start_positions": batch.start_positions} if with_labels else {}
        return {"p_mask": batch.p_mask, **labels}

    losses = ["span_loss", "answerability_loss"]
    return _objective(model, losses, loss, predict, inputs=inputs)
