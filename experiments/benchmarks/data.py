"""Speed of the data pipeline, and batches of a corpus for other measurements."""

import dataclasses
import itertools
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipeline.config import DataConfig, Packing
from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.pretraining.dataset import PretrainingDataset
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.timing import Windows
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import open_pretraining_corpus

_MASKED_LM_PROB = 0.15
_POSITIONS_PER_BATCH = 1 << 18  # 512 rows of 512, 2,048 of 128


@dataclasses.dataclass(frozen=True)
class DataSpeed:
    """Speed of batches of one shape, from the disk to NumPy arrays."""

    max_seq_length: int
    packing: str
    rows_per_second: int  # median over the windows
    slowest: int  # rows per second in the slowest window
    fastest: int
    cores: float  # processor time per second
    fill: float  # fraction of positions without padding
    pairs_per_row: float
    opening_seconds: float  # plan and first batch
    resident_mb_before: int
    resident_mb_after: int


def measure_data(
    corpus: Corpus,
    max_seq_length: int,
    packing: Packing,
    windows: Windows,
) -> DataSpeed:
    """Measure the speed of training batches with n-gram masks over 15% of the tokens.

    Args:
        corpus: the corpus.
        max_seq_length: positions of a row.
        packing: several pairs a row, or one.
        windows: the timed windows; one before them is not timed.
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

    _read_window(batches, windows.seconds)
    before, cpu_started, started = _resident_mb(), time.process_time(), time.perf_counter()
    speeds = [rows * _read_window(batches, windows.seconds) for _ in range(windows.number)]
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
    """Return batches per second, measured over at least `seconds`."""
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
    except OSError:  # no /proc: use the peak instead
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def measure_corpus(
    corpus_dir: str, lengths: Sequence[int], windows: Windows
) -> list[dict[str, Any]]:
    """Return a row of a table for each length, unpacked and packed.

    Args:
        corpus_dir: the corpus.
        lengths: positions a row.
        windows: see `measure_data`.

    Raises:
        InputError: there is no such corpus.
    """
    corpus = open_corpus(corpus_dir)
    return [
        dataclasses.asdict(measure_data(corpus, length, packing, windows))
        for length in lengths
        for packing in Packing
    ]


def read_batches(config: ExperimentConfig, count: int) -> Batches:
    """Read the first training batches of an experiment.

    Raises:
        InputError: there is no such corpus, or it has another vocabulary than the model.
    """
    corpus = open_pretraining_corpus(config)
    dataset = PretrainingDataset(
        corpus, config.data, seed=config.seed, global_batch_size=config.global_batch_size
    )
    batches = list(itertools.islice(dataset.batches(start_step=0), count))
    return Batches(batches, f"{corpus.path.name}, {config.data.packing}")
