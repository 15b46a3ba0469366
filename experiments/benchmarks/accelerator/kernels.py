"""The kernels of a step, from a trace, summed by part of the model, with each part's bound."""

import collections
import dataclasses
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from albert_jax.durable_files import write_atomically
from experiments.benchmarks.accelerator.ceilings import COPY, PRODUCT, largest_rate
from experiments.benchmarks.accelerator.parts import Kernel, part_of, sum_by_part, work_of_parts
from experiments.benchmarks.accelerator.plan import NotMeasured
from experiments.benchmarks.accelerator.recordings import Shape, take_rows
from experiments.benchmarks.accelerator.steps import Size
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.profile import CALLERS, TRACED_STEPS, find_origins, trace
from experiments.benchmarks.report import rounded
from experiments.benchmarks.step import step_candidates
from experiments.benchmarks.timing import StepKind
from experiments.run.config import ComputeDtype, ExperimentConfig

KERNELS_FILE = "kernels.json"
_LONGEST = 20
# Captured graphs would hide the kernels, so only graphs longer than any step are captured.
_WITHOUT_GRAPHS = "xla_gpu_graph_min_graph_size=1000000000"
_LEAST_NAMED = 0.5  # named share of the kernels' time; with less, graphs must have been captured


class Launch(NamedTuple):
    """One run of a kernel on a device, or of an operation on a thread of a CPU."""

    operation: str  # in the compiled program; empty: unknown
    name: str
    start: float  # ns
    end: float


def profile_kernels(
    size: Size,
    shape: Shape,
    path: Path,
    directory: Path,
    ceilings: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the row of a step's profile, and write all kernels to `KERNELS_FILE`.

    On a GPU the kernels are launched one by one, because a graph of them would be one entry of the
    trace. The idle time between them is therefore longer than in a step that is timed.

    Args:
        size: the model.
        shape: the kind of rows.
        path: the recording of the rows.
        directory: where the file is written.
        ceilings: measurements with the rates that the bounds need.

    Raises:
        NotMeasured: the trace has no kernels of the step.
    """
    config, batches = take_rows(path, size.config, size.rows_of(shape))
    platform = jax.default_backend()
    if platform == "gpu":
        given = config.run.compiler_options
        options = ",".join([*([given] if given not in ("", "none") else []), _WITHOUT_GRAPHS])
        run = dataclasses.replace(config.run, compiler_options=options)
        config = dataclasses.replace(config, run=run)
    (step,) = step_candidates(config, batches, [StepKind.TRAIN])
    with tempfile.TemporaryDirectory() as traces:
        launches = read_launches(trace(step.run, traces), platform)
    kernels = _sum_launches(launches, find_origins(step.program() or ""))
    total = sum(kernel.milliseconds for kernel in kernels)
    named = sum(kernel.milliseconds for kernel in kernels if kernel.operation)
    if not kernels or named < _LEAST_NAMED * total:
        raise NotMeasured("the trace has no kernels by name; were they captured as graphs?")
    entries = [[*kernel, str(part_of(kernel))] for kernel in kernels]
    write_atomically(directory / KERNELS_FILE, json.dumps(entries))
    over = "threads" if platform == "cpu" else "devices" if jax.device_count() > 1 else ""
    return [
        {
            "kind": "profile",
            "size": size.name,
            "rows": config.global_batch_size,
            "length": shape.length,
            "packing": str(shape.packing),
            "batches": batches.source,
            "execution": step.execution,
            "counted": f"a step, over all {over}" if over else "a step",
            "kernels_milliseconds": rounded(total),
            "idle_milliseconds": rounded(_idle(launches), 3) if not over else None,
            "parts": _describe_parts(kernels, config, batches, ceilings),
            "longest": [
                [kernel.name[:80], rounded(kernel.milliseconds, 3), str(part_of(kernel)), origin]
                for kernel in kernels[:_LONGEST]
                for origin in ["/".join(kernel.origin.split("/")[-3:])]
            ],
        }
    ]


def read_launches(path: Path, platform: str) -> list[Launch]:
    """Read a trace: the streams of a GPU, the operations of a TPU, or the threads of a CPU."""
    data: Any = jax.profiler.ProfileData.from_file(str(path))
    plane_of, line_of = {
        "gpu": ("GPU", "Stream"),
        "tpu": ("TPU", "XLA Ops"),
    }.get(platform, ("CPU", ""))
    found = []
    for plane in data.planes:
        if plane_of not in plane.name:
            continue
        for line in plane.lines:
            if line_of not in line.name:
                continue
            for event in line.events:
                operation = dict(event.stats).get("hlo_op") or ""
                if operation and CALLERS.match(operation):
                    continue
                if operation or platform != "cpu":  # a CPU's threads do other things too
                    start = event.start_ns
                    found.append(Launch(operation, event.name, start, start + event.duration_ns))
    return found


def _sum_launches(launches: Iterable[Launch], origins: Mapping[str, str]) -> list[Kernel]:
    """Sum the launches of each kernel of each operation, the longest first, per step."""
    sums: dict[tuple[str, str], float] = collections.defaultdict(float)
    for launch in launches:
        sums[launch.operation, launch.name] += launch.end - launch.start
    return [
        Kernel(operation, name, origins.get(operation, ""), nanoseconds / TRACED_STEPS / 1e6)
        for (operation, name), nanoseconds in sorted(sums.items(), key=lambda one: -one[1])
    ]


def _idle(launches: Iterable[Launch]) -> float:
    """Return the milliseconds a step, between the first and the last kernel, when no kernel runs.

    Example: kernels from 0 to 3, from 1 to 2 and from 5 to 6 leave 2.
    """
    idle, busy_until = 0.0, None
    for launch in sorted(launches, key=lambda launch: launch.start):
        if busy_until is not None:
            idle += max(0.0, launch.start - busy_until)
        busy_until = max(launch.end, busy_until or launch.end)
    return idle / TRACED_STEPS / 1e6


def _describe_parts(
    kernels: Sequence[Kernel],
    config: ExperimentConfig,
    batches: Batches,
    ceilings: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return measured and least milliseconds of each part that takes time."""
    itemsize = 2 if config.run.dtype is ComputeDtype.BFLOAT16 else 4
    work = work_of_parts(config.model, batches, itemsize)
    rates = largest_rate(ceilings, PRODUCT), largest_rate(ceilings, COPY)
    described = {}
    for part, milliseconds in sum_by_part(kernels).items():
        bound = work[part].bound(*rates)
        described[str(part)] = {
            "milliseconds": rounded(milliseconds, 3),
            "bound_milliseconds": rounded(1e3 * bound[0], 3) if bound else None,
            "bound_by": bound[1] if bound else None,
        }
    return described
