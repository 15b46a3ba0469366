"""Tensors of torch's pickle files, read without torch and without executing the pickle.

A pickle is a program. Here it may call three functions: two that rebuild a tensor, and the one that
makes an ordered dictionary. Any other name is rejected before it is looked up. The sizes that a
file claims are compared with its length before memory is allocated.
"""

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from albert_jax.input_files import read_bytes, shorten
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
    """Read the tensors of a ``pytorch_model.bin``, in the format since torch 1.6 or the older one.

    Raises:
        WeightsError: it is damaged, is not a flat table of tensors, or calls a function that is not
            allowed.
    """
    content = read_bytes(file, error=WeightsError)
    try:
        reader = _read_zip if content.startswith(b"PK") else _read_legacy
        table, storages = reader(content)
        if not isinstance(table, Mapping):
            raise pickle.UnpicklingError(
                f"it contains a {type(table).__name__}, not a table of tensors"
            )
        return {name: _to_array(name, tensor, storages) for name, tensor in table.items()}
    except (
        *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, LookupError, ValueError),
        *(TypeError, AttributeError, OverflowError, RecursionError, NotImplementedError),
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{file} cannot be read as a file of tensors: {reason}") from error


def _read_zip(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = {entry.filename: entry for entry in archive.infolist()}
    (pickled,) = [name for name in entries if name.endswith("/data.pkl")]
    root = pickled.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in entries and _read_entry(archive, entries[order]) != b"little":
        raise pickle.UnpicklingError("it is big-endian")
    unpickler = _Unpickler(io.BytesIO(_read_entry(archive, entries[pickled])))
    table = unpickler.load()
    storages = {
        key: np.frombuffer(_read_entry(archive, entries[f"{root}data/{key}"]), storage.dtype)
        for key, storage in unpickler.storages.items()
    }
    return table, storages


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read an entry that is not compressed, as torch writes them: no larger than the file."""
    if entry.flag_bits & 1:
        raise pickle.UnpicklingError(f"its entry {entry.filename} is encrypted")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise pickle.UnpicklingError(f"its entry {entry.filename} is compressed")
    return archive.read(entry)


def _read_legacy(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
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
        length, dtype = int.from_bytes(stream.read(8), "little"), unpickler.storages[key].dtype
        storages[key] = np.frombuffer(stream.read(length * dtype.itemsize), dtype)
    return table, storages


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO) -> None:
        _check_sizes(stream)
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
            raise pickle.UnpicklingError(f"it refers to {shorten(kind)}, which is not a storage")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype))


def _check_sizes(stream: io.BytesIO) -> None:
    """Check that a pickle asks for no more memory than its length; keep the stream's position.

    Python's own unpickler trusts the lengths of strings and the numbers of memo slots.
    """
    start, length = stream.tell(), len(stream.getbuffer())
    for opcode, argument, _ in pickletools.genops(stream):  # checks the lengths of strings itself
        if "PUT" in opcode.name and argument is not None and int(argument) > length:
            raise pickle.UnpicklingError(f"its memory has {argument} slots in {length} bytes")
    stream.seek(start)


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _to_array(name: Any, tensor: Any, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the array at a tensor's offset and strides in its storage, which is not copied."""
    if not isinstance(name, str):
        raise pickle.UnpicklingError(f"it has a tensor called {shorten(name)}")
    if not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
        raise pickle.UnpicklingError(f"{name} is a {type(tensor).__name__}, not a tensor")
    flat = storages[tensor.storage.key]
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise pickle.UnpicklingError(f"{name} has sizes {shorten(numbers)}")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if 0 not in tensor.shape and last >= len(flat):
        raise pickle.UnpicklingError(f"{name} reaches beyond the end of its {len(flat)} elements")
    if math.prod(tensor.shape) > len(flat):  # by strides of 0
        raise pickle.UnpicklingError(f"{name} repeats the {len(flat)} elements that are stored")
    itemsize = flat.itemsize
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, [stride * itemsize for stride in tensor.strides]
    )
