"""Measures speed: `python -m experiments.benchmark --what=data --corpus_dir=corpora/wiki_en`.

Each measurement is printed as a row of a Markdown table and, after the table, as one JSON object a
line.
"""

import dataclasses
import itertools
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags

from data_pipeline.config import DataConfig, Packing
from data_pipeline.corpus import Corpus, open_corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining import PretrainingDataset
from experiments.command_line import ExitCode, run

_MASKED_LM_PROB = 0.15
_POSITIONS_PER_BATCH = 1 << 18  # 512 rows of 512, 2,048 of 128


@dataclasses.dataclass(frozen=True)
class DataSpeed:
    """How fast batches of one kind come from the disk as NumPy arrays."""

    max_seq_length: int
    packing: str
    rows_per_second: int  # median over the windows
    slowest: int  # window
    fastest: int
    cores: float  # processor time per second
    fill: float  # share of the positions that hold no padding
    pairs_per_row: float
    opening_seconds: float  # corpus plan and first batch
    resident_mb_before: int
    resident_mb_after: int


def measure_data(
    corpus: Corpus,
    max_seq_length: int,
    packing: Packing,
    *,
    num_windows: int,
    window_seconds: float,
) -> DataSpeed:
    """Reads training batches with n-gram masks over 15 % as fast as they come.

    Args:
        corpus: what to read.
        max_seq_length: positions a row.
        packing: several pairs a row, or one.
        num_windows: windows that are timed, after one that is not.
        window_seconds: how long each lasts.
    """
    config = DataConfig(
        max_seq_length=max_seq_length,
        packing=packing,
        masked_lm_prob=_MASKED_LM_PROB,
        max_predictions_per_seq=round(max_seq_length * _MASKED_LM_PROB),
    )
    rows = max(1, _POSITIONS_PER_BATCH // max_seq_length)
    started = time.perf_counter()
    dataset = PretrainingDataset(corpus, config, seed=0, global_batch_size=rows)
    batches = dataset.batches(start_step=0)
    first = next(batches)
    opening_seconds = time.perf_counter() - started

    _read_window(batches, window_seconds)
    before, cpu_started, started = _resident_mb(), time.process_time(), time.perf_counter()
    speeds = [rows * _read_window(batches, window_seconds) for _ in range(num_windows)]
    cores = (time.process_time() - cpu_started) / (time.perf_counter() - started)
    return DataSpeed(
        max_seq_length=max_seq_length,
        packing=str(packing),
        rows_per_second=round(statistics.median(speeds)),
        slowest=round(min(speeds)),
        fastest=round(max(speeds)),
        cores=round(cores, 2),
        fill=round(dataset.fill, 4),
        pairs_per_row=round(float(np.mean(first["sequence_ids"].max(axis=1))), 2),
        opening_seconds=round(opening_seconds, 1),
        resident_mb_before=before,
        resident_mb_after=_resident_mb(),
    )


def _read_window(batches: Iterator[object], seconds: float) -> float:
    """Batches a second over at least so many seconds."""
    started = time.perf_counter()
    for count in itertools.count(1):
        next(batches)
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return count / elapsed
    raise AssertionError("unreachable")


def _resident_mb() -> int:
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return pages * resource.getpagesize() // 10**6
    except OSError:  # no /proc: the peak is the next best
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def benchmark_data() -> None:
    """Measures the data pipeline at each length, packed and unpacked, and prints it."""
    if not flags.FLAGS.corpus_dir:
        raise InputError("--what=data needs --corpus_dir, a corpus of data_pipeline.build_corpus")
    corpus = open_corpus(flags.FLAGS.corpus_dir)
    measured = [
        measure_data(
            corpus,
            length,
            packing,
            num_windows=flags.FLAGS.num_windows,
            window_seconds=flags.FLAGS.window_seconds,
        )
        for length in flags.FLAGS.max_seq_length
        for packing in Packing
    ]
    print(f"{corpus.path}: {corpus.metadata.splits['train']['tokens']:,} training tokens")
    print(f"{os.cpu_count()} cores, {flags.FLAGS.num_windows} windows each\n")
    _print_table([dataclasses.asdict(one) for one in measured])


def _print_table(rows: list[dict[str, object]]) -> None:
    print("| " + " | ".join(name.replace("_", " ") for name in rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print()
    for row in rows:
        print(json.dumps(row))


_BENCHMARKS: dict[str, Callable[[], None]] = {"data": benchmark_data}


def main() -> ExitCode:
    """Runs the benchmark that `--what` names."""
    _BENCHMARKS[flags.FLAGS.what]()
    return ExitCode.DONE


if __name__ == "__main__":
    flags.DEFINE_enum("what", None, list(_BENCHMARKS), "what to measure", required=True)
    flags.DEFINE_string("corpus_dir", "", "the corpus whose batches are read (--what=data)")
    flags.DEFINE_multi_integer(
        "max_seq_length", [512, 128], "a row length to measure; may be repeated (--what=data)"
    )
    flags.DEFINE_integer("num_windows", 5, "how many windows are timed", lower_bound=1)
    flags.DEFINE_float("window_seconds", 3.0, "how long a window lasts", lower_bound=0.1)
    run(main)
