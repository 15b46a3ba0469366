"""How layers are computed: rematerialization, attention, kernels, all without effect on results."""

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import jax

from albert_jax.attention.dispatch import Attention
from albert_jax.matmuls.dense_matmul import Matmuls


class Remat(StrEnum):
    """Rematerialization: what the backward pass computes again instead of keeping."""

    NONE = "none"  # keep everything: fastest
    DOTS = "dots"  # keep the results of matmuls with parameters
    FULL = "full"  # keep the input of each layer alone: least memory


@dataclasses.dataclass(frozen=True)
class Execution:
    """Options of how layers are computed, which change their results by rounding alone."""

    remat: Remat = Remat.NONE
    attention: Attention = Attention.XLA
    unroll: int = 1  # layers per iteration of the scan: more to fuse, more to compile
    # Sequences a packed row for which cuDNN has room, on average over the rows of a device, padding
    # behind a row counted as one; None: in each row as many as any may have.
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
    """Return a layer whose backward pass computes again what it may.

    Args:
        apply_layer: the layer.
        remat: what is computed again.
        in_loop: True if it is the body of a scan that is a loop, or a part of it. Elsewhere, also
            in a scan that is unrolled whole, XLA has to be kept from finding that it was computed
            before.
    """
    if remat is Remat.NONE:
        return apply_layer
    return jax.checkpoint(apply_layer, prevent_cse=not in_loop, policy=_POLICIES[remat])
