"""Dot-product attention, who may attend to whom, and how far apart they are."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from albert_jax.layers import AnyArray, at_least_float32

_ROTARY_BASE = 10_000.0

# (query, key, value, *, dropout_rate, dropout_key) -> context, each [batch, length, heads, width]:
# attention that was told who may attend to whom.
AttentionFn = Callable[..., Array]


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


class RelativePositions(NamedTuple):
    """A key and a value for each distance from -k to k; farther ones count as k (Shaw et al. 2018).

    Example: with k = 1 the query at 5 finds row 0 of the table at keys 0 to 4, row 1 at 5, row 2
    at 6 and beyond.
    """

    keys: Float[Array, "distances width"]
    values: Float[Array, "distances width"]


def by_distance(
    table: Float[Array, "distances width"], length: int
) -> Float[Array, "length length width"]:
    """The table's row for each query and key of a row of this length."""
    limit = table.shape[0] // 2
    positions = jnp.arange(length)
    return table[jnp.clip(positions[None, :] - positions[:, None], -limit, limit) + limit]


def rotate(x: Float[Array, "batch length heads width"]) -> Float[Array, "batch length heads width"]:
    """Turns the vector at position t by t times an angle for each of its pairs (Su et al. 2021).

    Pair i is entries i and width / 2 + i; its angle is 10000^(-2 i / width). The product of a
    turned query and a turned key depends on their distance alone.

    Example: of width 2, ``[1, 0]`` at position 3 becomes ``[cos 3, sin 3]``.
    """
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * _ROTARY_BASE ** -(jnp.arange(half) / half)
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    first, second = jnp.split(x.astype(at_least_float32(x.dtype)), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def dot_product_attention(
    query: Float[Array, "batch length heads width"],
    key: Float[Array, "batch length heads width"],
    value: Float[Array, "batch length heads width"],
    mask: Bool[Array, "batch 1 #length length"] | None = None,
    *,
    relative: RelativePositions | None = None,
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
        relative: what the distance of a query and a key adds to the key and to its value. By query
            and key these take length² · width numbers each, whatever the batch.
        dropout_rate: share of the probabilities set to zero.
        dropout_key: where their places are drawn from; None keeps all of them.
    """
    dtype = at_least_float32(query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=dtype)
    if relative is not None:
        keys = by_distance(relative.keys, query.shape[1])
        scores += jnp.einsum("bqhd,qkd->bhqk", query, keys, preferred_element_type=dtype)
    scores /= jnp.sqrt(query.shape[-1]).astype(dtype)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    probabilities = jax.nn.softmax(scores).astype(query.dtype)
    if dropout_key is not None and dropout_rate > 0:
        kept = jax.random.bernoulli(dropout_key, 1 - dropout_rate, probabilities.shape)
        probabilities = jnp.where(kept, probabilities / (1 - dropout_rate), 0)
    context = jnp.einsum("bhqk,bkhd->bqhd", probabilities, value)
    if relative is not None:
        values = by_distance(relative.values, query.shape[1])
        context += jnp.einsum("bhqk,qkd->bqhd", probabilities, values)
    return context
