"""The report of an accelerator's measurements in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.benchmarks.report import describe, format_table, rounded

Rows = Sequence[Mapping[str, Any]]


def format_report(rows: Rows, left_out: Mapping[str, str], made: Mapping[str, Any]) -> str:
    """Return a page with a section for each kind of measurement.

    Args:
        rows: the measurements.
        left_out: the items that were not measured, each with the reason.
        made: the result of `benchmarks.report.environment`, which they depend on.
    """
    parts = [f"# {made['device']}\n", describe(made)]
    for kind, (title, format_section) in _SECTIONS.items():
        if found := [row for row in rows if row["kind"] == kind]:
            parts.append(f"## {title}\n\n{format_section(found)}\n")
    if left_out:
        table = format_table([{"item": one, "reason": why} for one, why in left_out.items()])
        parts.append(f"## Not measured\n\n{table}\n")
    return "\n".join(parts)


def _columns(*names: str) -> Callable[[Rows], str]:
    """Return a function that formats rows as one table of these columns."""
    return lambda rows: format_table([{name: row.get(name) for name in names} for row in rows])


def _format_profiles(rows: Rows) -> str:
    return "\n\n".join(map(_format_profile, rows))


def _format_profile(row: Mapping[str, Any]) -> str:
    """Return a table of the parts of a step, and a table of its longest kernels."""
    parts = [
        {
            "part": name,
            "milliseconds": part["milliseconds"],
            "bound": part["bound_milliseconds"],
            "bound_by": part["bound_by"],
            "gap": _difference(part["milliseconds"], part["bound_milliseconds"]),
        }
        for name, part in row["parts"].items()
    ]
    lines = [f"{row['item']}: {row['kernels_milliseconds']} ms of kernels, {row['counted']}."]
    if row["idle_milliseconds"] is not None:
        lines[0] += f" Between kernels, which are launched one by one, {row['idle_milliseconds']}."
    longest = [
        {"kernel": kernel, "milliseconds": milliseconds, "part": part, "origin": origin}
        for kernel, milliseconds, part, origin in row["longest"]
    ]
    return "\n\n".join([*lines, format_table(parts), format_table(longest)])


def _difference(measured: float, bound: float | None) -> float | None:
    return None if bound is None else rounded(measured - bound, 3)


_STEP = (
    *("size", "system", "variant", "rows", "length", "packing", "dtype", "milliseconds"),
    *("fastest", "slowest", "rows_per_second", "tokens_per_second", "share_of_peak"),
    *("times_fastest_rival", "memory_gib", "compile_seconds", "execution", "note"),
)
_SECTIONS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "step": ("Training steps", _columns(*_STEP)),
    "profile": ("Where a step's time goes", _format_profiles),
    "attention": (
        "Attention alone, on packed rows",
        _columns(
            *("implementation", "rows", "length", "error", "right", "forward_milliseconds"),
            *("training_milliseconds", "memory_gib"),
        ),
    ),
    "ceiling": ("Ceilings", _columns("operation", "shape", "milliseconds", "rate", "unit")),
}
