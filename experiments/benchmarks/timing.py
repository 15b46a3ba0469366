"""Timing of candidates against each other: windows of many steps, taken in turns."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import jax

from albert_jax.devices.flops import pretraining_flops_per_row
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.report import rounded
from experiments.run.config import ExperimentConfig

UNKNOWN = "unknown"


class StepKind(StrEnum):
    """The part of training that a step computes."""

    TRAIN = "train"  # forward pass, backward pass, clipping and update
    FORWARD = "forward"  # logits and losses, without dropout


class Windows(NamedTuple):
    """The windows that a candidate is timed in."""

    number: int
    seconds: float  # of one window, approximately


class Candidate(NamedTuple):
    """A step that can be timed."""

    system: str
    work: StepKind
    run: Callable[[int], None]  # takes this many steps, and returns when the last one is done
    compile_seconds: float | None = None  # None: nothing is compiled
    memory: Callable[[], int | None] = lambda: None  # bytes of a step on a device, if known
    program: Callable[[], str | None] = lambda: None  # the compiled step as text
    execution: str = ""  # a log line about how it computes


def repeat(call: Callable[[], Any]) -> Callable[[int], None]:
    """Return a function that repeats a call and waits for the arrays of the last result."""

    def run(times: int) -> None:
        for _ in range(times):
            result = call()
        jax.block_until_ready(result)

    return run


def time_candidates(candidates: Sequence[Candidate], windows: Windows) -> list[list[float]]:
    """Return the seconds of a step in each window, for each candidate.

    All candidates take their first window before any takes its second, in reverse order every other
    time. Other work on the machine then affects all of them alike. Steps inside a window are not
    waited for one by one.

    Args:
        candidates: each is warmed up first.
        windows: how long each is timed.
    """
    steps = [_steps_per_window(candidate, windows.seconds) for candidate in candidates]
    samples: list[list[float]] = [[] for _ in candidates]
    for window in range(windows.number):
        turns = list(range(len(candidates)))
        for number in reversed(turns) if window % 2 else turns:
            started = time.perf_counter()
            candidates[number].run(steps[number])
            samples[number].append((time.perf_counter() - started) / steps[number])
    return samples


def _steps_per_window(candidate: Candidate, seconds: float) -> int:
    candidate.run(1)
    started = time.perf_counter()
    candidate.run(1)
    once = time.perf_counter() - started
    if once < seconds / 20:  # too short to measure with one step
        candidate.run(10)
        started = time.perf_counter()
        candidate.run(10)
        once = (time.perf_counter() - started) / 10
    return max(1, math.ceil(seconds / once))


def speedup(others: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return the speed relative to another candidate: the median over windows of the same turn."""
    ratios = [other / own for other, own in zip(others, seconds, strict=True)]
    return rounded(statistics.median(ratios), 3)


def measurement_rows(
    candidates: Sequence[Candidate],
    samples: Sequence[Sequence[float]],
    config: ExperimentConfig,
    batches: Batches,
    *,
    peak_flops: float | None,
    num_alternatives: int,
) -> list[dict[str, Any]]:
    """Return a row of a table for each candidate.

    FLOPs are those of `pretraining_flops_per_row`, or a third of them for a forward pass. This is
    what the model needs, whatever else a candidate computes.

    Args:
        candidates: what was timed.
        samples: their seconds, as `time_candidates` returns them.
        config: their experiment, with the batches' shape.
        batches: their batches.
        peak_flops: of all devices together; None if unknown.
        num_alternatives: how many candidates at the end are other systems. If there are any, each
            row has its speed relative to the fastest of them.
    """
    flops = config.global_batch_size * pretraining_flops_per_row(
        config.model,
        length=config.data.max_seq_length,
        predictions=config.data.max_predictions_per_seq,
        pairs=batches.batches[0]["sentence_order_labels"].shape[1],
        generator=config.generator,
    )
    num_ours = len(candidates) - num_alternatives
    rows = []
    for candidate, seconds in zip(candidates, samples, strict=True):
        row = _row(candidate, seconds, config, batches, flops, peak_flops)
        if num_alternatives:
            alternatives = zip(candidates[num_ours:], samples[num_ours:], strict=True)
            others = [other for one, other in alternatives if one.work is candidate.work]
            fastest = min(others, key=statistics.median, default=None)
            row["times_fastest_rival"] = None if fastest is None else speedup(fastest, seconds)
        rows.append(row)
    return rows


def _row(
    candidate: Candidate,
    seconds: Sequence[float],
    config: ExperimentConfig,
    batches: Batches,
    flops: float,
    peak_flops: float | None,
) -> dict[str, Any]:
    median = statistics.median(seconds)
    speed = (flops if candidate.work is StepKind.TRAIN else flops / 3) / median
    memory = candidate.memory()
    return {
        "system": candidate.system,
        "work": str(candidate.work),
        "dtype": str(config.run.dtype),
        "rows": config.global_batch_size,
        "length": config.data.max_seq_length,
        "predictions": config.data.max_predictions_per_seq,
        "batches": batches.source,
        "milliseconds": rounded(1e3 * median),
        "fastest": rounded(1e3 * min(seconds)),
        "slowest": rounded(1e3 * max(seconds)),
        "windows": len(seconds),
        "rows_per_second": rounded(config.global_batch_size / median),
        "pairs_per_second": rounded(batches.pairs_per_batch / median),
        "tokens_per_second": rounded(batches.tokens_per_batch / median),
        "gflops_per_second": rounded(speed / 1e9),
        "share_of_peak": rounded(speed / peak_flops, 3) if peak_flops else UNKNOWN,
        "compile_seconds": rounded(candidate.compile_seconds, 3),
        "memory_gib": rounded(memory and memory / 2**30, 3),
    }
