"""Planning of shards, each by itself, in several processes that stop and resume as they like."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.durable_files import write_atomically
from data_pipeline import randomness
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.splits import shard_name, token_dtype_for
from data_pipeline.errors import InputError
from data_pipeline.planning.packing import (
    add_counts,
    arrange_rows,
    count_sequences,
    row_positions,
)
from data_pipeline.planning.pair_planning import PairPlanner
from data_pipeline.planning.pairs import count_read
from data_pipeline.planning.plan_files import DAMAGE, METADATA_FILE, check_settings_of
from data_pipeline.planning.shard_pairs import START_DTYPE, encode_pairs, variant_files
from data_pipeline.terminal import ByteProgress
from data_pipeline.verification import DamageError, describe_files, find_damaged_files, seal

# Tokens that one process plans in seconds: more are planned by several, and with a bar.
_TOKENS_OF_ONE_PROCESS = 1 << 25
_PACKED_TOGETHER = 1 << 20  # pairs: a shard has no more, unless its rows are very short


@dataclasses.dataclass(frozen=True)
class ShardPlanner:
    """Plans the shards of a split into directories of a plan.

    A shard's directory has a `metadata.json` and, for each variant, two files: the pairs in the
    order of their rows, and the first pair of each row.

    Attributes:
        corpus: the corpus; worker processes map it by themselves.
        split: the name of the split.
        config: how rows are made.
        settings: all that the plan depends on, which the metadata keeps.
        path: of the plan.
    """

    corpus: Corpus
    split: str
    config: DataConfig
    settings: dict[str, Any]
    path: Path

    def read(self, number: int) -> dict[str, Any]:
        """Return the metadata of a planned shard.

        Raises:
            one of `DAMAGE`: it is not planned, or its files do not have their sizes.
        """
        directory = self.path / shard_name(number)
        metadata = check_settings_of(directory, self.settings)
        for damage in find_damaged_files(directory, metadata["files"], hashes=False).values():
            raise DamageError(damage)
        return metadata

    def is_planned(self, number: int) -> bool:
        """Return True if a shard is planned, as far as sizes of files show."""
        with contextlib.suppress(*DAMAGE):
            self.read(number)
            return True
        return False

    def plan(self, number: int) -> int:
        """Plan a shard, unless it is planned, and return its number.

        It is written under another name first, so that it is complete or absent.
        """
        if self.is_planned(number):
            return number
        self.path.mkdir(parents=True, exist_ok=True)
        name = shard_name(number)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.partial-", dir=self.path))
        partial.chmod(0o755 & self.path.stat().st_mode)  # `mkdtemp` lets nobody else read
        try:
            variants = [
                self._write_variant(number, variant, partial)
                for variant in range(self.config.num_plan_variants)
            ]
            files = describe_files(partial, sorted(file.name for file in partial.iterdir()))
            fields = {"settings": self.settings, "variants": variants, "files": files}
            write_atomically(partial / METADATA_FILE, json.dumps(seal(fields)) + "\n")
            target = self.path / name
            if target.exists() and not self.is_planned(number):
                shutil.rmtree(target)  # what is left of a damaged one
            os.rename(partial, target)
        except OSError:
            if not self.is_planned(number):  # by another host meanwhile, and equal
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return number

    def _write_variant(self, number: int, variant: int, directory: Path) -> dict[str, Any]:
        """Write the pairs and the rows of a variant, and return their numbers."""
        planner = PairPlanner(self.corpus, self.split, self.config, variant, shard=number)
        counts = {"rows": 0, "pairs": 0, "filled": 0, "read": 0, "max_pairs": 1}
        sequences = np.zeros(0, np.int64)
        pairs_name, starts_name = variant_files(variant)
        with (
            (directory / pairs_name).open("wb") as pairs_file,
            (directory / starts_name).open("wb") as starts_file,
        ):
            # Not `tofile`, which says nothing of what a full disk does not take.
            starts_file.write(bytes(START_DTYPE.itemsize))
            for pairs, sizes in arrange_rows(
                planner.generate(), self.config, together=_PACKED_TOGETHER
            ):
                ends = np.cumsum(sizes)
                pairs_file.write(encode_pairs(pairs, self.config).tobytes())
                starts_file.write((counts["pairs"] + ends).astype(START_DTYPE).tobytes())
                found = count_sequences(pairs, np.append(0, ends), self.config)
                sequences = add_counts(sequences, found)
                counts["rows"] += len(sizes)
                counts["pairs"] += len(pairs)
                counts["filled"] += int(row_positions(pairs, self.config).sum())
                counts["read"] += int(count_read(pairs, self.config.max_num_tokens).sum())
                counts["max_pairs"] = max(counts["max_pairs"], int(sizes.max()))
        return {**counts, "tokens": planner.num_tokens, "sequences": sequences.tolist()}


def plan_shards(planner: ShardPlanner, numbers: Sequence[int], num_processes: int) -> None:
    """Plan those shards that are not planned, and show the progress where it takes more than a
    moment.

    Hosts that plan into one directory begin with different shards, and leave out those that another
    one has planned by then.

    Args:
        planner: of the shards.
        numbers: of the shards.
        num_processes: that plan at a time; 0 means one a core.

    Raises:
        InputError: a worker process was killed.
    """
    part = planner.corpus.splits[planner.split]
    missing = [number for number in numbers if not planner.is_planned(number)]
    # One process has planned so much before others have started.
    tokens = sum(part.sizes[number].tokens for number in missing)
    num_processes = num_processes or len(os.sched_getaffinity(0))
    num_processes = min(num_processes, len(missing), 1 + tokens // _TOKENS_OF_ONE_PROCESS)
    key = randomness.derive_key("shards", socket.gethostname())
    order = randomness.permute(np.arange(len(missing)), max(len(missing), 1), key=key)
    missing = np.array(missing, np.int64)[order].tolist()
    label = f"Planning the {planner.split} rows"
    item_bytes = token_dtype_for(planner.corpus.metadata.vocab_size).itemsize
    with contextlib.ExitStack() as exits:
        show = None
        if tokens > _TOKENS_OF_ONE_PROCESS:
            show = exits.enter_context(ByteProgress(label, tokens * item_bytes))
        done = 0
        for number in _plan_in_processes(planner, missing, num_processes):
            done += part.sizes[number].tokens * item_bytes
            if show:
                show.move_to(done)


def _plan_in_processes(
    planner: ShardPlanner, numbers: Sequence[int], num_processes: int
) -> Iterator[int]:
    """Plan shards, and yield the number of each that is done, in any order."""
    if num_processes <= 1:
        yield from map(planner.plan, numbers)
        return
    # Forking is unsafe once a library has started threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, context, initializer=_start, initargs=(planner,))
    try:
        with _hidden_main():  # they start when they are given work
            work = [pool.submit(_work, number) for number in numbers]
        for done in as_completed(work):
            yield done.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for lack of memory: plan with fewer processes "
            f"than {num_processes}, by data_pipeline.build_corpus --plan_only --num_processes; "
            "shards that are planned stay so"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Let processes start without importing the program, which may be a script that plans."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_planner: ShardPlanner  # of this worker process


def _start(planner: ShardPlanner) -> None:
    global _planner
    _planner = planner


def _work(number: int) -> int:
    return _planner.plan(number)
