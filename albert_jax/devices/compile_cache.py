"""The cache of compiled programs: kept over restarts, shared by hosts, and proof against damage."""

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
from etils import epath
from jax._src import compilation_cache, compiler
from jax._src.compilation_cache_interface import CacheInterface

from albert_jax.durable_files import partial_name
from albert_jax.input_files import is_remote

MOST_BYTES = 4 * 2**30  # of a local directory: the least recently used files are removed

_SUFFIX = ".program"
_DIGEST = 32  # bytes of a SHA-256 before each program
_MIN_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_REQUEST = "/jax/compilation_cache/compile_requests_use_cache"
_HIT = "/jax/compilation_cache/cache_hits"

_log = logging.getLogger(__name__)


class CacheCounts(NamedTuple):
    """Numbers of cacheable programs that this process needed and that it found in the cache."""

    needed: int
    found: int

    def since(self, before: "CacheCounts") -> "CacheCounts":
        """Return what was added since earlier counts."""
        return CacheCounts(self.needed - before.needed, self.found - before.found)

    @property
    def all_found(self) -> bool:
        """True if programs were needed and none was compiled."""
        return self.needed == self.found > 0


class SealedCache(CacheInterface):
    """A cache for JAX whose entries are complete or absent, and have a checksum.

    JAX's own cache writes an entry in place, so a process that is killed leaves half an entry
    forever, and whatever decompresses is run. Here a damaged entry is removed with a warning, and
    the program is compiled again.

    Args:
        directory: local or remote.
        most_bytes: limit on all entries together, if it is local.
    """

    def __init__(self, directory: str, most_bytes: int = MOST_BYTES) -> None:
        self._path = epath.Path(directory)
        self._most_bytes, self._is_remote = most_bytes, is_remote(self._path)
        self._unchecked: int | None = None  # bytes written since the last check of the bound

    def get(self, key: str) -> bytes | None:
        """Return an entry, or None if there is none that is intact."""
        file = self._path / f"{key}{_SUFFIX}"
        if not file.exists():
            return None
        content = file.read_bytes()
        digest, program = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(program).digest() != digest:
            _log.warning("%s is damaged: it is removed, and compiled again", file)
            file.unlink(missing_ok=True)
            return None
        if not self._is_remote:
            with contextlib.suppress(OSError):  # the directory may be read-only
                os.utime(file)
        return program

    def put(self, key: str, value: bytes) -> None:
        """Add an entry."""
        file, content = self._path / f"{key}{_SUFFIX}", hashlib.sha256(value).digest() + value
        if self._is_remote:
            file.write_bytes(content)
            return
        partial = partial_name(Path(file))
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, file)  # not synced: the checksum shows damage after a power cut
        if self._unchecked is None or self._unchecked > self._most_bytes // 64:
            self._evict()
            self._unchecked = 0
        self._unchecked += len(content)

    def _evict(self) -> None:
        """Remove the least recently used files, and those of killed processes, above the limit."""
        found = []
        for file in Path(self._path).glob(f"*{_SUFFIX}*"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        excess = sum(size for _, size, _ in found) - self._most_bytes
        for _, size, file in sorted(found):
            if excess <= 0:
                break
            file.unlink(missing_ok=True)
            excess -= size


def use_compile_cache(directory: str) -> None:
    """Keep programs that this process compiles from now on in a directory, and look there first.

    A local directory keeps all of them, a remote one those that take a second or longer. Of several
    processes, the first one writes and all of them read. On CPUs, a program has a different key in
    each process, so all of them write.
    """
    global _directory
    _directory = directory
    cast(Any, compiler)._cache_write = _write
    compilation_cache.get_file_cache = lambda path: (SealedCache(path), path)
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", directory)
    if _MIN_SECONDS not in os.environ:  # a store answers more slowly than a small program compiles
        seconds = 1.0 if is_remote(epath.Path(directory)) else 0.0
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    if is_remote(epath.Path(directory)):  # XLA's own caches are local files beside JAX's
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def _write(
    key: str, seconds: float, name: str, backend: Any, executable: Any, *callbacks: Any
) -> None:
    """Add a program: on the first process, as JAX does, and on CPUs on the other processes too.

    JAX's keys contain a fingerprint of the devices, which on CPUs differs between processes.
    """
    if jax.process_index() == 0 or backend.platform != "cpu" or any(callbacks):
        _write_on_first(key, seconds, name, backend, executable, *callbacks)
        return
    try:
        compilation_cache.put_executable_and_time(key, name, executable, backend, int(seconds))
    except OSError as error:
        _log.warning("%s was not written to the cache of compiled programs: %s", name, error)


_write_on_first: Any = compiler._cache_write


def compile_cache_directory() -> str | None:
    """Return the directory that `use_compile_cache` was last called with."""
    return _directory


def cache_counts() -> CacheCounts:
    """Return the counts of this process up to now."""
    return CacheCounts(_counts[_REQUEST], _counts[_HIT])


_directory: str | None = None
_counts = {_REQUEST: 0, _HIT: 0}


def _count(event: str, **_: str | int) -> None:
    if event in _counts:
        _counts[event] += 1


jax.monitoring.register_event_listener(_count)
