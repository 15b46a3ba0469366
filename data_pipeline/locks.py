"""Locks of directories: only one build, or one run, writes into a directory at a time.

On a file system with locks, the operating system holds the lock and releases it when the process
ends, however it ends. Object stores, and file systems without locks, cannot do this. There, the
holder renews a lease every few seconds, and a lease that has not been renewed for a minute has no
holder. If two processes start within the same second, the one that wrote last wins; nothing better
is available.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from etils import epath

from albert_jax.input_files import is_remote
from data_pipeline.errors import InputError

LOCK_FILE = ".lock"

RENEWAL_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
# Time from writing a lease to reading it back, in which a store has to show the last write.
SETTLING_SECONDS = 2.0

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock(directory: epath.PathLike, user: str) -> Iterator[Callable[[], None]]:
    """Lock an existing directory against other users for the duration of the context.

    Args:
        directory: the directory, local or remote.
        user: what uses the directory, for messages: ``run`` or ``build``.

    Yields:
        A function that raises an `InputError` if the lock has been lost: a process that was
        suspended for longer than a lease lasts may find another holder in its place.

    Raises:
        InputError: the directory is locked; the message names host, process and time of the holder.
    """
    root = epath.Path(directory)
    with contextlib.ExitStack() as exits:
        if not is_remote(root) and exits.enter_context(_system_lock(Path(root), user)):
            yield lambda: None  # this lock cannot be lost
        else:
            yield exits.enter_context(_Lease(root, user)).check


@contextlib.contextmanager
def _system_lock(directory: Path, user: str) -> Iterator[bool]:
    """Hold the lock of the operating system; yield False if the file system has no locks."""
    path = directory / LOCK_FILE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _describe_holder(os.read(descriptor, 1 << 12))
            os.close(descriptor)
            raise _in_use(directory, user, holder) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            yield False
            return
        if _is_same_file(descriptor, path):
            break
        os.close(descriptor)  # the holder removed the file meanwhile
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_own_entry()).encode())
        yield True
    finally:
        if _is_same_file(descriptor, path):  # else it is the next holder's: the directory is new
            path.unlink()
        os.close(descriptor)


class _Lease:
    """A lease: a file that a thread renews until the context exits."""

    def __init__(self, directory: epath.Path, user: str) -> None:
        self._directory, self._user = directory, user
        self._path = directory / LOCK_FILE
        self._entry = _own_entry()
        self._left = threading.Event()
        self._successor: bytes | None = None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Raise an InputError if another process holds the lease now."""
        if self._successor is not None:
            raise _in_use(self._directory, self._user, _describe_holder(self._successor))

    def __enter__(self) -> "_Lease":
        self._wait_for_expiry()
        try:
            self._write()
        except FileNotFoundError:
            bucket = "/".join(str(self._directory).split("/")[:3])
            raise InputError(
                f"{self._directory} cannot be written to: is there a bucket {bucket}?"
            ) from None
        time.sleep(SETTLING_SECONDS)
        if not self._is_own(written := self._read()):
            raise _in_use(self._directory, self._user, _describe_holder(written))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        self._thread.join()
        if self._is_own(self._read()):
            self._path.unlink(missing_ok=True)

    def _wait_for_expiry(self) -> None:
        """Wait until the lease has not been renewed for long, without comparing hosts' clocks."""
        found = self._read()
        if not found:
            return
        holder = _describe_holder(found)
        _log.warning(
            "%s has the lease of another %s (%s): waiting up to %.0f seconds to see if it is alive",
            *(self._directory, self._user, holder, EXPIRY_SECONDS),
        )
        end = time.monotonic() + EXPIRY_SECONDS
        while time.monotonic() < end:
            time.sleep(RENEWAL_SECONDS / 4)
            now = self._read()
            if not now:
                return
            if now != found:
                raise _in_use(self._directory, self._user, _describe_holder(now))

    def _renew(self) -> None:
        while not self._left.wait(RENEWAL_SECONDS):
            try:
                if not self._is_own(found := self._read()):
                    self._successor = found
                    return
                self._write()
            except Exception as error:  # network errors of any library; the lease lasts a while
                _log.warning("the lease of %s was not renewed: %s", self._directory, error)

    def _is_own(self, content: bytes) -> bool:
        return str(self._entry["token"]).encode() in content

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def _write(self) -> None:
        self._path.write_text(json.dumps(self._entry | {"renewed": time.time()}))


def _own_entry() -> dict[str, str | int]:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": since,
        "token": secrets.token_hex(8),
    }


def _describe_holder(content: bytes) -> str:
    """Example: ``host node7, process 4711, since 2026-01-31 12:00:00 UTC``."""
    try:
        entry = json.loads(content)
        return f"host {entry['host']}, process {entry['process']}, since {entry['since']}"
    except (ValueError, TypeError, KeyError):  # the file has just been created
        return "which has just started"


def _in_use(directory: epath.PathLike, user: str, holder: str) -> InputError:
    return InputError(
        f"{directory} is in use by another {user} ({holder}); wait for its end, stop it, or choose "
        "another directory"
    )


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
