"""cuDNN's fused attention for NVIDIA GPUs, in half precision.

JAX offers only cuDNN windows that look back, so local attention, which looks both ways, is computed
by XLA in dense products: blocks of queries, each with the keys of three blocks. Memory and time are
proportional to the length.
"""

import inspect
import math
from types import ModuleType

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from albert_jax.attention.cudnn_slots import missing_kernels, slot_kernels, slotted_attention
from albert_jax.attention.implementation import (
    AttentionFn,
    AttentionImplementation,
    AttentionWorkload,
)
from albert_jax.attention.mask import AttentionMask
from albert_jax.attention.reference import masked_softmax
from albert_jax.layers import HeadVectors, at_least_float32

_FEWEST_QUERIES = 32  # per block of local attention: fewer make matmuls too small
_HOPPER = 9.0  # the compute capability from which cuDNN supports packed rows
_PRIVATE_ARGUMENTS = frozenset(
    ("q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets", "scale", "mask_type")
)


def cudnn_attention(
    query: HeadVectors,
    key: HeadVectors,
    value: HeadVectors,
    sequence_ids: Int[Array, "batch length"],
    *,
    max_sequences: int,
) -> HeadVectors:
    """Compute cuDNN's fused attention, masked by lengths or offsets and never by a dense mask.

    Args:
        query: vectors of each position and head, in bfloat16 or float16.
        key: likewise.
        value: likewise.
        sequence_ids: the sequence that a position belongs to, 0 for padding.
        max_sequences: upper bound on the sequences of a row. One is masked by its length, several
            by their offsets, for which JAX has no public function yet.
    """
    if max_sequences > 1:
        return _packed_cudnn_attention(query, key, value, sequence_ids, max_sequences)
    real = (sequence_ids > 0)[:, :, None, None]
    # The kernel writes neither results nor gradients at padding, so memory there is undefined.
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
    """Compute attention of packed rows, with padding as one more sequence of its row.

    Padding attends to itself, as in `packed_mask`. So the kernel writes every position, and nothing
    has to be set to zero before or after it.
    """
    cudnn = private_cudnn()
    if cudnn is None:
        raise NotImplementedError(_no_packed_kernel())
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


def local_attention(
    query: HeadVectors,
    key: HeadVectors,
    value: HeadVectors,
    sequence_ids: Int[Array, "batch length"],
    *,
    reach: int,
) -> HeadVectors:
    """Compute attention of each position to nearby positions of its sequence.

    Example: with a reach of 64, queries 64 to 127 are multiplied with keys 0 to 191.

    Args:
        query: vectors of each position and head, of any type.
        key: likewise.
        value: likewise.
        sequence_ids: the sequence that a position belongs to, 0 for padding.
        reach: farthest position on either side that a query attends to.
    """
    batch, length, heads, width = query.shape
    block = max(reach, _FEWEST_QUERIES)
    blocks = -(-length // block)
    dtype = at_least_float32(query.dtype)

    def split(x: Array, fill: int = 0, beside: int = 0) -> Array:
        """Cut rows into blocks, with `beside` more on both sides."""
        behind = blocks * block - length + beside * block
        widths = [(0, 0), (beside * block, behind), *[(0, 0)] * (x.ndim - 2)]
        padded = jnp.pad(x, widths, constant_values=fill)
        return padded.reshape(batch, blocks + 2 * beside, block, *x.shape[2:])

    def around(x: Array, fill: int = 0) -> Array:
        """Return the positions of each block and its neighbors, with blocks on the first axis."""
        cut = split(x, fill, beside=1)
        three = jnp.concatenate([cut[:, :-2], cut[:, 1:-1], cut[:, 2:]], axis=2)
        return three.reshape(batch * blocks, *three.shape[2:])

    queries, ids = (x.reshape(-1, *x.shape[2:]) for x in (split(query), split(sequence_ids)))
    visible = ids[:, :, None] == around(sequence_ids, fill=-1)[:, None, :]
    distances = jnp.arange(3 * block) - block - jnp.arange(block)[:, None]
    visible &= jnp.abs(distances) <= reach
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, around(key), preferred_element_type=dtype)
    scores /= jnp.sqrt(width).astype(dtype)
    probabilities = masked_softmax(scores, visible[:, None], query.dtype)
    context = jnp.einsum("bhqk,bkhd->bqhd", probabilities, around(value))
    return context.reshape(batch, -1, heads, width)[:, :length]


def private_cudnn() -> ModuleType | None:
    """Import JAX's private module for packed rows; None if this JAX lacks it or has another one."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as cudnn

        arguments = inspect.signature(cudnn.dot_product_attention).parameters
        return cudnn if arguments.keys() >= _PRIVATE_ARGUMENTS and cudnn.MaskType.PADDING else None
    except (ImportError, AttributeError):
        return None


def _no_packed_kernel() -> str:
    return (
        f"packed rows need jax._src.cudnn.fused_attention_stablehlo, which JAX {jax.__version__} "
        "does not have in the form known here"
    )


def packed_offsets(
    sequence_ids: Int[Array, "batch length"], max_sequences: int
) -> tuple[Int[Array, "batch offsets"], Int[Array, "batch sequences"]]:
    """Compute where each sequence of a row starts, and its length; -1 for missing sequences.

    Offsets have one entry more than `max_sequences`; it is always -1.

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


def bind(mask: AttentionMask) -> AttentionFn:
    """Return `cudnn_attention` under a mask, or `local_attention` if it has a reach."""
    reach = mask.reach
    if reach is not None:

        def attend_locally(query: Array, key: Array, value: Array) -> Array:
            return local_attention(
                query, key, value, mask.segment_ids(*query.shape[:2]), reach=reach
            )

        return attend_locally
    max_sequences = 1 if mask.sequence_ids is None else mask.max_sequences
    if max_sequences is None:
        raise ValueError("cudnn needs pooled_positions: they bound the sequences of a packed row")

    def attend(query: Array, key: Array, value: Array) -> Array:
        ids = mask.segment_ids(*query.shape[:2])
        if max_sequences > 1 and mask.sequence_slots is not None:
            return slotted_attention(query, key, value, ids, slots=mask.sequence_slots)
        return cudnn_attention(query, key, value, ids, max_sequences=max_sequences)

    return attend


def unsupported_reason(workload: AttentionWorkload) -> str | None:
    """Return why a workload is unsupported, or None if it is supported."""
    device, dtype, width = workload.device, jnp.dtype(workload.dtype), workload.head_width
    if device.platform != "gpu":
        return f"it is for NVIDIA GPUs, this is a {device.platform}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16 or float16, run.dtype is {dtype.name}"
    if width % 8 or width > 128:
        return f"heads must have a width of 8, 16, ..., 128, they have {width}"
    capability = float(getattr(device, "compute_capability", 0))
    if workload.packed and capability < _HOPPER:
        return f"packed rows need compute capability {_HOPPER}, this GPU has {capability}"
    if workload.slotted and workload.partitioned:
        return "with run.sequence_slots it cannot be split over devices: run.tensor must be 1"
    if workload.slotted and slot_kernels() is None:
        return missing_kernels()
    return _no_packed_kernel() if workload.packed and private_cudnn() is None else None


CUDNN = AttentionImplementation(bind, unsupported_reason, platform="gpu", supports_reach=True)
