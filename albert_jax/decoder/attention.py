"""Attention of a decoder's layer: to a whole target and its source, or to what a cache holds."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from albert_jax.attention.reference import masked_softmax
from albert_jax.decoder.cache import DecoderCache
from albert_jax.decoder.layers import Keys, MemoryProjection, Values, as_keys, as_values
from albert_jax.layers import HeadVectors, at_least_float32

# For each half of a layer, the attention that it is called with; feed-forward ignores it.
AttentionOfHalves = dict[str, Callable[..., HeadVectors]]


def attend(
    query: HeadVectors,
    keys: Keys,
    values: Values,
    mask: Bool[Array, "#batch 1 #queries keys"] | None,
    *,
    scale: Float[Array, ""],
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> HeadVectors:
    """Compute ``softmax(query keys scale) values``.

    Scores and softmax are at least float32.
    """
    dtype = at_least_float32(query.dtype)
    scores = jnp.einsum("bqhd,bhdk->bhqk", query, keys, preferred_element_type=dtype) * scale
    probabilities = masked_softmax(
        scores, mask, query.dtype, dropout_rate=dropout_rate, dropout_key=dropout_key
    )
    # An einsum makes the product's transpose, which takes a CPU ten times as long for few queries.
    return jnp.matmul(probabilities, values).transpose(0, 2, 1, 3)


def whole_target(
    length: int,
    memory: Float[Array, "batch source hidden"],
    source_mask: Bool[Array, "batch source"] | None,
    scale: Float[Array, ""],
) -> AttentionOfHalves:
    """Bind attention to whole targets of a given length, and to the encoder's output."""
    causal = jnp.tri(length, dtype=bool)[None, None]
    of_source = _for_all_queries(source_mask)

    def to_target(
        query: HeadVectors, key: HeadVectors, value: HeadVectors, **dropout: Any
    ) -> HeadVectors:
        return attend(query, as_keys(key), as_values(value), causal, scale=scale, **dropout)

    def to_source(query: HeadVectors, project: MemoryProjection, **dropout: Any) -> HeadVectors:
        return attend(query, *project(memory), of_source, scale=scale, **dropout)

    return {"attention": to_target, "cross_attention": to_source, "feed_forward": to_target}


def read_on(
    length: int, cache: DecoderCache, layer: int, scale: Float[Array, ""]
) -> tuple[AttentionOfHalves, list[tuple[Array, Array]]]:
    """Bind attention to what a cache holds for a layer, and to `length` more tokens.

    Returns:
        The attention, and a list to which it appends the layer's keys and values, which include
        those of the new tokens.
    """
    own, of_source = cache.mask(length), _for_all_queries(cache.source_mask)
    written: list[tuple[Array, Array]] = []

    def attend_together(query: HeadVectors, *keys_values_mask: Any) -> HeadVectors:
        """Attend from all rows of a source at once."""
        of_each_source = query.reshape(len(cache.writers), -1, *query.shape[2:])
        return attend(of_each_source, *keys_values_mask, scale=scale).reshape(query.shape)

    def to_target(query: HeadVectors, key: HeadVectors, value: HeadVectors) -> HeadVectors:
        written.append(cache.write(layer, key, value))
        return attend_together(query, *written[-1], own)

    def to_source(query: HeadVectors, project: MemoryProjection) -> HeadVectors:
        del project  # the cache has what it would return
        return attend_together(query, *cache.cross_attention[layer], of_source)

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
