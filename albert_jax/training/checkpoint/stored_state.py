"""Parts of a stored state, read as host arrays whatever devices and optimizer saved them."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fsspec
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from albert_jax.input_files import is_remote

STATE = "state"  # the directory of the state in that of a checkpoint
AVERAGE = "average"  # the name of a running mean of the parameters inside the optimizer's state


def read_part(checkpoint: epath.Path, *names: str) -> PyTree | None:
    """Read one part of a checkpoint's state; None if the state has no such part.

    Args:
        checkpoint: directory of one step.
        names: the part, such as ``params``, ``step`` or, at any depth, `AVERAGE`. Of several the
            first one that there is.

    Returns:
        Nested dict of `numpy.ndarray`, or a single one.
    """
    handler = ocp.PyTreeCheckpointHandler()
    with _readable(checkpoint / STATE) as state, ocp.Checkpointer(handler) as checkpointer:
        tree = handler.metadata(state).tree
        path = next(filter(None, (_find(tree, name) for name in names)), None)
        if path is None:
            return None
        wanted = jax.tree.map(_shape, _descend(tree, path))
        for key in reversed(path):  # in a list, what is not wanted stands as None
            wanted = [None] * key + [wanted] if isinstance(key, int) else {key: wanted}
        to_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        restored = checkpointer.restore(
            state,
            args=ocp.args.PyTreeRestore(wanted, restore_args=to_numpy, partial_restore=True),
        )
    return _descend(restored, path)


def _find(tree: Any, name: str) -> tuple[Any, ...] | None:
    """Return the keys that lead to a name in nested dicts and lists, the shortest ones first."""
    pending: list[tuple[tuple[Any, ...], Any]] = [((), tree)]
    while pending:
        path, node = pending.pop(0)
        if isinstance(node, Mapping):
            if name in node:
                return (*path, name)
            pending += [((*path, key), child) for key, child in node.items()]
        elif isinstance(node, list):
            pending += [((*path, number), child) for number, child in enumerate(node)]
    return None


def _descend(tree: Any, path: Sequence[Any]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


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
