"""Parts of a stored state, read as host arrays whatever devices and optimizer saved them."""

from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

STATE = "state"  # the directory of the state in that of a checkpoint


def read_part(checkpoint: epath.Path, name: str) -> PyTree | None:
    """Read one part of a checkpoint's state; None if the state has no such part.

    Args:
        checkpoint: directory of one step.
        name: the part, such as ``params`` or ``step``.

    Returns:
        Nested dict of `numpy.ndarray`, or a single one.
    """
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
        tree = handler.metadata(checkpoint / STATE).tree
        if name not in tree:
            return None
        wanted = {name: jax.tree.map(_shape, tree[name])}
        to_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        restored = checkpointer.restore(
            checkpoint / STATE,
            args=ocp.args.PyTreeRestore(wanted, restore_args=to_numpy, partial_restore=True),
        )
    return restored[name]


def _shape(stored: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(stored.shape, stored.dtype)
