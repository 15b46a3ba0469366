r"""The plan of a corpus of any size: its time, its memory, its bytes, and a seek in it.

    python -m tests.campaigns.terabyte_plan --sentences=1e10 --directory=/big/disk

The corpus has lengths but no text: sentences of 22 tokens and documents of 25 sentences on average,
made shard by shard as they are read, so that nothing of it lies on the disk. The plan is the real
one, with its files, by the code of runs. The command ends with a line of JSON.
"""

import argparse
import functools
import importlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from data_pipeline.config import DataConfig
from data_pipeline.corpus.metadata import FORMAT_VERSION, CorpusMetadata, SourceMetadata
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.splits import TRAIN, ShardSize, Split
from data_pipeline.memory_maps import LazySequence
from data_pipeline.planning import open_plan
from data_pipeline.planning.row_order import RowOrder
from data_pipeline.planning.shard_plan import ShardPlan

_SENTENCES_PER_SHARD = 5_555_000  # about 256 MB with ids of two bytes
_MEAN_TOKENS, _MEAN_SENTENCES = 22, 25
_LONGEST, _QUANTILES = 400, 20_000
_BATCH = 4096


def _spread_counts(quantiles: np.ndarray, count: int, total: int) -> np.ndarray:
    """Return so many counts with these quantiles and exactly this total."""
    values = np.resize(quantiles, count).astype(np.int64)
    np.random.default_rng(0).shuffle(values)
    while missing := total - int(values.sum()):
        step = np.sign(missing)
        fitting = np.flatnonzero((values + step >= 1) & (values < _LONGEST))[: abs(missing)]
        values[fitting] += step
    return values.astype(np.uint16)


@functools.cache
def _lengths(count: int) -> np.ndarray:
    """Return the lengths of a shard's sentences, which each shard has in another order."""
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    spread = stats.lognorm(0.6, scale=_MEAN_TOKENS / np.exp(0.18)).ppf(at)
    quantiles = np.clip(np.round(spread), 3, _LONGEST)
    return _spread_counts(quantiles, count, count * _MEAN_TOKENS)


