"""Plans of a whole split in one piece, for corpora built before plans by shard existed.

A plan is a directory with a `metadata.json` and two memory-mapped files for each of its variants:
the pairs in the order of their rows, and the first pair of each row. An epoch reads its rows in a
single permutation of all of them.
"""

import dataclasses
import itertools
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from albert_jax.durable_files import write_atomically
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.memory_maps import LazySequence, MappedDirectory
from data_pipeline.planning.packing import arrange_rows, count_sequences, row_positions
from data_pipeline.planning.pair_planning import PairPlanner, measure_coverage
from data_pipeline.planning.pairs import PAIR, PlannedPairs, join_pairs
from data_pipeline.planning.plan_files import (
    DAMAGE,
    METADATA_FILE,
    check_settings_of,
    too_small,
)
from data_pipeline.planning.row_order import shuffle_rows
from data_pipeline.verification import (
    DamageError,
    describe_files,
    find_damaged_files,
    seal,
)

_OPEN_VARIANTS = 4  # a batch reads at most two, or more if it holds whole epochs
_PACKED_TOGETHER = 1 << 16  # pairs


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of cutting the documents, memory-mapped."""

    pairs: np.ndarray  # records of type PAIR, grouped by row
    row_starts: np.ndarray  # int64 [rows + 1]: the first pair of each row


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """Rows of pairs over a corpus split."""

    path: Path
    num_rows: int  # number of rows in an epoch, the same for each variant
    max_pairs: int  # maximum number of pairs in a row
    fill: float  # fraction of the rows' positions that are filled
    coverage: float  # fraction of the split's tokens that an epoch reads, averaged over variants
    variants: LazySequence[Variant]

    def variant_of(self, epoch: int) -> Variant:
        """Return the variant that an epoch reads."""
        return self.variants[epoch % len(self.variants)]

    def find_pairs(self, numbers: Int64[np.ndarray, " rows"], *, seed: int) -> PlannedPairs:
        """Return the pairs of the rows with these numbers in the run."""
        epochs, planned = shuffle_rows(numbers, self.num_rows, seed=seed)
        found = []
        for epoch in np.unique(epochs).tolist():
            variant = self.variant_of(epoch)
            rows = np.flatnonzero(epochs == epoch)
            starts = variant.row_starts[planned[rows]]
            sizes = variant.row_starts[planned[rows] + 1] - starts
            slots = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            pairs = np.repeat(starts, sizes) + slots
            found.append(
                PlannedPairs(
                    pairs=variant.pairs[pairs],
                    numbers=pairs,
                    epochs=np.full(len(pairs), epoch),
                    rows=np.repeat(rows, sizes),
                    slots=slots,
                )
            )
        return join_pairs(found)

    def count_sequences(
        self, config: DataConfig, num_rows: int
    ) -> Int64[np.ndarray, "variants sequences"]:
        """Count the rows that a run reads of each variant by their sequences; see `packing`.

        Args:
            config: the settings that the plan was made with.
            num_rows: number of rows in the run.
        """
        epochs = math.ceil(num_rows / self.num_rows)
        starts = slice(self.num_rows + 1)
        found = [
            count_sequences(variant.pairs, variant.row_starts[starts], config)
            for variant in itertools.islice(self.variants, epochs)
        ]
        counts = np.zeros((len(found), max(map(len, found))), np.int64)
        for row, of_variant in zip(counts, found, strict=True):
            row[: len(of_variant)] = of_variant
        return counts


def build_split_plan(
    corpus: Corpus, split: str, config: DataConfig, settings: dict[str, Any], path: Path
) -> None:
    """Write the plan under another name first, so that it is either complete or absent.

    Raises:
        InputError: the split is too small for a single row.
    """
    partial = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=path.parent))
    partial.chmod(0o755 & path.parent.stat().st_mode)  # `mkdtemp` denies others read access
    try:
        variants = [
            _write_rows(corpus, split, config, number, partial / f"{number:03d}")
            for number in range(config.num_plan_variants)
        ]
        num_rows = min(variant["rows"] for variant in variants)
        if not num_rows:
            raise too_small(corpus, split)
        metadata = {
            "settings": settings,
            "num_rows": num_rows,
            "max_pairs": max(variant["max_pairs"] for variant in variants),
            "fill": sum(variant["filled"] for variant in variants)
            / sum(variant["rows"] * config.max_seq_length for variant in variants),
            "coverage": measure_coverage(
                corpus,
                split,
                config,
                [_planned_pairs(partial, number, num_rows) for number in range(len(variants))],
            ),
            "files": describe_files(partial, sorted(file.name for file in partial.iterdir())),
        }
        write_atomically(partial / METADATA_FILE, json.dumps(seal(metadata), indent=2) + "\n")
        _put_in_place(partial, path, settings)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_rows(
    corpus: Corpus, split: str, config: DataConfig, variant: int, stem: Path
) -> dict[str, int]:
    """Write the pairs of all rows and the first pair of each: `STEM.pairs.bin` and so on.

    Returns:
        rows, their number; filled, the number of filled positions; max_pairs, the maximum number of
        pairs in a row.
    """
    counts = {"rows": 0, "filled": 0, "max_pairs": 1}
    generated = PairPlanner(corpus, split, config, variant).generate()
    with (
        open(f"{stem}.pairs.bin", "wb") as pairs_file,
        open(f"{stem}.row_starts.bin", "wb") as starts_file,
    ):
        num_pairs = 0
        # Not `tofile`, which does not report what is lost if the disk is full.
        starts_file.write(bytes(8))
        for pairs, sizes in arrange_rows(generated, config, together=_PACKED_TOGETHER):
            pairs_file.write(pairs.tobytes())
            starts_file.write((num_pairs + np.cumsum(sizes)).astype("<i8").tobytes())
            num_pairs += len(pairs)
            counts["rows"] += len(sizes)
            counts["filled"] += int(row_positions(pairs, config).sum())
            counts["max_pairs"] = max(counts["max_pairs"], int(sizes.max()))
    return counts


def _put_in_place(partial: Path, path: Path, settings: dict[str, Any]) -> None:
    try:
        os.rename(partial, path)
    except OSError:
        # A plan is there already: an equal one from another host, or a damaged one.
        try:
            open_split_plan(path, settings)
        except DAMAGE:
            shutil.rmtree(path)
            os.rename(partial, path)


def _planned_pairs(directory: Path, number: int, num_rows: int) -> np.ndarray:
    """Map the pairs of a variant's first rows, those that an epoch reads."""
    row_starts = np.memmap(directory / f"{number:03d}.row_starts.bin", "<i8", mode="r")
    pairs = np.memmap(directory / f"{number:03d}.pairs.bin", PAIR, mode="r")
    return pairs[: row_starts[num_rows]]


def open_split_plan(path: Path, settings: dict[str, Any]) -> SplitPlan:
    """Open a plan, or raise one of `DAMAGE` if its metadata or its files have changed."""
    metadata = check_settings_of(path, settings)
    for damage in find_damaged_files(path, metadata["files"]).values():
        raise DamageError(damage)
    directory = MappedDirectory(path)

    def open_variant(number: int) -> Variant:
        return Variant(
            directory.map(f"{number:03d}.pairs.bin", PAIR),
            directory.map(f"{number:03d}.row_starts.bin", np.dtype("<i8")),
        )

    return SplitPlan(
        path=path,
        num_rows=metadata["num_rows"],
        max_pairs=metadata["max_pairs"],
        fill=metadata["fill"],
        coverage=metadata["coverage"],
        variants=LazySequence(settings["num_plan_variants"], open_variant, max_open=_OPEN_VARIANTS),
    )
