"""Output of benchmarks: a Markdown table, and JSON lines with the environment of each row."""

import datetime
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.versions import LIBRARIES, commit, installed_versions

_DISTRIBUTIONS = (*LIBRARIES, "torch", "transformers")
_MISSING = "-"  # not measured, or unknown


def environment(device: str, module: str = "experiments.benchmark") -> dict[str, Any]:
    """Return what a measurement depends on besides the code.

    Args:
        device: name of the computing devices, such as ``NVIDIA H200 x 1``.
        module: the module that was called.
    """
    return {
        "device": device,
        "host": f"{processor_name()} x {os.cpu_count()}",
        "python": platform.python_version(),
        "versions": installed_versions(_DISTRIBUTIONS),
        "commit": commit(),
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
    }


def processor_name() -> str:
    """Return the maker's name of the host's processor, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(made: Mapping[str, Any]) -> str:
    """Return the result of `environment` as lines of text, with an empty line at the end."""
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return (
        f"{made['device']}; host {made['host']}; Python {made['python']}; {versions}\n"
        f"commit {made['commit']}, {made['date']}: `{made['command']}`\n"
    )


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of rows, which all have the same names; None stands for no value."""
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in rows[0]) + " |",
        "|" + " --- |" * len(rows[0]),
        *("| " + " | ".join(map(_cell, row.values())) + " |" for row in rows),
    ]
    return "\n".join(lines)


def print_rows(rows: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> None:
    """Print a Markdown table, and below it each row and its environment as a JSON object.

    Args:
        rows: measurements, all with the same names; None where nothing was measured.
        made: the result of `environment`.
    """
    print(describe(made))
    print(format_table(rows))
    print()
    for row in rows:
        print(json.dumps({**row, **made}))
    sys.stdout.flush()


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Round to significant digits. Example: 12345.6 gives 12350.0, 0.123456 gives 0.1235."""
    return None if value is None else float(f"{value:.{digits}g}")


def _cell(value: Any) -> str:
    if value is None:
        return _MISSING
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value).replace("|", "\\|")
