"""Distillation on masked positions: a teacher's distribution in addition to the true token.

A teacher says little about any but its most probable tokens, and a whole vocabulary at every slot
would be larger than anything else in a batch. So a batch has the most probable tokens, with their
probabilities in the whole vocabulary, and all other tokens together are one more outcome. Dropping
them, as is common, teaches a distribution that is sharper than the teacher's (Anshumann et al.
2025): the student would put no probability on what was cut off.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32

from albert_jax.batch import PretrainingBatch, TeacherPredictions
from albert_jax.tasks.distillation.config import DistillationConfig
from albert_jax.training.losses import Metrics, Ratio, cross_entropy

DISTILLATION_LOSS = "distillation_loss"


def distillation_loss(
    logits: Float[Array, "batch predictions vocabulary"],
    teacher: TeacherPredictions,
    weights: Float32[Array, "batch predictions"],
    *,
    temperature: float = 1.0,
    factor: float = 1.0,
) -> Ratio:
    """Return the divergence of the student's distribution from the teacher's, weighted.

    It is the Kullback-Leibler divergence in nats over the teacher's tokens and one outcome for all
    others, times the square of the temperature, so that its gradients do not shrink as the
    temperature grows (Hinton et al. 2015, §2). It is 0 if both have the same probabilities. If the
    teacher's tokens are the whole vocabulary, it is the divergence of the whole distributions.

    Args:
        logits: the student's logits.
        teacher: the teacher's tokens, at the same temperature.
        weights: weights of the slots.
        temperature: divides the logits.
        factor: multiplies the loss.

    Example: with three tokens, the teacher has only the first, with 0.5, and the student gives each
    a third. The outcomes are the first token and the rest, and the loss is
    ``0.5 ln(0.5 / (1/3)) + 0.5 ln(0.5 / (2/3))``.
    """
    scaled = logits / temperature
    total = jax.nn.logsumexp(scaled, axis=-1)
    log_probs = teacher.log_probs.astype(logits.dtype)
    probs = jnp.exp(log_probs)
    chosen = jnp.take_along_axis(scaled, teacher.token_ids, axis=-1) - total[..., None]
    divergence = (probs * (log_probs - chosen)).sum(-1)
    if teacher.token_ids.shape[-1] < logits.shape[-1]:
        # Not 1 minus the student's probabilities of these tokens, whose sum may round to 1.
        is_chosen = jnp.put_along_axis(
            jnp.zeros(logits.shape, bool), teacher.token_ids, True, axis=-1, inplace=False
        )
        others = jax.nn.logsumexp(jnp.where(is_chosen, -jnp.inf, scaled), axis=-1) - total
        rest = jnp.maximum(1 - probs.sum(-1), 0)  # rounding may make it negative
        divergence += jax.scipy.special.xlogy(rest, rest) - rest * others
    weights = weights.astype(logits.dtype)
    return Ratio(factor * temperature**2 * (weights * divergence).sum(), weights.sum())


def distillation_metrics(
    logits: Float[Array, "batch predictions vocabulary"],
    batch: PretrainingBatch,
    config: DistillationConfig,
) -> Metrics:
    """Compute the loss, the agreement of student and teacher, and the teacher's own accuracy.

    Metrics: `distillation_loss`, times its weight; `teacher_agreement`, how often the most probable
    tokens of both agree; `teacher_accuracy`, how often the teacher's is the true one.

    Args:
        logits: the student's logits.
        batch: a batch with the teacher's predictions.
        config: temperature and weight.

    Raises:
        ValueError: the batch has no predictions of a teacher.
    """
    teacher, weights = batch.teacher, batch.masked_lm_weights
    if teacher is None:
        raise ValueError("a batch without a teacher's predictions cannot be distilled from")
    first = teacher.token_ids[..., 0]
    is_right = (first == batch.masked_lm_ids).astype(logits.dtype)
    return {
        DISTILLATION_LOSS: distillation_loss(
            *(logits, teacher, weights), temperature=config.temperature, factor=config.weight
        ),
        "teacher_agreement": cross_entropy(logits, first, weights)[1],
        "teacher_accuracy": Ratio((weights * is_right).sum(), weights.sum().astype(logits.dtype)),
    }
