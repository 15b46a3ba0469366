"""The objective of pre-training: masked LM plus sentence order (ALBERT §3.1)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.layers import gather_positions
from albert_jax.model import AlbertForPreTraining, AlbertForPreTrainingOutput
from albert_jax.tasks.distillation.config import DistillationConfig
from albert_jax.tasks.distillation.loss import DISTILLATION_LOSS, distillation_metrics
from albert_jax.tasks.halting import Halting
from albert_jax.tasks.routing import BALANCE, padding_weights, routing_metrics
from albert_jax.training.losses import Metrics, Ratio, cross_entropy, z_loss
from albert_jax.training.objective import Objective, dropout_options

Z_LOSS = "masked_lm_z_loss"


def pretraining_objective(
    model: AlbertForPreTraining,
    sentence_metric: str | None = "sentence_order",
    *,
    z_loss_weight: float = 0.0,
    samples_labels: bool = False,
    distillation: DistillationConfig | None = None,
) -> Objective:
    """Build the objective: the sum of masked-LM loss and sentence loss (ALBERT §3.1).

    Metrics: `masked_lm_loss` and `masked_lm_accuracy`, `{sentence_metric}_loss` and
    `{sentence_metric}_accuracy`; with `z_loss_weight` also `masked_lm_z_loss`, with experts also
    those of `routing_metrics`, with a teacher also those of `distillation_metrics`. Predictions:
    `prediction_logits` and `sop_logits`.

    Args:
        model: the model.
        sentence_metric: name of the sentence objective in the metrics. With None the sentence head
            and the pooler are not computed; their parameters stay and have no gradient.
        z_loss_weight: weight of a third loss, the squared logarithm of softmax's denominator.
        samples_labels: True for an objective with a `sampled_loss_fn`.
        distillation: settings of one more loss, for batches with a teacher's predictions; None: no
            such loss.
    """
    sentence, routed = sentence_metric is not None, any(model.config.layers_with_experts)

    def loss_fn(params: PyTree, batch: PretrainingBatch, dropout_key: Array | None) -> Metrics:
        outputs, sown = _apply(model, params, batch, dropout_key, output_sop_logits=sentence)
        logits = outputs.prediction_logits
        metrics = token_and_sentence_metrics(
            *(logits, outputs.sop_logits, batch, sentence_metric), z_loss_weight=z_loss_weight
        )
        if distillation is not None:
            metrics |= distillation_metrics(logits, batch, distillation)
        if routed:
            metrics |= routing_metrics(model.config, sown, batch)
        return metrics

    def sampled_loss_fn(params: PyTree, batch: PretrainingBatch, key: Any) -> Metrics:
        outputs = apply_to_batch(model, params, batch, output_sop_logits=sentence)
        batch = sample_labels(key, outputs, batch)
        metrics = token_and_sentence_metrics(
            outputs.prediction_logits, outputs.sop_logits, batch, sentence_metric
        )
        for name, used in ((Z_LOSS, z_loss_weight), (BALANCE, routed)):  # losses without labels
            if used:
                metrics[name] = Ratio(jnp.zeros(()), jnp.ones(()))
        return metrics

    def weight_fn(batch: PretrainingBatch) -> dict[str, Float[Array, ""]]:
        weights = token_and_sentence_weights(batch, sentence_metric, z_loss_weight=z_loss_weight)
        if distillation is not None:
            weights[DISTILLATION_LOSS] = weights["masked_lm_loss"]
        if routed:
            weights[BALANCE] = padding_weights(batch).sum()
        return weights

    def predict(params: PyTree, batch: PretrainingBatch) -> dict[str, Array]:
        outputs = apply_to_batch(model, params, batch, output_sop_logits=sentence)
        predictions = {"prediction_logits": outputs.prediction_logits}
        if outputs.sop_logits is not None:
            predictions["sop_logits"] = outputs.sop_logits
        return predictions

    return Objective(loss_fn, weight_fn, predict, sampled_loss_fn if samples_labels else None)


def sample_labels(
    key: Array, outputs: AlbertForPreTrainingOutput, batch: PretrainingBatch
) -> PretrainingBatch:
    """Return the batch with labels sampled from the model's predictions."""
    tokens, order = jax.random.split(key)
    logits = jax.lax.stop_gradient(outputs.prediction_logits)
    batch = batch._replace(masked_lm_ids=jax.random.categorical(tokens, logits))
    if outputs.sop_logits is None:
        return batch
    logits = jax.lax.stop_gradient(outputs.sop_logits)
    return batch._replace(sentence_order_labels=jax.random.categorical(order, logits))


