"""The measurements of an accelerator in a directory; each is written as soon as it is made."""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.durable_files import write_atomically
from albert_jax.input_files import parse_json, read_text, require_fields
from data_pipeline.errors import InputError
from experiments.benchmarks.accelerator.tables import format_report

MEASUREMENTS_FILE = "measurements.jsonl"
REPORT_FILE = "README.md"
# What measurements that are listed together must have in common.
_COMMON = ("device", "versions", "commit")

Row = dict[str, Any]


class Journal:
    """The measurements, one JSON object per line, and their report, rewritten with each of them.

    A journal that is opened again keeps what it has; the measurements in it are not made again.

    Args:
        directory: where the files are; created if missing.
        made: the result of `benchmarks.report.environment`.

    Attributes:
        rows: the measurements, in the order in which they were made.

    Raises:
        InputError: the directory has measurements of another device, commit or of other libraries.
    """

    def __init__(self, directory: Path, made: Mapping[str, Any]) -> None:
        self.directory, self._made = directory, dict(made)
        self._lock = threading.Lock()  # the thread that ends the process writes too
        self._left_out: dict[str, str] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / MEASUREMENTS_FILE
        self.rows: list[Row] = self._read() if self._path.exists() else []
        if self.rows:
            write_atomically(self._path, "".join(map(_line, self.rows)))  # drops half a line

    def _read(self) -> list[Row]:
        """Read the measurements, without a partial line that a killed process left."""
        rows = []
        *lines, _ = read_text(self._path, error=InputError).split("\n")
        for number, line in enumerate(lines, 1):
            row = parse_json(line, str(self._path), line=number, error=InputError)
            place = f"{self._path}:{number}"
            require_fields(row, {"item": str, "kind": str}, place, error=InputError)
            for name in _COMMON:
                if row.get(name) != self._made[name]:
                    raise InputError(
                        f"{self._path} has measurements of another {name} "
                        f"({row.get(name)}, here {self._made[name]}): name another --output"
                    )
            rows.append(row)
        return rows

    @property
    def items(self) -> set[str]:
        """The items that have measurements."""
        return {row["item"] for row in self.rows}

    def add(self, item: str, *rows: Mapping[str, Any]) -> None:
        """Append the measurements of an item, and rewrite the report."""
        with self._lock:
            entries = [{"item": item, **row, **self._made} for row in rows]
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, entries)))
                file.flush()
                os.fsync(file.fileno())
            self.rows += entries
            self._left_out.pop(item, None)
            self._write_report()

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """List items as not measured, each with its reason, and rewrite the report."""
        with self._lock:
            self._left_out |= reasons
            self._write_report()

    def _write_report(self) -> None:
        report = format_report(self.rows, self._left_out, self._made)
        write_atomically(self.directory / REPORT_FILE, report)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
