"""The profile of a step: a trace, and its longest operations."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.report import rounded

TRACED_STEPS = 3
# Operations whose time includes that of the operations they call.
CALLERS = re.compile(r"(while|call|conditional)(\.\d+)?$")


def profile(run: Callable[[int], None], program: str, directory: str, *, longest: int = 20) -> str:
    """Write a trace of a few steps, for TensorBoard or Perfetto, and summarize it.

    Args:
        run: takes a number of steps.
        program: the compiled step as text, with the origin of each operation.
        directory: where the trace is written.
        longest: how many operations are listed.

    Returns:
        A Markdown table: the longest operations, their milliseconds a step over all threads, their
        fraction of all operations' time, and their origin in the model. Operations of the same kind
        and origin, such as those of layers that are compiled as one, share a row with their number.
    """
    times, numbers = group_by_origin(_operation_times(trace(run, directory)), program)
    lines = [
        "| operation | number | ms a step | share | origin |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (kind, origin), nanoseconds in times.most_common(longest):
        milliseconds = rounded(nanoseconds / TRACED_STEPS / 1e6, 3)
        share = f"{nanoseconds / times.total():.1%}"
        number = numbers[kind, origin]
        lines.append(f"| {kind} | {number} | {milliseconds} | {share} | {origin} |")
    return "\n".join(lines)


def group_by_origin(
    times: Mapping[str, int], program: str
) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Add up the times of operations of the same kind and origin; return sums and numbers of them.

    Example: ``dot.1`` and ``dot.7`` of the query's matmul in two layers make one ``dot``. Forward
    and backward pass are two origins.

    Args:
        times: the time of each operation.
        program: the compiled step as text.
    """
    summed: Counter[tuple[str, str]] = Counter()
    numbers: Counter[tuple[str, str]] = Counter()
    origins = find_origins(program)
    for name, time in times.items():
        path = origins.get(name, "")
        origin = "/".join(path.split("/")[-3:])
        key = name.rstrip(".0123456789"), f"{origin}, backward" if "transpose(" in path else origin
        summed[key] += time
        numbers[key] += 1
    return summed, numbers


def trace(run: Callable[[int], None], directory: str) -> Path:
    """Write a trace of `TRACED_STEPS` steps, after one that is not traced; return its file."""
    run(1)
    with jax.profiler.trace(directory):
        run(TRACED_STEPS)
    traces = Path(directory).rglob("*.xplane.pb")
    return max(traces, key=lambda path: path.stat().st_mtime)


def _operation_times(trace: Path) -> Counter[str]:
    """Return the nanoseconds of each operation of compiled programs, without callers."""
    times: Counter[str] = Counter()
    data: Any = jax.profiler.ProfileData.from_file(str(trace))
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation and not CALLERS.match(operation):
                    times[operation] += event.duration_ns
    return times


def find_origins(program: str) -> dict[str, str]:
    """Return the name that JAX gives each instruction of a compiled program.

    Example: ``jit(train_step)/jvp(AlbertForPreTraining)/.../attention/query/dot_general``
    """
    instruction = r"^\s+(?:ROOT )?%?([\w.\-]+) = .*op_name=\"([^\"]*)\""
    return dict(re.findall(instruction, program, re.MULTILINE))
