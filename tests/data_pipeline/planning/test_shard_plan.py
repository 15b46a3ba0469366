"""Plans by shard: the same pairs, planned in any order by several processes, and mended."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_corpora import as_format, make_corpus, pairs_of_epoch, random_lengths

from data_pipeline.config import DataConfig
from data_pipeline.corpus.splits import shard_name
from data_pipeline.errors import InputError
from data_pipeline.planning.pairs import PAIR
from data_pipeline.planning.plan import open_plan, plan_ahead
from data_pipeline.planning.shard_pairs import decode_pairs, encode_pairs, shard_pair_dtype
from data_pipeline.planning.shard_planning import ShardPlanner
from data_pipeline.pretraining.rows import RowReader

DOCUMENTS = [*random_lengths(300, seed=0), [300, 4], [1]]
SETTINGS = {"max_seq_length": 64, "max_predictions_per_seq": 10, "packing": "packed"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "corpus"
    corpus = make_corpus(path, DOCUMENTS, max_shard_bytes=20_000)
    assert corpus.metadata.plans_by_shard and len(corpus.splits["train"].shards) > 3
    return corpus


def files_of(plan) -> dict[str, bytes]:
    paths = (path for path in plan.path.rglob("*") if path.is_file())
    return {path.relative_to(plan.path).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("packing", ["packed", "unpacked"])
def test_shards_have_the_pairs_of_a_plan_of_all_text_in_rows_of_their_own(corpus, packing):
    config = DataConfig(**SETTINGS | {"packing": packing})
    plan, whole = (open_plan(one, "train", config) for one in (corpus, as_format(corpus, 2)))
    found, expected = pairs_of_epoch(plan), pairs_of_epoch(whole)
    by_start = [np.argsort(one.pairs["start"]) for one in (found, expected)]
    np.testing.assert_array_equal(found.pairs[by_start[0]], expected.pairs[by_start[1]])
    np.testing.assert_array_equal(found.numbers, np.arange(len(found.pairs)))
    bounds = corpus.splits["train"].token_starts
    shards = np.searchsorted(bounds, found.pairs["start"], side="right")
    assert len(set(zip(found.rows.tolist(), shards.tolist(), strict=True))) == plan.num_rows
    assert plan.fill > 0.98 * whole.fill
    assert plan.coverage == pytest.approx(whole.coverage)


def test_records_take_twelve_bytes_unless_rows_are_very_long_or_segments_random(corpus):
    def size(**settings) -> int:
        return shard_pair_dtype(DataConfig(**settings)).itemsize

    assert size() == size(max_seq_length=32_000) == 12 and size(max_seq_length=65_536) == 16
    assert size(sentence_objective="nsp") == size(single_sentence="random_document") == 18
    assert size(sentence_objective="none", single_sentence="random_document") == 12
    for settings in ({}, {"sentence_objective": "nsp"}, {"max_seq_length": 40_000}):
        config = DataConfig(**settings)
        pairs = np.zeros(3, PAIR)
        pairs["start"], pairs["sentence"] = [0, 2**32 - 1, 7], [5, 2**31, 2**32 - 1]
        pairs["length"], pairs["sentences"] = 2 * config.max_num_tokens, [1, 900, 30]
        if settings.get("sentence_objective"):
            pairs["other_start"], pairs["other_length"] = [0, 4, 2**32 - 1], [0, 500, 10**6]
        decoded = decode_pairs(encode_pairs(pairs, config), first_token=2**33, first_sentence=11)
        pairs["start"] += 2**33
        pairs["sentence"] += 11
        pairs["other_start"][pairs["other_length"] > 0] += 2**33
        pairs["other_length"] = np.minimum(pairs["other_length"], 2 * config.max_num_tokens)
        np.testing.assert_array_equal(decoded, pairs)
    with pytest.raises(AssertionError, match="length"):
        encode_pairs(np.array([(0, 0, 0, 2**16, 0, 1)], PAIR), DataConfig())


_SCRIPT = """
import os, sys
from data_pipeline.config import DataConfig
from data_pipeline.corpus import open_corpus
from data_pipeline.planning import open_plan, shard_planning

