"""Attention for CPUs: a few heads of a row at a time, so that scores stay in a core's cache.

The reference writes the scores of all rows and heads to memory, reads them for the softmax, and
keeps the probabilities for the backward pass. Here a loop runs over blocks of heads of one row, and
an inner loop over tiles of queries if rows are long or attention is local. The backward pass
recomputes a tile's probabilities from its queries and keys, as FlashAttention does (Dao et al.
2022). Of the softmax, only a maximum and a sum for each query are kept. A tile of local attention
reads only the keys that its queries reach.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from albert_jax.attention.implementation import (
    AttentionFn,
    AttentionImplementation,
    AttentionWorkload,
)
from albert_jax.attention.mask import AttentionMask
from albert_jax.attention.reference import dot_product_attention
from albert_jax.attention.tiling import Tiling, tile
from albert_jax.layers import HeadVectors, at_least_float32

SHORTEST_BLOCKED = 256  # shorter rows gain nothing: the scores of all their heads fit in a cache


class _Block(NamedTuple):
    """Some heads of one row, with queries in tiles. The blocks of a batch are stacked."""

    query: Float[Array, "tiles heads queries width"]
    key: Float[Array, "heads positions width"]
    value: Float[Array, "heads positions width"]
    query_ids: Int[Array, "tiles queries"]
    key_ids: Int[Array, " positions"]


class _Tile(NamedTuple):
    """Some queries of a block, and the keys that they may attend to."""

    query: Float[Array, "heads queries width"]
    key: Float[Array, "heads keys width"]
    value: Float[Array, "heads keys width"]
    visible: Bool[Array, "queries keys"]


class _Softmax(NamedTuple):
    """Normalization of a tile's softmax, from which its probabilities are recomputed."""

    maximum: Float[Array, "heads queries 1"]  # of a query's scores
    total: Float[Array, "heads queries 1"]  # sum of exp(score - maximum)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def blocked_attention(
    query: HeadVectors,
    key: HeadVectors,
    value: HeadVectors,
    query_ids: Int[Array, "batch length"],
    key_ids: Int[Array, "batch length"],
    reach: int | None = None,
) -> HeadVectors:
    """Compute `dot_product_attention` where a query attends to the keys that have its id.

    It has a custom gradient, in reverse mode and of first order only.

    Example: ids ``[1, 1, 2, 0]`` on both sides pack two sequences, the second of one token; query
    ids of ones let every query attend to the keys whose id is 1.

    Args:
        query: vectors of each position and head.
        key: likewise.
        value: likewise.
        query_ids: id of the keys that a query attends to. If no key has it, the result is finite
            but meaningless; without a reach it weights all keys equally.
        key_ids: id of a key, at least 0.
        reach: farthest position on either side that a query attends to; None: any.
    """
    return _forward(query, key, value, query_ids, key_ids, reach)[0]


_Residuals = tuple[_Block, _Softmax, Array]  # blocks, softmax, and context


def _forward(
    query: Array,
    key: Array,
    value: Array,
    query_ids: Array,
    key_ids: Array,
    reach: int | None,
) -> tuple[Array, _Residuals]:
    batch, length, heads, _ = query.shape
    tiling = tile(heads, length, reach)
    blocks = _Block(
        tiling.split_queries(query),
        tiling.split_keys(key),
        tiling.split_keys(value),
        *tiling.split_ids(query_ids, key_ids, heads),
    )

    def attend(block: _Block) -> tuple[Array, _Softmax]:
        def attend_tile(number: Array | int) -> tuple[Array, _Softmax]:
            taken = _take_tile(block, number, tiling)
            scores = _scores(taken)
            maximum = scores.max(axis=-1, keepdims=True)
            exponentials = jnp.exp(scores - maximum)
            total = exponentials.sum(axis=-1, keepdims=True)
            weights = exponentials.astype(taken.value.dtype)
            summed = jnp.matmul(weights, taken.value, preferred_element_type=total.dtype)
            return (summed / total).astype(taken.value.dtype), _Softmax(maximum, total)

        return _map_tiles(attend_tile, tiling.tiles)

    context, softmax = jax.lax.map(attend, blocks)
    return tiling.join_queries(context, batch), (blocks, softmax, context)


