"""Files of a large remote directory, copied to the cache on demand and removed again.

A host has room for some of the files at a time. Each process declares which files it reads now and
next. Those are copied in the background; files that no process of the host reads are removed.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.durable_files import new_file
from data_pipeline.cache import host_lock
from data_pipeline.errors import InputError, storage_failure
from data_pipeline.memory_maps import MappedDirectory
from data_pipeline.remote import open_path
from data_pipeline.terminal import format_size
from data_pipeline.verification import DamageError, Files

_RETRY_SECONDS = (1.0, 5.0, 20.0)  # before the second, third and fourth (last) attempt
_COPIES_AT_A_TIME = 8
_BLOCK = 1 << 22  # bytes
_USERS = ".users"  # a directory with a file per process, which lists the files that it reads
_OLD_SECONDS = 3600.0  # age at which a partial copy is taken to be left by a killed process

_logger = logging.getLogger(__name__)


class FileStage:
    """The files of a remote directory, some of which are in the cache.

    Args:
        url: the remote directory.
        local: the local copy of the directory.
        files: the files that may be copied and removed, with their sizes and hashes.
    """

    def __init__(self, url: str, local: Path, files: Files) -> None:
        self.url, self.local, self._files = url, local, files
        self._lock = threading.Condition()
        self._queue: deque[str] = deque()
        self._threads: list[threading.Thread] = []
        self._user: Any = None  # this process's file in `_USERS`, locked while it is open

    def __reduce__(self) -> tuple[Callable[..., "FileStage"], tuple[Any, ...]]:
        return FileStage, (self.url, self.local, self._files)

    def fetch(self, name: str) -> None:
        """Copy a file unless it is here already, and check its hash on the way.

        Raises:
            InputError: the file cannot be copied, even after several attempts.
        """
        if self._is_here(name):
            return
        with host_lock(self.local / name, None):
            for seconds in (*_RETRY_SECONDS, None):
                if self._is_here(name):  # copied meanwhile by another process
                    return
                try:
                    self._copy(name)
                except FileNotFoundError:
                    raise InputError(f"{self.url}/{name} is missing") from None
                except Exception as error:  # network errors, from any library
                    reason = storage_failure(error) or f"{type(error).__name__}: {error}"
                    if seconds is None:
                        raise InputError(
                            f"{self.url}/{name} cannot be copied to {self.local}: {reason}"
                        ) from error
                    _logger.warning(
                        "%s/%s: %s; trying again in %.0f seconds", self.url, name, reason, seconds
                    )
                    time.sleep(seconds)

    def hold(self, now: Sequence[str], later: Sequence[str]) -> None:
        """Copy files in the background, and remove files that no process of this host holds.

        Files that this process held before, but does not now, may be removed and fetched again.

        Args:
            now: the files that are read next.
            later: the files after those, which are copied if there is room.
        """
        with self._lock:
            with host_lock(self.local / _USERS, None):
                self._say_what_is_held([*now, *later])
                self._remove_unused()
            self._queue.clear()
            missing = [
                [name for name in names if not self._is_here(name)] for names in (now, later)
            ]
            free = shutil.disk_usage(self.local).free - self._bytes(missing[0])
            if self._bytes(missing[1]) > free:
                _logger.warning(
                    "%s has no room for the next %s of %s (%s would be free): they are copied when "
                    "they are read",
                    *(self.local, format_size(self._bytes(missing[1])), self.url),
                    format_size(max(free, 0)),
                )
                missing.pop()
            for names in missing:
                random.Random(os.getpid()).shuffle(names)  # so that processes start differently
                self._queue.extend(names)
            while len(self._threads) < _COPIES_AT_A_TIME:
                # Not a pool: it would finish its queue before the process could exit.
                thread = threading.Thread(target=self._copy_queue, name="staging", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._lock.notify_all()

    def _copy_queue(self) -> None:
        while True:
            with self._lock:
                while not self._queue:
                    self._lock.wait()
                name = self._queue.popleft()
            try:
                self.fetch(name)
            except InputError as error:
                _logger.warning("%s: it is tried again when it is read", error)

    def _is_here(self, name: str) -> bool:
        try:
            return (self.local / name).stat().st_size == self._files[name]["bytes"]
        except FileNotFoundError:
            return False

    def _bytes(self, names: Collection[str]) -> int:
        return sum(self._files[name]["bytes"] for name in names)

    def _copy(self, name: str) -> None:
        digest, target = hashlib.sha256(), self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = open_path(f"{self.url}/{name}").open("rb")
        with source, new_file(target) as partial, partial.open("wb") as sink:
            while block := source.read(_BLOCK):
                digest.update(block)
                sink.write(block)
            if digest.hexdigest() != self._files[name]["sha256"]:
                raise DamageError("it does not have the SHA-256 that the metadata gives it")

    def _say_what_is_held(self, names: Sequence[str]) -> None:
        users = self.local / _USERS
        users.mkdir(parents=True, exist_ok=True)
        if self._user is None:
            path = users / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
            self._user = path.open("w")
            fcntl.flock(self._user, fcntl.LOCK_EX)
        self._user.seek(0)
        self._user.truncate()
        json.dump(names, self._user)
        self._user.flush()

    def _remove_unused(self) -> None:
        held = {name for names in self._read_users() for name in names}
        now = time.time()
        for directory in {(self.local / name).parent for name in self._files}:
            for path in directory.iterdir() if directory.is_dir() else ():
                name = path.relative_to(self.local).as_posix()
                with contextlib.suppress(FileNotFoundError):
                    if name in self._files:
                        is_unused = name not in held
                    else:
                        is_half = path.name.startswith(".")
                        is_unused = is_half and now - path.stat().st_mtime > _OLD_SECONDS
                    if is_unused:
                        path.unlink()

    def _read_users(self) -> Iterator[list[str]]:
        """Yield what each live process holds, and remove the files of processes that ended."""
        for path in (self.local / _USERS).iterdir():
            if self._user is not None and path.name == Path(self._user.name).name:
                yield json.loads(path.read_text())
                continue
            with contextlib.suppress(FileNotFoundError), path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield json.loads(file.read() or "[]")
                else:
                    path.unlink(missing_ok=True)


class StagedDirectory(MappedDirectory):
    """A local copy whose files are fetched when they are mapped.

    Args:
        stage: the stage that fetches the files.
    """

    def __init__(self, stage: FileStage) -> None:
        super().__init__(stage.local)
        self._stage = stage

    def map(self, name: str, dtype: np.dtype) -> np.ndarray:
        """Fetch a file, then map it as `MappedDirectory.map` does.

        Raises:
            InputError: the file cannot be fetched.
        """
        for _ in range(2):
            self._stage.fetch(name)
            with contextlib.suppress(InputError):  # another process may just have removed it
                return super().map(name, dtype)
        self._stage.fetch(name)
        return super().map(name, dtype)
