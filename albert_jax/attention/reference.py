"""Reference attention: dot products of all queries and keys. On any device, for any model."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from albert_jax.attention.implementation import AttentionFn, AttentionImplementation
from albert_jax.attention.mask import AttentionMask
from albert_jax.layers import HeadVectors, at_least_float32
from albert_jax.positions import PositionBias


def dot_product_attention(
    query: HeadVectors,
    key: HeadVectors,
    value: HeadVectors,
    mask: Bool[Array, "#batch 1 #length length"] | None = None,
    *,
    bias: PositionBias | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> HeadVectors:
    """Compute ``softmax(query key^T / sqrt(width)) value``.

    Scores and softmax are at least float32.

    Args:
        query: vectors of each position and head.
        key: likewise.
        value: likewise.
        mask: True where a query attends to a key; None if all attend to all.
        bias: added by the position encoding.
        dropout_rate: fraction of the probabilities set to zero.
        dropout_key: random key of the dropout; None for no dropout.
    """
    dtype = at_least_float32(query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=dtype)
    if bias is not None:
        scores += bias.scores(query)
    scores /= jnp.sqrt(query.shape[-1]).astype(dtype)
    probabilities = masked_softmax(
        scores, mask, query.dtype, dropout_rate=dropout_rate, dropout_key=dropout_key
    )
    context = jnp.einsum("bhqk,bkhd->bqhd", probabilities, value)
    if bias is not None:
        context += bias.context(probabilities)
    return context


def masked_softmax(
    scores: Float[Array, "batch heads queries keys"],
    mask: Bool[Array, "#batch 1 #queries keys"] | None,
    dtype: DTypeLike,
    *,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "batch heads queries keys"]:
    """Return the probabilities of keys in `dtype`, with dropout; see `dot_product_attention`.

    A masked score is the lowest finite number, so a query that attends to nothing weights all keys
    equally instead of becoming NaN.
    """
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    probabilities = jax.nn.softmax(scores).astype(dtype)
    if dropout_key is not None and dropout_rate > 0:
        kept = jax.random.bernoulli(dropout_key, 1 - dropout_rate, probabilities.shape)
        probabilities = jnp.where(kept, probabilities / (1 - dropout_rate), 0)
    return probabilities


def bind(mask: AttentionMask) -> AttentionFn:
    """Return `dot_product_attention` under a mask."""
    if mask.reach is None:
        return functools.partial(dot_product_attention, mask=mask.dense())

    def attend(query: Array, key: Array, value: Array, **options: Any) -> Array:
        visible = mask.dense(query.shape[1])
        return dot_product_attention(query, key, value, visible, **options)

    return attend


REFERENCE = AttentionImplementation(
    bind,
    unsupported_reason=lambda workload: None,
    supports_bias=True,
    supports_dropout=True,
    supports_reach=True,
    verified=False,
)
