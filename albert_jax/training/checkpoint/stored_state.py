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

STATE = "state"  # the directory of the state in a checkpoint's directory
AVERAGE = "average"  # the name of a running mean of the parameters inside the optimizer's state
SCHEDULE_FREE = ("params", "z", "b1")  # from which the mean of schedule-free steps is computed


def read_parts(checkpoint: epath.Path, *choices: Sequence[str]) -> dict[str, PyTree]:
    """Read parts of a checkpoint's state; nothing if the state has no choice completely.

    Args:
        checkpoint: directory of one step.
        choices: names of parts, at any depth, that are read together, such as ``["params"]`` or
            ``[AVERAGE]``. The first choice that the state has completely is read.

    Returns:
        By name, a nested dict of `numpy.ndarray` or a single array.
    """
    handler = ocp.PyTreeCheckpointHandler()
    with _readable(checkpoint / STATE) as state, ocp.Checkpointer(handler) as checkpointer:
        tree = handler.metadata(state).tree
        for names in choices:
            paths = {name: _find(tree, name) for name in names}
            if all(paths.values()):
                break
        else:
            return {}
        wanted = _prune(tree, list(filter(None, paths.values())))
        to_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        restored = checkpointer.restore(
            state,
            args=ocp.args.PyTreeRestore(wanted, restore_args=to_numpy, partial_restore=True),
        )
    return {name: _descend(restored, path) for name, path in paths.items() if path}


def _find(tree: Any, name: str) -> tuple[Any, ...] | None:
    """Return the shortest path of keys to a name in nested dicts and lists; None if absent."""
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


def _prune(tree: Any, paths: Sequence[tuple[Any, ...]]) -> Any:
    """Return the shapes of what the paths lead to; in lists, everything else is None."""
    if () in paths:
        return jax.tree.map(_shape, tree)

    def prune(key: Any, child: Any) -> Any:
        below = [path[1:] for path in paths if path[0] == key]
        return _prune(child, below) if below else None

    if isinstance(tree, list):
        return [prune(number, child) for number, child in enumerate(tree)]
    return {key: prune(key, tree[key]) for key in {path[0] for path in paths}}


def _descend(tree: Any, path: Sequence[Any]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


@contextlib.contextmanager
def _readable(state: epath.Path) -> Iterator[epath.Path]:
    """Yield the directory, or a local copy if it is on a store that Orbax cannot read."""
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
