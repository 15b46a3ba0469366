"""Sharding of parameters, optimizer state and batches over a mesh, by one table of rules."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64, PyTree

from albert_jax.devices.mesh import DATA_AXIS, ROW_AXES

P = PartitionSpec
ROWS = P(ROW_AXES)

# A parameter follows the first rule whose pattern matches the end of its name and whose length is
# its number of axes. An axis that does not divide evenly is not sharded. Layers have two leading
# axes, [copies, inner]. Parameters of the vocabulary's size are not sharded either: factorized,
# they are small compared with a layer, and sharding would put a collective into every look-up. A
# decoder's word table is not sharded for the latter reason.
SHARDING_RULES: Sequence[tuple[str, PartitionSpec]] = (
    (r"layers/(cross_)?attention/(query|key|value)/kernel", P(None, None, "fsdp", "tensor")),
    (r"layers/(cross_)?attention/(query|key|value)/bias", P(None, None, "tensor")),
    (r"layers/(cross_)?attention/dense/kernel", P(None, None, "tensor", "fsdp")),
    (r"layers/feed_forward/(intermediate|gate)/kernel", P(None, None, "fsdp", "tensor")),
    (r"layers/feed_forward/(intermediate|gate)/bias", P(None, None, "tensor")),
    (r"layers/feed_forward/output/kernel", P(None, None, "tensor", "fsdp")),
    (r"(embedding_hidden_mapping_in|pooler|predictions/dense)/kernel", P("fsdp", None)),
)


def partition_spec(name: str, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """Return the partition of a parameter, or of its moments, by `SHARDING_RULES`.

    Example: on a mesh with fsdp 2 and tensor 2, ``.../attention/query/kernel`` of shape
    ``[1, 1, 768, 768]`` has four shards ``[1, 1, 384, 384]``.
    """
    for pattern, spec in SHARDING_RULES:
        if re.search(pattern + "$", name) and len(spec) == len(shape):
            shards = [1 if axis is None else mesh.shape[axis] for axis in spec]
            divides = [size % number == 0 for size, number in zip(shape, shards, strict=True)]
            return P(*(axis if even else None for axis, even in zip(spec, divides, strict=True)))
    return P()


def state_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """Return the sharding of every leaf of a state (arrays or shapes), by its name."""

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, state)


def rows_of_process(global_batch_size: int, mesh: Mesh) -> Int64[np.ndarray, " rows"]:
    """Return the rows of a global batch that this process loads, in the order of `place_batch`.

    Raises:
        ValueError: the batch is not divisible by the devices on the row axes.
    """
    num_shards = mesh.shape[DATA_AXIS] * mesh.shape["fsdp"]
    if global_batch_size % num_shards:
        raise ValueError(
            f"the global batch of {global_batch_size} rows must be a multiple of {num_shards}, "
            f"the devices on the axes data ({mesh.shape[DATA_AXIS]}) and fsdp "
            f"({mesh.shape['fsdp']})"
        )
    local = NamedSharding(mesh, ROWS).addressable_devices_indices_map((global_batch_size,))
    rows = np.arange(global_batch_size)
    return np.unique(np.concatenate([rows[index] for index in local.values() if index is not None]))


def place_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Put this process's rows on its devices, as part of the global batch."""
    sharding = NamedSharding(mesh, ROWS)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
