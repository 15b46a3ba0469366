"""Dot-product attention, and who may attend to whom: padding and packed rows."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from albert_jax.layers import AnyArray, wide


def padding_mask(attention_mask: Int[AnyArray, "batch length"]) -> Bool[Array, "batch 1 1 length"]:
    """Every position attends to the real ones (mask 1), padding positions too.

    Example: ``[1, 1, 0]`` gives each of the three queries ``[True, True, False]``.
    """
    return jnp.asarray(attention_mask, bool)[:, None, None, :]


def packed_mask(
    sequence_ids: Int[AnyArray, "batch length"],
) -> Bool[Array, "batch 1 length length"]:
    """Every position attends to its own pair. Padding (id 0) attends to padding: it stays finite.

    Example: ``[1, 1, 2, 0]`` lets the first two see each other, the others themselves.
    """
    ids = jnp.asarray(sequence_ids)
    return (ids[:, :, None] == ids[:, None, :])[:, None]


def dot_product_attention(
    query: Float[Array, "batch length heads width"],
    key: Float[Array, "batch length heads width"],
    value: Float[Array, "batch length heads width"],
    mask: Bool[Array, "batch 1 #length length"] | None,
    *,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "batch length heads width"]:
    """Softmax of query times key over the root of the width, times value.

    Scores and softmax are at least float32. A masked score is the lowest finite number, so a query
    that may see nothing weighs all keys alike instead of turning into NaN.

    Args:
        query: of each position and head.
        key: likewise.
        value: likewise.
        mask: True where a query may see a key; None where all may.
        dropout_rate: share of the probabilities set to zero.
        dropout_key: where their places are drawn from; None keeps all of them.
    """
    scores = jnp.einsum(
        "bqhd,bkhd->bhqk", query, key, preferred_element_type=wide(query.dtype)
    ) / jnp.sqrt(query.shape[-1]).astype(wide(query.dtype))
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    probabilities = jax.nn.softmax(scores).astype(query.dtype)
    if dropout_key is not None and dropout_rate > 0:
        kept = jax.random.bernoulli(dropout_key, 1 - dropout_rate, probabilities.shape)
        probabilities = jnp.where(kept, probabilities / (1 - dropout_rate), 0)
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value)
