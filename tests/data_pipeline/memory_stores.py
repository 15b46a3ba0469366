"""Stores in memory, behind gs:// and s3://, for tests without a server or its libraries."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar

import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from data_pipeline import remote


class MemoryStore(MemoryFileSystem):
    """Objects by name; as in a store, a directory exists if there are files below it."""

    protocol: ClassVar[Any] = ("gs", "gcs", "s3")
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, str) and "://" in path:
            path = path.partition("://")[2]
        return super()._strip_protocol(path)


@contextmanager
def memory_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[MemoryStore]]:
    """Put the stores in the place of those of Google and Amazon."""
    registry = import_module("fsspec.registry")._registry  # the name is taken in the package
    for name in MemoryStore.protocol:
        monkeypatch.setitem(registry, name, MemoryStore)
    monkeypatch.setattr(remote, "_answering", set())
    backend.fsspec_backend._get_filesystem.cache_clear()
    try:
        yield MemoryStore
    finally:
        MemoryStore.store.clear()
        MemoryStore.pseudo_dirs[:] = [""]
        backend.fsspec_backend._get_filesystem.cache_clear()
