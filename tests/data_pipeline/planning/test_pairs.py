"""Documents cut into chunks; pairs split, swapped and truncated."""

import collections

import numpy as np
import pytest
from tiny_corpora import make_corpus, random_lengths

from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.chunks import Chunks, cut_documents, whole_sentences
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.planning.pairs import (
    PAIR,
    Segments,
    borrow_sentences,
    count_truncated,
    sample_segments,
)


def cut_literally(lengths: list[int], target: int) -> list[tuple[int, int]]:
    chunks, first, held = [], 0, 0
    for number, length in enumerate(lengths):
        held += length
        if held >= target or number == len(lengths) - 1:
            chunks.append((first, number + 1))
            first, held = number + 1, 0
    return chunks


def test_documents_are_cut_like_the_sentence_by_sentence_walk():
    documents = random_lengths(200, seed=0)
    targets = np.random.default_rng(1).integers(2, 80, len(documents))
    offsets = np.cumsum([0, *(length for document in documents for length in document)])
    ends = np.cumsum([len(document) for document in documents])
    firsts = ends - [len(document) for document in documents]
    chunks = cut_documents(whole_sentences(offsets), firsts, ends, targets, 80)
    expected = [
        (number, first + begin, first + end)
        for number, (document, first, target) in enumerate(
            zip(documents, firsts, targets, strict=True)
        )
        for begin, end in cut_literally(document, target)
    ]
    assert list(zip(*(column.tolist() for column in chunks), strict=True)) == expected


def test_worked_example_of_cutting():
    units = whole_sentences(np.array([0, 5, 8, 12, 14]))
    chunks = cut_documents(units, *np.array([[0], [4], [7]]), max_num_tokens=7)
    assert chunks.firsts.tolist() == [0, 2] and chunks.ends.tolist() == [2, 4]


def test_a_single_sentence_borrows_one_from_a_chunk_of_three_in_its_document():
    chunks = Chunks(
        documents=np.array([0, 0, 1, 2, 2]),
        firsts=np.array([0, 3, 4, 5, 7]),
        ends=np.array([3, 4, 5, 7, 8]),
    )
    moved = borrow_sentences(chunks)
    # Document 1 has no other chunk; the first chunk of document 2 has but two sentences.
    assert moved.firsts.tolist() == [0, 2, 4, 5, 7]
    assert moved.ends.tolist() == [2, 4, 5, 7, 8]


def truncate_literally(first: int, second: int, limit: int) -> list[int]:
    cuts = [0, 0]
    while first - cuts[0] + second - cuts[1] > limit:
        cuts[0 if first - cuts[0] > second - cuts[1] else 1] += 1
    return cuts


def test_truncation_is_the_token_by_token_rule_in_closed_form():
    cases = [(a, b, limit) for a in range(1, 15) for b in range(1, 15) for limit in (2, 5, 9, 16)]
    for limit in (2, 5, 9, 16):
        lengths = np.array([case[:2] for case in cases if case[2] == limit])
        expected = [truncate_literally(*case) for case in cases if case[2] == limit]
        assert count_truncated(lengths, limit).tolist() == expected
    assert count_truncated(np.array([[9, 4], [6, 6]]), 9).tolist() == [[4, 0], [1, 2]]


@pytest.fixture(scope="module")
def three_sentences(tmp_path_factory):
    """Sentences of 5, 3, 4 and 200 tokens, then two documents of one sentence."""
    corpus = make_corpus(tmp_path_factory.mktemp("pairs") / "corpus", [[5, 3, 4, 200], [6], [2]])
    return SentenceIndex(corpus.splits["train"])


def sample(
    index: SentenceIndex, pair: tuple, count: int, *, limit: int = 500, objective: str = "sop"
) -> Segments:
    pairs = np.array([pair] * count, PAIR)
    return sample_segments(
        pairs,
        np.arange(count),
        np.zeros(count, np.int64),
        index=index,
        max_num_tokens=limit,
        objective=SentenceObjective(objective),
        key=5,
    )


def outcomes(segments: Segments) -> collections.Counter:
    columns = (segments.starts, segments.lengths)
    flat = zip(*(column.tolist() for column in columns), segments.labels.tolist(), strict=True)
    return collections.Counter(
        (tuple(start), tuple(length), label) for start, length, label in flat
    )


