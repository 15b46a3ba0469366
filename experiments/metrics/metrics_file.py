"""The file `metrics.jsonl`: one JSON object per line, with step, split and metrics."""

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from albert_jax.durable_files import new_file
from albert_jax.input_files import is_remote

METRICS_FILE = "metrics.jsonl"
_NO_METRICS = frozenset({"step", "split", "time"})

_log = logging.getLogger(__name__)


class _Line(NamedTuple):
    content: bytes  # with its line break
    entry: dict[str, Any]


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Read the entries of a workdir's metrics file in order of steps; none if it is missing.

    Metrics that are null were not finite; they become NaN. Damaged lines are skipped with a
    warning.

    Example: a file of ``{"step": 20, "split": "train", "loss": 9.1}`` and ``{"step": 4``, a part of
    a line that a killed run left, has one entry.
    """
    path = epath.Path(workdir) / METRICS_FILE
    return [line.entry for line in _read_lines(path)] if path.exists() else []


def metrics_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of an entry: everything except step, split and time."""
    return {name: value for name, value in entry.items() if name not in _NO_METRICS}


def points_of(
    entries: Iterable[Mapping[str, Any]], split: str, metric: str
) -> list[tuple[int, float]]:
    """Return the step and the value of each entry of a split that has a metric.

    Example: of ``{"step": 20, "split": "train", "loss": 9.1}`` and ``{"step": 20, "split":
    "validation", "loss": 9.3}``, the points of the loss in ``train`` are ``[(20, 9.1)]``.
    """
    return [(e["step"], e[metric]) for e in entries if e["split"] == split and metric in e]


def remove_metrics_after(workdir: epath.PathLike, step: int) -> list[dict[str, Any]]:
    """Remove the entries of steps after one, and damaged lines, from a workdir's metrics file.

    Returns:
        The entries that were removed.
    """
    path = epath.Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    lines = _read_lines(path)
    content = b"".join(line.content for line in lines if line.entry["step"] <= step)
    if content != path.read_bytes():
        replace(path, content)
    return [line.entry for line in lines if line.entry["step"] > step]


def append_metrics(workdir: epath.PathLike, entry: dict[str, Any], *, durably: bool) -> None:
    """Append an entry to a workdir's metrics file; JSON has no NaN, so non-finite numbers are null.

    Args:
        workdir: local or remote.
        entry: step, split and metrics.
        durably: True to wait until it is on disk.
    """
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in entry.items()
    }
    line = json.dumps(finite, allow_nan=False) + "\n"
    append(epath.Path(workdir) / METRICS_FILE, line.encode(), durably=durably)


def append(path: epath.Path, content: bytes, *, durably: bool = False) -> None:
    """Append to a file, which is created if it is missing."""
    if is_remote(path):  # object stores cannot append
        path.write_bytes((path.read_bytes() if path.exists() else b"") + content)
        return
    with Path(path).open("ab") as file:
        file.write(content)
        if durably:
            file.flush()
            os.fsync(file.fileno())


def replace(path: epath.Path, content: bytes) -> None:
    """Replace a file atomically, as object stores always do."""
    if is_remote(path):
        path.write_bytes(content)
        return
    with new_file(Path(path)) as partial:
        partial.write_bytes(content)


def _read_lines(path: epath.Path) -> list[_Line]:
    lines, damaged = [], []
    for number, content in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        entry = _parse(content)
        if entry is None:
            damaged.append(number)
        else:
            lines.append(_Line(content, entry))
    if damaged:
        listed = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        _log.warning("%s: line %s is damaged or incomplete, and passed over", path, listed)
    return lines


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or type(entry.get("step")) is not int:
        return None
    entry = {name: math.nan if value is None else value for name, value in entry.items()}
    numbers = all(type(value) in (int, float) for name, value in entry.items() if name != "split")
    return entry if numbers and isinstance(entry.get("split"), str) else None