def _backward(
    reach: int | None, residuals: _Residuals, cotangent: Array
) -> tuple[Array, Array, Array, None, None]:
    blocks, softmax, context = residuals
    batch, length, heads, _ = cotangent.shape
    tiling = tile(heads, length, reach)
    cotangents = tiling.split_queries(cotangent)
    dtype = at_least_float32(cotangent.dtype)
    # Through the softmax, the cotangent of a score is p * (dp - mean), with its probability p and
    # the cotangent dp of p. The mean of dp under p is the dot product of context and cotangent.
    means = jnp.einsum("nthqd,nthqd->nthq", context, cotangents, preferred_element_type=dtype)

    def pullback(args: tuple[_Block, _Softmax, Array, Array]) -> tuple[Array, Array, Array]:
        block, *of_tiles = args

        def pullback_tile(number: Array | int) -> tuple[Array, Array, Array]:
            taken = _take_tile(block, number, tiling)
            softmax, cotangent, mean = jax.tree.map(lambda each: each[number], tuple(of_tiles))
            probabilities = jnp.exp(_scores(taken) - softmax.maximum) / softmax.total
            of_probabilities = jnp.matmul(
                cotangent, _transpose(taken.value), preferred_element_type=dtype
            )
            of_scores = jnp.where(taken.visible, probabilities * (of_probabilities - mean), 0)
            of_scores = (of_scores * _scale(taken.query)).astype(cotangent.dtype)
            # Transpose after the matmul: transposing the scores takes a CPU half as long again.
            of_key = _transpose(_transpose(taken.query) @ of_scores)
            of_value = _transpose(_transpose(cotangent) @ probabilities.astype(cotangent.dtype))
            return of_scores @ taken.key, of_key, of_value

        if tiling.tiles == 1:
            of_query, of_key, of_value = pullback_tile(0)
            return of_query[None], of_key, of_value
        return _sum_over_tiles(pullback_tile, block, tiling, dtype)

    query, key, value = jax.lax.map(pullback, (blocks, softmax, cotangents, means[..., None]))
    of_key, of_value = (tiling.join_keys(each, batch) for each in (key, value))
    return tiling.join_queries(query, batch), of_key, of_value, None, None


blocked_attention.defvjp(_forward, _backward)


def _sum_over_tiles(
    pullback_tile: Callable[[Array], tuple[Array, Array, Array]],
    block: _Block,
    tiling: Tiling,
    dtype: jnp.dtype,
) -> tuple[Array, Array, Array]:
    """Return the cotangents of queries in all tiles, and of keys and values, summed over tiles."""

    def add(sums: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], Array]:
        of_query, *parts = pullback_tile(number)
        added = []
        for total, part in zip(sums, parts, strict=True):
            start = (0, tiling.start(number), 0)
            before = jax.lax.dynamic_slice(total, start, part.shape)
            added.append(jax.lax.dynamic_update_slice(total, before + part, start))
        return (added[0], added[1]), of_query

    zeros = jnp.zeros(block.key.shape, dtype)
    sums, of_query = jax.lax.scan(add, (zeros, zeros), jnp.arange(tiling.tiles))
    of_key, of_value = (each.astype(block.key.dtype) for each in sums)
    return of_query, of_key, of_value


def _map_tiles(function: Callable[[Array | int], Any], tiles: int) -> Any:
    if tiles == 1:
        return jax.tree.map(lambda leaf: leaf[None], function(0))
    return jax.lax.map(function, jnp.arange(tiles))


def _take_tile(block: _Block, number: Array | int, tiling: Tiling) -> _Tile:
    keys, values, ids = block.key, block.value, block.key_ids
    if tiling.margin is not None:
        take = functools.partial(
            jax.lax.dynamic_slice_in_dim,
            start_index=tiling.start(number),
            slice_size=tiling.keys,
        )
        keys, values, ids = take(keys, axis=1), take(values, axis=1), take(ids)
    visible = block.query_ids[number][:, None] == ids[None, :]
    near = tiling.near(number)
    if near is not None:
        visible &= near
    return _Tile(block.query[number], keys, values, visible)


def _scores(tile: _Tile) -> Float[Array, "heads queries keys"]:
    dtype = at_least_float32(tile.query.dtype)
    scores = jnp.matmul(tile.query, _transpose(tile.key), preferred_element_type=dtype)
    scores *= jnp.asarray(_scale(tile.query), dtype)
    return jnp.where(tile.visible, scores, jnp.finfo(dtype).min)


def _scale(query: Array) -> float:
    return 1 / math.sqrt(query.shape[-1])


def _transpose(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def bind(mask: AttentionMask) -> AttentionFn:
    """Return `blocked_attention` under a mask.

    Short rows use the reference, unless a window lets a tile read at most half of a row's keys.
    """

    def attend(query: Array, key: Array, value: Array) -> Array:
        batch, length, heads, _ = query.shape
        is_short = length < SHORTEST_BLOCKED
        if is_short and 2 * tile(heads, length, mask.reach).keys > length:
            return dot_product_attention(query, key, value, mask.dense(length))
        ids = mask.segment_ids(batch, length)
        query_ids = jnp.ones_like(ids) if mask.sequence_ids is None else ids
        return blocked_attention(query, key, value, query_ids, ids, mask.reach)

    return attend


def unsupported_reason(workload: AttentionWorkload) -> str | None:
    """Return why a workload is unsupported, or None if it is supported."""
    return "it cannot be split over devices: run.tensor must be 1" if workload.partitioned else None


BLOCKED = AttentionImplementation(
    bind, unsupported_reason, platform="cpu", supports_reach=True, verified=False
)
