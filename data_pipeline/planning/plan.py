"""The plan of a corpus split: every pair of an epoch and its row, computed once.

It depends on the corpus and the data configuration but not on the seed, so all runs on a corpus
share it. The corpus determines the kind of plan (`CorpusMetadata.plans_by_shard`).
"""

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

from albert_jax.durable_files import hash_text, write_atomically
from albert_jax.settings import FieldError
from data_pipeline.cache import cache_directory, host_lock
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.corpus.splits import WINDOW_BYTES
from data_pipeline.errors import InputError
from data_pipeline.planning.plan_files import DAMAGE, METADATA_FILE
from data_pipeline.planning.shard_plan import ShardPlan, open_shard_plan, write_shard_plan
from data_pipeline.planning.shard_planning import ShardPlanner, plan_shards
from data_pipeline.planning.split_plan import SplitPlan, build_split_plan, open_split_plan
from data_pipeline.remote import open_path, publish

# The settings that a plan depends on; masks, seeds and directories are not among them.
PLANNED_SETTINGS = (
    "max_seq_length",
    "packing",
    "max_pairs_per_row",
    "short_seq_prob",
    "sentence_objective",
    "single_sentence",
    "num_plan_variants",
)

PLANS_DIRECTORY = "plans"  # in the directory of a corpus

_logger = logging.getLogger(__name__)


Plan = SplitPlan | ShardPlan


def open_plan(corpus: Corpus, split: str, config: DataConfig) -> Plan:
    """Open the plan of a split, building it first unless it is cached and intact.

    It is cached in `config.plan_dir` or, if that is empty, in `plans` inside the corpus directory
    or, if that is not writable, in the user's cache directory. If a corpus on a store is copied as
    it is read, a plan beside it on the store is used and copied in the same way.

    Raises:
        InputError: the split is too small for a single row.
        FieldError: the plan cannot be written.
    """
    planner = make_planner(corpus, split, config)
    if staged := _stage_plan(planner):
        return staged
    # A plan that came with a read-only corpus can be used as well.
    with_corpus = Path(config.plan_dir or f"{corpus.path}/{PLANS_DIRECTORY}") / planner.path.name
    for path in dict.fromkeys((with_corpus, planner.path)):
        if plan := _open_if_whole(dataclasses.replace(planner, path=path)):
            return plan
    with host_lock(planner.path, f"planning the {split} rows of {corpus.path}"):
        # Another process may have built it while this one waited.
        if plan := _open_if_whole(planner):
            return plan
        try:
            planner.path.parent.mkdir(parents=True, exist_ok=True)
            _build(planner)
        except OSError as error:
            allowed = f"a writable directory ({planner.path.parent}: {error.strerror or error})"
            raise FieldError("data.plan_dir", allowed, config.plan_dir) from error
        return _open(planner)


def plan_ahead(
    corpus: Corpus,
    split: str,
    config: DataConfig,
    *,
    num_processes: int,
    part: int = 0,
    num_parts: int = 1,
) -> tuple[Path | str, int]:
    """Plan every n-th shard of a split, or all shards, and complete the plan if none is missing.

    The plan of a corpus on a store is published there, beside the corpus.

    Args:
        corpus: the corpus.
        split: the name of the split.
        config: how rows are made.
        num_processes: how many processes plan at a time; 0 means one per core.
        part: the first of the shards to plan.
        num_parts: n; the machines that plan the other parts share the directory of the corpus.

    Returns:
        The plan's directory or URL, and the number of its missing shards.

    Raises:
        InputError: `num_parts` exceeds 1 for a corpus that is not planned by shard or is on a
            store.
    """
    if not corpus.metadata.plans_by_shard:
        if num_parts > 1:
            raise InputError(
                f"--plan_shards={part}/{num_parts}: the corpus {corpus.path}, built by an earlier "
                "version, has one plan for all of its shards; leave --plan_shards out"
            )
        return open_plan(corpus, split, config).path, 0
    if num_parts > 1 and corpus.stage:
        raise InputError(
            f"--plan_shards={part}/{num_parts}: machines plan together into a directory that they "
            f"share, and {corpus.stage.url} is on a store: plan it on one machine"
        )
    planner = make_planner(corpus, split, config)
    everything = range(len(corpus.splits[split].shards))
    plan_shards(planner, everything[part::num_parts], num_processes)
    missing = sum(not planner.is_planned(number) for number in everything)
    if missing:
        return planner.path, missing
    write_shard_plan(planner)
    if corpus.stage is None:
        return planner.path, 0
    url = f"{corpus.stage.url}/{PLANS_DIRECTORY}/{planner.path.name}"
    publish(planner.path, url, METADATA_FILE)
    return url, 0


def make_planner(corpus: Corpus, split: str, config: DataConfig) -> ShardPlanner:
    """Return the planner of a split, with the path of the plan, which need not exist."""
    settings = _settings(corpus, split, config)
    name = f"{split}-{hash_text(json.dumps(settings, sort_keys=True))[:16]}"
    path = _plans_directory(corpus, config) / name
    return ShardPlanner(corpus, split, config, settings, path)


def _stage_plan(planner: ShardPlanner) -> ShardPlan | None:
    """Open the plan beside a corpus on a store, if the corpus is staged and has one."""
    if planner.corpus.stage is None:
        return None
    url = f"{planner.corpus.stage.url}/{PLANS_DIRECTORY}/{planner.path.name}"
    metadata = open_path(url) / METADATA_FILE
    if not metadata.exists():
        return None
    path = Path(planner.corpus.path) / "staged_plans" / planner.path.name
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / METADATA_FILE, metadata.read_text())
    return open_shard_plan(dataclasses.replace(planner, path=path), url)


def _open_if_whole(planner: ShardPlanner) -> Plan | None:
    path = planner.path
    if not path.exists():
        return None
    try:
        return _open(planner)
    except DAMAGE as error:
        if planner.corpus.metadata.plans_by_shard and not (path / METADATA_FILE).exists():
            _logger.warning("The plan %s is not complete: building what is missing.", path)
        else:
            _logger.warning("The plan %s cannot be used (%s): building it again.", path, error)
        return None


def _open(planner: ShardPlanner) -> Plan:
    if planner.corpus.metadata.plans_by_shard:
        return open_shard_plan(planner)
    return open_split_plan(planner.path, planner.settings)


def _build(planner: ShardPlanner) -> None:
    corpus, split = planner.corpus, planner.split
    if not corpus.metadata.plans_by_shard:
        build_split_plan(corpus, split, planner.config, planner.settings, planner.path)
        return
    plan_shards(planner, range(len(corpus.splits[split].shards)), num_processes=0)
    write_shard_plan(planner)


def _settings(corpus: Corpus, split: str, config: DataConfig) -> dict[str, Any]:
    by_shard = {"format": 3, "window_bytes": WINDOW_BYTES}
    return {
        **(by_shard if corpus.metadata.plans_by_shard else {"format": 2}),
        "corpus": corpus.metadata.fingerprint,
        "split": split,
        **{name: getattr(config, name) for name in PLANNED_SETTINGS},
    }


def _plans_directory(corpus: Corpus, config: DataConfig) -> Path:
    if config.plan_dir:
        return Path(config.plan_dir)
    if os.access(corpus.path, os.W_OK):
        return Path(corpus.path) / PLANS_DIRECTORY
    return cache_directory() / PLANS_DIRECTORY
