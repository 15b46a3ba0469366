"""Where the time of a step goes: a trace for profilers, and its longest operations."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.report import rounded

_STEPS = 3
# Operations that last as long as those that they call.
_CALLERS = re.compile(r"(while|call|conditional)(\.\d+)?$")


def profile(run: Callable[[int], None], program: str, directory: str, *, longest: int = 20) -> str:
    """Writes a trace of a few steps, for TensorBoard or Perfetto, and sums it up.

    Args:
        run: takes so many steps.
        program: the compiled step's text, which says what each operation was made of.
        directory: where the trace goes.
        longest: how many operations are told.

    Returns:
        A Markdown table: the longest operations, their milliseconds a step over all threads, their
        share of all operations' time, and their origin in the model.
    """
    run(1)
    with jax.profiler.trace(directory):
        run(_STEPS)
    times = _operation_times(max(Path(directory).rglob("*.xplane.pb"), key=_modified))
    origins = _origins(program)
    lines = ["| operation | ms a step | share | origin |", "| --- | --- | --- | --- |"]
    for name, nanoseconds in times.most_common(longest):
        milliseconds = rounded(nanoseconds / _STEPS / 1e6, 3)
        share = f"{nanoseconds / times.total():.1%}"
        lines.append(f"| {name} | {milliseconds} | {share} | {origins.get(name, '')} |")
    return "\n".join(lines)


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _operation_times(trace: Path) -> Counter[str]:
    """Nanoseconds of each operation of compiled programs, callers left out."""
    times: Counter[str] = Counter()
    data: Any = jax.profiler.ProfileData.from_file(str(trace))
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation and not _CALLERS.match(operation):
                    times[operation] += event.duration_ns
    return times


def _origins(program: str) -> dict[str, str]:
    """The last parts of the path that JAX gives each instruction.

    Example: ``jit(train_step)/.../attention/query/dot_general`` becomes
    ``attention/query/dot_general``.
    """
    instruction = r"^\s+(?:ROOT )?%?([\w.\-]+) = .*op_name=\"([^\"]*)\""
    found = re.findall(instruction, program, re.MULTILINE)
    return {name: "/".join(path.split("/")[-3:]) for name, path in found}
