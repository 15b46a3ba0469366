"""Attention of a decoder's layer: to all of a target and its source, or to what a cache has."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from albert_jax.attention.reference import masked_softmax
from albert_jax.decoder.cache import DecoderCache
from albert_jax.decoder.layers import MemoryProjection, heads_first
from albert_jax.layers import HeadVectors, at_least_float32

# By half of a layer, the attention that it is called with; feed-forward ignores its.
AttentionOfHalves = dict[str, Callable[..., HeadVectors]]


def attend(
    query: Float[Array, "rows queries heads width"],
    key: Float[Array, "rows heads keys width"],
    value: Float[Array, "rows heads keys width"],
    mask: Bool[Array, "#rows 1 #queries keys"] | None,
    *,
    scale: Float[Array, ""],
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> HeadVectors:
    """Compute the softmax of query times key times `scale`, times value.

    Scores and softmax are at least float32.
    """
    dtype = at_least_float32(query.dtype)
    scores = jnp.einsum("bqhd,bhkd->bhqk", query, key, preferred_element_type=dtype) * scale
    probabilities = masked_softmax(
        scores, mask, query.dtype, dropout_rate=dropout_rate, dropout_key=dropout_key
    )
    return jnp.einsum("bhqk,bhkd->bqhd", probabilities, value)


def causal_mask(
    queries: int, keys: int, first: Int[Array, ""] | int = 0
) -> Bool[Array, "1 1 queries keys"]:
    """Return True where a query attends to a key: itself, or one before it.

    Example: two queries from position 1 on and four keys give ``[[1, 1, 0, 0], [1, 1, 1, 0]]``.
    """
    positions = first + jnp.arange(queries)
    return (jnp.arange(keys)[None, :] <= positions[:, None])[None, None]


def whole_target(
    length: int,
    memory: Float[Array, "batch source hidden"],
    source_mask: Bool[Array, "batch source"] | None,
    scale: Float[Array, ""],
) -> AttentionOfHalves:
    """Bind attention to targets of a length, all of which is there, and to the encoder's output."""
    causal, of_source = causal_mask(length, length), _for_all_queries(source_mask)

    def to_target(
        query: HeadVectors, key: HeadVectors, value: HeadVectors, **dropout: Any
    ) -> HeadVectors:
        return attend(query, heads_first(key), heads_first(value), causal, scale=scale, **dropout)

    def to_source(query: HeadVectors, project: MemoryProjection, **dropout: Any) -> HeadVectors:
        return attend(query, *project(memory), of_source, scale=scale, **dropout)

    return {"attention": to_target, "cross_attention": to_source, "feed_forward": to_target}


def read_on(
    length: int, cache: DecoderCache, layer: int, scale: Float[Array, ""]
) -> tuple[AttentionOfHalves, list[tuple[Array, Array]]]:
    """Bind attention to what a cache has of a layer, and to `length` tokens more.

    Returns:
        The attention, and a list to which it appends the layer's keys and values with those tokens.
    """
    stored, projected = cache.self_attention[layer], cache.cross_attention[layer]
    causal = causal_mask(length, stored[0].shape[2], cache.length)
    of_source = _for_all_queries(cache.source_mask)
    written: list[tuple[Array, Array]] = []

    def write(array: Array, new: HeadVectors) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, heads_first(new), cache.length, axis=2)

    def to_target(query: HeadVectors, key: HeadVectors, value: HeadVectors) -> HeadVectors:
        written.append((write(stored[0], key), write(stored[1], value)))
        return attend(query, *written[-1], causal, scale=scale)

    def to_source(query: HeadVectors, project: MemoryProjection) -> HeadVectors:
        del project  # the cache has what it would return
        of_each_source = query.reshape(projected[0].shape[0], -1, *query.shape[2:])
        return attend(of_each_source, *projected, of_source, scale=scale).reshape(query.shape)

    attention: AttentionOfHalves = {
        "attention": to_target,
        "cross_attention": to_source,
        "feed_forward": to_target,
    }
    return attention, written


def _for_all_queries(
    source_mask: Bool[Array, "batch source"] | None,
) -> Bool[Array, "batch 1 1 source"] | None:
    return None if source_mask is None else source_mask[:, None, None, :]
