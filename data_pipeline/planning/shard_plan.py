"""Plans by shard: rows never span shards, and an epoch reads them window by window.

A plan is a directory with a subdirectory for each shard (see `shard_planning`) and a
`metadata.json`, written last, with the numbers of rows and the hashes of the files of all shards.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Int64

from albert_jax.durable_files import hash_file, write_atomically
from data_pipeline.cache import host_lock
from data_pipeline.config import DataConfig
from data_pipeline.corpus.splits import TRAIN, Split, shard_name, token_dtype_for
from data_pipeline.corpus.staging import StagedDirectory
from data_pipeline.memory_maps import LazySequence, MappedDirectory, affordable_maps
from data_pipeline.planning.packing import add_counts
from data_pipeline.planning.pairs import PlannedPairs, join_pairs
from data_pipeline.planning.plan_files import METADATA_FILE, check_settings_of, too_small
from data_pipeline.planning.row_order import RowOrder, count_windows
from data_pipeline.planning.shard_pairs import PlannedShard, decode_pairs
from data_pipeline.planning.shard_planning import ShardPlanner
from data_pipeline.planning.window_staging import WindowStage, stage_of_plan
from data_pipeline.verification import DamageError, find_damaged_files, seal

_logger = logging.getLogger(__name__)


class ShardPlan:
    """Rows of pairs over the shards of a corpus split, with the same attributes as `SplitPlan`.

    When a shard is first read, its files are checked against their hashes. A shard that has changed
    is planned again.

    Args:
        planner: the planner of its shards, all of which are planned.
        metadata: the content of `metadata.json`.
        url: the directory of a plan on a store, whose files are copied as they are read; None for
            a local plan.
    """

    def __init__(
        self, planner: ShardPlanner, metadata: dict[str, Any], url: str | None = None
    ) -> None:
        self._planner = planner
        self._windows = None
        if planner.corpus.stage:
            self._windows = WindowStage(
                planner.corpus.stage if planner.split == TRAIN else None,
                stage_of_plan(url, planner.path, metadata["files"]) if url else None,
                num_variants=len(metadata["rows"]),
            )
        self._split: Split = planner.corpus.splits[planner.split]
        self._files = metadata["files"]
        self._sequences: list[list[int]] = metadata["sequences"]
        self._num_windows: int = metadata["num_windows"]
        self._rows = np.array(metadata["rows"], np.int64)  # [variants, shards]
        pairs = np.array(metadata["pairs"], np.int64)
        self._pairs_before = np.cumsum(pairs, axis=1) - pairs
        self._verified: set[int] = set()
        self._orders: dict[int, RowOrder] = {}
        self._shards = LazySequence(
            self._rows.size, self._open_shard, max_open=affordable_maps(maps_per_item=2)
        )
        self.path = planner.path
        self.num_rows: int = metadata["num_rows"]
        self.max_pairs: int = metadata["max_pairs"]
        self.fill: float = metadata["fill"]
        self.coverage: float = metadata["coverage"]

    def order(self, seed: int) -> RowOrder:
        """Return the order in which runs with this seed read the rows."""
        if seed not in self._orders:
            self._orders[seed] = RowOrder(self._rows, self._num_windows, seed=seed)
        return self._orders[seed]

    def find_pairs(self, numbers: Int64[np.ndarray, " rows"], *, seed: int) -> PlannedPairs:
        """Return the pairs of the rows with these numbers in the run."""
        order = self.order(seed)
        if self._windows and len(numbers):
            self._windows.follow(order, int(numbers.min()))
        places = order.find(numbers)
        self._verify(np.unique(places.shards).tolist())
        num_variants, num_shards = self._rows.shape
        parts = places.epochs % num_variants * num_shards + places.shards
        by_part = np.argsort(parts, kind="stable")
        found = []
        for rows in np.split(by_part, np.flatnonzero(np.diff(parts[by_part])) + 1):
            if len(rows):
                part = int(parts[rows[0]])
                found.append(self._find_in_shard(part, rows, places.rows[rows], places.epochs))
        return join_pairs(found)

    def _find_in_shard(
        self, part: int, requested: np.ndarray, rows: np.ndarray, epochs: np.ndarray
    ) -> PlannedPairs:
        shard = self._shards[part]
        variant, number = divmod(part, self._rows.shape[1])
        starts = shard.row_starts[rows].astype(np.int64)
        sizes = shard.row_starts[rows + 1] - starts
        slots = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs = np.repeat(starts, sizes) + slots
        return PlannedPairs(
            pairs=decode_pairs(
                shard.pairs[pairs],
                first_token=int(self._split.token_starts[number]),
                first_sentence=int(self._split.sentence_starts[number]),
            ),
            numbers=self._pairs_before[variant, number] + pairs,
            epochs=np.repeat(epochs[requested], sizes),
            rows=np.repeat(requested, sizes),
            slots=slots,
        )

    def count_sequences(
        self, config: DataConfig, num_rows: int
    ) -> Int64[np.ndarray, "variants sequences"]:
        """Count the rows that a run reads of each variant by their sequences; see `packing`.

        All rows of a variant count, even if an epoch has fewer: it leaves out different ones each
        time.

        Args:
            config: the settings that the plan was made with.
            num_rows: number of rows in the run.
        """
        epochs = -(-num_rows // self.num_rows)
        found = self._sequences[:epochs]
        counts = np.zeros((len(found), max(map(len, found))), np.int64)
        for row, of_variant in zip(counts, found, strict=True):
            row[: len(of_variant)] = of_variant
        return counts

    def _open_shard(self, part: int) -> PlannedShard:
        variant, number = divmod(part, self._rows.shape[1])
        directory = (
            StagedDirectory(self._windows.plan)
            if self._windows and self._windows.plan
            else MappedDirectory(self.path)
        )
        return PlannedShard(directory, number, variant, self._planner.config)

    def _verify(self, numbers: Sequence[int]) -> None:
        """Check the files of shards against their hashes, unless that was done before."""
        if self._windows and self._windows.plan:
            return  # files are verified when they are copied
        if unverified := [number for number in numbers if number not in self._verified]:
            with ThreadPoolExecutor() as pool:
                for _ in pool.map(self._mend, unverified):
                    pass
            self._verified.update(unverified)

    def _mend(self, number: int) -> None:
        """Plan a shard again if its files do not match their hashes."""
        damage = self._find_damage(number)
        if damage is None:
            return
        with host_lock(self.path, f"planning a shard of {self._planner.corpus.path} again"):
            damage = self._find_damage(number)
            if damage is None:  # another process has mended it while this one waited
                return
            _logger.warning("The plan %s is damaged (%s): planning it again.", self.path, damage)
            shutil.rmtree(self.path / shard_name(number), ignore_errors=True)
            self._planner.plan(number)
            if damage := self._find_damage(number):
                raise DamageError(f"plan {self.path} is damaged: {damage}; remove it")

    def _find_damage(self, number: int) -> str | None:
        directory = self.path / shard_name(number)
        for file, record in self._files[number].items():
            try:
                if hash_file(directory / file) != record["sha256"]:
                    return f"the SHA-256 of {directory.name}/{file} is not the one in its metadata"
            except OSError as error:
                return f"{directory.name}/{file}: {error.strerror}"
        return None


def write_shard_plan(planner: ShardPlanner) -> None:
    """Write the metadata of a plan whose shards are all planned, which makes it complete.

    Raises:
        InputError: the split is too small for a single row.
    """
    config = planner.config
    text = planner.corpus.splits[planner.split]
    num_shards = len(text.shards)
    text_bytes = text.num_tokens * token_dtype_for(planner.corpus.metadata.vocab_size).itemsize
    shards = [planner.read(number) for number in range(num_shards)]
    by_variant = list(zip(*(shard["variants"] for shard in shards), strict=True))
    rows = _numbers(by_variant, "rows")
    num_rows = min(rows.sum(axis=1).tolist())
    if not num_rows:
        shutil.rmtree(planner.path)
        raise too_small(planner.corpus, planner.split)
    # If a variant has more rows than an epoch, an epoch leaves out a random part of them.
    read = _numbers(by_variant, "read").sum(axis=1) * (num_rows / rows.sum(axis=1))
    metadata = {
        "settings": planner.settings,
        "num_rows": num_rows,
        "num_windows": count_windows(text_bytes, planner.settings["window_bytes"], num_shards),
        "max_pairs": int(_numbers(by_variant, "max_pairs").max()),
        "fill": float(_numbers(by_variant, "filled").sum() / (rows.sum() * config.max_seq_length)),
        "coverage": float(read.sum() / _numbers(by_variant, "tokens").sum()),
        "rows": rows.tolist(),
        "pairs": _numbers(by_variant, "pairs").tolist(),
        "sequences": [_count_sequences(variant) for variant in by_variant],
        "files": [shard["files"] for shard in shards],
    }
    for leftover in planner.path.glob(".*.partial-*"):  # of processes that were killed or too late
        shutil.rmtree(leftover, ignore_errors=True)
    write_atomically(planner.path / METADATA_FILE, json.dumps(seal(metadata)) + "\n")


def open_shard_plan(planner: ShardPlanner, url: str | None = None) -> ShardPlan:
    """Open a plan, or raise one of `DAMAGE` if its metadata or the sizes of its files have changed.

    The hashes of a shard's files are checked when it is first read.

    Args:
        planner: the planner of its shards.
        url: the plan on a store, whose metadata is at the planner's path; None for a local plan.
    """
    metadata = check_settings_of(planner.path, planner.settings)
    if url is not None:
        return ShardPlan(planner, metadata, url)
    for number, files in enumerate(metadata["files"]):
        directory = planner.path / shard_name(number)
        for damage in find_damaged_files(directory, files, hashes=False).values():
            raise DamageError(damage)
    return ShardPlan(planner, metadata)


def _numbers(by_variant: Sequence[Sequence[dict[str, Any]]], name: str) -> np.ndarray:
    """Return one of the numbers of each shard in each variant: int64 [variants, shards]."""
    return np.array([[shard[name] for shard in shards] for shards in by_variant], np.int64)


def _count_sequences(shards: Sequence[dict[str, Any]]) -> list[int]:
    counts = np.zeros(0, np.int64)
    for shard in shards:
        counts = add_counts(counts, np.array(shard["sequences"], np.int64))
    return counts.tolist()
