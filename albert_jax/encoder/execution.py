"""How layers are computed (rematerialization, attention, kernels), without effect on results."""

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import jax

from albert_jax.attention.dispatch import Attention
from albert_jax.matmuls.dense_matmul import Matmuls


class Remat(StrEnum):
    """Rematerialization: what the backward pass recomputes instead of keeping."""

    NONE = "none"  # keep everything: fastest
    DOTS = "dots"  # keep the results of matmuls with parameters
    FULL = "full"  # keep only the input of each layer: least memory


@dataclasses.dataclass(frozen=True)
class Execution:
    """Options for how layers are computed; they change results only by rounding."""

    remat: Remat = Remat.NONE
    attention: Attention = Attention.XLA
    unroll: int = 1  # layers per iteration of the scan: more to fuse, more to compile
    # Sequences per packed row for which cuDNN has room, on average over the rows of a device; the
    # padding at the end of a row counts as one. None: every row has room for the most of any row.
    sequence_slots: int | None = None
    fused: bool = False  # Triton kernels for the passes between matrix products
    matmuls: Matmuls = Matmuls.SAME  # of both halves


_POLICIES: dict[Remat, Callable[..., bool] | None] = {
    Remat.DOTS: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    Remat.FULL: None,
}


def rematerialize(
    apply_layer: Callable[..., Any], remat: Remat, *, in_loop: bool = True
) -> Callable[..., Any]:
    """Return a layer whose backward pass recomputes what `remat` allows.

    Args:
        apply_layer: the layer.
        remat: what is recomputed.
        in_loop: True if the layer is all or part of the body of a scan that is a loop. Elsewhere,
            including in a fully unrolled scan, XLA must be kept from merging the recomputation with
            the original computation.
    """
    if remat is Remat.NONE:
        return apply_layer
    return jax.checkpoint(apply_layer, prevent_cse=not in_loop, policy=_POLICIES[remat])
