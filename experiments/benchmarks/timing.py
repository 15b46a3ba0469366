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


class StepKind(StrEnum):
    """What a step does."""

    TRAIN = "train"  # forward, backward, clipping and update
    FORWARD = "forward"  # scores and losses alone, without dropout


class Candidate(NamedTuple):
    """Something that takes steps, ready to be timed."""

    system: str
    work: StepKind
    run: Callable[[int], None]  # takes so many steps, and returns when the last one is done
    compile_seconds: float | None  # None: nothing is compiled
    memory: Callable[[], int | None]  # bytes that a step needs on a device, if known
    program: Callable[[], str | None] = lambda: None  # the compiled step as text


def time_candidates(
    candidates: Sequence[Candidate], *, num_windows: int, window_seconds: float
) -> list[list[float]]:
    """Seconds a step in each window, for each candidate.

    All take their first window before any takes its second, every other time in reverse order, so
    that what else the machine does meets all alike. Steps of a window are not waited for singly.

    Args:
        candidates: each is warmed up first.
        num_windows: windows of each candidate.
        window_seconds: how long a window lasts at least, about.
    """
    steps = [_steps_per_window(candidate, window_seconds) for candidate in candidates]
    samples: list[list[float]] = [[] for _ in candidates]
    for window in range(num_windows):
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
    if once < seconds / 20:  # too short to be judged by one
        candidate.run(10)
        started = time.perf_counter()
        candidate.run(10)
        once = (time.perf_counter() - started) / 10
    return max(1, math.ceil(seconds / once))


def measurement_rows(
    candidates: Sequence[Candidate],
    samples: Sequence[Sequence[float]],
    config: ExperimentConfig,
    batches: Batches,
    *,
    peak_flops: float | None,
    alternatives: Sequence[bool],
) -> list[dict[str, Any]]:
    """A row for each candidate.

    Operations are those of `training_flops_per_row`, a third of them for a forward pass: what the
    model needs, whatever a candidate computes beside it.

    Args:
        candidates: what was timed.
        samples: what `time_candidates` gives.
        config: their experiment, with the batches' shape.
        batches: what they were fed.
        peak_flops: of all devices together; None where it is not known.
        alternatives: True for the candidates of other systems. If there are any, each row has its
            speed relative to the fastest of them: the median over windows of equal turns.
    """
    flops = config.global_batch_size * training_flops_per_row(
        config.model,
        length=config.data.max_seq_length,
        predictions=config.data.max_predictions_per_seq,
        pairs=batches.batches[0]["sentence_order_labels"].shape[1],
    )
    rows = []
    for candidate, seconds in zip(candidates, samples, strict=True):
        median = statistics.median(seconds)
        speed = (flops if candidate.work is StepKind.TRAIN else flops / 3) / median
        memory = candidate.memory()
        row: dict[str, Any] = {
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
        if any(alternatives):
            row["times_fastest_rival"] = _ratio(
                candidate, seconds, candidates, samples, alternatives
            )
        rows.append(row)
    return rows


def _ratio(
    candidate: Candidate,
    seconds: Sequence[float],
    candidates: Sequence[Candidate],
    samples: Sequence[Sequence[float]],
    alternatives: Sequence[bool],
) -> float | None:
    others = [
        theirs
        for other, theirs, alternative in zip(candidates, samples, alternatives, strict=True)
        if alternative and other.work is candidate.work
    ]
    if not others:
        return None
    fastest = min(others, key=statistics.median)
    ratios = [theirs / ours for theirs, ours in zip(fastest, seconds, strict=True)]
    return rounded(statistics.median(ratios), 3)
