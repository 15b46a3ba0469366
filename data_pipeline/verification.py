"""Verification of files and of the metadata beside them.

Files are checked against their SHA-256 once per host, not once per process: a marker in the cache
directory records what was verified. Each field of the metadata has a seal, i.e. a hash of its own.
"""

import json
import logging
import os
import stat
import time
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from albert_jax.durable_files import hash_file, hash_text, write_atomically
from albert_jax.input_files import parse_json, read_json_object
from data_pipeline.cache import host_file, host_lock
from data_pipeline.errors import InputError

SEALS = "seals"  # the key of a metadata file's seals

# How long a verification stays valid: long enough for all processes of a run to start.
_VALID_SECONDS = 3600
# Files that changed so shortly before their verification are verified again, since another change
# within the resolution of their timestamps would go unnoticed.
_YOUNG_SECONDS = 1.0

_logger = logging.getLogger(__name__)

Files = Mapping[str, Mapping[str, Any]]  # path within a directory -> bytes, sha256


class DamageError(InputError):
    """Stored data that differs from what was written."""


def describe_files(directory: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the size in bytes and the SHA-256 of files, keyed by path within a directory."""
    return {
        name: {
            "bytes": (directory / name).stat().st_size,
            "sha256": hash_file(directory / name),
        }
        for name in names
    }


def check_file_records(files: Any) -> None:
    """Check that a parsed JSON value has the form of `describe_files` and names at least one file.

    Raises:
        DamageError: it does not.
    """
    if not isinstance(files, dict) or not files:
        raise DamageError("it names no files")
    for name, record in files.items():
        if not isinstance(record, dict) or not is_count(record.get("bytes")):
            raise DamageError(f"it has no size of {name}")
        if not isinstance(record.get("sha256"), str):
            raise DamageError(f"it has no SHA-256 of {name}")


def is_count(value: Any, *, at_least: int = 0) -> bool:
    """Return True for an integer that is not below `at_least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def find_damaged_files(directory: Path, files: Files, *, hashes: bool = True) -> dict[str, str]:
    """Check files against their sizes and hashes.

    The processes of a host take turns. A file that one of them has verified is not read again for
    an hour, unless its size, timestamps or inode change.

    Args:
        directory: the directory of the files.
        files: as returned by `describe_files`.
        hashes: True to check the hashes of files with the right size, too.

    Returns:
        Damaged file -> description of the damage, such as "tokens.bin is missing".
    """
    damage = {}
    for name, record in files.items():
        size = _size(f"{directory}/{name}")
        if size != record["bytes"]:
            found = "is missing" if size is None else f"has {size:,} bytes"
            damage[name] = f"{name} {found}, its metadata says {record['bytes']:,} bytes"
    whole = {name: record for name, record in files.items() if name not in damage}
    if not hashes or not _unverified(directory, whole):
        return damage
    with host_lock(_marker_file(directory), f"verifying the files of {directory}"):
        started = time.time()
        todo = _unverified(directory, whole)
        with ThreadPoolExecutor() as pool:
            digests = pool.map(lambda name: hash_file(directory / name), todo)
            for name, digest in zip(todo, digests, strict=True):
                if digest != files[name]["sha256"]:
                    damage[name] = f"the SHA-256 of {name} is not the one in its metadata"
        if todo:
            _mark_verified(directory, todo, damage, started)
    return damage


def _size(path: str) -> int | None:
    """Return the size of a regular file, or None if there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _unverified(directory: Path, files: Files) -> dict[str, tuple[str, float]]:
    """Return the files that no valid marker lists, with their identity and time of last change."""
    marker = _read_marker(directory)
    now = time.time()
    found = {}
    for name, record in files.items():
        status = os.stat(f"{directory}/{name}")
        times = (status.st_mtime_ns, status.st_ctime_ns)
        identity = f"{name} {record['sha256']} {status.st_size} {times} {status.st_ino}"
        verified = marker.get(identity)
        if not isinstance(verified, float) or not 0 <= now - verified < _VALID_SECONDS:
            found[name] = (identity, max(times) / 1e9)
    return found


def _marker_file(directory: Path) -> Path:
    return host_file(directory, "verified")


def _read_marker(directory: Path) -> dict[str, Any]:
    """Return the time at which each file was verified; a damaged marker counts as empty."""
    try:
        return read_json_object(_marker_file(directory), error=DamageError)
    except DamageError:
        return {}


def _mark_verified(
    directory: Path, verified: Mapping[str, tuple[str, float]], damage: Container[str], at: float
) -> None:
    marker = {
        identity: time
        for identity, time in _read_marker(directory).items()
        if isinstance(time, float) and time > at - _VALID_SECONDS
    }
    marker |= {
        identity: at
        for name, (identity, changed) in verified.items()
        if name not in damage and changed < at - _YOUNG_SECONDS
    }
    file = _marker_file(directory)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(marker))
    except OSError as error:
        _logger.warning("Each process verifies %s, since no marker is kept: %s", directory, error)


def seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a metadata file plus a field `seals` with the SHA-256 of each.

    Args:
        fields: values that can be stored as JSON.
    """
    parsed = json.loads(json.dumps(fields))
    return {**fields, SEALS: {name: _hash_value(value) for name, value in parsed.items()}}


def unseal(sealed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a parsed metadata file without its seals, after checking these.

    Raises:
        DamageError: a field does not match its seal, or one of the two is missing.
    """
    fields = {name: value for name, value in sealed.items() if name != SEALS}
    seals = sealed.get(SEALS)
    if not isinstance(seals, dict):
        raise DamageError(f"it has no {SEALS}, without which changes would not show")
    for name in [*fields, *seals]:
        if name not in fields or name not in seals:
            raise DamageError(f"{name} was added or removed after it was written")
        if seals[name] != _hash_value(fields[name]):
            raise DamageError(f"{name} has changed since it was written")
    return fields


def _hash_value(value: Any) -> str:
    return hash_text(json.dumps(value, sort_keys=True, separators=(",", ":")))


def parse_json_object(text: str) -> dict[str, Any]:
    """Parse JSON whose top level is an object.

    Raises:
        DamageError: the text is not such JSON.
    """
    parsed = parse_json(text, "it", error=DamageError)
    if not isinstance(parsed, dict):
        raise DamageError("it is not a JSON object")
    return parsed