def assert_uniform(counts: collections.Counter, expected: set) -> None:
    assert set(counts) == expected
    mean = counts.total() / len(expected)
    for outcome, count in counts.items():
        assert abs(count - mean) < 5 * np.sqrt(mean), outcome


def test_all_splits_and_both_orders_are_equally_likely(three_sentences):
    segments = sample(three_sentences, (0, 0, 0, 12, 0, 3), 4000)
    expected = {
        ((0, 5), (5, 7), 0),
        ((5, 0), (7, 5), 1),
        ((0, 8), (8, 4), 0),
        ((8, 0), (4, 8), 1),
    }
    assert_uniform(outcomes(segments), expected)
    assert (segments.weights == 1).all()


def test_one_sentence_is_split_between_tokens_and_its_order_not_predicted(three_sentences):
    segments = sample(three_sentences, (212, 4, 0, 6, 0, 1), 5000)
    cuts = {((212, 212 + a), (a, 6 - a), 0) for a in range(1, 6)}
    swaps = {((212 + a, 212), (6 - a, a), 1) for a in range(1, 6)}
    assert_uniform(outcomes(segments), cuts | swaps)
    assert (segments.weights == 0).all()
    shortest = outcomes(sample(three_sentences, (218, 5, 0, 2, 0, 1), 1000))
    assert set(shortest) == {((218, 219), (1, 1), 0), ((219, 218), (1, 1), 1)}


def test_worked_example_of_truncation(three_sentences):
    # [0, 5) and [5, 12), truncated to 5 tokens each: the 7 lose two at either end.
    counts = outcomes(sample(three_sentences, (0, 0, 0, 12, 0, 3), 4000, limit=10))
    ours = {outcome: n for outcome, n in counts.items() if outcome[0][0] == 0 and outcome[2] == 0}
    in_two = {outcome: n for outcome, n in ours.items() if outcome[0][1] in (5, 6, 7)}
    assert {outcome[1] for outcome in in_two} == {(5, 5)}
    counts = {outcome[0][1]: n for outcome, n in in_two.items()}
    total = sum(counts.values())
    for start, expected in ((5, 0.25), (6, 0.5), (7, 0.25)):
        assert abs(counts[start] / total - expected) < 5 * np.sqrt(expected / total)


def test_front_truncation_is_binomial_beyond_64_tokens(three_sentences):
    # [0, 12) and [12, 212) with a limit of 62: the longer loses 150, 75 of them at the front.
    segments = sample(three_sentences, (0, 0, 0, 212, 0, 4), 20_000, limit=62, objective="nsp")
    after_three = segments.lengths[:, 0] == 12
    assert after_three.mean() > 0.3
    assert (segments.lengths[after_three, 1] == 50).all()
    front = segments.starts[after_three, 1] - 12
    assert abs(front.mean() - 75) < 5 * np.sqrt(150 / 4 / len(front))
    assert abs(front.var() / (150 / 4) - 1) < 0.1
    assert front.min() < 75 - 64 / 4 < 75 + 64 / 4 < front.max()


def test_lengths_never_change_and_no_segment_is_empty(three_sentences):
    for pair in ((0, 0, 0, 212, 0, 4), (0, 0, 0, 12, 0, 3), (212, 4, 0, 6, 0, 1)):
        for limit in (5, 11, 300):
            segments = sample(three_sentences, pair, 300, limit=limit)
            assert (segments.lengths.sum(axis=1) == min(pair[3], limit)).all()
            assert segments.lengths.min() >= 1


def test_the_objective_decides_labels_and_weights(three_sentences):
    own, random = (0, 0, 0, 12, 0, 3), (0, 0, 12, 5, 40, 1)
    nsp = sample(three_sentences, own, 100, objective="nsp")
    assert (nsp.labels == 0).all() and (nsp.weights == 1).all()
    nothing = sample(three_sentences, own, 100, objective="none")
    assert (nothing.labels == 0).all() and (nothing.weights == 0).all()
    for objective in ("nsp", "sop"):
        other = sample(three_sentences, random, 100, objective=objective)
        assert set(outcomes(other)) == {((0, 12), (5, 40), 1)}
        assert (other.weights == 1).all()
