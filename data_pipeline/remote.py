"""Directories on a remote store (gs://, s3://): copied to a local cache, or published from one."""

import functools
import importlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath

from albert_jax.durable_files import hash_text, new_file, write_atomically
from data_pipeline.cache import cache_directory, host_lock
from data_pipeline.errors import InputError, storage_failure
from data_pipeline.verification import Files, find_damaged_files

ANSWER_SECONDS = 30

_BLOCK = 1 << 22  # bytes
_COPIES_AT_A_TIME = 16


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return True if a path names a store rather than this machine's file system."""
    return "://" in os.fspath(path)


def stage(url: str, manifest: str, read_files: Callable[[str], Files]) -> Path:
    """Copy a remote directory to the cache, unless it is there, and return the copy.

    The copy is named after the content of the manifest, so a directory that changes is copied anew.
    One process of a host copies and verifies, the others wait for it; a copy that was damaged is
    mended. The manifest is written last.

    Args:
        url: the directory.
        manifest: name of the file in it that lists the others.
        read_files: maps the manifest's text to the sizes and hashes of the files.

    Raises:
        InputError: it cannot be read, or a file does not have its hash.
    """
    remote = open_remote(url)
    try:
        text = (remote / manifest).read_text()
    except FileNotFoundError:
        raise InputError(f"{url} is not a complete corpus: it has no {manifest}") from None
    except UnicodeDecodeError:
        raise InputError(f"{url}/{manifest} is damaged: it is not UTF-8") from None
    except OSError as error:
        raise InputError(f"{url} cannot be read: {error}") from None
    files = read_files(text)
    local = cache_directory() / hash_text(text)[:32]
    with host_lock(local / manifest, f"copying {url}"):
        if missing := find_damaged_files(local, files):
            _copy_files(remote, local, missing)
            damaged = find_damaged_files(local, files)
            for name in damaged:
                (local / name).unlink(missing_ok=True)
            for name in damaged:
                raise InputError(f"{url}/{name} does not have the SHA-256 that {manifest} gives it")
        if not (local / manifest).is_file():
            write_atomically(local / manifest, text)
    return local


def _copy_files(remote: epath.Path, local: Path, names: Iterable[str]) -> None:
    def copy(name: str) -> None:
        target = local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source = (remote / name).open("rb")
        except FileNotFoundError:
            raise InputError(f"{remote / name} is missing") from None
        # Hosts may share the cache directory and copy at the same time.
        with source, new_file(target) as partial, partial.open("wb") as sink:
            shutil.copyfileobj(source, sink, _BLOCK)

    with ThreadPoolExecutor(_COPIES_AT_A_TIME) as pool:
        copies = [pool.submit(copy, name) for name in names]
        try:
            for one in copies:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
