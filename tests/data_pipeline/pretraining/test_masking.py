"""Masks: the distribution of the released algorithm, small cases, and invariants."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.config import DataConfig
from data_pipeline.pretraining.mask_selection import (
    Vocabulary,
    length_probabilities,
    random_row_bits,
)
from data_pipeline.pretraining.masking import (
    MaskedRows,
    mask_rows,
    shuffle_visible_words,
)

CLS, SEP, MASK = 2, 3, 4
SPECIAL_IDS = np.arange(5, dtype=np.int32)
NUM_TOKENS = 1000
STARTS = np.arange(NUM_TOKENS) % 4 != 3  # tokens 7, 11, 15, ... continue a word
VOCABULARY = Vocabulary(STARTS, SPECIAL_IDS, CLS, SEP, MASK)


def make_rows(segments: list[list[int]], length: int, copies: int = 1) -> dict[str, np.ndarray]:
    """Make equal rows with the pairs `segments[0], segments[1]`, `segments[2], ...`."""
    ids, pair = [], []
    for number in range(0, len(segments), 2):
        text = [CLS, *segments[number], SEP, *segments[number + 1], SEP]
        ids += text
        pair += [number // 2 + 1] * len(text)
    padding = [0] * (length - len(ids))
    return {
        "input_ids": np.tile(np.array(ids + padding, np.int32), (copies, 1)),
        "sequence_ids": np.tile(np.array(pair + padding, np.int32), (copies, 1)),
    }


def make_text(num_rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Make rows of one full pair of random tokens each, [SEP] anywhere in the middle half."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, NUM_TOKENS, (num_rows, length), np.int32)
    ids[:, 0], ids[:, -1] = CLS, SEP
    middle = generator.integers(length // 4, 3 * length // 4, num_rows)
    ids[np.arange(num_rows), middle] = SEP
    return {"input_ids": ids, "sequence_ids": np.ones_like(ids)}


@tf.function(autograph=False)
def run(rows, budgets, config, key, first):  # type: ignore[no-untyped-def]
    num_rows, length = rows["input_ids"].shape
    bits = random_row_bits(key, first, num_rows, length)
    return mask_rows(**rows, budgets=budgets, bits=bits, config=config, vocabulary=VOCABULARY)


def mask(
    rows: dict[str, np.ndarray], budgets: list[int], *, key: int = 1, first: int = 0, **settings
) -> MaskedRows:
    """Mask rows whose pairs have the same budgets in each row, into NumPy arrays."""
    config = DataConfig(**{"max_seq_length": 512, "max_predictions_per_seq": 77} | settings)
    tiled = np.tile(np.array(budgets, np.int32), (len(rows["input_ids"]), 1))
    masked = run(
        {name: tf.constant(array) for name, array in rows.items()},
        tf.constant(tiled),
        config,
        key,
        tf.constant(first, tf.int64),
    )
    return MaskedRows(*(array.numpy() for array in masked))


def masked_positions(masked: MaskedRows) -> list[tuple[int, ...]]:
    return [
        tuple(positions[weights > 0].tolist())
        for positions, weights in zip(
            masked.masked_lm_positions, masked.masked_lm_weights, strict=True
        )
    ]


def select_literally(
    word_sizes: list[list[int]],
    budget: int,
    probabilities: list[float],
    generator: np.random.Generator,
) -> tuple[int, ...]:
    """Return the tokens masked by the released algorithm, word by word, numbered through the words.

    Each list of `word_sizes` is a stretch that n-grams stay inside.
    """
    tokens, windows, count = {}, [], 0
    for stretch in word_sizes:
        numbers = list(range(len(tokens), len(tokens) + len(stretch)))
        for number, size in zip(numbers, stretch, strict=True):
            tokens[number] = list(range(count, count + size))
            count += size
        windows += [numbers[place : place + len(probabilities)] for place in range(len(numbers))]
    covered: list[int] = []
    for place in generator.permutation(len(windows)):
        if len(covered) >= budget:
            break
        length = 1 + int(generator.choice(len(probabilities), p=probabilities))
        window: list[int] = []
        for size in range(length, 0, -1):
            window = [token for word in windows[place][:size] for token in tokens[word]]
            if len(covered) + len(window) <= budget:
                break
        else:
            continue
        if not set(window) & set(covered):
            covered += window
    return tuple(sorted(covered))


def assert_same_distribution(ours: collections.Counter, literal: collections.Counter) -> None:
    """Two samples of outcomes differ by at most five standard deviations anywhere."""
    n, m = ours.total(), literal.total()
    for outcome in ours.keys() | literal.keys():
        pooled = (ours[outcome] + literal[outcome]) / (n + m)
        deviation = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        assert abs(ours[outcome] / n - literal[outcome] / m) < 5 * deviation, outcome


@pytest.mark.parametrize(
    ("settings", "stretches", "offsets"),
    [
        # Words of tokens (1 2) 1 | 1 (1 1) 1: token 7 continues a word.
        ({}, [[2, 1], [1, 2, 1]], (1, 1, 1, 2, 2, 2, 2)),
        ({"favor_shorter_ngram": False}, [[2, 1], [1, 2, 1]], (1, 1, 1, 2, 2, 2, 2)),
        ({"mask_reach": "pair"}, [[2, 1, 1, 2, 1]], (1, 1, 1, 2, 2, 2, 2)),
        ({"masking": "token"}, [[1, 1, 1], [1, 1, 1, 1]], (1, 1, 1, 2, 2, 2, 2)),
        ({"masking": "whole_word"}, [[2, 1], [1, 2, 1]], (1, 1, 1, 2, 2, 2, 2)),
        ({"masking": "span"}, [[2, 1], [1, 2, 1]], (1, 1, 1, 2, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize("budget", [1, 4])
def test_masks_are_distributed_as_by_the_literal_algorithm(settings, stretches, offsets, budget):
    rows = make_rows([[8, 7, 9], [10, 12, 7, 13]], length=10, copies=40_000)
    masked = mask(rows, [budget], max_seq_length=10, max_predictions_per_seq=8, **settings)
    probabilities = length_probabilities(DataConfig(**settings))
    generator = np.random.default_rng(0)
    literal = collections.Counter(
        tuple(
            token + offsets[token]
            for token in select_literally(stretches, budget, probabilities, generator)
        )
        for _ in range(8_000)
    )
    assert len(literal) > 1
    assert_same_distribution(collections.Counter(masked_positions(masked)), literal)


def test_a_segment_that_begins_inside_a_word_joins_the_word_before_only_in_legacy_reach():
    rows = make_rows([[8], [7]], length=8, copies=500)
    apart = set(masked_positions(mask(rows, [2], max_seq_length=8, max_predictions_per_seq=2)))
    assert apart == {(1, 3)}
    one = set(masked_positions(mask(rows, [1], max_seq_length=8, max_predictions_per_seq=2)))
    assert one == {(1,), (3,)}
    settings = {"mask_reach": "pair", "max_seq_length": 8, "max_predictions_per_seq": 2}
    assert set(masked_positions(mask(rows, [1], **settings))) == {()}
    assert set(masked_positions(mask(rows, [2], **settings))) == {(1, 3)}


def test_a_word_that_exceeds_the_budget_is_skipped():
    rows = make_rows([[8, 7, 7, 7], [9]], length=9, copies=200)
    masked = mask(rows, [3], max_seq_length=9, max_predictions_per_seq=4)
    assert set(masked_positions(masked)) == {(6,)}


def test_each_pair_of_a_row_meets_its_own_budget():
    words = [8, 9, 10, 12, 13, 14]
    rows = make_rows([words, words, words, words], length=40, copies=300)
    masked = mask(rows, [5, 2], max_seq_length=40, max_predictions_per_seq=9)
    for positions in masked_positions(masked):
        pair = rows["sequence_ids"][0, list(positions)]
        assert collections.Counter(pair.tolist()) == {1: 5, 2: 2}


def test_statistics_on_a_million_tokens():
    rows = make_text(2048, 512)
    masked = mask(rows, [77])
    assert (masked.masked_lm_weights == 1).all()  # the budget is always met

    labels = masked.masked_lm_ids
    now = np.take_along_axis(masked.input_ids, masked.masked_lm_positions, axis=1)
    n = labels.size
    kept_by_chance = 0.1 / (NUM_TOKENS - len(SPECIAL_IDS))
    for fraction, expected in [
        ((now == MASK).mean(), 0.8),
        ((now == labels).mean(), 0.1 + kept_by_chance),
        (((now != MASK) & (now != labels)).mean(), 0.1 - kept_by_chance),
    ]:
        assert abs(fraction - expected) < 4 * np.sqrt(expected * (1 - expected) / n)

    # A token's corruption does not depend on how many are masked with it.
    gaps = np.diff(masked.masked_lm_positions, axis=1) > 1
    alone = np.pad(gaps, ((0, 0), (1, 0))) & np.pad(gaps, ((0, 0), (0, 1)))
    assert abs((now == MASK)[alone].mean() - 0.8) < 4 * np.sqrt(0.16 / alone.sum())

    # Runs of 1, 2, 3 and more masked neighboring words, compared with those published for the
    # released generator and those of the literal algorithm on the same text.
    ours = _run_fractions(rows["input_ids"], masked.masked_lm_positions)
    np.testing.assert_allclose(ours, [0.53, 0.27, 0.17, 0.03], atol=0.02)
    generator = np.random.default_rng(0)
    some = rows["input_ids"][:300]
    literal = [_mask_row_literally(row, 77, generator) for row in some]
    np.testing.assert_allclose(ours, _run_fractions(some, np.array(literal)), atol=0.015)

    replaced = now[(now != MASK) & (now != labels)]
    assert replaced.min() >= 5
    counts = np.bincount(replaced, minlength=NUM_TOKENS)[5:]
    assert abs(counts.mean() - len(replaced) / (NUM_TOKENS - 5)) < 1e-9
    assert 0.8 < counts.var() / counts.mean() < 1.2  # Poisson: uniform over the vocabulary


def _mask_row_literally(row: np.ndarray, budget: int, generator: np.random.Generator) -> list[int]:
    stretches: list[list[int]] = []
    for token in row:
        if token in (CLS, SEP):
            stretches.append([])
        elif STARTS[token] or not stretches[-1]:
            stretches[-1].append(1)
        else:
            stretches[-1][-1] += 1
    text = np.flatnonzero(~np.isin(row, [CLS, SEP]))
    probabilities = [6 / 11, 3 / 11, 2 / 11]
    return text[list(select_literally(stretches, budget, probabilities, generator))].tolist()


def _run_fractions(ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the fractions of runs of masked neighboring words of 1, 2, 3 and more words."""
    masked = np.zeros(ids.shape, bool)
    np.put_along_axis(masked, positions, True, axis=1)
    special = (ids == CLS) | (ids == SEP)
    starts = special | STARTS[ids]
    starts[:, 1:] |= special[:, :-1]
    word_masked = np.concatenate([[False], masked[starts], [False]])
    edges = np.flatnonzero(np.diff(word_masked.astype(np.int8)))
    runs = np.minimum(edges[1::2] - edges[::2], 4)
    return np.bincount(runs, minlength=5)[1:] / len(runs)


