"""Attention for CPUs: a few heads of a row at a time, whose scores stay in a core's cache.

The reference writes the scores of all rows and heads to memory, reads them for the softmax, and
keeps the probabilities for the backward pass. Here a loop runs over blocks of heads of one row, and
the backward pass computes a block's probabilities again from its queries and keys, as
FlashAttention does (Dao et al. 2022). What is kept is a maximum and a sum for each query.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from albert_jax.attention.implementation import (
    AttentionFn,
    AttentionImplementation,
    AttentionWorkload,
)
from albert_jax.attention.mask import AttentionMask
from albert_jax.attention.reference import dot_product_attention
from albert_jax.layers import HeadVectors, at_least_float32

SHORTEST_BLOCKED = 256  # shorter rows gain nothing: the scores of all their heads fit in a cache
_MAX_SCORES = 2**18  # of a block: a MiB in float32


class _Block(NamedTuple):
    """Some heads of one row; stacked, the blocks of a batch."""

    query: Float[Array, "heads length width"]
    key: Float[Array, "heads length width"]
    value: Float[Array, "heads length width"]
    query_ids: Int[Array, " length"]
    key_ids: Int[Array, " length"]


class _Softmax(NamedTuple):
    """Normalization of a block's softmax, from which its probabilities are computed again."""

    maximum: Float[Array, "heads length 1"]  # score of a query
    total: Float[Array, "heads length 1"]  # of the exponentials of its scores less the maximum


def heads_per_block(heads: int, length: int) -> int:
    """Return the number of heads in a block: a divisor of their number.

    Example: 12 heads are taken one by one in rows of 512, by fours in rows of 256.
    """
    most = max(1, _MAX_SCORES // length**2)
    return max(size for size in range(1, heads + 1) if heads % size == 0 and size <= most)


@jax.custom_vjp
def blocked_attention(
    query: HeadVectors,
    key: HeadVectors,
    value: HeadVectors,
    query_ids: Int[Array, "batch length"],
    key_ids: Int[Array, "batch length"],
) -> HeadVectors:
    """Compute `dot_product_attention` where a query attends to the keys that have its id.

    Its custom gradient can be taken once, in reverse mode.

    Example: ids ``[1, 1, 2, 0]`` on both sides pack two sequences, the second of one token; query
    ids of ones let every query attend to the keys whose id is 1.

    Args:
        query: of each position and head.
        key: likewise.
        value: likewise.
        query_ids: id of the keys that a query attends to. If there are none it weights all keys
            equally.
        key_ids: id of a key.
    """
    return _forward(query, key, value, query_ids, key_ids)[0]


_Residuals = tuple[_Block, _Softmax, Array]  # blocks, and their result


def _forward(
    query: Array, key: Array, value: Array, query_ids: Array, key_ids: Array
) -> tuple[Array, _Residuals]:
    batch, length, heads, _ = query.shape
    size = heads_per_block(heads, length)
    ids = (jnp.repeat(each, heads // size, axis=0) for each in (query_ids, key_ids))
    blocks = _Block(*(_split(each, size) for each in (query, key, value)), *ids)

    def attend(block: _Block) -> tuple[Array, _Softmax]:
        scores = _scores(block)
        maximum = scores.max(axis=-1, keepdims=True)
        exponentials = jnp.exp(scores - maximum)
        total = exponentials.sum(axis=-1, keepdims=True)
        weights = exponentials.astype(block.value.dtype)
        summed = jnp.matmul(weights, block.value, preferred_element_type=total.dtype)
        return (summed / total).astype(block.value.dtype), _Softmax(maximum, total)

    context, softmax = jax.lax.map(attend, blocks)
    return _join(context, batch), (blocks, softmax, context)


def _backward(residuals: _Residuals, cotangent: Array) -> tuple[Array, Array, Array, None, None]:
    blocks, softmax, context = residuals
    batch = cotangent.shape[0]
    cotangents = _split(cotangent, context.shape[1])
    dtype = at_least_float32(cotangent.dtype)
    # Of the softmax: the cotangent of a score is its probability times by how much the cotangent of
    # that probability exceeds the mean, which is the dot product of context and cotangent.
    means = jnp.einsum("nhqd,nhqd->nhq", context, cotangents, preferred_element_type=dtype)

    def pullback(args: tuple[_Block, _Softmax, Array, Array]) -> tuple[Array, Array, Array]:
        block, softmax, cotangent, mean = args
        probabilities = jnp.exp(_scores(block) - softmax.maximum) / softmax.total
        of_probabilities = jnp.matmul(
            cotangent, _transpose(block.value), preferred_element_type=dtype
        )
        of_scores = jnp.where(_visible(block), probabilities * (of_probabilities - mean), 0)
        of_scores = (of_scores * _scale(block.query)).astype(cotangent.dtype)
        # Transposed after the matmul: with a transposed square, a CPU takes half as long again.
        of_key = _transpose(_transpose(block.query) @ of_scores)
        of_value = _transpose(_transpose(cotangent) @ probabilities.astype(cotangent.dtype))
        return of_scores @ block.key, of_key, of_value

    query, key, value = jax.lax.map(pullback, (blocks, softmax, cotangents, means[..., None]))
    return _join(query, batch), _join(key, batch), _join(value, batch), None, None


blocked_attention.defvjp(_forward, _backward)


def _scores(block: _Block) -> Float[Array, "heads length length"]:
    dtype = at_least_float32(block.query.dtype)
    scores = jnp.matmul(block.query, _transpose(block.key), preferred_element_type=dtype)
    scores *= jnp.asarray(_scale(block.query), dtype)
    return jnp.where(_visible(block), scores, jnp.finfo(dtype).min)


def _scale(query: Array) -> float:
    return 1 / math.sqrt(query.shape[-1])


def _visible(block: _Block) -> Array:
    return block.query_ids[:, None] == block.key_ids[None, :]


def _transpose(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _split(x: HeadVectors, size: int) -> Float[Array, "blocks size length width"]:
    batch, length, heads, width = x.shape
    return x.swapaxes(1, 2).reshape(batch * heads // size, size, length, width)


def _join(x: Float[Array, "blocks size length width"], batch: int) -> HeadVectors:
    length, width = x.shape[2:]
    return x.reshape(batch, -1, length, width).swapaxes(1, 2)


def bind(mask: AttentionMask) -> AttentionFn:
    """Return `blocked_attention` under a mask, for short rows the reference."""

    def attend(query: Array, key: Array, value: Array) -> Array:
        batch, length = query.shape[:2]
        if length < SHORTEST_BLOCKED:
            return dot_product_attention(query, key, value, mask.dense())
        ids = mask.segment_ids(batch, length)
        query_ids = jnp.ones_like(ids) if mask.sequence_ids is None else ids
        return blocked_attention(query, key, value, query_ids, ids)

    return attend


def unsupported_reason(workload: AttentionWorkload) -> str | None:
    """Return why a workload is unsupported, or None if it is supported."""
    return "it cannot be split over devices: run.tensor must be 1" if workload.partitioned else None


BLOCKED = AttentionImplementation(bind, unsupported_reason, platform="cpu", verified=False)
