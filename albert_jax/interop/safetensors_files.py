"""Tensors of safetensors files as NumPy arrays, without torch."""

import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from albert_jax.input_files import read_bytes, read_json_object, require_fields, shorten
from albert_jax.interop.names import FlatTree, WeightsError

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),  # v4 files keep their position ids
}


def read_safetensors(file: epath.Path) -> FlatTree:
    """Read the tensors of one file.

    Raises:
        WeightsError: it is truncated or damaged, or has an unsupported dtype.
    """
    content = read_bytes(file, error=WeightsError)
    try:
        stored = deserialize(content)  # compares sizes with the length of the content
    except SafetensorError as error:
        raise WeightsError(f"{file} is not a complete safetensors file: {error}") from error
    tensors = {}
    for name, tensor in stored:
        if tensor["dtype"] not in _DTYPES:
            raise WeightsError(
                f"{file}: {name} has dtype {tensor['dtype']}, supported are {', '.join(_DTYPES)}"
            )
        flat = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]])
        tensors[name] = flat.reshape(tensor["shape"])
    return tensors


def read_sharded(index: epath.Path) -> FlatTree:
    """Read the tensors of all files that an index names.

    Raises:
        WeightsError: it is not an index, a file is missing or damaged, or a tensor is in no file.
    """
    content = read_json_object(index, error=WeightsError)
    require_fields(content, {"weight_map": dict}, str(index), error=WeightsError)
    shards = content["weight_map"]
    require_fields(shards, dict.fromkeys(shards, str), f"{index}: weight_map", error=WeightsError)
    tensors: FlatTree = {}
    for shard in sorted(set(shards.values())):
        if not shard or not set(shard).isdisjoint("/\\\0") or len(shard) > 255:
            raise WeightsError(f"{index} names {shorten(shard)}, which is no file's name")
        file = index.parent / shard
        if not file.exists():
            raise WeightsError(f"{index} names {shard}, which does not exist")
        tensors |= read_safetensors(file)
    if absent := sorted(shards.keys() - tensors.keys()):
        raise WeightsError(f"{index} names {', '.join(absent)}, which no shard contains")
    return tensors


def write_safetensors(file: os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write one file, with the format entry that older readers require."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path = Path(file)
    path.touch()
    mode = path.stat().st_mode
    save_file(contiguous, path, metadata={"format": "pt"})
    path.chmod(mode)  # the library replaces the file by one that only its owner can read