def test_unmasking_restores_the_text_and_special_tokens_are_never_masked():
    rows = make_text(300, 128)
    rows["sequence_ids"][:, 100:] = 0
    rows["input_ids"][:, 99] = SEP
    rows["input_ids"][:, 100:] = 0
    masked = mask(rows, [15], max_seq_length=128, max_predictions_per_seq=20)
    restored = masked.input_ids.copy()
    used = masked.masked_lm_weights > 0
    row = np.nonzero(used)[0]
    restored[row, masked.masked_lm_positions[used]] = masked.masked_lm_ids[used]
    np.testing.assert_array_equal(restored, rows["input_ids"])
    assert not np.isin(masked.masked_lm_ids[used], [0, CLS, SEP]).any()
    assert (masked.masked_lm_positions[used] < 100).all()
    assert (np.diff(masked.masked_lm_positions[:, :15], axis=1) > 0).all()
    unused = ~used
    assert unused[:, 15:].all()
    assert not masked.masked_lm_positions[unused].any() and not masked.masked_lm_ids[unused].any()


def test_a_span_is_corrupted_as_one_only_if_configured():
    rows = make_text(200, 128)
    settings = {"masking": "span", "max_seq_length": 128, "max_predictions_per_seq": 20}
    agreement = {}
    for corruption in ("per_piece", "per_span"):
        masked = mask(rows, [20], corruption=corruption, **settings)
        now = np.take_along_axis(masked.input_ids, masked.masked_lm_positions, axis=1)
        is_masked = now == MASK
        neighbors = np.diff(masked.masked_lm_positions, axis=1) == 1
        agreement[corruption] = (is_masked[:, 1:] == is_masked[:, :-1])[neighbors].mean()
    assert agreement["per_piece"] == pytest.approx(0.8**2 + 0.2**2, abs=0.04)
    assert agreement["per_span"] > 0.9  # spans may touch, so not 1
    always = mask(rows, [20], corruption="always_mask", **settings)
    now = np.take_along_axis(always.input_ids, always.masked_lm_positions, axis=1)
    assert (now[always.masked_lm_weights > 0] == MASK).all()
    np.testing.assert_array_equal(always.masked_lm_ids, masked.masked_lm_ids)


