"""Directories on a remote store (gs://, s3://): copied to a local cache, or published from one."""

import contextlib
import os
import queue
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import fsspec
from etils import epath

from albert_jax.durable_files import hash_text, new_file, sync, write_atomically
from albert_jax.input_files import is_remote
from data_pipeline.cache import cache_directory, host_lock
from data_pipeline.errors import STORES, InputError, storage_failure
from data_pipeline.verification import Files, find_damaged_files

ANSWER_SECONDS = 30

_BLOCK = 1 << 22  # bytes
_COPIES_AT_A_TIME = 16
_answering: set[str] = set()  # buckets that have answered


def stage(url: str, manifest: str, read_files: Callable[[str], Files]) -> Path:
    """Copy a remote directory to the cache, unless it is there already, and return the copy.

    The copy is named after the content of the manifest, so a directory that has changed is copied
    again. One process per host copies and verifies, while the others wait for it. A damaged copy is
    repaired. The manifest is written last.

    Args:
        url: the remote directory.
        manifest: name of the file in the directory that lists the other files.
        read_files: maps the manifest's text to the sizes and hashes of the files.

    Raises:
        InputError: the directory cannot be read, or a file does not match its hash.
    """
    remote = open_remote(url)
    try:
        text = (remote / manifest).read_text()
    except FileNotFoundError:
        raise InputError(
            f"{url} is not a complete corpus: it has no {manifest}; check the bucket and the path"
        ) from None
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
    """Copy a local directory to a remote one, with the manifest last.

    An existing manifest is removed first. Then all other remote files that the local directory does
    not have are removed, except for hidden files such as a lock.
    """
    remote = open_remote(url)
    (remote / manifest).unlink(missing_ok=True)
    names = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    root = f"{url.partition('://')[2]}/"
    for found in file_system(url).find(url):
        name = found.lstrip("/").removeprefix(root)
        if name not in names and not name.startswith("."):
            (remote / name).unlink()

    def copy(name: str) -> None:
        with (local / name).open("rb") as source, (remote / name).open("wb") as sink:
            shutil.copyfileobj(source, sink, _BLOCK)

    with ThreadPoolExecutor(_COPIES_AT_A_TIME) as pool:
        for _ in pool.map(copy, sorted(names - {manifest})):
            pass
    copy(manifest)


def open_path(path: str | os.PathLike[str]) -> epath.Path:
    """Return the path object of a local or remote path.

    Raises:
        InputError: the path is on a store that cannot be reached.
    """
    return open_remote(os.fspath(path)) if is_remote(path) else epath.Path(path)


def open_remote(url: str) -> epath.Path:
    """Return the path object of a remote path.

    Raises:
        InputError: the store is not supported, its library is not installed, or it does not answer.
            A store may answer even if the bucket does not exist.
    """
    bucket = "/".join(url.split("/", 3)[:3])
    if bucket not in _answering:
        if fault := _find_fault(url):
            raise InputError(f"{url} cannot be reached: {fault}")
        _answering.add(bucket)
    return epath.Path(url)


@contextlib.contextmanager
def new_binary_file(path: epath.Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears only when complete, even with concurrent writers.

    Objects on stores appear when they are closed. A local file is synced to disk and then renamed.
    """
    if is_remote(path):
        with path.open("wb") as file:
            yield file
        return
    target = Path(path)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("xb") as file:
            yield file
        sync(partial)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def make_directory(path: epath.Path) -> None:
    """Make a missing local directory; stores have none, and would create a missing bucket."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def file_system(url: str) -> fsspec.AbstractFileSystem:
    """Return the file system of a store, the same one that `etils.epath` uses.

    It caches no listings, so files that other processes write are visible at once.
    """
    scheme = url.partition("://")[0]
    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    return fsspec.filesystem(scheme)


def _find_fault(url: str) -> str | None:
    """Return why a store cannot be used, or None if it answers, even that the path does not exist.

    Without a network or credentials, the libraries retry for minutes, hence the time limit.
    """
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(
        target=lambda: answers.put(_ask(url)), name="remote store", daemon=True
    ).start()
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return f"it does not answer within {ANSWER_SECONDS} seconds (network? credentials?)"


def _ask(url: str) -> str | None:
    scheme = url.partition("://")[0]
    if scheme not in STORES:
        return f"no file system for {scheme}:// is known, only {', '.join(STORES)}"
    try:
        file_system(url).info(url)
    except FileNotFoundError:
        return None
    except Exception as error:
        return storage_failure(error) or f"{type(error).__name__}: {error}"
    return None
