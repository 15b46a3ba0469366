"""The generation objective: a target's next token, given the source and the tokens before it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32, Int, PyTree

from albert_jax.generation.config import GenerationOptions
from albert_jax.generation.decoding import generate
from albert_jax.generation.encoder_decoder import AlbertForConditionalGeneration
from albert_jax.tasks.batches import Seq2SeqBatch
from albert_jax.training.losses import Metrics, Ratio, cross_entropy
from albert_jax.training.objective import Objective, Predict, dropout_options


def seq2seq_objective(
    model: AlbertForConditionalGeneration,
    *,
    label_smoothing: float = 0.0,
    options: GenerationOptions | None = None,
) -> Objective:
    """Return cross-entropy of a target's tokens, all tokens of a batch weighted equally.

    Metrics: `generation_loss`, smoothed; `cross_entropy`, the same without smoothing, in nats per
    token; `token_accuracy`. Predictions: those of `predict_texts`.

    Args:
        model: the model.
        label_smoothing: probability that is spread evenly over the vocabulary (Szegedy et al.
            2016, §7).
        options: options for the texts that are predicted; by default greedy search.
    """

    def loss(params: PyTree, batch: Seq2SeqBatch, key: Array | None) -> Metrics:
        logits, weights = _score(model, params, batch, key), batch.label_weights
        plain, accuracy = cross_entropy(logits, batch.labels, weights)
        smoothed = plain
        if label_smoothing:
            smoothed = smooth(plain, logits, batch.labels, weights, label_smoothing)
        return {"generation_loss": smoothed, "cross_entropy": plain, "token_accuracy": accuracy}

    return Objective(
        loss,
        lambda batch: {"generation_loss": batch.label_weights.sum()},
        predict_texts(model, options or GenerationOptions()),
    )


def smooth(
    plain: Ratio,
    logits: Float[Array, "batch target vocabulary"],
    labels: Int[Array, "batch target"],
    weights: Float32[Array, "batch target"],
    share: float,
) -> Ratio:
    """Return the cross-entropy with a share of each target spread over the vocabulary.

    Example: with two classes, logits ``[0, ln 3]`` and the second class correct, the plain loss is
    ``-ln 0.75``; with a share of 0.5 it is ``-0.75 ln 0.75 - 0.25 ln 0.25``.
    """
    right = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    added = share * (right - logits.mean(axis=-1))
    return Ratio(plain.sum + (weights.astype(logits.dtype) * added).sum(), plain.weight)


def predict_texts(model: AlbertForConditionalGeneration, options: GenerationOptions) -> Predict:
    """Return a function ``(params, batch)`` that writes texts and scores the batch's own targets.

    Its arrays are, for each row, `sequences` and `scores` of `generate`, the target's
    cross-entropy `nats` in total, and the number of its `tokens`.
    """

    def predict(params: PyTree, batch: Seq2SeqBatch) -> dict[str, Array]:
        logits = _score(model, params, batch, None)
        of_labels = jnp.take_along_axis(logits, batch.labels[..., None], axis=-1)[..., 0]
        nats = jax.nn.logsumexp(logits, axis=-1) - of_labels
        sources = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        texts = generate(model, params, sources, options)
        return {
            "sequences": jnp.asarray(texts.sequences),
            "scores": jnp.asarray(texts.scores),
            "nats": (nats * batch.label_weights).sum(axis=1),
            "tokens": batch.label_weights.sum(axis=1),
        }

    return predict


def _score(
    model: AlbertForConditionalGeneration, params: PyTree, batch: Seq2SeqBatch, key: Array | None
) -> Float[Array, "batch target vocabulary"]:
    outputs: Any = model.apply(
        {"params": params},
        batch.input_ids,
        batch.attention_mask,
        batch.token_type_ids,
        decoder_input_ids=batch.decoder_input_ids,
        **dropout_options(key),
    )
    return outputs.logits