def test_special_tokens_replace_others_only_if_configured():
    rows = make_text(1000, 128)
    masked = mask(rows, [20], random_replacement="any", max_seq_length=128)
    now = np.take_along_axis(masked.input_ids, masked.masked_lm_positions, axis=1)
    assert np.isin(now[masked.masked_lm_weights > 0], [0, 1, CLS, SEP]).any()


def test_the_masks_of_a_row_depend_on_its_number_and_the_key_but_not_on_its_batch():
    rows = make_text(8, 64)
    settings = {"max_seq_length": 64, "max_predictions_per_seq": 10}
    whole = mask(rows, [10], first=40, **settings)
    part = {name: array[3:5] for name, array in rows.items()}
    for ours, theirs in zip(mask(part, [10], first=43, **settings), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs[3:5])
    for change in ({"first": 48}, {"key": 2}):
        other = mask(rows, [10], **{"first": 40} | change, **settings)
        assert all(
            ours != theirs
            for ours, theirs in zip(masked_positions(other), masked_positions(whole), strict=True)
        )


def test_no_budget_means_no_masks():
    rows = make_text(4, 32)
    masked = mask(rows, [0], max_seq_length=32, max_predictions_per_seq=5)
    np.testing.assert_array_equal(masked.input_ids, rows["input_ids"])
    assert not masked.masked_lm_weights.any()


