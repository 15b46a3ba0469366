"""Text of very long sentences: all of it is read, and the plan says how much an epoch reads."""

import dataclasses

import numpy as np
import pytest
from tiny_corpora import FIRST_ID, as_format, make_corpus, pairs_of_epoch, random_lengths

from data_pipeline.config import DataConfig
from data_pipeline.corpus.chunks import LongSentenceCutter, Units
from data_pipeline.corpus.metadata import SourceMetadata
from data_pipeline.planning.plan import open_plan
from data_pipeline.pretraining.display import format_coverage
from data_pipeline.pretraining.rows import RowReader
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

# Ordinary documents, and between them one sentence alone, one among ordinary ones, and others that
# are a little or a token too long for rows of 64 or 128.
DOCUMENTS = [
    *random_lengths(30, seed=3),
    [3000],
    [8, 11, 900, 7],
    [62],
    [126, 126, 9, 61, 62, 63],
    *random_lengths(30, seed=4),
    [1, 2, 400, 1],
    [7] * 40,
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("coverage") / "corpus", DOCUMENTS)


def read_epochs(corpus, config: DataConfig, num_epochs: int) -> np.ndarray:
    """How often each token of the training text is in the rows of each epoch."""
    reader = RowReader(corpus, "train", config, seed=1, cls_id=2, sep_id=3)
    num_rows, num_tokens = reader.plan.num_rows, corpus.splits["train"].num_tokens
    times = np.zeros((num_epochs, num_tokens), int)
    for epoch in range(num_epochs):
        ids = reader.read(epoch * num_rows + np.arange(num_rows)).input_ids
        times[epoch] = np.bincount(ids[ids >= FIRST_ID] - FIRST_ID, minlength=num_tokens)
    return times


@pytest.mark.parametrize("length", [8, 64])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"packing": "packed", "num_plan_variants": 3},
        {"short_seq_prob": 0.5},
        {"sentence_objective": "nsp"},
        {"sentence_objective": "none"},
        {"single_sentence": "random_document"},
    ],
    ids=lambda settings: next(iter(settings.values()), "default"),
)
def test_all_text_is_read_over_the_epochs(corpus, length, settings):
    config = DataConfig(max_seq_length=length, max_predictions_per_seq=1, **settings)
    times = read_epochs(corpus, config, 12)
    assert (times.sum(axis=0) > 0).mean() > 0.995
    if config.sentence_objective != "nsp" and config.single_sentence != "random_document":
        assert times.max() == 1
        cycle = times[: config.num_plan_variants]
        plan = open_plan(corpus, "train", config)
        # Variants have more rows than an epoch, which leaves out different ones each time.
        assert plan.coverage == pytest.approx(cycle.sum() / cycle.size, rel=2e-3)
        assert plan.coverage > {8: 0.4, 64: 0.85}[length]


@pytest.mark.parametrize("objective", ["sop", "nsp"])
def test_a_long_sentence_loses_nothing_but_its_shortest_rest(tmp_path, objective):
    """Its parts end where the row is full."""
    corpus = make_corpus(tmp_path / "corpus", [[3000], [1500, 700, 300]])
    config = DataConfig(
        max_seq_length=64,
        max_predictions_per_seq=1,
        short_seq_prob=0.0,
        sentence_objective=objective,
    )
    plan = open_plan(corpus, "train", config)
    pairs = pairs_of_epoch(plan).pairs
    assert plan.coverage > (0.999 if objective == "sop" else 0.9)
    ends = pairs["start"] + pairs["length"]
    assert pairs["start"][0] == 0 and (pairs["start"][1:] == ends[:-1]).all() and ends[-1] == 5500
    if objective == "sop":
        full = pairs["length"] > 55
        assert pairs["length"].max() <= 61 and full.mean() > 0.9
        # Every third token continues a word, and no part begins with it.
        assert ((pairs["start"] + FIRST_ID) % 3 != 0).all()
    else:
        # What becomes of a pair is sampled for each part of a sentence by itself.
        first = pairs[pairs["sentence"] == 0]
        assert 0.3 < (first["other_length"] > 0).mean() < 0.8
        assert len(np.unique(first["length"])) > 10


def test_worked_example_of_parts():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", ",", "##s", "and"]
    tokenizer = WordPieceTokenizer(tokens)
    cutter = LongSentenceCutter(lambda: tokenizer, max_num_tokens=80)  # parts of about 5
    text = np.full(200, 5)
    text[[6, 9, 10, 11]] = [6, 7, 6, 8]  # "the, the the the s, and the", the first comma in part 2
    text[50:80] = 7
    offsets = np.array([0, 100, 180, 200])
    units = cutter.cut(text, offsets)
    # The second sentence has 80 tokens and stays whole. The first has twenty parts: one begins
    # after each comma, others at the first word of their five tokens, or at once without one.
    expected = [0, 7, 11, *range(15, 100, 5), 100, 180, 200]
    assert units.offsets.tolist() == expected
    assert units.firsts.tolist() == [0, 20, 21, 22]
    assert units.sentences(np.array([0, 19, 20, 21])).tolist() == [0, 0, 1, 2]
    assert units.are_parts(np.array([0, 19, 20, 21])).tolist() == [True, True, False, False]
    whole = LongSentenceCutter(lambda: tokenizer, max_num_tokens=100).cut(text, offsets)
    np.testing.assert_array_equal(whole.offsets, Units(offsets, np.arange(4)).offsets)


def test_a_corpus_of_the_first_format_keeps_its_plan(tmp_path, corpus):
    """Its sentences are whole, and truncated where they are longer than a row."""
    old = as_format(corpus, 1)
    config = DataConfig(max_seq_length=64, max_predictions_per_seq=1, plan_dir=str(tmp_path))
    before, now = (open_plan(one, "train", config) for one in (old, corpus))
    assert pairs_of_epoch(before).pairs["length"].max() >= 3000
    assert before.coverage < 0.6 < 0.85 < now.coverage
    assert before.coverage == pytest.approx(read_epochs(old, config, 1).mean())
    # Where no sentence is longer than a row, nothing changes.
    config = dataclasses.replace(config, max_seq_length=4096)
    plans = [pairs_of_epoch(open_plan(one, "train", config)) for one in (old, corpus)]
    np.testing.assert_array_equal(plans[0].pairs, plans[1].pairs)


def test_coverage_counts_text_that_is_read_more_than_once(tmp_path, corpus):
    sources = tuple(SourceMetadata(name, weight, {}) for name, weight in (("a", 1.0), ("b", 0.4)))
    heavier = corpus._replace(
        metadata=dataclasses.replace(corpus.metadata, sources=sources, fingerprint="weighted")
    )
    config = DataConfig(max_seq_length=128, max_predictions_per_seq=1, plan_dir=str(tmp_path))
    plan = open_plan(heavier, "train", config)
    times = read_epochs(heavier, config, 1)
    assert times.mean() > 2
    # Chunks hold the text before truncation, each document as often as it is read.
    assert plan.coverage == pytest.approx(times.sum() / pairs_of_epoch(plan).pairs["length"].sum())


def test_low_coverage_is_a_warning():
    assert format_coverage(0.97, 512, cuts_long_sentences=True) == (
        "an epoch of rows of 512 reads 97.0 % of the training tokens; the others are truncated, "
        "other ones in each epoch"
    )
    low = [format_coverage(0.949, 128, cuts_long_sentences=cuts) for cuts in (True, False)]
    assert all(one.startswith("warning: an epoch of rows of 128 reads 94.9 %") for one in low)
    assert ["built again" in one for one in low] == [False, True]
