"""The plan: the pairs of an epoch, their rows, and repair of damage."""

import dataclasses
import functools
import json
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_corpora import as_format, make_corpus, pairs_of_epoch, random_lengths

import data_pipeline.planning.plan
from albert_jax.settings import FieldError
from data_pipeline.config import DataConfig
from data_pipeline.corpus.metadata import SourceMetadata
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.errors import InputError
from data_pipeline.planning.pair_planning import PairPlanner, sample_target_lengths
from data_pipeline.planning.plan import open_plan
from data_pipeline.pretraining.rows import RowReader

DOCUMENTS = random_lengths(300, seed=0)
SETTINGS = {"max_seq_length": 64, "max_predictions_per_seq": 10}


@pytest.fixture(scope="module", params=[2, 3], ids=["whole", "by_shard"])
def corpus(request, tmp_path_factory):
    """300 documents over several shards, in a corpus of each format with a plan of its own."""
    path = tmp_path_factory.mktemp("plan") / "corpus"
    corpus = as_format(make_corpus(path, DOCUMENTS, max_shard_bytes=20_000), request.param)
    assert len(corpus.splits["train"].shards) > 3
    return corpus


def plan_pairs(corpus, **settings) -> np.ndarray:
    plan = open_plan(corpus, "train", DataConfig(**SETTINGS | settings))
    return pairs_of_epoch(plan).pairs


def document_bounds() -> np.ndarray:
    return np.cumsum([0, *(sum(document) for document in DOCUMENTS)])


def test_unpacked_pairs_are_the_text_in_order(corpus):
    pairs = plan_pairs(corpus)
    # Every token is in one chunk, but for the documents of a single token, which cannot be split.
    ends = pairs["start"] + pairs["length"]
    gaps = pairs["start"][1:] - ends[:-1]
    lost = np.flatnonzero([sum(document) == 1 for document in DOCUMENTS])
    assert gaps.min() == 0 and gaps.sum() <= len(lost)
    assert ends[-1] == corpus.splits["train"].num_tokens
    # No chunk reaches across documents.
    bounds = document_bounds()
    np.testing.assert_array_equal(
        np.searchsorted(bounds, pairs["start"], side="right"), np.searchsorted(bounds, ends)
    )
    # Chunks are whole sentences.
    index = SentenceIndex(corpus.splits["train"])
    np.testing.assert_array_equal(index.addresses(pairs["sentence"]), pairs["start"])
    np.testing.assert_array_equal(index.addresses(pairs["sentence"] + pairs["sentences"]), ends)


def test_packed_rows_hold_the_same_pairs(corpus):
    plan = open_plan(corpus, "train", DataConfig(**SETTINGS, packing="packed"))
    found = pairs_of_epoch(plan)
    assert set(found.pairs.tolist()) == set(plan_pairs(corpus).tolist())
    assert np.bincount(found.rows).max() == plan.max_pairs > 1
    filled = np.bincount(found.rows, np.minimum(found.pairs["length"], 61) + 3)
    assert filled.max() <= 64
    assert plan.fill == pytest.approx(filled.sum() / (64 * plan.num_rows)) and plan.fill > 0.98


def test_a_fraction_of_the_documents_is_cut_short(corpus):
    config = DataConfig(**SETTINGS, short_seq_prob=0.3)
    documents = np.arange(100_000)
    targets = sample_target_lengths(documents, np.zeros_like(documents), config, key=1)
    short = targets[targets < 61]
    # A short document has the full length once in 60.
    assert abs(len(short) / len(documents) - 0.3 * 59 / 60) < 0.006
    assert short.min() == 2
    counts = np.bincount(short)[2:]
    assert len(counts) == 59 and 0.6 < counts.var() / counts.mean() < 1.5
    assert (
        sample_target_lengths(
            documents, documents, dataclasses.replace(config, short_seq_prob=0), key=1
        )
        == 61
    ).all()


def test_next_sentence_pairs_put_unused_sentences_back(corpus):
    pairs = plan_pairs(corpus, sentence_objective="nsp", short_seq_prob=0.0)
    is_random = pairs["other_length"] > 0
    several = pairs["sentences"] > 1
    assert several[~is_random].all()  # a single sentence always gets a random second segment
    # The chunk after a random pair starts where its own part ends: no text is lost.
    ends = pairs["start"] + pairs["length"]
    assert (pairs["start"][1:] == ends[:-1]).all()
    assert 0.45 < is_random.mean() < 0.75