def apply_to_batch(
    model: AlbertForPreTraining,
    params: PyTree,
    batch: PretrainingBatch,
    dropout_key: Array | None = None,
    **options: Any,
) -> AlbertForPreTrainingOutput:
    """Apply the model to a batch, with dropout if a key is given.

    Args:
        model: the model.
        params: its parameters.
        batch: the batch.
        dropout_key: None for no dropout.
        options: `output_hidden_states`, `output_sop_logits`.
    """
    return _apply(model, params, batch, dropout_key, **options)[0]


def _apply(
    model: AlbertForPreTraining,
    params: PyTree,
    batch: PretrainingBatch,
    dropout_key: Array | None,
    **options: Any,
) -> tuple[AlbertForPreTrainingOutput, Mapping[str, Any]]:
    """Return the outputs, and what a model with experts sows."""
    routed = any(model.config.layers_with_experts)
    applied: Any = model.apply(
        {"params": params},
        **batch.row_inputs(),
        masked_lm_positions=batch.masked_lm_positions,
        **dropout_options(dropout_key),
        mutable=["intermediates"] if routed else False,
        **options,
    )
    outputs, sown = applied if routed else (applied, {})
    return outputs, sown


def token_and_sentence_metrics(
    prediction_logits: Float[Array, "batch predictions vocabulary"],
    sop_logits: Float[Array, "batch pairs 2"] | None,
    batch: PretrainingBatch,
    sentence_metric: str | None,
    *,
    z_loss_weight: float = 0.0,
) -> Metrics:
    """Compute the metrics of all pre-training objectives: masked LM, z-loss and sentence loss.

    Args:
        prediction_logits: logits at the prediction slots.
        sop_logits: logits of the pairs; None without a sentence objective.
        batch: the batch.
        sentence_metric: see `pretraining_objective`.
        z_loss_weight: see `pretraining_objective`.
    """
    metrics = masked_lm_metrics(prediction_logits, batch)
    if z_loss_weight:
        metrics[Z_LOSS] = z_loss(prediction_logits, batch.masked_lm_weights, z_loss_weight)
    if sentence_metric is not None and sop_logits is not None:
        metrics |= sentence_metrics(sentence_metric, sop_logits, batch)
    return metrics


def token_and_sentence_weights(
    batch: PretrainingBatch, sentence_metric: str | None, *, z_loss_weight: float = 0.0
) -> dict[str, Float[Array, ""]]:
    """Return the denominators of the losses that `token_and_sentence_metrics` computes."""
    weights = {"masked_lm_loss": batch.masked_lm_weights.sum()}
    if z_loss_weight:
        weights[Z_LOSS] = weights["masked_lm_loss"]
    if sentence_metric is not None:
        weights[f"{sentence_metric}_loss"] = batch.sentence_order_weights.sum()
    return weights


def masked_lm_metrics(
    prediction_logits: Float[Array, "batch predictions vocabulary"], batch: PretrainingBatch
) -> Metrics:
    """Compute masked-LM loss and accuracy over the slots in use (ALBERT §3.1)."""
    loss, accuracy = cross_entropy(prediction_logits, batch.masked_lm_ids, batch.masked_lm_weights)
    return {"masked_lm_loss": loss, "masked_lm_accuracy": accuracy}


def sentence_metrics(
    name: str, sop_logits: Float[Array, "batch pairs 2"], batch: PretrainingBatch
) -> Metrics:
    """Compute loss and accuracy of the sentence objective over the pairs in use (ALBERT §3.1)."""
    loss, accuracy = cross_entropy(
        sop_logits, batch.sentence_order_labels, batch.sentence_order_weights
    )
    return {f"{name}_loss": loss, f"{name}_accuracy": accuracy}


def masked_lm_by_layer(
    model: AlbertForPreTraining, halting_entropies: Sequence[float] = ()
) -> Callable[[PyTree, PretrainingBatch], Metrics]:
    """Return a step ``(params, batch) -> metrics`` that applies the masked-LM head to every layer.

    Metrics: `masked_lm_loss/{n}` and `masked_lm_accuracy/{n}` after n blocks, starting at 0, and
    those of `Halting` for each entropy.

    Args:
        model: the model.
        halting_entropies: thresholds in nats.
    """

    def step(params: PyTree, batch: PretrainingBatch) -> Metrics:
        outputs = apply_to_batch(
            model, params, batch, output_hidden_states=True, output_sop_logits=False
        )
        metrics: Metrics = {}
        halting = Halting(halting_entropies, batch.masked_lm_ids, batch.masked_lm_weights)
        states = outputs.hidden_states or ()
        for depth, hidden in enumerate(states):
            logits: Any = model.apply(
                {"params": params},
                gather_positions(hidden, batch.masked_lm_positions),
                method="predict_tokens",
            )
            of_layer = masked_lm_metrics(logits, batch)
            metrics |= {f"{name}/{depth}": ratio for name, ratio in of_layer.items()}
            if halting_entropies and depth:
                halting.add_layer(logits, is_last=depth == len(states) - 1)
        return metrics | halting.metrics()

    return step
