"""Integrity of checkpoints: a manifest with the SHA-256 of every file."""

import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

BEST = "best"  # a file that holds the step of the best checkpoint
MANIFEST = "manifest.json"
DAMAGED = "damaged"

# Orbax writes these two after everything else is on disk, so they cannot be in the manifest. They
# contain times and the names of Orbax's own classes, nothing of the run.
_STAMPED_AT_COMMIT = frozenset({"_CHECKPOINT_METADATA", "commit_success.txt"})
_CHUNK_BYTES = 4 << 20
_SMALL_FILE_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or is missing or damaged; the message is one line."""


def write_manifest(checkpoint: epath.Path) -> None:
    """Write the length and the SHA-256 of every file of a checkpoint to its ``manifest.json``.

    Example: ``{"state/d/8f…": {"bytes": 4194304, "sha256": "9c1e…"}, "metrics/metrics": …}``
    """
    files = [
        name for name in _file_names(checkpoint) if name not in _STAMPED_AT_COMMIT | {MANIFEST}
    ]
    with ThreadPoolExecutor() as pool:
        entries = list(pool.map(lambda name: _describe(checkpoint / name), files))
    manifest = json.dumps(dict(zip(files, entries, strict=True)), indent=1)
    (checkpoint / MANIFEST).write_text(manifest + "\n")


def find_damage(checkpoint: epath.Path, *, read_all: bool = True) -> str | None:
    """Describe the damage of a checkpoint in a few words; None if it is intact.

    Args:
        checkpoint: directory of one step.
        read_all: False to compare only the lengths of large files.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        entries = [(name, int(e["bytes"]), str(e["sha256"])) for name, e in manifest.items()]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} is not readable"

    def check(entry: tuple[str, int, str]) -> str | None:
        name, length, sha256 = entry
        path = checkpoint / name
        if not path.exists():
            return f"{name} is missing"
        if (found := path.stat().length) != length:
            return f"{name} has {found} bytes, {length} were written"
        if (read_all or length <= _SMALL_FILE_BYTES) and _describe(path)["sha256"] != sha256:
            return f"{name} does not have the SHA-256 that was written"
        return None

    with ThreadPoolExecutor() as pool:
        return next((damage for damage in pool.map(check, entries) if damage), None)


def _describe(path: epath.Path) -> dict[str, Any]:
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            length += len(chunk)
    return {"bytes": length, "sha256": digest.hexdigest()}


def _file_names(root: epath.Path) -> list[str]:
    names = []
    for path in root.iterdir():
        if path.is_dir():
            names += [f"{path.name}/{name}" for name in _file_names(path)]
        else:
            names.append(path.name)
    return sorted(names)


def committed_steps(directory: epath.Path) -> list[int]:
    """List the steps of the checkpoints that Orbax committed, oldest first."""
    if not directory.exists():
        return []
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(directory))


def _inspect(directory: epath.Path) -> tuple[int | None, dict[int, str]]:
    """Return the newest intact checkpoint, and the damage of others by step.

    Of those before it, large files are only checked for their length: Orbax opens them all.
    """
    newest, damages = None, {}
    for step in reversed(committed_steps(directory)):
        damage = find_damage(directory / str(step), read_all=newest is None)
        if damage:
            damages[step] = damage
        elif newest is None:
            newest = step
    return newest, damages


def _all_damaged(directory: epath.Path, damages: Mapping[int, str]) -> CheckpointError:
    listed = ", ".join(f"step {step} ({damage})" for step, damage in damages.items())
    return CheckpointError(
        f"every checkpoint under {directory} is damaged: {listed}; nothing was changed there: "
        "restore an intact copy, or start in another workdir"
    )


def quarantine_damaged(directory: epath.Path) -> None:
    """Move damaged checkpoints to ``damaged/``, so that the newest one left is intact.

    Raises:
        CheckpointError: there are checkpoints and all are damaged; none was moved.
    """
    newest, damages = _inspect(directory)
    if damages and newest is None:
        raise _all_damaged(directory, damages)
    for step, damage in damages.items():
        _log.warning(
            "checkpoint %d is damaged (%s): moved to %s, step %d is used",
            *(step, damage, directory / DAMAGED / str(step), newest),
        )
        (directory / DAMAGED).mkdir(exist_ok=True)
        (directory / DAMAGED / str(step)).rmtree(missing_ok=True)
        (directory / str(step)).rename(directory / DAMAGED / str(step))


def newest_step(directory: epath.Path) -> int:
    """Return the step of the newest checkpoint that is intact; nothing is moved.

    Raises:
        CheckpointError: there is none.
    """
    newest, damages = _inspect(directory)
    if newest is None:
        if damages:
            raise _all_damaged(directory, damages)
        raise CheckpointError(f"there is no checkpoint under {directory}")
    for skipped, damage in damages.items():
        _log.warning("checkpoint %d is damaged (%s): step %d is used", skipped, damage, newest)
    return newest


def resolve_step(directory: epath.Path, step: int | None) -> int:
    """Return the step of the checkpoint that a path means: `step` if given, or the best one.

    Where no evaluation has marked a checkpoint as the best, it is the newest intact one.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    if step is None:
        if not (directory / BEST).exists():
            return newest_step(directory)
        step = int((directory / BEST).read_text())
    steps = committed_steps(directory)
    if not steps:
        raise CheckpointError(f"there is no checkpoint under {directory}")
    if step not in steps:
        raise CheckpointError(f"there is no step {step} under {directory}, but {steps}")
    if damage := find_damage(directory / str(step)):
        raise CheckpointError(f"checkpoint {step} under {directory} is damaged: {damage}")
    return step
