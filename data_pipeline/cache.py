"""The user's cache directory, and locks that the processes of a host take in turn."""

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
    """Return the directory of local copies: `$XDG_CACHE_HOME/albert_jax`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "albert_jax"


def host_file(path: Path, kind: str) -> Path:
    """Return the cached file of this host that belongs to a path, such as its lock.

    Hosts often share the home directory, so the name depends on the host.
    """
    name = hash_text(f"{socket.gethostname()} {os.path.realpath(path)}")[:32]
    return cache_directory() / kind / name


@contextlib.contextmanager
def host_lock(path: Path, activity: str | None) -> Iterator[None]:
    """Let the processes of this host through one at a time; the others wait, and log a line.

    The operating system releases the lock when its holder ends, however it ends. Where the cache
    directory cannot be written there is no lock, and a warning.

    Args:
        path: the file or directory that is locked; the lock itself lies in the cache directory.
        activity: the work of the holder, for the line of a process that waits; None: no line.
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
