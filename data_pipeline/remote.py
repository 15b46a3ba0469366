"""Directories on a remote store (gs://, s3://): copied to a local cache, or published from one."""

import functools
import importlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from etils import epath

from albert_jax.durable_files import hash_file, hash_text, new_file, write_atomically
from data_pipeline.errors import InputError, storage_failure

ANSWER_SECONDS = 30

_BLOCK = 1 << 22  # bytes


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return True if a path names a store rather than this machine's file system."""
    return "://" in os.fspath(path)


def cache_directory() -> Path:
    """Return the directory of local copies: `$XDG_CACHE_HOME/albert_jax`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "albert_jax"


def stage(url: str, manifest: str, read_hashes: Callable[[str], Mapping[str, str]]) -> Path:
    """Copy a remote directory to the cache, unless it is there, and return the copy.

    The copy is named after the content of the manifest, so a directory that changes is copied anew.
    Files are compared with their hashes as they arrive; the manifest is written last.

    Args:
        url: the directory.
        manifest: name of the file in it that lists the others.
        read_hashes: maps the manifest's text to path within the directory -> SHA-256.

    Raises:
        InputError: it cannot be read, or a file does not have its hash.
    """
    remote = open_remote(url)
    try:
        text = (remote / manifest).read_text()
    except FileNotFoundError:
        raise InputError(f"{url} is not a complete corpus: it has no {manifest}") from None
    except OSError as error:
        raise InputError(f"{url} cannot be read: {error}") from None
    hashes = read_hashes(text)
    local = cache_directory() / hash_text(text)[:32]
    if (local / manifest).is_file():
        return local
    for name, expected in hashes.items():
        target = local / name
        if target.is_file() and hash_file(target) == expected:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # Several processes of a machine may stage the same directory at the same time.
        with new_file(target) as partial:
            with (remote / name).open("rb") as source, partial.open("wb") as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
            if hash_file(partial) != expected:
                raise InputError(f"{url}/{name} does not have the SHA-256 that {manifest} gives it")
    write_atomically(local / manifest, text)
    return local


def publish(local: Path, url: str, manifest: str) -> None:
    """Copy a local directory to a remote one, the manifest last."""
    remote = open_remote(url)
    for path in sorted(local.rglob("*")):
        if path.is_file() and path != local / manifest:
            target = remote / path.relative_to(local).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
    (remote / manifest).write_text((local / manifest).read_text(encoding="utf-8"))


def open_path(path: str | os.PathLike[str]) -> epath.Path:
    """Return the path object of a local or remote path.

    Raises:
        InputError: it is on a store that cannot be reached.
    """
    return open_remote(os.fspath(path)) if is_remote(path) else epath.Path(path)


def open_remote(url: str) -> epath.Path:
    """Return the path object of a remote path.

    Raises:
        InputError: no installed file system supports the scheme, or the store does not answer.
    """
    scheme, _, rest = url.partition("://")
    if fault := _find_fault(f"{scheme}://{rest.partition('/')[0]}"):
        raise InputError(f"{url} cannot be reached: {fault}")
    return epath.Path(url)


@functools.cache
def _find_fault(root: str) -> str | None:
    """Say why a bucket cannot be used; None if it answers.

    Without a network, or credentials, the libraries try again for minutes.
    """
    importlib.import_module("tensorflow")  # by which etils reads stores, and which takes a while
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            epath.Path(root).exists()
            answers.put(None)
        except Exception as error:
            answers.put(storage_failure(error) or f"{type(error).__name__}: {error}")

    threading.Thread(target=ask, name="remote store", daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return f"it does not answer within {ANSWER_SECONDS} seconds (network? credentials?)"