@functools.cache
def _sentence_counts(count: int) -> np.ndarray:
    """Return the sentences of a shard's documents, likewise."""
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    quantiles = np.minimum(stats.geom(1 / _MEAN_SENTENCES).ppf(at), _LONGEST)
    return _spread_counts(quantiles, max(count // _MEAN_SENTENCES, 1), count)


class LengthsShard:
    """A shard of sentence lengths, made from its number."""

    seconds = 0.0  # of the processor, spent on making lengths in this process

    def __init__(self, number: int, sentences: int) -> None:
        started = time.process_time()
        generator = np.random.Generator(np.random.SFC64(number))
        self.sentence_offsets = _ends(_shuffle(_lengths(sentences), generator))
        self.document_offsets = _ends(_shuffle(_sentence_counts(sentences), generator))
        self.document_sources = np.zeros(len(self.document_offsets) - 1, np.uint8)
        LengthsShard.seconds += time.process_time() - started


def _shuffle(counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return counts in another order, runs of ten together where they can be."""
    together = 10 if len(counts) % 10 == 0 else 1
    return generator.permutation(counts.reshape(-1, together)).ravel()


def _ends(counts: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(counts) + 1, np.uint32)
    np.cumsum(counts, out=offsets[1:])
    return offsets


class LengthsCorpus(Corpus):
    """A corpus of `LengthsShard`s, which worker processes make again."""

    def __reduce__(self) -> tuple[Callable[..., Corpus], tuple[Any, ...]]:
        return make_corpus, (self.path, self.splits[TRAIN].num_sentences)


def make_corpus(path: Path, sentences: int) -> Corpus:
    """Make a corpus of so many sentences, whose plans are written to the directory."""
    counts = [_SENTENCES_PER_SHARD] * (sentences // _SENTENCES_PER_SHARD)
    if rest := sentences % _SENTENCES_PER_SHARD:
        counts.append(rest)
    sizes = [
        ShardSize(count * _MEAN_TOKENS, count, len(_sentence_counts(count))) for count in counts
    ]
    shards: Any = LazySequence(
        len(counts), lambda number: LengthsShard(number, counts[number]), max_open=1
    )
    metadata = CorpusMetadata(
        format_version=FORMAT_VERSION,
        fingerprint=f"{sentences} sentences of generated lengths",
        vocab_size=30_000,
        sources=(SourceMetadata("lengths", 1.0, {}),),
        splits={},
        files={},
        settings={},
        report={},
        versions={},
    )
    return LengthsCorpus(path, metadata, {TRAIN: Split(shards, sizes)})


def measure_seeks(corpus: Corpus, config: DataConfig, repeats: int = 5) -> dict[str, float]:
    """Return the medians of the milliseconds in which the pairs of a batch are found.

    Cold is the first batch after a start at a random step, of a plan that is not in the memory of
    the operating system: the files of a window's shards are opened and compared with their hashes.
    Warm is another batch of the same window.
    """
    generator = np.random.default_rng(0)
    cold, warm = [], []
    for repeat in range(repeats):
        plan = open_plan(corpus, TRAIN, config)
        assert isinstance(plan, ShardPlan)
        for path in plan.path.rglob("*.bin"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        first = int(generator.integers(0, 3 * plan.num_rows))
        for times, step in ((cold, 0), (warm, 1)):
            started = np.array([time.perf_counter(), time.process_time()])
            plan.find_pairs(first + step * _BATCH + np.arange(_BATCH), seed=repeat)
            times.append(1e3 * (np.array([time.perf_counter(), time.process_time()]) - started))
    return {
        f"seek_{name}_ms{kind}": round(float(value), 2)
        for name, times in (("cold", cold), ("warm", warm))
        for kind, value in zip(("", "_of_processor"), np.median(times, axis=0), strict=True)
    }


def measure_order(plan: ShardPlan) -> float:
    """Return the milliseconds that it takes to find the rows of a batch from scratch."""
    started = time.perf_counter()
    RowOrder(plan._rows, plan._num_windows, seed=1).find(10**9 + np.arange(_BATCH))
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    """Plan, seek, and print what it took."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sentences", type=float, default=1e6)
    parser.add_argument("--directory", type=Path, help="for the plan, which is removed again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        report(make_corpus(Path(directory), int(given.sentences)))


def report(corpus: Corpus) -> None:
    """Plan a corpus, and print what it took."""
    config = DataConfig(packing="packed", max_predictions_per_seq=77)
    started = time.perf_counter()
    plan = open_plan(corpus, TRAIN, config)
    seconds = time.perf_counter() - started
    own, workers = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    files = sum(path.stat().st_size for path in plan.path.rglob("*") if path.is_file())
    started = time.perf_counter()
    plan = open_plan(corpus, TRAIN, config)
    opened = time.perf_counter() - started
    assert isinstance(plan, ShardPlan)
    num_pairs = sum(path.stat().st_size for path in plan.path.rglob("*.pairs.bin")) // 12
    print(
        json.dumps(
            {
                "sentences": corpus.splits[TRAIN].num_sentences,
                "tokens": corpus.splits[TRAIN].num_tokens,
                "shards": len(corpus.splits[TRAIN].shards),
                "pairs": num_pairs,
                "rows": plan.num_rows,
                "windows": plan._num_windows,
                "fill": round(plan.fill, 4),
                "seconds": round(seconds, 1),
                "processor_seconds": round(sum((*own[:2], *workers[:2])), 1),
                "processor_seconds_of_lengths": round(LengthsShard.seconds, 1),
                "peak_memory_mb": round(max(own.ru_maxrss, workers.ru_maxrss) / 1e3),
                "plan_gb": round(files / 1e9, 3),
                "bytes_a_pair": round(files / num_pairs, 2),
                "open_seconds": round(opened, 3),
                "order_ms": round(measure_order(plan), 2),
                **measure_seeks(corpus, config),
            }
        )
    )


if __name__ == "__main__":
    # Use the module's own name, by which worker processes make the corpus.
    importlib.import_module("tests.campaigns.terabyte_plan").main()
