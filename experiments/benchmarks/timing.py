"""Timing steps against each other: windows of many steps, taken in turns."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from albert_jax.training.flops import training_flops_per_row
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.report import rounded
from experiments.run.config import ExperimentConfig

UNKNOWN = "unknown"


class Work(StrEnum):
    """What a step does."""

    TRAIN = "train"  # forward, backward, clipping and update
    FORWARD = "forward"  # scores and losses alone, without dropout


class Candidate(NamedTuple):
    """Something that takes steps, ready to be timed."""

    system: str
    work: Work
    run: Callable[[int], None]  # takes so many steps, and returns when the last one is done
    compile_seconds: float | None  # None: nothing is compiled
    memory: Callable[[], int | None]  # bytes that a step needs on a device, if known
    program: Callable[[], str | None] = lambda: None  # the compiled step as text


def time_candidates(
    contenders: Sequence[Candidate], *, num_windows: int, window_seconds: float
) -> list[list[float]]:
    """Seconds a step in each window, for each contender.

    All take their first window before any takes its second, every other time in reverse order, so
    that what else the machine does meets all alike. Steps of a window are not waited for singly.

    Args:
        contenders: each is warmed up first.
        num_windows: windows of each contender.
        window_seconds: how long a window lasts at least, about.
    """
    steps = [_steps_per_window(contender, window_seconds) for contender in contenders]
    samples: list[list[float]] = [[] for _ in contenders]
    for window in range(num_windows):
        turns = list(range(len(contenders)))
        for number in reversed(turns) if window % 2 else turns:
            started = time.perf_counter()
            contenders[number].run(steps[number])
            samples[number].append((time.perf_counter() - started) / steps[number])
    return samples


def _steps_per_window(contender: Candidate, seconds: float) -> int:
    contender.run(1)
    started = time.perf_counter()
    contender.run(1)
    once = time.perf_counter() - started
    if once < seconds / 20:  # too short to be judged by one
        contender.run(10)
        started = time.perf_counter()
        contender.run(10)
        once = (time.perf_counter() - started) / 10
    return max(1, math.ceil(seconds / once))


def describe_candidates(
    contenders: Sequence[Candidate],
    samples: Sequence[Sequence[float]],
    config: ExperimentConfig,
    batches: Batches,
    *,
    peak_flops: float | None,
    rivals: Sequence[bool],
) -> list[dict[str, Any]]:
    """A row for each contender.

    Operations are those of `training_flops_per_row`, a third of them for a forward pass: what the
    model needs, whatever a contender computes beside it.

    Args:
        contenders: what was timed.
        samples: what `time_candidates` gives.
        config: their experiment, with the batches' shape.
        batches: what they were fed.
        peak_flops: of all devices together; None where it is not known.
        rivals: which contenders are others' systems. If there are any, the rows say how many times
            as fast as the fastest of them they are: the median over windows, each compared with
            those of the same turn.
    """
    flops = config.global_batch_size * training_flops_per_row(
        config.model,
        length=config.data.max_seq_length,
        predictions=config.data.max_predictions_per_seq,
        pairs=batches.batches[0]["sentence_order_labels"].shape[1],
    )
    rows = []
    for contender, seconds in zip(contenders, samples, strict=True):
        median = statistics.median(seconds)
        speed = (flops if contender.work is Work.TRAIN else flops / 3) / median
        memory = contender.memory()
        row: dict[str, Any] = {
            "system": contender.system,
            "work": str(contender.work),
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
            "compile_seconds": rounded(contender.compile_seconds, 3),
            "memory_gib": rounded(memory and memory / 2**30, 3),
        }
        if any(rivals):
            row["times_fastest_rival"] = _ratio(contender, seconds, contenders, samples, rivals)
        rows.append(row)
    return rows


def _ratio(
    contender: Candidate,
    seconds: Sequence[float],
    contenders: Sequence[Candidate],
    samples: Sequence[Sequence[float]],
    rivals: Sequence[bool],
) -> float | None:
    others = [
        theirs
        for other, theirs, rival in zip(contenders, samples, rivals, strict=True)
        if rival and other.work is contender.work
    ]
    if not others:
        return None
    fastest = min(others, key=statistics.median)
    ratios = [theirs / ours for theirs, ours in zip(fastest, seconds, strict=True)]
    return rounded(statistics.median(ratios), 3)
