"""The objective of replaced-token detection: masked LM, detection, and sentence order."""

import functools
from typing import Any

import jax
import optax
from jax import Array
from jaxtyping import Bool, Float, Float32, PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.tasks.pretraining import token_and_sentence_metrics, token_and_sentence_weights
from albert_jax.tasks.replaced_tokens.model import AlbertForReplacedTokens, DetectionOutput
from albert_jax.tasks.replaced_tokens.samples import (
    replace_tokens,
    row_keys,
    sample_tokens,
    token_weights,
)
from albert_jax.training.losses import Metrics, Ratio
from albert_jax.training.objective import Objective, dropout_options

DETECTION_LOSS = "detection_loss"


def replaced_tokens_objective(
    model: AlbertForReplacedTokens,
    sentence_metric: str | None = "sentence_order",
    *,
    detection_weight: float,
    seed: int,
    z_loss_weight: float = 0.0,
) -> Objective:
    """Build the sum of the generator's masked-LM loss, weighted detection loss and sentence loss.

    The generator reads the masked row. The discriminator reads it with the generator's samples at
    the positions to predict, and predicts for each token of the text whether it was replaced. The
    sentence loss is the discriminator's, on its row, since its encoder and pooler are what is
    fine-tuned. No gradient passes through the samples. All losses are means over the global batch.

    Metrics in addition to those of `pretraining_objective`, whose masked LM is the generator's:
    `detection_loss`, times its weight; `detection_accuracy` over all tokens of the text;
    `detection_recall`, the fraction of replaced tokens that are found; `detection_precision`, the
    fraction of replaced tokens among those found; `replaced_fraction` of the tokens of the text,
    which is the precision of guessing. Predictions: `prediction_logits`, `detection_logits` and
    `sop_logits`.

    Args:
        model: generator and discriminator.
        sentence_metric: see `pretraining_objective`.
        detection_weight: weight of the detection loss (ELECTRA uses 50).
        seed: seed of the samples, see `row_keys`.
        z_loss_weight: see `pretraining_objective`.
    """
    sentence = sentence_metric is not None

    def apply(
        params: PyTree, batch: PretrainingBatch, dropout_key: Array | None
    ) -> tuple[Array, Bool[Array, "batch length"], DetectionOutput]:
        keys = (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))
        run, inputs = functools.partial(model.apply, {"params": params}), batch.row_inputs()
        generated: Any = run(
            **inputs,
            masked_lm_positions=batch.masked_lm_positions,
            method="generate",
            **dropout_options(keys[0]),
        )
        rows = replace_tokens(batch, sample_tokens(row_keys(seed, batch), generated[0]))
        outputs: Any = run(
            **inputs | {"input_ids": rows.input_ids},
            output_sop_logits=sentence,
            method="discriminate",
            **dropout_options(keys[1]),
        )
        return generated[0], rows.is_replaced, outputs

    def loss_fn(params: PyTree, batch: PretrainingBatch, dropout_key: Array | None) -> Metrics:
        logits, is_replaced, outputs = apply(params, batch, dropout_key)
        metrics = token_and_sentence_metrics(
            *(logits, outputs.sop_logits, batch, sentence_metric), z_loss_weight=z_loss_weight
        )
        return metrics | detection_metrics(
            outputs.detection_logits, is_replaced, token_weights(batch), factor=detection_weight
        )

    def weight_fn(batch: PretrainingBatch) -> dict[str, Float[Array, ""]]:
        weights = token_and_sentence_weights(batch, sentence_metric, z_loss_weight=z_loss_weight)
        return weights | {DETECTION_LOSS: token_weights(batch).sum()}

    def predict(params: PyTree, batch: PretrainingBatch) -> dict[str, Array]:
        logits, _, outputs = apply(params, batch, None)
        predictions = {"prediction_logits": logits, "detection_logits": outputs.detection_logits}
        if outputs.sop_logits is not None:
            predictions["sop_logits"] = outputs.sop_logits
        return predictions

    return Objective(loss_fn, weight_fn, predict)


def detection_metrics(
    logits: Float[Array, "batch length"],
    is_replaced: Bool[Array, "batch length"],
    weights: Float32[Array, "batch length"],
    *,
    factor: float = 1.0,
) -> Metrics:
    """Return loss, in nats times a factor, and metrics of detection.

    Example: logits ``[2, -1, 1, -3]`` of which the first two were replaced, all of weight 1, have
    the accuracy 2 / 4, the recall 1 / 2 and the precision 1 / 2.
    """
    labels, weights = is_replaced.astype(logits.dtype), weights.astype(logits.dtype)
    found = (logits > 0).astype(logits.dtype)
    losses = optax.losses.sigmoid_binary_cross_entropy(logits, labels)
    correct = (found == labels).astype(logits.dtype)

    def total(values: Array) -> Array:
        return (weights * values).sum()

    tokens, replaced, hits = weights.sum(), total(labels), total(found * labels)
    return {
        DETECTION_LOSS: Ratio(factor * total(losses), tokens),
        "detection_accuracy": Ratio(total(correct), tokens),
        "detection_precision": Ratio(hits, total(found)),
        "detection_recall": Ratio(hits, replaced),
        "replaced_fraction": Ratio(replaced, tokens),
    }
