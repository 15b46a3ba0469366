"""cuDNN's attention over packed rows, with slots for sequences that the rows of a batch share.

cuDNN's workspace, which it sets to zero and converts, grows with the number of sequences that there
may be. JAX's function reserves room in each row for as many as any row may have. The primitives
below it take offsets into the whole batch, so here the slots of a batch serve its sequences in
whatever row they are. The primitives are private to JAX, and `slot_kernels` checks their form.

Speed on an H100: 128 rows of 512 with 1.2 sequences each, 12 heads of 64, forward and backward,
take 3.06 ms with room for 17 sequences in each row, 1.63 with three slots per row, 1.53 with two.
"""

import inspect
import math
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int, Int32

from albert_jax.layers import HeadVectors

FEWEST_SLOTS = 2  # per row; with one, cuDNN takes each row for a sequence
_INPUTS = (
    *("query", "key", "value", "bias", "q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets"),
    *("page_table_k", "page_table_v"),
)
_OPTIONS = (
    *("scale", "seed", "dropout_rate", "variadic_args", "mask_type", "layout"),
    "sliding_window_length",
)


class BatchOffsets(NamedTuple):
    """The start of each sequence of a batch, counted through all rows, and its length.

    Unused slots start after the last row and have length 0. Each row has one more start than it has
    lengths.
    """

    starts: Int32[Array, "batch starts"]
    lengths: Int32[Array, "batch slots"]


def batch_offsets(sequence_ids: Int[Array, "batch length"], slots: int) -> BatchOffsets:
    """Find the runs of equal ids, including padding's, in the order in which they lie in memory.

    Example: the rows ``[1, 1, 2, 0]`` and ``[1, 1, 1, 1]`` with 2 slots per row give the starts
    ``[[0, 2, 3], [4, 8, 8]]`` and the lengths ``[[2, 1], [1, 4]]``.
    """
    batch, length = sequence_ids.shape
    total, room = batch * length, batch * slots
    starts = jnp.nonzero(_run_starts(sequence_ids).ravel(), size=room + batch, fill_value=total)[0]
    starts = starts.astype(jnp.int32)
    lengths = jnp.diff(starts, append=total)[:room]
    return BatchOffsets(starts.reshape(batch, slots + 1), lengths.reshape(batch, slots))


def slots_suffice(sequence_ids: Int[Array, "batch length"], slots: int) -> Bool[Array, ""]:
    """Return True if a batch has at most as many runs of equal ids as slots."""
    return _run_starts(sequence_ids).sum() <= len(sequence_ids) * slots


def slots_needed(
    sequence_ids: Int[np.ndarray, "batch length"], *, shards: int = 1, micro_batches: int = 1
) -> int:
    """Return the fewest slots per row that suffice for every micro-batch of every device.

    Example: the rows ``[1, 1, 2, 0]`` and ``[1, 1, 1, 1]`` have four runs of equal ids and need 2
    slots; on two devices, with three and one, they need 3.

    Args:
        sequence_ids: ids of a batch on the host.
        shards: number of devices that it is split over, with consecutive rows on each.
        micro_batches: number of micro-batches of a device's rows; row r of them is in micro-batch
            ``r % micro_batches``.
    """
    runs = count_runs(sequence_ids)
    most = runs.reshape(shards, -1, micro_batches).mean(axis=1).max()
    return max(FEWEST_SLOTS, math.ceil(most))


def count_runs(sequence_ids: Int[np.ndarray, "batch length"]) -> Int[np.ndarray, " batch"]:
    """Count the runs of equal ids in each row, including padding's."""
    ids = np.asarray(sequence_ids)
    return (ids[:, 1:] != ids[:, :-1]).sum(axis=1) + 1


def _run_starts(sequence_ids: Array) -> Bool[Array, "batch length"]:
    changes = sequence_ids[:, 1:] != sequence_ids[:, :-1]
    return jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)