@pytest.mark.parametrize(
    "settings", [{"sentence_objective": "nsp"}, {"single_sentence": "random_document"}]
)
def test_a_random_segment_is_whole_sentences_of_another_document(corpus, settings):
    pairs = plan_pairs(corpus, short_seq_prob=0.0, **settings)
    random = pairs[pairs["other_length"] > 0]
    assert len(random) > 20
    bounds = document_bounds()
    own = np.searchsorted(bounds, random["start"], side="right")
    other = np.searchsorted(bounds, random["other_start"], side="right")
    assert (own != other).all() and len(np.unique(other)) > len(other) // 4
    offsets = np.cumsum([0, *(length for document in DOCUMENTS for length in document)])
    begin = np.searchsorted(offsets, random["other_start"])
    end = np.searchsorted(offsets, random["other_start"] + random["other_length"])
    np.testing.assert_array_equal(offsets[begin], random["other_start"])
    np.testing.assert_array_equal(offsets[end], random["other_start"] + random["other_length"])
    # Sentences are taken until the target is met, and no longer.
    total = random["length"] + random["other_length"]
    without_last = total - (offsets[end] - offsets[end - 1])
    at_end = np.isin(offsets[end], bounds)
    assert ((total >= 61) | at_end).all()
    assert ((without_last < 61) | (end == begin + 1)).all()


def test_sentence_order_makes_no_random_pairs(corpus):
    assert not plan_pairs(corpus)["other_length"].any()
    legacy = plan_pairs(corpus, single_sentence="random_document")
    np.testing.assert_array_equal(legacy["other_length"] > 0, legacy["sentences"] == 1)


def test_variants_differ_and_have_the_same_number_of_rows(corpus):
    config = DataConfig(**SETTINGS, short_seq_prob=0.5, num_plan_variants=3)
    plan = open_plan(corpus, "train", config)
    starts = [set(pairs_of_epoch(plan, epoch).pairs["start"].tolist()) for epoch in range(4)]
    # An epoch leaves out what its variant has more than another.
    assert len(starts[0] & starts[3]) > 0.9 * len(starts[0])
    assert len(starts[0] & starts[1]) < 0.9 * len(starts[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"packing": "packed", "num_plan_variants": 3, "short_seq_prob": 0.5},
        {"packing": "packed", "sentence_objective": "nsp", "max_pairs_per_row": 2},
        {"packing": "unpacked"},
    ],
)
def test_counted_sequences_are_those_of_the_rows_that_a_run_reads(corpus, settings):
    """Runs of equal sequence ids in all rows of two epochs: of two variants, if there are more."""
    config = DataConfig(**SETTINGS | settings)
    reader = RowReader(corpus, "train", config, seed=1, cls_id=2, sep_id=3)
    plan = reader.plan
    ids = reader.read(np.arange(2 * plan.num_rows)).sequence_ids
    runs = ((np.diff(ids, axis=1) != 0).sum(axis=1) + 1).reshape(2, -1)
    counts = plan.count_sequences(config, plan.num_rows + 1)
    assert len(counts) == min(2, config.num_plan_variants)
    for epoch in range(2):
        found = np.bincount(runs[epoch], minlength=counts.shape[1])
        more = counts[epoch % len(counts)] - found
        # A plan by shard also counts rows of which an epoch leaves out a random part.
        left_out = more.sum() if corpus.metadata.plans_by_shard and len(counts) > 1 else 0
        assert more.min() == 0 and more.sum() == left_out < 0.1 * plan.num_rows
    assert len(plan.count_sequences(config, plan.num_rows)) == 1


def test_a_source_of_twice_the_weight_is_read_twice(corpus):
    once = plan_pairs(corpus, short_seq_prob=0.0)
    sources = tuple(SourceMetadata(name, weight, {}) for name, weight in (("a", 1.0), ("b", 0.4)))
    heavier = corpus._replace(
        metadata=dataclasses.replace(corpus.metadata, sources=sources, fingerprint="weighted")
    )
    # All documents are of source a, whose weight is 2.5 times the smallest.
    counts = np.unique(plan_pairs(heavier, short_seq_prob=0.0)["start"], return_counts=True)[1]
    assert set(counts) == {2, 3} and abs((counts == 3).mean() - 0.5) < 0.15
    assert len(counts) == len(once)


