"""The plan of a corpus split: every pair of an epoch and its row, computed once.

A plan is a directory with a `metadata.json` and, for each of its variants, two memory-mapped files:
the pairs in the order of their rows, and the first pair of each row. It depends on the corpus and
on the data configuration, not on the seed, so that all runs on a corpus share it.
"""

import dataclasses
import itertools
import json
import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from albert_jax.durable_files import hash_text, write_atomically
from albert_jax.input_files import read_json_object
from albert_jax.settings import FieldError
from data_pipeline.cache import cache_directory, host_lock
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.errors import InputError
from data_pipeline.memory_maps import LazySequence, MappedDirectory
from data_pipeline.planning.packing import count_sequences, write_rows
from data_pipeline.planning.pair_planning import generate_pairs, measure_coverage
from data_pipeline.planning.pairs import PAIR
from data_pipeline.verification import (
    DamageError,
    describe_files,
    find_damaged_files,
    seal,
    unseal,
)

_FORMAT = 2
_METADATA = "metadata.json"
_OPEN_VARIANTS = 4  # a batch reads at most two, or more if it holds whole epochs

# The settings that a plan depends on; masks, seeds and directories are not among them.
_FIELDS = (
    "max_seq_length",
    "packing",
    "max_pairs_per_row",
    "short_seq_prob",
    "sentence_objective",
    "single_sentence",
    "num_plan_variants",
)

# Errors on opening a plan that was cut off or changed on the disk.
_DAMAGE = (OSError, ValueError, KeyError, TypeError)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of cutting the documents, memory-mapped."""

    pairs: np.ndarray  # records of type PAIR, those of a row together
    row_starts: np.ndarray  # int64 [rows + 1]: the first pair of each row


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows of pairs over a corpus split."""

    path: Path
    num_rows: int  # rows an epoch, the same for each variant
    max_pairs: int  # most pairs in a row
    fill: float  # fraction of the rows' positions filled
    coverage: float  # fraction of the split's tokens that an epoch reads, on average over variants
    variants: LazySequence[Variant]

    def variant_of(self, epoch: int) -> Variant:
        """Return the variant that an epoch reads."""
        return self.variants[epoch % len(self.variants)]

    def count_sequences(
        self, config: DataConfig, num_rows: int
    ) -> Int64[np.ndarray, "variants sequences"]:
        """Count the rows of each variant that a run reads by their sequences; see `packing`.

        Args:
            config: settings that the plan was made with.
            num_rows: rows of the run.
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


def open_plan(corpus: Corpus, split: str, config: DataConfig) -> Plan:
    """Open the plan of a split, and build it first unless it is cached and intact.

    It is cached in `config.plan_dir`; if that is empty, in `plans` inside the corpus directory, or,
    if that is not writable, in the user's cache directory.

    Raises:
        InputError: the split is too small for a single row.
        FieldError: the plan cannot be written.
    """
    settings = _settings(corpus, split, config)
    digest = hash_text(json.dumps(settings, sort_keys=True))[:16]
    path = _plans_directory(corpus, config) / f"{split}-{digest}"
    if plan := _open_if_whole(path, settings):
        return plan
    with host_lock(path, f"planning the {split} rows of {corpus.path}"):
        if plan := _open_if_whole(path, settings):  # built by the process that was waited for
            return plan
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _build(corpus, split, config, settings, path)
        except OSError as error:
            allowed = f"a writable directory ({path.parent}: {error.strerror or error})"
            raise FieldError("data.plan_dir", allowed, config.plan_dir) from error
        return _open(path, settings)


def _open_if_whole(path: Path, settings: dict[str, Any]) -> Plan | None:
    if not path.exists():
        return None
    try:
        return _open(path, settings)
    except _DAMAGE as error:
        _logger.warning("The plan %s cannot be used (%s): building it again.", path, error)
        return None


def _settings(corpus: Corpus, split: str, config: DataConfig) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "corpus": corpus.metadata.fingerprint,
        "split": split,
        **{name: getattr(config, name) for name in _FIELDS},
    }


def _plans_directory(corpus: Corpus, config: DataConfig) -> Path:
    if config.plan_dir:
        return Path(config.plan_dir)
    if os.access(corpus.path, os.W_OK):
        return Path(corpus.path) / "plans"
    return cache_directory() / "plans"


def _build(
    corpus: Corpus, split: str, config: DataConfig, settings: dict[str, Any], path: Path
) -> None:
    """Write the plan under another name first, so that it is complete or absent."""
    partial = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=path.parent))
    partial.chmod(0o755 & path.parent.stat().st_mode)  # `mkdtemp` lets nobody else read
    try:
        variants = [
            write_rows(
                generate_pairs(corpus, split, config, number), config, partial / f"{number:03d}"
            )
            for number in range(config.num_plan_variants)
        ]
        num_rows = min(variant["rows"] for variant in variants)
        if not num_rows:
            raise InputError(
                f"the {split} split of {corpus.path} is too small: it does not hold one pair"
            )
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
        write_atomically(partial / _METADATA, json.dumps(seal(metadata), indent=2) + "\n")
        _put_in_place(partial, path, settings)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, path: Path, settings: dict[str, Any]) -> None:
    try:
        os.rename(partial, path)
    except OSError:
        # There is one already: an equal one of another host, or a damaged one.
        try:
            _open(path, settings)
        except _DAMAGE:
            shutil.rmtree(path)
            os.rename(partial, path)


def _planned_pairs(directory: Path, number: int, num_rows: int) -> np.ndarray:
    """Map the pairs of a variant's first rows, which are those that an epoch reads."""
    row_starts = np.memmap(directory / f"{number:03d}.row_starts.bin", "<i8", mode="r")
    pairs = np.memmap(directory / f"{number:03d}.pairs.bin", PAIR, mode="r")
    return pairs[: row_starts[num_rows]]


def _open(path: Path, settings: dict[str, Any]) -> Plan:
    """Open a plan, or raise one of `_DAMAGE` unless its metadata and its files are as written."""
    metadata = unseal(read_json_object(path / _METADATA, error=DamageError))
    if metadata["settings"] != settings:
        raise DamageError("it is the plan of other settings")
    for damage in find_damaged_files(path, metadata["files"]).values():
        raise DamageError(damage)
    directory = MappedDirectory(path)

    def open_variant(number: int) -> Variant:
        return Variant(
            directory.map(f"{number:03d}.pairs.bin", PAIR),
            directory.map(f"{number:03d}.row_starts.bin", np.dtype("<i8")),
        )

    return Plan(
        path=path,
        num_rows=metadata["num_rows"],
        max_pairs=metadata["max_pairs"],
        fill=metadata["fill"],
        coverage=metadata["coverage"],
        variants=LazySequence(settings["num_plan_variants"], open_variant, max_open=_OPEN_VARIANTS),
    )
