"""Tensors of torch's pickle files, read without torch and without executing the pickle.

A pickle is a program. Ours may call three functions: the two that rebuild a tensor, and an ordered
dictionary. Any other name is rejected before it is looked up.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from albert_jax.interop.names import FlatTree, WeightsError

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(file: epath.Path) -> FlatTree:
    """Read the tensors of a ``pytorch_model.bin``, in the format of torch 1.6 or the one before.

    Raises:
        WeightsError: it is damaged, is not a flat table of tensors, or calls a function that is not
            allowed.
    """
    content = file.read_bytes()
    try:
        if content.startswith(b"PK"):
            table, storages = _read_zip(content)
        else:
            table, storages = _read_legacy(content)
        if not isinstance(table, Mapping):
            raise pickle.UnpicklingError(
                f"it contains a {type(table).__name__}, not a table of tensors"
            )
        return {name: _to_array(name, tensor, storages) for name, tensor in table.items()}
    except (
        *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, ValueError),
        *(TypeError, IndexError, AttributeError),
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{file} cannot be read as a file of tensors: {reason}") from error


def _read_zip(content: bytes) -> tuple[Any, Callable[[_Storage], bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    root = pickled.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise pickle.UnpicklingError("it is big-endian")
    table = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    return table, lambda storage: archive.read(f"{root}data/{storage.key}")


def _read_legacy(content: bytes) -> tuple[Any, Callable[[_Storage], bytes]]:
    """Read pickles one after another, then the length and the bytes of each storage."""
    stream = io.BytesIO(content)
    if _Unpickler(stream).load() != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("it does not begin like a file of torch")
    _Unpickler(stream).load()  # version of the format, always the same
    if _Unpickler(stream).load().get("little_endian") is not True:
        raise pickle.UnpicklingError("it is big-endian")
    unpickler = _Unpickler(stream)
    table = unpickler.load()
    storages = {}
    for key in _Unpickler(stream).load():
        length = int.from_bytes(stream.read(8), "little")
        storages[key] = stream.read(length * unpickler.storages[key].dtype.itemsize)
    return table, lambda storage: storages[storage.key]


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, requires_grad, hooks: tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it uses {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it refers to {kind!r}, which is not a storage")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype))


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _to_array(name: str, tensor: Any, storages: Callable[[_Storage], bytes]) -> np.ndarray:
    """Return the array at a tensor's offset and strides in its storage."""
    if not isinstance(tensor, _Tensor):
        raise pickle.UnpicklingError(f"{name} is a {type(tensor).__name__}, not a tensor")
    flat = np.frombuffer(storages(tensor.storage), tensor.storage.dtype)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if min(tensor.offset, *tensor.strides, 0) < 0 or (0 not in tensor.shape and last >= len(flat)):
        raise pickle.UnpicklingError(f"{name} reaches beyond the end of its {len(flat)} elements")
    itemsize = flat.itemsize
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, [stride * itemsize for stride in tensor.strides]
    ).copy()
