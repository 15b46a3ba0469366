"""Attention in one kernel, which never holds the scores of all queries and keys at once.

Each kernel is told who may attend to whom by `sequence_ids` as a packed row has them: 1, 2, ... for
its sequences one after another, 0 for the padding behind them. What comes out at a piece of padding
means nothing, and is finite.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)
from jaxtyping import Float, Int

SPLASH_LANES = 128  # row lengths that splash takes are multiples of it
_SPLASH_BLOCKS = (512, 384, 256, 128)


def splash_attention(
    query: Float[Array, "batch length heads width"],
    key: Float[Array, "batch length heads width"],
    value: Float[Array, "batch length heads width"],
    sequence_ids: Int[Array, "batch length"],
) -> Float[Array, "batch length heads width"]:
    """Pallas's splash attention for TPUs; on other devices it is interpreted, for tests.

    Raises:
        ValueError: the length is no multiple of 128.
    """
    length, heads, width = query.shape[1:]
    if length % SPLASH_LANES:
        raise ValueError(f"splash attention takes multiples of {SPLASH_LANES}, got {length}")
    kernel = _splash_kernel(heads, length, interpret=jax.default_backend() != "tpu")
    scaled = query / math.sqrt(width)

    def row(query: Array, key: Array, value: Array, ids: Array) -> Array:
        segments = splash_attention_kernel.SegmentIds(ids, ids)
        context = kernel(*(x.swapaxes(0, 1) for x in (query, key, value)), segment_ids=segments)
        return context.swapaxes(0, 1)

    return jax.vmap(row)(scaled, key, value, sequence_ids)


@functools.cache
def _splash_kernel(heads: int, length: int, *, interpret: bool) -> Any:
    block = next(size for size in _SPLASH_BLOCKS if length % size == 0)
    blocks = splash_attention_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    everything = splash_attention_mask.FullMask((length, length))
    with jax.ensure_compile_time_eval():
        return splash_attention_kernel.make_splash_mha_single_device(
            splash_attention_mask.MultiHeadMask([everything] * heads),
            block_sizes=blocks,
            interpret=interpret,
        )


def cudnn_attention(
    query: Float[Array, "batch length heads width"],
    key: Float[Array, "batch length heads width"],
    value: Float[Array, "batch length heads width"],
    sequence_ids: Int[Array, "batch length"],
    *,
    max_sequences: int,
) -> Float[Array, "batch length heads width"]:
    """cuDNN's fused attention for NVIDIA GPUs, by lengths or offsets and never by a dense mask.

    Args:
        query: of each position and head, in bfloat16 or float16.
        key: likewise.
        value: likewise.
        sequence_ids: which sequence a position belongs to.
        max_sequences: how many a row may have. One goes by its length, several by their offsets,
            for which JAX has no public function yet.
    """
    if max_sequences > 1:
        return _packed_cudnn_attention(query, key, value, sequence_ids, max_sequences)
    real = (sequence_ids > 0)[:, :, None, None]
    # The kernel writes neither results nor gradients at padding: what lies there may be anything.
    query, key, value = (jnp.where(real, x, 0) for x in (query, key, value))
    lengths = jnp.sum(sequence_ids > 0, axis=1, dtype=jnp.int32)
    context = jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return jnp.where(real, context, 0)


def _packed_cudnn_attention(
    query: Array, key: Array, value: Array, sequence_ids: Array, max_sequences: int
) -> Array:
    """Padding is one more sequence of its row, which attends to itself as in `packed_mask`: so the
    kernel writes every position, and nothing has to be set to zero before and after it."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    padding = sequence_ids.max(axis=1, keepdims=True) + 1
    numbered = jnp.where(sequence_ids > 0, sequence_ids, padding)
    offsets, lengths = packed_offsets(numbered, max_sequences + 1)
    context: Array = cudnn.dot_product_attention(
        query,
        key,
        value,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=offsets,
        kv_offsets=offsets,
        scale=1 / math.sqrt(query.shape[-1]),
        mask_type=cudnn.MaskType.PADDING,
    )
    return context


def packed_offsets(
    sequence_ids: Int[Array, "batch length"], max_sequences: int
) -> tuple[Int[Array, "batch offsets"], Int[Array, "batch sequences"]]:
    """Where each sequence of a row starts, and how long it is; -1 for those that are not there.

    Offsets have one entry more than there may be sequences, which is always -1.

    Example: ``[1, 1, 2, 0]`` with at most 3 gives the offsets ``[0, 2, -1, -1]`` and the lengths
    ``[2, 1, -1]``.
    """
    numbers = jnp.arange(1, max_sequences + 1)
    lengths = jnp.sum(sequence_ids[:, None, :] == numbers[:, None], axis=-1, dtype=jnp.int32)
    starts = jnp.cumsum(lengths, axis=1, dtype=jnp.int32) - lengths
    starts = jnp.where(lengths > 0, starts, -1)
    return jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1), jnp.where(
        lengths > 0, lengths, -1
    )