def test_length_probabilities():
    assert length_probabilities(DataConfig()) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert length_probabilities(DataConfig(favor_shorter_ngram=False)) == pytest.approx(
        [2 / 11, 3 / 11, 6 / 11]
    )
    span = length_probabilities(DataConfig(masking="span"))
    assert len(span) == 10 and span[1] / span[0] == pytest.approx(0.8)
    assert (
        length_probabilities(DataConfig(masking="token"))
        == length_probabilities(DataConfig(ngram=1))
        == [1.0]
    )


def test_shuffled_words_stay_in_their_pair_and_leave_the_rest_in_place():
    words = list(range(100, 140))
    rows = make_rows([words[:10], words[10:20], words[20:28], words[28:]], length=50, copies=3)
    masked = mask(rows, [3, 3], max_seq_length=50, max_predictions_per_seq=6)
    starts = np.flatnonzero(rows["input_ids"][0] == CLS)
    position_ids = np.concatenate([np.arange(starts[1]), np.arange(50 - starts[1])])
    seps = np.cumsum(rows["input_ids"] == SEP, axis=1) - (rows["input_ids"] == SEP)
    batch = rows | {"position_ids": np.tile(position_ids, (3, 1)), "token_type_ids": seps % 2}
    batch |= masked._asdict()
    shuffled = shuffle_visible_words(batch, 0)

    ids, before = shuffled["input_ids"], batch["input_ids"]
    fixed = np.isin(before, [0, CLS, SEP])
    np.put_along_axis(fixed, masked.masked_lm_positions, True, axis=1)
    np.testing.assert_array_equal(ids[fixed], before[fixed])
    for pair in (1, 2):
        for row in range(3):
            here = (rows["sequence_ids"][row] == pair) & ~fixed[row]
            assert sorted(ids[row, here]) == sorted(before[row, here])
            assert (ids[row, here] != before[row, here]).mean() > 0.5
    alone = {name: array[1:2] for name, array in batch.items()}
    np.testing.assert_array_equal(shuffle_visible_words(alone, 0)["input_ids"], ids[1:2])
    assert (shuffle_visible_words(batch, 1)["input_ids"] != ids).any()
    others = batch | {"input_ids": np.where(fixed, before, before + 1)}
    assert (shuffle_visible_words(others, 0)["input_ids"][~fixed] != ids[~fixed] + 1).mean() > 0.5
