"""Objectives of fine-tuning: logits and batch to sums and weights, and logits for evaluation.

Everything counts by the weights of the rows, so what fills a batch up changes nothing.
"""

from collections.abc import Callable
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
from albert_jax.training.losses import LossFn, Metrics, Ratio, cross_entropy
from albert_jax.training.objective import Objective

# What the search of a conditional span head gives.
BEAM_OUTPUTS = (
    "start_log_probs",
    "start_indices",
    "end_log_probs",
    "end_indices",
    "answer_logits",
)


def _apply(
    model: nn.Module, params: PyTree, batch: TaskBatch, key: Array | None, **others: Any
) -> Any:
    return model.apply(
        {"params": params},
        batch.input_ids,
        batch.attention_mask,
        batch.token_type_ids,
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key},
        **others,
    )


def _mean(values: Float[Array, "batch *others"], weights: Float[Array, " batch"]) -> Ratio:
    """The mean over rows by their weights, and over all other axes."""
    means = values.mean(axis=tuple(range(1, values.ndim)))
    return Ratio((weights * means).sum(), weights.sum().astype(values.dtype))


def _objective(
    name: str, loss_fn: LossFn, predict: Callable[[PyTree, Any], dict[str, Array]]
) -> Objective:
    """One loss whose weight is that of the rows."""
    return Objective(loss_fn, lambda batch: {name: batch.weights.sum()}, predict)


def classification_objective(model: AlbertForSequenceClassification) -> Objective:
    """Cross-entropy of classes, squared error of scores, or binary cross-entropy of labels.

    Metrics: `classification_loss` and `accuracy` (of several labels: the share told right), or
    `regression_loss`. Predictions: `logits`.
    """
    problem = model.head.problem_type

    def loss_fn(params: PyTree, batch: ClassificationBatch, key: Array | None) -> Metrics:
        logits = _apply(model, params, batch, key).logits
        if problem is ProblemType.REGRESSION:
            return {"regression_loss": _mean((logits[:, 0] - batch.labels) ** 2, batch.weights)}
        if problem is ProblemType.MULTI_LABEL:
            losses = optax.sigmoid_binary_cross_entropy(logits, batch.labels)
            hits = ((logits > 0) == (batch.labels > 0)).astype(logits.dtype)
            loss, accuracy = _mean(losses, batch.weights), _mean(hits, batch.weights)
        else:
            loss, accuracy = cross_entropy(logits, batch.labels, batch.weights)
        return {"classification_loss": loss, "accuracy": accuracy}

    def predict(params: PyTree, batch: ClassificationBatch) -> dict[str, Array]:
        return {"logits": _apply(model, params, batch, None).logits}

    regression = problem is ProblemType.REGRESSION
    name = "regression_loss" if regression else "classification_loss"
    return _objective(name, loss_fn, predict)


def multiple_choice_objective(model: AlbertForMultipleChoice) -> Objective:
    """Cross-entropy over the choices of an example (RACE).

    Metrics: `choice_loss`, `accuracy`. Predictions: `logits`.
    """

    def loss_fn(params: PyTree, batch: MultipleChoiceBatch, key: Array | None) -> Metrics:
        logits = _apply(model, params, batch, key).logits
        loss, accuracy = cross_entropy(logits, batch.labels, batch.weights)
        return {"choice_loss": loss, "accuracy": accuracy}

    def predict(params: PyTree, batch: MultipleChoiceBatch) -> dict[str, Array]:
        return {"logits": _apply(model, params, batch, None).logits}

    return _objective("choice_loss", loss_fn, predict)


def tagging_objective(model: AlbertForTokenClassification) -> Objective:
    """Cross-entropy over the first pieces of words; each word of a batch counts alike.

    Metrics: `tagging_loss`, `word_accuracy`. Predictions: `tags`, the likeliest of each piece.
    """

    def weights(batch: TaggingBatch) -> Float32[Array, "batch length"]:
        return jnp.asarray(batch.label_mask, jnp.float32) * batch.weights[:, None]

    def loss_fn(params: PyTree, batch: TaggingBatch, key: Array | None) -> Metrics:
        logits = _apply(model, params, batch, key).logits
        loss, accuracy = cross_entropy(logits, batch.labels, weights(batch))
        return {"tagging_loss": loss, "word_accuracy": accuracy}

    def predict(params: PyTree, batch: TaggingBatch) -> dict[str, Array]:
        return {"tags": _apply(model, params, batch, None).logits.argmax(-1)}

    return Objective(loss_fn, lambda batch: {"tagging_loss": weights(batch).sum()}, predict)


def span_objective(model: AlbertForQuestionAnswering) -> Objective:
    """Cross-entropy of the answer's first and last piece, half each, over all pieces of a row.

    A row without the answer points at [CLS] (position 0). Padding is no choice, so that the loss
    does not depend on how far a row is padded.

    Metrics: `span_loss`, `start_accuracy`, `end_accuracy`. Predictions: `start_logits` and
    `end_logits`.
    """

    def logits(
        params: PyTree, batch: SpanBatch, key: Array | None
    ) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
        outputs = _apply(model, params, batch, key)
        lowest = jnp.finfo(outputs.start_logits.dtype).min
        real = batch.attention_mask > 0
        start, end = outputs.start_logits, outputs.end_logits
        return jnp.where(real, start, lowest), jnp.where(real, end, lowest)

    def loss_fn(params: PyTree, batch: SpanBatch, key: Array | None) -> Metrics:
        start, end = logits(params, batch, key)
        start_loss, start_accuracy = cross_entropy(start, batch.start_positions, batch.weights)
        end_loss, end_accuracy = cross_entropy(end, batch.end_positions, batch.weights)
        return {
            "span_loss": Ratio((start_loss.sum + end_loss.sum) / 2, start_loss.weight),
            "start_accuracy": start_accuracy,
            "end_accuracy": end_accuracy,
        }

    def predict(params: PyTree, batch: SpanBatch) -> dict[str, Array]:
        start, end = logits(params, batch, None)
        return {"start_logits": start, "end_logits": end}

    return _objective("span_loss", loss_fn, predict)


def conditional_span_objective(model: AlbertForConditionalSpan) -> Objective:
    """The released objective of SQuAD 2.0: half of start plus end, plus half of answerability.

    The losses of start and end are taken of rows without the answer too: both then point at [CLS].

    Metrics: `span_loss` and `answerability_loss`, each already halved, and
    `answerability_accuracy`. Predictions: `start_log_probs` and `start_indices` of the likeliest
    starts, `end_log_probs` and `end_indices` of the likeliest ends for each, `answer_logits`.
    """

    def loss_fn(params: PyTree, batch: SpanBatch, key: Array | None) -> Metrics:
        outputs = _apply(
            model, params, batch, key, p_mask=batch.p_mask, start_positions=batch.start_positions
        )
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

    def weight_fn(batch: SpanBatch) -> dict[str, Float[Array, ""]]:
        total = batch.weights.sum()
        return {"span_loss": total, "answerability_loss": total}

    def predict(params: PyTree, batch: SpanBatch) -> dict[str, Array]:
        outputs = _apply(model, params, batch, None, p_mask=batch.p_mask)
        return {name: getattr(outputs, name) for name in BEAM_OUTPUTS}

    return Objective(loss_fn, weight_fn, predict)
