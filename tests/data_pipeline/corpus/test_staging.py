"""A large corpus on a store: shards are copied as they are read, window by window."""

import hashlib
import itertools
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from memory_stores import memory_stores
from tiny_corpora import make_corpus, random_lengths

from data_pipeline import remote
from data_pipeline.config import DataConfig
from data_pipeline.corpus import staging
from data_pipeline.corpus.reader import Corpus, open_corpus
from data_pipeline.corpus.staging import FileStage
from data_pipeline.errors import InputError
from data_pipeline.planning.plan import open_plan, plan_ahead
from data_pipeline.pretraining.rows import RowReader

URL = "gs://bucket/corpus"
CONFIG = DataConfig(max_seq_length=64, max_predictions_per_seq=10, packing="packed")
WINDOW = 9_000


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """A corpus of eight shards or more."""
    path = tmp_path_factory.mktemp("staging") / "corpus"
    make_corpus(path, random_lengths(200, seed=0), max_shard_bytes=6_000)
    return path


@pytest.fixture
def stored(local, tmp_path, monkeypatch):
    """Put the corpus on a store, as one of many windows, and yield the store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for place in ("corpus.reader", "planning.plan"):
        monkeypatch.setattr(f"data_pipeline.{place}.WINDOW_BYTES", WINDOW)
    monkeypatch.setattr(staging, "_RETRY_SECONDS", (0.0, 0.0))
    shutil.rmtree(local / "plans", ignore_errors=True)
    with memory_stores(monkeypatch) as store:
        remote.publish(local, URL, "metadata.json")
        yield store


def reader(corpus: Corpus) -> RowReader:
    return RowReader(corpus, "train", CONFIG, seed=1, cls_id=2, sep_id=3)


def shards_here(corpus: Corpus, name: str = "tokens.bin") -> set[int]:
    return {int(path.parent.name[-5:]) for path in (corpus.path / "train").rglob(name)}


def wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_rows_are_those_of_a_local_corpus_and_two_windows_lie_on_the_disk(local, stored):
    corpus = open_corpus(URL)
    assert corpus.stage and not shards_here(corpus) and (corpus.path / "validation").is_dir()
    place, missing = plan_ahead(corpus, "train", CONFIG, num_processes=1)
    assert str(place).startswith(f"{URL}/plans/train-") and not missing
    assert not shards_here(corpus)  # it needs only the boundaries of sentences
    shutil.rmtree(corpus.path)

    corpus = open_corpus(URL)
    ours, theirs = reader(corpus), reader(open_corpus(local))
    order, num_rows = ours.plan.order(1), ours.plan.num_rows
    num_windows = len(order.windows(0).window_starts) - 1
    assert num_windows > 2
    assert not list((corpus.path / "staged_plans").rglob("*.bin"))
    everything = set(range(len(corpus.splits["train"].shards)))
    seen = set()
    for first in (*range(0, 2 * num_rows, 40), 10**6):
        rows = first + np.arange(16)
        for ids, expected in zip(ours.read(rows), theirs.read(rows), strict=True):
            np.testing.assert_array_equal(ids, expected)
        window = order.window_of(first)
        now, later = (
            set(order.windows(epoch).shards_of(number).tolist())
            for epoch, number in (window, order.window_after(window))
        )
        wait_until(lambda now=now, later=later: shards_here(corpus) >= now | later)
        end = set(order.find(rows[-1:]).shards.tolist())
        assert shards_here(corpus) <= now | later | end < everything
        seen |= shards_here(corpus)
    assert seen == everything
    plans = {path.parent.name for path in (corpus.path / "staged_plans").rglob("*.pairs.bin")}
    assert len(plans) < len(everything)


def test_a_store_without_a_plan_is_planned_here(local, stored):
    corpus = open_corpus(URL)
    plan = open_plan(corpus, "train", CONFIG)
    assert plan.path.is_relative_to(corpus.path / "plans")
    assert plan.num_rows == open_plan(open_corpus(local), "train", CONFIG).num_rows
    with pytest.raises(InputError, match=r"--plan_shards=0/2: machines plan together into a dir"):
        plan_ahead(corpus, "train", CONFIG, num_processes=1, num_parts=2)


def test_a_small_corpus_is_copied_at_once(local, stored, monkeypatch):
    monkeypatch.setattr("data_pipeline.corpus.reader.WINDOW_BYTES", 10**6)
    corpus = open_corpus(URL)
    assert corpus.stage is None and shards_here(corpus) == set(
        range(len(corpus.splits["train"].shards))
    )


def test_failures_are_retried_then_one_clear_error(stored, monkeypatch, caplog):
    corpus = open_corpus(URL)
    name = "train/shard-00001/tokens.bin"
    whole = (epath.Path(URL) / name).read_bytes()
    (epath.Path(URL) / name).write_bytes(whole[:-1] + b"!")
    with pytest.raises(
        InputError, match=rf"{URL}/{name} cannot be copied to .*: it does not have the SHA-256"
    ):
        corpus.splits["train"].read(corpus.splits["train"].token_starts[1:2])
    assert caplog.text.count("trying again in 0 seconds") == 2
    assert not list((corpus.path / "train/shard-00001").glob("*tokens*"))
    fails = iter([OSError("Connection reset"), None])
    copy = FileStage._copy

    def fail_once(stage: FileStage, name: str) -> None:
        if error := next(fails):
            raise error
        copy(stage, name)

    (epath.Path(URL) / name).write_bytes(whole)
    monkeypatch.setattr(FileStage, "_copy", fail_once)
    assert corpus.splits["train"].read(corpus.splits["train"].token_starts[1:2])[0] > 4
    (epath.Path(URL) / "train/shard-00002/tokens.bin").unlink()
    monkeypatch.setattr(FileStage, "_copy", copy)
    with pytest.raises(InputError, match=r"shard-00002/tokens\.bin is missing"):
        corpus.splits["train"].read(corpus.splits["train"].token_starts[2:3])


def test_what_another_process_reads_is_kept_until_it_ends(stored, caplog):
    corpus = open_corpus(URL)
    ours = corpus.stage
    theirs, names = FileStage(ours.url, ours.local, ours._files), sorted(ours._files)
    held = [[name for name in names if f"shard-0000{number}/tokens" in name] for number in range(4)]
    here = lambda: {name for name in names if (ours.local / name).exists()}  # noqa: E731
    theirs.hold(held[0], held[1])
    wait_until(lambda: here() == {*held[0], *held[1]})
    ours.hold(held[2], [])
    wait_until(lambda: here() == {*held[0], *held[1], *held[2]})
    theirs._user.close()  # as the operating system does when a process ends
    ours.hold(held[2], held[3])
    wait_until(lambda: here() == {*held[2], *held[3]})
    assert len(list((ours.local / ".users").iterdir())) == 1


def test_without_room_nothing_is_copied_ahead(stored, monkeypatch, caplog):
    corpus = open_corpus(URL)
    names = [name for name in sorted(corpus.stage._files) if name.endswith("tokens.bin")]
    usage = shutil.disk_usage(corpus.path)
    room = corpus.stage._files[names[0]]["bytes"] + 10
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=room))
    corpus.stage.hold(names[:1], names[1:2])
    wait_until(lambda: shards_here(corpus) == {0})
    assert f"{corpus.path} has no room for the next" in caplog.text
    corpus.stage.fetch(names[1])
    assert shards_here(corpus) == {0, 1}
    content = (corpus.path / names[1]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == corpus.stage._files[names[1]]["sha256"]
    assert not list(itertools.islice(corpus.stage._queue, 1))
