"""Planning of single shards, in several processes that can stop and resume at any time."""

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

# One process plans this many tokens in seconds. More use several processes and a progress bar.
_TOKENS_OF_ONE_PROCESS = 1 << 25
_PACKED_TOGETHER = 1 << 20  # pairs; a shard has fewer unless its rows are very short


@dataclasses.dataclass(frozen=True)
class ShardPlanner:
    """Plans the shards of a split, each into a subdirectory of the plan.

    The directory of a shard has a `metadata.json` and two files for each variant: the pairs in the
    order of their rows, and the first pair of each row.

    Attributes:
        corpus: the corpus; each worker process maps it for itself.
        split: the name of the split.
        config: how rows are made.
        settings: everything that the plan depends on; stored in the metadata.
        path: the directory of the plan.
    """

    corpus: Corpus
    split: str
    config: DataConfig
    settings: dict[str, Any]
    path: Path

    def read(self, number: int) -> dict[str, Any]:
        """Return the metadata of a planned shard.

        Raises:
            one of `DAMAGE`: it is not planned, or the size of a file is wrong.
        """
        directory = self.path / shard_name(number)
        metadata = check_settings_of(directory, self.settings)
        for damage in find_damaged_files(directory, metadata["files"], hashes=False).values():
            raise DamageError(damage)
        return metadata

    def is_planned(self, number: int) -> bool:
        """Return True if a shard is planned, judging by the sizes of its files."""
        with contextlib.suppress(*DAMAGE):
            self.read(number)
            return True
        return False

    def plan(self, number: int) -> int:
        """Plan a shard unless it is planned already, and return its number.

        It is first written under another name, so that it is either complete or absent.
        """
        if self.is_planned(number):
            return number
        self.path.mkdir(parents=True, exist_ok=True)
        name = shard_name(number)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.partial-", dir=self.path))
        partial.chmod(0o755 & self.path.stat().st_mode)  # `mkdtemp` denies others read access
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
                shutil.rmtree(target)  # a damaged one
            os.rename(partial, target)
        except OSError:
            if not self.is_planned(number):  # another host may have written the same meanwhile
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return number

    def _write_variant(self, number: int, variant: int, directory: Path) -> dict[str, Any]:
        """Write the pairs and the rows of a variant, and return counts of them."""
        planner = PairPlanner(self.corpus, self.split, self.config, variant, shard=number)
        counts = {"rows": 0, "pairs": 0, "filled": 0, "read": 0, "max_pairs": 1}
        sequences = np.zeros(0, np.int64)
        pairs_name, starts_name = variant_files(variant)
        with (
            (directory / pairs_name).open("wb") as pairs_file,
            (directory / starts_name).open("wb") as starts_file,
        ):
            # Not `tofile`, which does not report what is lost if the disk is full.
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
    """Plan the shards that are not planned yet, with a progress bar if that takes a while.

    Hosts that plan into the same directory start with different shards, and skip shards that
    another host has planned meanwhile.

    Args:
        planner: the planner of the shards.
        numbers: the numbers of the shards.
        num_processes: how many processes plan at a time; 0 means one per core.

    Raises:
        InputError: a worker process was killed.
    """
    part = planner.corpus.splits[planner.split]
    missing = [number for number in numbers if not planner.is_planned(number)]
    # One process plans _TOKENS_OF_ONE_PROCESS tokens before others have started.
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
    """Plan shards, and yield the number of each one when it is done, in any order."""
    if num_processes <= 1:
        yield from map(planner.plan, numbers)
        return
    # Forking is unsafe once a library has started threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, context, initializer=_start, initargs=(planner,))
    try:
        with _hidden_main():  # processes start when work is submitted
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
    """Let processes start without importing the main program, which may be a script that plans."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_planner: ShardPlanner  # the planner of this worker process


def _start(planner: ShardPlanner) -> None:
    global _planner
    _planner = planner


def _work(number: int) -> int:
    return _planner.plan(number)