def slotted_attention(
    query: HeadVectors,
    key: HeadVectors,
    value: HeadVectors,
    sequence_ids: Int[Array, "batch length"],
    *,
    slots: int,
) -> HeadVectors:
    """Compute cuDNN's attention inside each sequence of packed rows; padding counts as a sequence.

    JAX's partitioning of the kernel is bypassed: rows must be split over devices by `shard_map`, as
    `training.parallel` does, and heads cannot be.

    Args:
        query: vectors of each position and head, in bfloat16 or float16.
        key: likewise.
        value: likewise.
        sequence_ids: the sequence that a position belongs to, 0 for padding.
        slots: sequences per row, on average over the rows, where padding at the end of a row counts
            as one. The result is meaningless unless `slots_suffice`.
    """
    if slot_kernels() is None:
        raise NotImplementedError(missing_kernels())
    return _attention(query, key, value, *batch_offsets(sequence_ids, slots))


@jax.custom_vjp
def _attention(query: Array, key: Array, value: Array, starts: Array, lengths: Array) -> Array:
    return _forward(query, key, value, starts, lengths)[0]


def _forward(
    query: Array, key: Array, value: Array, starts: Array, lengths: Array
) -> tuple[Array, tuple[Any, ...]]:
    cudnn: Any = slot_kernels()
    context, statistics = cudnn._dot_product_attention_fwd_p.bind(
        query,
        key,
        value,
        *_masking(query, starts, lengths),
        **_options(cudnn, query),
        is_training=True,
    )
    return context, (query, key, value, starts, lengths, statistics, context)


def _backward(
    residuals: tuple[Any, ...], cotangent: Array
) -> tuple[Array, Array, Array, None, None]:
    cudnn: Any = slot_kernels()
    query, key, value, starts, lengths, statistics, context = residuals
    of_query, of_key, of_value = cudnn._dot_product_attention_bwd_p.bind(
        query,
        key,
        value,
        *_masking(query, starts, lengths),
        statistics,
        context,
        cotangent,
        **_options(cudnn, query),
    )
    return of_query, of_key, of_value, None, None


_attention.defvjp(_forward, _backward)


def _masking(query: Array, starts: Array, lengths: Array) -> tuple[Any, ...]:
    """Return the inputs after query, key and value, with neither a bias nor page tables."""
    offsets = starts * math.prod(query.shape[2:])  # in elements, not in positions
    nothing = jnp.zeros(0, query.dtype)
    return nothing, lengths, lengths, offsets, offsets, nothing, nothing


def _options(cudnn: Any, query: Array) -> dict[str, Any]:
    return {
        "scale": 1 / math.sqrt(query.shape[-1]),
        "seed": 0,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),  # neither a bias nor its gradient
        "mask_type": cudnn.MaskType.PADDING,
        "layout": cudnn.AttentionLayout.BTNH.value,
        "sliding_window_length": None,
    }


def slot_kernels() -> ModuleType | None:
    """Import JAX's private module with the primitives; None unless they have the known form."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as cudnn

        lowerings: dict[Any, tuple[str, ...]] = {
            cudnn._dot_product_attention_fwd_cuda_lowering: (*_INPUTS, *_OPTIONS, "is_training"),
            cudnn._dot_product_attention_bwd_cuda_lowering: (
                *_INPUTS,
                *("activation", "fwd_output", "grad_output"),
                *_OPTIONS,
            ),
        }
        known = all(
            tuple(inspect.signature(lowering).parameters)[1:] == arguments
            for lowering, arguments in lowerings.items()
        )
        binds = cudnn._dot_product_attention_fwd_p.bind, cudnn._dot_product_attention_bwd_p.bind
        names = cudnn.MaskType.PADDING, cudnn.AttentionLayout.BTNH
        return cudnn if known and all(binds) and all(names) else None
    except (ImportError, AttributeError):
        return None


def missing_kernels() -> str:
    """Return why slots cannot be used without `slot_kernels`."""
    return (
        "run.sequence_slots needs primitives of jax._src.cudnn.fused_attention_stablehlo, which "
        f"JAX {jax.__version__} does not have in the form known here"
    )
