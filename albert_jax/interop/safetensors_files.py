"""Tensors in safetensors files, as NumPy arrays, without torch."""

import json
import os
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from albert_jax.interop.names import FlatTree, WeightsError

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),  # v4 files keep their position ids
}


def read_safetensors(file: epath.Path) -> FlatTree:
    """The tensors of one file.

    Raises:
        WeightsError: it is cut short or damaged, or holds a type that no ALBERT has.
    """
    try:
        stored = deserialize(file.read_bytes())
    except SafetensorError as error:
        raise WeightsError(f"{file} is no whole safetensors file: {error}") from error
    tensors = {}
    for name, tensor in stored:
        if tensor["dtype"] not in _DTYPES:
            raise WeightsError(
                f"{file}: {name} is of type {tensor['dtype']}, known are {', '.join(_DTYPES)}"
            )
        flat = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]])
        tensors[name] = flat.reshape(tensor["shape"])
    return tensors


def read_sharded(index: epath.Path) -> FlatTree:
    """The tensors of all files that an index names.

    Raises:
        WeightsError: the index is none, a file is missing or damaged, or a tensor is not where the
            index says.
    """
    try:
        places: dict[str, str] = dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{index} is no index of shards: {error!r}") from error
    tensors: FlatTree = {}
    for shard in sorted(set(places.values())):
        file = index.parent / shard
        if file.parent != index.parent or not file.exists():
            raise WeightsError(f"{index} names {shard}, which is not there")
        tensors |= read_safetensors(file)
    if absent := sorted(places.keys() - tensors.keys()):
        raise WeightsError(f"{index} names {', '.join(absent)}, which no shard holds")
    return tensors


def write_safetensors(file: os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one file, marked as older readers want it."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, file, metadata={"format": "pt"})
