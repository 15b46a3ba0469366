"""Profile of a step: a trace, and its longest operations."""

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
    """Write a trace of a few steps, for TensorBoard or Perfetto, and summarize it.

    Args:
        run: takes so many steps.
        program: the compiled step as text, with the origin of each operation.
        directory: where the trace is written.
        longest: how many operations are listed.

    Returns:
        A Markdown table: the longest operations, their milliseconds a step over all threads, their
        fraction of all operations' time, and their origin in the model.
    """
    run(1)
    with jax.profiler.trace(directory):
        run(_STEPS)
    traces = Path(directory).rglob("*.xplane.pb")
    times = _operation_times(max(traces, key=lambda path: path.stat().st_mtime))
    origins = _origins(program)
    lines = ["| operation | ms a step | share | origin |", "| --- | --- | --- | --- |"]
    for name, nanoseconds in times.most_common(longest):
        milliseconds = rounded(nanoseconds / _STEPS / 1e6, 3)
        share = f"{nanoseconds / times.total():.1%}"
        lines.append(f"| {name} | {milliseconds} | {share} | {origins.get(name, '')} |")
    return "\n".join(lines)


def _operation_times(trace: Path) -> Counter[str]:
    """Return the nanoseconds of each operation of compiled programs, without callers."""
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
    """Return the last parts of the name that JAX gives each instruction.

    Example: ``jit(train_step)/.../attention/query/dot_general`` gives
    ``attention/query/dot_general``.
    """
    instruction = r"^\s+(?:ROOT )?%?([\w.\-]+) = .*op_name=\"([^\"]*)\""
    found = re.findall(instruction, program, re.MULTILINE)
    return {name: "/".join(path.split("/")[-3:]) for name, path in found}
