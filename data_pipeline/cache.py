"""The user's cache directory, and locks among the processes of a host."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from albert_jax.durable_files import hash_text

_logger = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Return the directory for local copies: `albert_jax` in `$XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "albert_jax"


def host_file(path: Path, kind: str) -> Path:
    """Return the cached file of this host that belongs to a path, such as its lock.

    Hosts often share the home directory, so the name depends on the host.
    """
    name = hash_text(f"{socket.gethostname()} {os.path.realpath(path)}")[:32]
    return cache_directory() / kind / name


@contextlib.contextmanager
def host_lock(path: Path, activity: str | None) -> Iterator[None]:
    """Admit the processes of this host one at a time; others wait, and log a line.

    The operating system releases the lock when its holder ends, however it ends. If the cache
    directory is not writable, there is a warning and no lock.

    Args:
        path: the file or directory to lock; the lock file itself is in the cache directory.
        activity: what the holder does, for the log line of a waiting process; None: no log line.
    """
    with contextlib.ExitStack() as exits:
        try:
            _acquire(host_file(path, "locks"), activity, exits)
        except OSError as error:
            _logger.warning(
                "No lock while %s (%s): other processes of this host may do it too. Set "
                "XDG_CACHE_HOME to a writable directory.",
                activity or f"changing {path}",
                error,
            )
        yield


def _acquire(file: Path, activity: str | None, exits: contextlib.ExitStack) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    exits.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if activity:
            _logger.warning("Waiting for another process of this host, which is %s.", activity)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