print("once")
shard_planning._TOKENS_OF_ONE_PROCESS = 100
os.sched_getaffinity = lambda process: {0, 1}
config = DataConfig(**eval(sys.argv[2]), plan_dir=sys.argv[3])
open_plan(open_corpus(sys.argv[1]), "train", config)
"""


def test_several_processes_of_a_script_write_the_same_plan(tmp_path, corpus):
    """This includes a script that plans at its top level, which the processes do not run again."""
    settings = SETTINGS | {"sentence_objective": "nsp", "num_plan_variants": 2}
    script, together = tmp_path / "script.py", tmp_path / "together"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, script, corpus.path, repr(settings), together],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr
    assert "Planning the train rows: " in done.stderr
    config = DataConfig(**settings, plan_dir=str(tmp_path / "alone"))
    (plan,) = together.iterdir()
    alone = open_plan(corpus, "train", config)
    assert plan.name == alone.path.name
    assert files_of(alone) == files_of(
        open_plan(corpus, "train", dataclasses.replace(config, plan_dir=str(together)))
    )


def test_a_killed_planning_resumes_at_the_missing_shards(tmp_path, corpus, monkeypatch, caplog):
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path))
    expected = files_of(open_plan(corpus, "train", config))
    shutil.rmtree(next(tmp_path.iterdir()))
    write, written = ShardPlanner._write_variant, []

    def write_until_killed(planner, number, variant, directory):
        written.append(number)
        if len(written) == 3:
            (directory / "000.pairs.bin").write_bytes(b"1")
            raise KeyboardInterrupt
        return write(planner, number, variant, directory)

    monkeypatch.setattr(ShardPlanner, "_write_variant", write_until_killed)
    with pytest.raises(KeyboardInterrupt):
        open_plan(corpus, "train", config)
    plan = open_plan(corpus, "train", config)
    assert files_of(plan) == expected
    assert sorted(written) == sorted([*range(len(corpus.splits["train"].shards)), written[2]])
    assert "is not complete: building what is missing" in caplog.text
    assert {path.name[0] for path in plan.path.iterdir()} == {"s", "m"}  # nothing left over


def test_a_damaged_plan_is_mended(tmp_path, corpus, caplog):
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path))
    plan = open_plan(corpus, "train", config)
    expected, epoch = files_of(plan), pairs_of_epoch(plan)
    shard = plan.path / shard_name(1)
    pairs, metadata = shard / "000.pairs.bin", plan.path / "metadata.json"

    def flip(path) -> None:
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)

    def change(path, **fields) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    for damage in (
        functools.partial(flip, pairs),
        functools.partial(flip, shard / "000.row_starts.bin"),
        pairs.unlink,
        functools.partial(shutil.rmtree, shard),
        lambda: pairs.write_bytes(pairs.read_bytes()[:-12]),
        functools.partial(change, metadata, num_windows=2),
        functools.partial(change, metadata, rows=[[1, 2, 3]]),
        functools.partial(change, metadata, settings={}),
        functools.partial(change, shard / "metadata.json", variants=[]),
        metadata.unlink,
        lambda: metadata.write_text("[]"),
    ):
        caplog.clear()
        damage()
        again = open_plan(corpus, "train", config)
        for ours, theirs in zip(pairs_of_epoch(again), epoch, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        if (shard / "metadata.json").read_bytes() != expected[f"{shard.name}/metadata.json"]:
            continue  # the summary of a shard is needed only to write that of all
        assert files_of(again) == expected
        assert str(plan.path) in caplog.text
    (shard / "metadata.json").write_bytes(expected[f"{shard.name}/metadata.json"])
    assert files_of(plan) == expected


def test_damage_that_cannot_be_mended_is_one_clear_error(tmp_path, corpus, monkeypatch):
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path))
    plan = open_plan(corpus, "train", config)
    for path in plan.path.rglob("*.pairs.bin"):
        path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr(ShardPlanner, "plan", lambda planner, number: number)
    with pytest.raises(InputError, match=r"^plan .* is damaged: shard-.*; remove it$"):
        pairs_of_epoch(open_plan(corpus, "train", config))


def test_rows_of_several_windows_are_those_of_one(tmp_path, corpus, monkeypatch):
    """An epoch has the same rows in any number of windows, and reads them window by window."""
    monkeypatch.setattr("data_pipeline.planning.plan.WINDOW_BYTES", 20_000)
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path))
    reader = RowReader(corpus, "train", config, seed=1, cls_id=2, sep_id=3)
    plan = reader.plan
    ids = reader.read(np.arange(plan.num_rows)).input_ids
    windows = [plan.order(1).window_of(number)[1] for number in range(plan.num_rows)]
    assert 2 < max(windows) + 1 < len(corpus.splits["train"].shards)
    monkeypatch.undo()
    config = dataclasses.replace(config, plan_dir=str(tmp_path / "one"))
    other = RowReader(corpus, "train", config, seed=1, cls_id=2, sep_id=3)
    # Where a pair is split and truncated depends on its number in the plan, which is the same.
    theirs = other.read(np.arange(plan.num_rows)).input_ids
    assert sorted(ids.tolist()) == sorted(theirs.tolist()) and not (ids == theirs).all()


def test_machines_plan_parts_and_the_last_one_completes_the_plan(tmp_path, corpus):
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path / "parts"))
    num_shards, missing = len(corpus.splits["train"].shards), []
    for part in (2, 0, 1):
        place, left = plan_ahead(corpus, "train", config, num_processes=1, part=part, num_parts=3)
        missing.append(left)
    assert missing == [num_shards - 1, num_shards - 3, 0] and num_shards == 4
    alone = dataclasses.replace(config, plan_dir=str(tmp_path / "alone"))
    assert files_of(open_plan(corpus, "train", config)) == files_of(
        open_plan(corpus, "train", alone)
    )
    assert place == open_plan(corpus, "train", config).path
    with pytest.raises(InputError, match=r"--plan_shards=0/2: the corpus .* has one plan for all"):
        plan_ahead(as_format(corpus, 2), "train", config, num_processes=1, num_parts=2)