@pytest.mark.parametrize(
    "settings", [{"short_seq_prob": 1.0}, {"short_seq_prob": 0.0, "sentence_objective": "nsp"}]
)
def test_a_document_that_is_read_twice_is_cut_differently(corpus, settings):
    sources = tuple(SourceMetadata(name, weight, {}) for name, weight in (("a", 1.0), ("b", 0.5)))
    twice = corpus._replace(
        metadata=dataclasses.replace(corpus.metadata, sources=sources, fingerprint="twice")
    )
    pairs = plan_pairs(twice, **settings)
    _, counts = np.unique(pairs[["start", "length"]], return_counts=True)
    assert counts.max() == 2 and (counts == 1).mean() > 0.4


@pytest.mark.parametrize("corpus", [2], indirect=True, ids=["whole"])
def test_the_plan_is_built_again_when_damaged_and_the_same(tmp_path, corpus, caplog):
    config = DataConfig(**SETTINGS, packing="packed", plan_dir=str(tmp_path))
    plan = open_plan(corpus, "train", config)
    files = {file.name: file.read_bytes() for file in plan.path.iterdir()}
    pairs, metadata = plan.path / "000.pairs.bin", plan.path / "metadata.json"

    def flip() -> None:
        content = bytearray(files[pairs.name])
        content[100] ^= 1
        pairs.write_bytes(content)

    def change(**fields) -> None:
        metadata.write_text(json.dumps(json.loads(files[metadata.name]) | fields))

    def unseal() -> None:
        fields = json.loads(files[metadata.name])
        del fields["seals"]
        metadata.write_text(json.dumps(fields))

    for damage in (
        flip,
        *(functools.partial(change, num_rows=plan.num_rows + n) for n in (-7, 7, -plan.num_rows)),
        functools.partial(change, max_pairs=plan.max_pairs + 1),
        functools.partial(change, fill=0.5),
        functools.partial(change, files={}),
        functools.partial(change, settings={}),
        functools.partial(change, more=1),
        unseal,
        pairs.unlink,
        metadata.unlink,
        lambda: pairs.write_bytes(files[pairs.name][:-36]),
        lambda: metadata.write_text("{"),
        lambda: metadata.write_text("[]"),
    ):
        caplog.clear()
        damage()
        open_plan(corpus, "train", config)
        assert {file.name: file.read_bytes() for file in plan.path.iterdir()} == files
        assert f"{plan.path} cannot be used" in caplog.text
    caplog.clear()
    shutil.rmtree(plan.path)
    open_plan(corpus, "train", config)
    assert {file.name: file.read_bytes() for file in plan.path.iterdir()} == files
    assert not caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [plan.path.name]  # nothing left over


def test_a_plan_of_other_settings_in_its_place_is_not_taken(tmp_path, corpus, caplog):
    short, long = (
        DataConfig(**SETTINGS | {"max_seq_length": length}, plan_dir=str(tmp_path))
        for length in (32, 64)
    )
    right, wrong = open_plan(corpus, "train", short), open_plan(corpus, "train", long)
    num_rows = right.num_rows
    assert num_rows != wrong.num_rows
    shutil.rmtree(right.path)
    shutil.copytree(wrong.path, right.path)
    assert open_plan(corpus, "train", short).num_rows == num_rows
    assert "the plan of other settings" in caplog.text


def test_one_process_of_a_host_builds_and_the_others_wait(tmp_path, corpus, monkeypatch, caplog):
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path))
    build = data_pipeline.planning.plan._build
    builds = []

    def build_once_others_wait(*arguments):
        builds.append(arguments)
        while caplog.text.count("Waiting for another process") < 2:
            time.sleep(0.01)
        return build(*arguments)

    monkeypatch.setattr(data_pipeline.planning.plan, "_build", build_once_others_wait)
    with ThreadPoolExecutor(3) as pool:  # locks keep threads apart as they do processes
        plans = list(pool.map(lambda _: open_plan(corpus, "train", config), range(3)))
    assert len(builds) == 1 and len({plan.num_rows for plan in plans}) == 1
    assert f"planning the train rows of {corpus.path}" in caplog.text


