"""Parts of a stored state, read as host arrays whatever devices and optimizer saved them."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import fsspec
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from albert_jax.input_files import is_remote

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
    with _readable(checkpoint / STATE) as state, ocp.Checkpointer(handler) as checkpointer:
        tree = handler.metadata(state).tree
        if name not in tree:
            return None
        wanted = {name: jax.tree.map(_shape, tree[name])}
        to_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        restored = checkpointer.restore(
            state,
            args=ocp.args.PyTreeRestore(wanted, restore_args=to_numpy, partial_restore=True),
        )
    return restored[name]


@contextlib.contextmanager
def _readable(state: epath.Path) -> Iterator[epath.Path]:
    """Yield the directory, or a copy of one on a store that Orbax cannot read."""
    if not is_remote(state) or str(state).startswith("gs://"):
        yield state
        return
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as directory:
        copy = epath.Path(directory) / STATE
        store, _ = fsspec.url_to_fs(str(state))
        store.get(str(state), str(copy), recursive=True)
        yield copy


def _shape(stored: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(stored.shape, stored.dtype)
