"""The plan of a corpus split: every pair of an epoch and its row, computed once.

It depends on the corpus and on the data configuration, not on the seed, so that all runs on a
corpus share it. Which kind of plan it is belongs to the corpus (`CorpusMetadata.plans_by_shard`).
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from albert_jax.durable_files import hash_text
from albert_jax.settings import FieldError
from data_pipeline.cache import cache_directory, host_lock
from data_pipeline.config import DataConfig
from data_pipeline.corpus.reader import Corpus
from data_pipeline.planning.plan_files import DAMAGE, METADATA_FILE
from data_pipeline.planning.row_order import WINDOW_BYTES
from data_pipeline.planning.shard_plan import ShardPlan, open_shard_plan, write_shard_plan
from data_pipeline.planning.shard_planning import ShardPlanner, plan_shards
from data_pipeline.planning.split_plan import SplitPlan, build_split_plan, open_split_plan

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

_logger = logging.getLogger(__name__)


Plan = SplitPlan | ShardPlan


def open_plan(corpus: Corpus, split: str, config: DataConfig) -> Plan:
    """Open the plan of a split, and build it first unless it is cached and intact.

    It is cached in `config.plan_dir`; if that is empty, in `plans` inside the corpus directory, or,
    if that is not writable, in the user's cache directory.

    Raises:
        InputError: the split is too small for a single row.
        FieldError: the plan cannot be written.
    """
    settings = _settings(corpus, split, config)
    name = f"{split}-{hash_text(json.dumps(settings, sort_keys=True))[:16]}"
    path = _plans_directory(corpus, config) / name
    # One that came with a corpus that is read-only serves as well.
    with_corpus = Path(config.plan_dir or f"{corpus.path}/plans") / name
    for place in dict.fromkeys((with_corpus, path)):
        if plan := _open_if_whole(corpus, split, config, settings, place):
            return plan
    with host_lock(path, f"planning the {split} rows of {corpus.path}"):
        # It may have been built by the process that was waited for.
        if plan := _open_if_whole(corpus, split, config, settings, path):
            return plan
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _build(corpus, split, config, settings, path)
        except OSError as error:
            allowed = f"a writable directory ({path.parent}: {error.strerror or error})"
            raise FieldError("data.plan_dir", allowed, config.plan_dir) from error
        return _open(corpus, split, config, settings, path)


def _open_if_whole(
    corpus: Corpus, split: str, config: DataConfig, settings: dict[str, Any], path: Path
) -> Plan | None:
    if not path.exists():
        return None
    try:
        return _open(corpus, split, config, settings, path)
    except DAMAGE as error:
        if corpus.metadata.plans_by_shard and not (path / METADATA_FILE).exists():
            _logger.warning("The plan %s is not complete: building what is missing.", path)
        else:
            _logger.warning("The plan %s cannot be used (%s): building it again.", path, error)
        return None


def _open(
    corpus: Corpus, split: str, config: DataConfig, settings: dict[str, Any], path: Path
) -> Plan:
    if not corpus.metadata.plans_by_shard:
        return open_split_plan(path, settings)
    return open_shard_plan(ShardPlanner(corpus, split, config, settings, path))


def _build(
    corpus: Corpus, split: str, config: DataConfig, settings: dict[str, Any], path: Path
) -> None:
    if not corpus.metadata.plans_by_shard:
        build_split_plan(corpus, split, config, settings, path)
        return
    planner = ShardPlanner(corpus, split, config, settings, path)
    plan_shards(planner, range(len(corpus.splits[split].shards)), len(os.sched_getaffinity(0)))
    write_shard_plan(planner)


def _settings(corpus: Corpus, split: str, config: DataConfig) -> dict[str, Any]:
    by_shard = {"format": 3, "window_bytes": WINDOW_BYTES}
    return {
        **(by_shard if corpus.metadata.plans_by_shard else {"format": 2}),
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
