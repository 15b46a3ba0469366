"""Pre-training's objectives: masked LM and sentence order (ALBERT §3.1)."""

from typing import Any

from jax import Array
from jaxtyping import Float

from albert_jax.batch import PretrainingBatch
from albert_jax.model import AlbertForPreTraining
from albert_jax.training.losses import LossFn, Metrics, cross_entropy


def masked_lm(
    prediction_logits: Float[Array, "batch predictions vocabulary"], batch: PretrainingBatch
) -> Metrics:
    """Masked-LM loss and accuracy over the slots in use (ALBERT §3.1)."""
    loss, accuracy = cross_entropy(prediction_logits, batch.masked_lm_ids, batch.masked_lm_weights)
    return {"masked_lm_loss": loss, "masked_lm_accuracy": accuracy}


def sentence_order(sop_logits: Float[Array, "batch pairs 2"], batch: PretrainingBatch) -> Metrics:
    """Sentence-order loss and accuracy over the pairs in use (ALBERT §3.1)."""
    loss, accuracy = cross_entropy(
        sop_logits, batch.sentence_order_labels, batch.sentence_order_weights
    )
    return {"sentence_order_loss": loss, "sentence_order_accuracy": accuracy}


def make_pretraining_loss(model: AlbertForPreTraining) -> LossFn:
    """The loss function of both pre-training objectives."""

    def pretraining_loss(
        params: Any, batch: PretrainingBatch, dropout_key: Array | None
    ) -> Metrics:
        outputs: Any = model.apply(
            {"params": params},
            batch.input_ids,
            token_type_ids=batch.token_type_ids,
            position_ids=batch.position_ids,
            sequence_ids=batch.sequence_ids,
            masked_lm_positions=batch.masked_lm_positions,
            sentence_order_positions=batch.sentence_order_positions,
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        return masked_lm(outputs.prediction_logits, batch) | sentence_order(
            outputs.sop_logits, batch
        )

    return pretraining_loss


def pretraining_weights(batch: PretrainingBatch) -> dict[str, Float[Array, ""]]:
    """The denominators of both objectives: predictions and pairs with a weight in the batch."""
    return {
        "masked_lm_loss": batch.masked_lm_weights.sum(),
        "sentence_order_loss": batch.sentence_order_weights.sum(),
    }
