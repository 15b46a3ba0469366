"""Files and directories that are complete or absent, and SHA-256 digests of files."""

import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def partial_name(path: Path) -> Path:
    """Return the name under which this process writes what it renames to `path` at the end.

    Hosts may share the directory, and processes in containers often share the process number 1.
    """
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a name to write a file under; on success the file replaces `path`, synced to disk.

    Parent directories are created. If the block raises an error, `path` stays as it was.
    """
    partial = partial_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_directory(
    path: str | os.PathLike[str], *, error: type[Exception] = FileExistsError
) -> Iterator[Path]:
    """Yield an empty directory to write into; on success it is renamed to `path`, synced to disk.

    If the block raises an error, nothing is left behind.

    Args:
        path: the directory to be; its parents are created.
        error: the exception to raise if `path` exists and is not an empty directory.
    """
    target = Path(os.path.abspath(path))
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise error(f"{path} exists already; choose another directory")
    partial = partial_name(target)
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process with the same number
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                sync(file)
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 file so that it is complete or absent, even after a power cut."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
