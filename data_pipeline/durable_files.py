"""Files that are whole or absent, and known by their SHA-256."""

import hashlib
import os
from pathlib import Path


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str) -> str:
    """The SHA-256 of a text's UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def partial_name(path: Path) -> Path:
    """Where a process writes what it will rename to `path`, whatever other processes do."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that exists whole or not at all, also after a power cut."""
    partial = partial_name(path)
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
