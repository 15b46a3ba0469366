"""Integrity of checkpoints: a manifest with the step and the SHA-256 of every file."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from etils import epath

from albert_jax.training.checkpoint.stored_state import STATE, read_parts

MANIFEST = "manifest.json"

# Orbax writes these two after everything else is on disk, so they cannot be in the manifest. They
# contain times and the names of Orbax's own classes, nothing of the run.
_STAMPED_AT_COMMIT = frozenset({"_CHECKPOINT_METADATA", "commit_success.txt"})
_CHUNK_BYTES = 4 << 20
_SMALL_FILE_BYTES = 1 << 20


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or is missing or damaged; the message is one line."""


class _FileSeal(NamedTuple):
    length: int  # bytes
    sha256: str


class _Manifest(NamedTuple):
    step: int | None  # None: written before manifests had this field
    files: dict[str, _FileSeal]


def write_manifest(checkpoint: epath.Path, step: int) -> None:
    """Write the step and the length and SHA-256 of every file to a checkpoint's ``manifest.json``.

    Example: ``{"step": 60, "files": {"state/d/8f…": {"bytes": 4194304, "sha256": "9c1e…"}, …}}``

    Args:
        checkpoint: directory of one step, under its temporary or its final name.
        step: the step.
    """
    names = [
        name for name in _file_names(checkpoint) if name not in _STAMPED_AT_COMMIT | {MANIFEST}
    ]
    with ThreadPoolExecutor() as pool:
        seals = list(pool.map(lambda name: _seal(checkpoint / name), names))
    files = {
        name: {"bytes": seal.length, "sha256": seal.sha256}
        for name, seal in zip(names, seals, strict=True)
    }
    manifest = json.dumps({"step": step, "files": files}, indent=1)
    (checkpoint / MANIFEST).write_text(manifest + "\n")


def find_damage(checkpoint: epath.Path, *, read_all: bool = True) -> str | None:
    """Describe the damage of a checkpoint in a few words; None if it is intact.

    Args:
        checkpoint: directory of one step, with the step as its name.
        read_all: False to compare only the lengths of large files.
    """
    try:
        manifest = _parse_manifest(json.loads((checkpoint / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{MANIFEST} is not readable"
    if not any(name.startswith(f"{STATE}/") for name in manifest.files):
        return f"{MANIFEST} lists no files of a state"
    if manifest.step is not None and str(manifest.step) != checkpoint.name:
        return f"it holds step {manifest.step}"

    def check(entry: tuple[str, _FileSeal]) -> str | None:
        name, seal = entry
        path = checkpoint / name
        if not path.exists() or path.is_dir():
            return f"{name} is missing"
        if (found := path.stat().length) != seal.length:
            return f"{name} has {found} bytes, {seal.length} were written"
        if (read_all or seal.length <= _SMALL_FILE_BYTES) and _seal(path) != seal:
            return f"{name} does not have the SHA-256 that was written"
        return None

    with ThreadPoolExecutor() as pool:
        damage = next((one for one in pool.map(check, manifest.files.items()) if one), None)
    if damage is None and manifest.step is None:
        stored = read_parts(checkpoint, ["step"]).get("step")
        if stored is not None and str(stored) != checkpoint.name:
            damage = f"it holds step {stored}"
    return damage


def _parse_manifest(content: Mapping[str, Any]) -> _Manifest:
    """Parse a manifest and check its form. Older manifests have no step, only the files."""
    step, files = (content["step"], content["files"]) if "step" in content else (None, content)
    if step is not None and type(step) is not int:
        raise TypeError(f"step must be a whole number, got {step!r}")
    seals = {name: _FileSeal(int(f["bytes"]), str(f["sha256"])) for name, f in files.items()}
    return _Manifest(step, seals)


def _seal(path: epath.Path) -> _FileSeal:
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            length += len(chunk)
    return _FileSeal(length, digest.hexdigest())


def _file_names(root: epath.Path) -> list[str]:
    names = []
    for path in root.iterdir():
        if path.is_dir():
            names += [f"{path.name}/{name}" for name in _file_names(path)]
        else:
            names.append(path.name)
    return sorted(names)
