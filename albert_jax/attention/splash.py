"""Pallas's splash attention for TPUs: one kernel, which never holds the scores of all queries."""

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
from jaxtyping import Int

from albert_jax.attention.implementation import (
    AttentionFn,
    AttentionImplementation,
    AttentionWorkload,
)
from albert_jax.attention.mask import AttentionMask
from albert_jax.attention.traced_platform import traced_platform
from albert_jax.layers import HeadVectors

LANES = 128  # row lengths must be multiples of it
_BLOCK_SIZES = (512, 384, 256, 128)


def splash_attention(
    query: HeadVectors,
    key: HeadVectors,
    value: HeadVectors,
    sequence_ids: Int[Array, "batch length"],
    *,
    reach: int | None = None,
) -> HeadVectors:
    """Compute splash attention; on devices other than TPUs it is interpreted, for tests.

    Args:
        query: vectors of each position and head.
        key: likewise.
        value: likewise.
        sequence_ids: the sequence that a position belongs to, 0 for padding, where the result is
            finite but meaningless.
        reach: farthest position on either side that a query attends to; blocks of the scores that
            lie beyond it are not computed. None: any.

    Raises:
        ValueError: the length is not a multiple of 128.
    """
    length, heads, width = query.shape[1:]
    if length % LANES:
        raise ValueError(f"splash attention takes multiples of {LANES}, got {length}")
    kernel = _make_kernel(heads, length, reach, interpret=traced_platform() != "tpu")
    scaled = query / math.sqrt(width)

    def row(query: Array, key: Array, value: Array, ids: Array) -> Array:
        segments = splash_attention_kernel.SegmentIds(ids, ids)
        context = kernel(*(x.swapaxes(0, 1) for x in (query, key, value)), segment_ids=segments)
        return context.swapaxes(0, 1)

    return jax.vmap(row)(scaled, key, value, sequence_ids)


@functools.cache
def _make_kernel(heads: int, length: int, reach: int | None, *, interpret: bool) -> Any:
    block = next(size for size in _BLOCK_SIZES if length % size == 0)
    blocks = splash_attention_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    shape = (length, length)
    mask: Any = splash_attention_mask.FullMask(shape)
    if reach is not None:
        mask = splash_attention_mask.LocalMask(shape, window_size=(reach, reach), offset=0)
    with jax.ensure_compile_time_eval():
        return splash_attention_kernel.make_splash_mha_single_device(
            splash_attention_mask.MultiHeadMask([mask] * heads),
            block_sizes=blocks,
            interpret=interpret,
        )


def bind(mask: AttentionMask) -> AttentionFn:
    """Return `splash_attention` under a mask."""

    def attend(query: Array, key: Array, value: Array) -> Array:
        ids = mask.segment_ids(*query.shape[:2])
        return splash_attention(query, key, value, ids, reach=mask.reach)

    return attend


def unsupported_reason(workload: AttentionWorkload) -> str | None:
    """Return why a workload is unsupported, or None if it is supported."""
    if workload.device.platform != "tpu":
        return f"it is for TPUs, this is a {workload.device.platform}"
    if jnp.dtype(workload.dtype) == jnp.float64:
        return "it computes in float32 or bfloat16"
    if not workload.lengths:
        return f"rows must be a multiple of {LANES} long, these are of any length"
    if wrong := [length for length in workload.lengths if length % LANES]:
        return f"rows must be a multiple of {LANES} long, they are {wrong[0]}"
    if workload.partitioned:
        return "it cannot be split over devices: run.tensor must be 1"
    return None


SPLASH = AttentionImplementation(bind, unsupported_reason, platform="tpu", supports_reach=True)
