"""Embedding objectives over all rows of a batch, whatever devices they are on.

An example is contrasted with the other rows, so these losses are not sums over independent rows.
Each shard of a batch gathers the vectors of all shards and contributes the part of its own rows;
the parts add up to the loss of the whole batch. Those of micro-batches would not, so a run with
these objectives has no micro-batches.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int32, PyTree

from albert_jax.devices.mesh import ROW_AXES
from albert_jax.layers import AnyArray
from albert_jax.tasks.batches import EmbeddingBatch
from albert_jax.tasks.embedding import AlbertForEmbedding
from albert_jax.training.losses import Metrics, Ratio, cross_entropy
from albert_jax.training.objective import Objective, dropout_options

CONTRASTIVE_LOSS, RANKING_LOSS = "contrastive_loss", "ranking_loss"


def contrastive_objective(model: AlbertForEmbedding, *, temperature: float = 0.05) -> Objective:
    """Return InfoNCE with in-batch negatives, and hard ones in triplets (Gao et al. 2021, eq. 5).

    The candidates of an anchor are the positives and the hard negatives of all rows. Its own
    positive is the correct class. Candidates that are equally good answers are left out, see
    `false_negatives`.

    Metrics: `contrastive_loss`, and `accuracy`, the fraction of anchors whose positive is the
    nearest candidate. Predictions: `embeddings`.

    Args:
        model: a model whose vectors have length 1.
        temperature: divides the cosines.
    """

    def loss(params: PyTree, batch: EmbeddingBatch, key: Array | None) -> Metrics:
        embeddings = _embed(model, params, batch, key)
        vectors, text_ids, weights = gather_rows((embeddings, batch.text_ids, batch.weights))
        number, rows = shard_of_rows(), embeddings.shape[0]
        own = number * rows + jnp.arange(rows)
        # The positives of all rows precede the hard negatives, so a row's own has the row's number.
        candidates = vectors[:, 1:].swapaxes(0, 1).reshape(-1, vectors.shape[-1])
        logits = embeddings[:, 0] @ candidates.T / temperature
        filled_up = jnp.tile(weights == 0, text_ids.shape[1] - 1)
        left_out = false_negatives(batch.text_ids, text_ids) | filled_up
        left_out &= jnp.arange(len(candidates)) != own[:, None]
        logits = jnp.where(left_out, jnp.finfo(logits.dtype).min, logits)
        loss, accuracy = cross_entropy(logits, own, batch.weights)
        return {CONTRASTIVE_LOSS: loss, "accuracy": accuracy}

    return _objective(model, loss, CONTRASTIVE_LOSS)


def ranking_objective(model: AlbertForEmbedding, *, temperature: float = 0.05) -> Objective:
    """Return CoSENT: pairs with a higher score should have a higher cosine.

    It is ``ln(1 + sum of exp((cos_j - cos_i) / temperature))`` over all i and j of the batch where
    i has a higher score than j (Su 2022). Like the rank correlation that is its metric, it depends
    only on the order of scores, not on their scale.

    Metrics: `ranking_loss`. Predictions: `embeddings`.
    """

    def loss(params: PyTree, batch: EmbeddingBatch, key: Array | None) -> Metrics:
        embeddings = _embed(model, params, batch, key)
        cosines = (embeddings[:, 0] * embeddings[:, 1]).sum(axis=-1)
        mine = batch.weights.sum().astype(cosines.dtype)
        cosines, scores, weights = gather_rows((cosines, batch.scores, batch.weights))
        real = weights > 0
        ordered = (scores[:, None] > scores) & real[:, None] & real
        gaps = jnp.where(
            ordered, (cosines - cosines[:, None]) / temperature, jnp.finfo(cosines.dtype).min
        )
        total = jax.nn.logsumexp(jnp.append(gaps.ravel(), 0))
        return {RANKING_LOSS: Ratio(mine * total, mine)}

    return _objective(model, loss, RANKING_LOSS)


def _objective(model: AlbertForEmbedding, loss: Any, name: str) -> Objective:
    def predict(params: PyTree, batch: EmbeddingBatch) -> dict[str, Array]:
        return {"embeddings": _embed(model, params, batch, None)}

    return Objective(loss, lambda batch: {name: batch.weights.sum()}, predict)


def _embed(
    model: AlbertForEmbedding, params: PyTree, batch: EmbeddingBatch, key: Array | None
) -> Float[Array, "rows texts hidden"]:
    outputs: Any = model.apply(
        {"params": params},
        batch.input_ids,
        batch.attention_mask,
        batch.token_type_ids,
        **dropout_options(key),
    )
    return outputs.embeddings


def false_negatives(
    here: Int32[AnyArray, "rows texts"], everywhere: Int32[AnyArray, "all_rows texts"]
) -> Bool[Array, "rows candidates"]:
    """Return which candidates are not negatives of an anchor, including its own positive.

    They are texts equal to the anchor or to its positive, and positives of an equal anchor.

    Example: for rows with the texts ``1 2``, ``3 2`` and ``1 4``, the second positive is not a
    negative of the first anchor, since it equals the anchor's own positive. Neither is the third,
    since it belongs to an equal anchor.

    Args:
        here: numbers of the texts of some rows, equal for equal texts: anchor, positive, and
            perhaps a hard negative.
        everywhere: numbers of the texts of all rows.
    """
    candidates = everywhere[:, 1:].T.reshape(-1)
    anchors, positives = here[:, :1], here[:, 1:2]
    equal = (candidates == anchors) | (candidates == positives)
    of_equal_anchor = (
        jnp.zeros_like(equal).at[:, : len(everywhere)].set(everywhere[:, 0] == anchors)
    )
    return equal | of_equal_anchor


def gather_rows(tree: PyTree) -> PyTree:
    """Return arrays with the rows of all shards, in the order of the batch.

    It gathers inside a function that is mapped over the row axes, such as that of gradients;
    elsewhere an array has all rows already.
    """
    if axes := _mapped_row_axes():
        return jax.tree.map(lambda x: jax.lax.all_gather(x, axes, tiled=True), tree)
    return tree


def shard_of_rows() -> Int32[Array, ""]:
    """Return the number of this shard of the rows."""
    axes = _mapped_row_axes()
    return jax.lax.axis_index(axes) if axes else jnp.zeros((), jnp.int32)


def _mapped_row_axes() -> tuple[str, ...]:
    mapped = jax.sharding.get_abstract_mesh().manual_axes
    return tuple(axis for axis in ROW_AXES if axis in mapped)
