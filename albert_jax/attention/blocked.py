"""Attention for CPUs: a few heads of a row at a time, whose scores stay in a core's cache.

The reference writes the scores of all rows and heads to memory, reads them for the softmax, and
keeps the probabilities for the backward pass. Here a loop runs over blocks of heads that belong to
one row, and the backward pass computes a block's probabilities again from its queries and keys, as
FlashAttention does (Dao et al. 2022). What is kept are a maximum and a sum for each query.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from albert_jax.layers import at_least_float32

SHORTEST_BLOCKED = 256  # shorter rows gain nothing: the scores of all their heads fit in a cache
_SCORES_AT_ONCE = 2**18  # a MiB in float32


class _Block(NamedTuple):
    """Some heads of one row; stacked, the blocks of a batch."""

    query: Float[Array, "heads length width"]
    key: Float[Array, "heads length width"]
    value: Float[Array, "heads length width"]
    query_ids: Int[Array, " length"]
    key_ids: Int[Array, " length"]


class _Softmax(NamedTuple):
    """What the probabilities of a block are computed from again."""

    largest: Float[Array, "heads length 1"]  # score of a query
    total: Float[Array, "heads length 1"]  # of the exponentials of its scores less the largest


def heads_at_once(heads: int, length: int) -> int:
    """How many heads a block has: a divisor of their number.

    Example: 12 heads are taken one by one in rows of 512, by fours in rows of 256.
    """
    most = max(1, _SCORES_AT_ONCE // length**2)
    return max(size for size in range(1, heads + 1) if heads % size == 0 and size <= most)


@jax.custom_vjp
def blocked_attention(
    query: Float[Array, "batch length heads width"],
    key: Float[Array, "batch length heads width"],
    value: Float[Array, "batch length heads width"],
    query_ids: Int[Array, "batch length"],
    key_ids: Int[Array, "batch length"],
) -> Float[Array, "batch length heads width"]:
    """What `dot_product_attention` gives where a query sees the keys that have its id.

    Its gradient is its own and can be taken once, backward.

    Example: ids ``[1, 1, 2, 0]`` on both sides pack two sequences, the second of one piece; query
    ids of ones let every query see the keys whose id is 1.

    Args:
        query: of each position and head.
        key: likewise.
        value: likewise.
        query_ids: whose keys a query may see. One that finds none weighs all keys alike.
        key_ids: whose a key is.
    """
    return _forward(query, key, value, query_ids, key_ids)[0]


_Kept = tuple[_Block, _Softmax, Array]  # blocks, and their result


def _forward(
    query: Array, key: Array, value: Array, query_ids: Array, key_ids: Array
) -> tuple[Array, _Kept]:
    batch, length, heads, _ = query.shape
    size = heads_at_once(heads, length)
    ids = (jnp.repeat(each, heads // size, axis=0) for each in (query_ids, key_ids))
    blocks = _Block(*(_split(each, size) for each in (query, key, value)), *ids)

    def attend(block: _Block) -> tuple[Array, _Softmax]:
        scores = _scores(block)
        largest = scores.max(axis=-1, keepdims=True)
        exponentials = jnp.exp(scores - largest)
        total = exponentials.sum(axis=-1, keepdims=True)
        weights = exponentials.astype(block.value.dtype)
        summed = jnp.matmul(weights, block.value, preferred_element_type=total.dtype)
        return (summed / total).astype(block.value.dtype), _Softmax(largest, total)

    context, softmax = jax.lax.map(attend, blocks)
    return _join(context, batch), (blocks, softmax, context)


def _backward(kept: _Kept, slope: Array) -> tuple[Array, Array, Array, None, None]:
    blocks, softmax, context = kept
    batch = slope.shape[0]
    slopes = _split(slope, context.shape[1])
    dtype = at_least_float32(slope.dtype)
    # Of the softmax: the slope of a score is its probability times by how much the slope of that
    # probability exceeds the mean, which is the product of context and slope.
    means = jnp.einsum("nhqd,nhqd->nhq", context, slopes, preferred_element_type=dtype)[..., None]

    def pull(block_and_more: tuple[_Block, _Softmax, Array, Array]) -> tuple[Array, Array, Array]:
        block, softmax, slope, mean = block_and_more
        probabilities = jnp.exp(_scores(block) - softmax.largest) / softmax.total
        of_probabilities = jnp.matmul(slope, _turn(block.value), preferred_element_type=dtype)
        of_scores = jnp.where(_seen(block), probabilities * (of_probabilities - mean), 0)
        of_scores = (of_scores * _scale(block.query)).astype(slope.dtype)
        # Products turned afterwards: with a turned square, a CPU takes half as long again.
        of_key = _turn(_turn(block.query) @ of_scores)
        of_value = _turn(_turn(slope) @ probabilities.astype(slope.dtype))
        return of_scores @ block.key, of_key, of_value

    query, key, value = jax.lax.map(pull, (blocks, softmax, slopes, means))
    return _join(query, batch), _join(key, batch), _join(value, batch), None, None


blocked_attention.defvjp(_forward, _backward)


def _scores(block: _Block) -> Float[Array, "heads length length"]:
    dtype = at_least_float32(block.query.dtype)
    scores = jnp.matmul(block.query, _turn(block.key), preferred_element_type=dtype)
    scores *= jnp.asarray(_scale(block.query), dtype)
    return jnp.where(_seen(block), scores, jnp.finfo(dtype).min)


def _scale(query: Array) -> float:
    return 1 / math.sqrt(query.shape[-1])


def _seen(block: _Block) -> Array:
    return block.query_ids[:, None] == block.key_ids[None, :]


def _turn(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _split(
    x: Float[Array, "batch length heads width"], size: int
) -> Float[Array, "blocks size length width"]:
    batch, length, heads, width = x.shape
    return x.swapaxes(1, 2).reshape(batch * heads // size, size, length, width)


def _join(
    x: Float[Array, "blocks size length width"], batch: int
) -> Float[Array, "batch length heads width"]:
    length, width = x.shape[2:]
    return x.reshape(batch, -1, length, width).swapaxes(1, 2)