def test_two_hosts_may_build_the_same_plan_at_once(tmp_path, corpus, monkeypatch):
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path))
    generate = PairPlanner.generate

    def generate_late(planner):
        monkeypatch.setattr(PairPlanner, "generate", generate)
        monkeypatch.setattr("socket.gethostname", lambda: "another")
        open_plan(corpus, "train", config)  # the other host is faster
        return generate(planner)

    monkeypatch.setattr(PairPlanner, "generate", generate_late)
    assert open_plan(corpus, "train", config).num_rows > 0
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_plan_depends_on(tmp_path, corpus):
    def name(**settings) -> str:
        config = DataConfig(**SETTINGS | settings, plan_dir=str(tmp_path))
        return open_plan(corpus, "train", config).path.name

    assert name() == name(masking="span", ngram=1, masked_lm_prob=0.3, corruption="per_span")
    others = [
        {"max_seq_length": 32},
        {"packing": "packed"},
        {"short_seq_prob": 0.2},
        {"sentence_objective": "nsp"},
        {"single_sentence": "random_document"},
        {"num_plan_variants": 2},
        {"max_pairs_per_row": 3},
    ]
    assert len({name(), *(name(**other) for other in others)}) == len(others) + 1


def test_the_directory_of_the_plan(tmp_path, corpus, monkeypatch):
    assert open_plan(corpus, "train", DataConfig(**SETTINGS)).path.parent == corpus.path / "plans"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_plan(corpus, "train", DataConfig(**SETTINGS)).path.parent == corpus.path / "plans"
    elsewhere = open_plan(corpus, "train", DataConfig(**SETTINGS, max_pairs_per_row=9)).path
    assert elsewhere.parent == tmp_path / "albert_jax" / "plans"
    assert elsewhere.stat().st_mode == elsewhere.parent.stat().st_mode  # others may read it too
    (tmp_path / "file").touch()
    config = DataConfig(**SETTINGS, plan_dir=str(tmp_path / "file"))
    with pytest.raises(FieldError, match=r"a writable directory .*/file: File exists") as caught:
        open_plan(corpus, "train", config)
    assert (caught.value.field, caught.value.got) == ("data.plan_dir", str(tmp_path / "file"))


def test_too_small_a_corpus_is_an_error(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", [[1]])
    with pytest.raises(InputError, match="too small"):
        open_plan(corpus, "train", DataConfig(**SETTINGS))
    assert not list((corpus.path / "plans").iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_seq_length": 4}, r"max_seq_length must be a whole number in \[8, 65536\], got 4"),
        ({"max_seq_length": 70_000}, r"max_seq_length .*65536\], got 70000"),
        ({"masked_lm_prob": 1.5}, r"masked_lm_prob must be a number in \[0, 1\], got"),
        ({"masking": "words"}, "masking must be one of ngram, whole_word, token, sp"),
        (
            {"max_predictions_per_seq": 600},
            r"max_predictions_per_seq must be at most max_seq_length \(512\), got 600",
        ),
        ({"ngram": 2.5}, "ngram must be a whole number"),
        ({"favor_shorter_ngram": "no"}, "favor_shorter_ngram must be true or false"),
    ],
)
def test_bad_settings_name_the_field(settings, message):
    with pytest.raises(FieldError, match=f"^{message}"):
        DataConfig(**settings)


def test_a_plan_that_a_full_disk_cuts_short_is_an_error(tmp_path, corpus, monkeypatch):
    """This holds even if only the last bytes are missing, which are written on closing the file."""
    make_directory = tempfile.mkdtemp

    def make_on_a_full_disk(**where):
        directory = make_directory(**where)
        Path(directory, "000.row_starts.bin").symlink_to("/dev/full")
        return directory

    monkeypatch.setattr("tempfile.mkdtemp", make_on_a_full_disk)
    with pytest.raises(FieldError, match="No space left on device"):
        plan_pairs(corpus, plan_dir=str(tmp_path / "plans"))
    assert not [path for path in (tmp_path / "plans").rglob("*") if path.is_file()]
