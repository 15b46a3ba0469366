"""Comparison of an attention with the reference on the device at hand."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from albert_jax.attention.cudnn_slots import slots_needed
from albert_jax.attention.implementation import AttentionImplementation, AttentionWorkload
from albert_jax.attention.mask import AttentionMask
from albert_jax.attention.reference import REFERENCE
from albert_jax.matmuls.verification import relative_error

_SEED = 0
_LENGTH = 128  # of the compared rows, if rows may have any length


def tolerance(workload: AttentionWorkload) -> float:
    """Return the largest allowed error: that of rounding, far below that of a wrong mask."""
    if workload.device.platform == "cpu":
        return 1e-5 if jnp.dtype(workload.dtype) == jnp.float32 else 2e-2
    return 2e-2  # products of float32 are not exact on accelerators either


def error_of(implementation: AttentionImplementation, workload: AttentionWorkload) -> float:
    """Compute the largest relative error of an attention's result and of its three gradients.

    It is compared with the float32 reference over the real tokens of two rows, which hold three and
    two sequences (one each if rows are not packed) and padding. This is done for each length that
    rows have, without a window and, if the model has one, with its window.
    """
    lengths, reach = workload.lengths or (_LENGTH,), workload.config.attention_reach
    masks: list[tuple[int, int | None]] = [(length, None) for length in lengths]
    if reach is not None:
        masks += [(length, reach) for length in lengths]
    return float(np.max([_error(implementation, workload, *mask) for mask in masks]))


def _error(
    implementation: AttentionImplementation,
    workload: AttentionWorkload,
    length: int,
    reach: int | None,
) -> float:
    sizes = [length // 2, length // 4, length // 8]
    ids = np.repeat([1, 2, 3, 0], [*sizes, length - sum(sizes)])
    rows = np.stack([ids, np.where(ids == 3, 0, ids)]).astype(np.int32)
    if not workload.packed:
        rows = (rows > 0).astype(np.int32)
    mask = AttentionMask(
        sequence_ids=rows,
        max_sequences=3 if workload.packed else 1,
        sequence_slots=slots_needed(rows) if workload.slotted else None,
        reach=reach,
    )
    shape = (*rows.shape, workload.config.num_attention_heads, workload.head_width)
    dtype = jnp.dtype(workload.dtype)
    keys = jax.random.split(jax.random.key(_SEED), 4)
    *operands, cotangent = (jax.random.normal(key, shape).astype(dtype) for key in keys)
    cotangent = jnp.where((rows > 0)[:, :, None, None], cotangent, 0)

    def results(implementation: AttentionImplementation, dtype: DTypeLike) -> list[Array]:
        run = values_and_gradients(implementation, mask)
        arrays = [x.astype(dtype) for x in operands], cotangent.astype(dtype)
        with jax.default_device(workload.device):
            value, *gradients = run(rows, *arrays)
        return [value * (cotangent != 0), *gradients]

    with jax.default_matmul_precision("float32"):
        expected = results(REFERENCE, jnp.promote_types(dtype, jnp.float32))
    return relative_error(results(implementation, dtype), expected)


def values_and_gradients(
    implementation: AttentionImplementation, mask: AttentionMask
) -> jax.stages.Wrapped:
    """Return a function from sequence ids, operands and cotangent to context and three gradients.

    Args:
        implementation: the attention.
        mask: mask of the rows, except the ids of their sequences.
    """

    @jax.jit
    def run(ids: Array, operands: Sequence[Array], cotangent: Array) -> tuple[Array, ...]:
        value, pullback = jax.vjp(implementation.bind(mask._replace(sequence_ids=ids)), *operands)
        return value, *pullback(cotangent)

    return run
