"""Batches of a corpus: their content, and their independence of processes, resumption and size."""

import functools
import hashlib
import itertools
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable

import numpy as np
import pytest
from tiny_corpora import FIRST_ID, as_format, make_corpus, random_lengths

from albert_jax.batch import PretrainingBatch
from albert_jax.settings import FieldError
from data_pipeline.batch_iterator import BatchIterator
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import HeldOutDataset, PretrainingDataset
from data_pipeline.pretraining.masking import shuffle_visible_words

CLS, SEP = 2, 3
LENGTH, SLOTS = 48, 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Make a corpus of 400 training documents in several shards and 60 held-out ones."""
    return make_corpus(
        tmp_path_factory.mktemp("pretraining") / "corpus",
        random_lengths(400, seed=0),
        random_lengths(60, seed=1),
        max_shard_bytes=30_000,
    )


@pytest.fixture(scope="module")
def make_dataset(corpus):
    """Return a function that makes a dataset once for given settings."""

    @functools.cache
    def make(*, seed: int = 3, batch: int = 16, **settings) -> PretrainingDataset:
        defaults = {"max_seq_length": LENGTH, "max_predictions_per_seq": SLOTS, "packing": "packed"}
        config = DataConfig(**defaults | settings)
        return PretrainingDataset(corpus, config, seed=seed, global_batch_size=batch)

    return make


def take(dataset: PretrainingDataset, steps: int, *, start: int = 0, rows=None) -> list[dict]:
    return list(itertools.islice(dataset.batches(start_step=start, rows=rows), steps))


def assert_equal(ours: dict, theirs: dict, rows=slice(None)) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name][rows], err_msg=name)


def unmask(batch: dict) -> np.ndarray:
    ids = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_lm_weights"])
    ids[row, batch["masked_lm_positions"][row, slot]] = batch["masked_lm_ids"][row, slot]
    return ids


def segments(batch: dict) -> list[tuple[list[int], list[int], int]]:
    """Return the unmasked text of A and B, and the label, of all pairs of a batch."""
    found = []
    for ids, types, pairs, labels in zip(
        unmask(batch),
        batch["token_type_ids"],
        batch["sequence_ids"],
        batch["sentence_order_labels"],
        strict=True,
    ):
        for pair in range(1, pairs.max(initial=0) + 1):
            first, second = ids[(pairs == pair) & (types == 0)], ids[(pairs == pair) & (types == 1)]
            assert (first[0], first[-1], second[-1]) == (CLS, SEP, SEP)
            found.append((first[1:-1].tolist(), second[:-1].tolist(), int(labels[pair - 1])))
    return found


@pytest.mark.parametrize("packing", ["packed", "unpacked"])
def test_unmasking_restores_running_text_in_the_order_that_the_label_says(make_dataset, packing):
    for batch in take(make_dataset(packing=packing), 8):
        PretrainingBatch.from_numpy(batch)
        for first, second, label in segments(batch):
            for text in (first, second):
                assert len(text) >= 1 and text == list(range(text[0], text[-1] + 1))
            assert (first[0] < second[0]) == (label == 0)
            assert 2 <= len(first) + len(second) <= LENGTH - 3


def test_positions_of_a_row(make_dataset):
    for batch in take(make_dataset(), 4):
        padding = batch["sequence_ids"] == 0
        for name in ("input_ids", "token_type_ids", "position_ids"):
            assert not batch[name][padding].any()
        starts = (batch["position_ids"] == 0) & ~padding
        np.testing.assert_array_equal(starts, batch["input_ids"] == CLS)
        present = batch["sequence_ids"].max(axis=1)
        slots = np.arange(batch["sentence_order_labels"].shape[1])
        for row in range(len(present)):
            found = batch["sentence_order_positions"][row][slots < present[row]]
            np.testing.assert_array_equal(found, np.flatnonzero(starts[row]))
        assert not batch["sentence_order_weights"][slots >= present[:, None]].any()
        assert (batch["masked_lm_weights"].sum(axis=1) >= present).all()


@pytest.mark.parametrize("packing", ["packed", "unpacked"])
def test_a_batch_is_the_same_for_any_number_of_processes_and_after_a_seek(make_dataset, packing):
    dataset = make_dataset(packing=packing)
    whole = take(dataset, 6)
    parts = [
        np.arange(8),
        np.arange(8, 16),
        *np.split(np.arange(16), 4),
        np.arange(16)[1::2],
        np.array([5, 3, 4]),
    ]
    for rows in parts:
        for ours, theirs in zip(take(dataset, 2, start=3, rows=rows), whole[3:], strict=False):
            assert_equal(ours, theirs, rows)


def test_a_batch_is_the_same_from_a_rebuilt_plan(corpus, make_dataset):
    before = take(make_dataset(), 3)
    shutil.rmtree(corpus.path / "plans")
    make_dataset.cache_clear()
    for ours, theirs in zip(take(make_dataset(), 3), before, strict=True):
        assert_equal(ours, theirs)


def test_rows_do_not_depend_on_the_batch_size(make_dataset):
    small, large = take(make_dataset(batch=6), 4), take(make_dataset(batch=12), 2)
    for name in large[0]:
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in small]),
            np.concatenate([batch[name] for batch in large]),
        )


def test_an_epoch_holds_each_pair_once_and_each_epoch_another_order(corpus, make_dataset):
    dataset = make_dataset(batch=1, short_seq_prob=0.0)
    rows = dataset.rows_per_epoch
    batches = take(make_dataset(batch=rows, short_seq_prob=0.0), 2)
    texts = []
    for batch in batches:
        pairs = [sorted(first + second) for first, second, _ in segments(batch)]
        texts.append([tuple(pair) for pair in pairs])
        tokens = list(itertools.chain.from_iterable(pairs))
        assert len(tokens) == len(set(tokens))
        # All training text but the truncated tokens.
        assert len(tokens) > 0.85 * corpus.splits["train"].num_tokens
        assert max(tokens) < FIRST_ID + corpus.splits["train"].num_tokens
    # Truncation keeps the middle of a chunk, so the middle token identifies it.
    order, other = ([pair[len(pair) // 2] // 20 for pair in text] for text in texts)
    assert len(order) == len(other)
    assert np.mean(np.equal(order, other)) < 0.1


def test_epochs_differ_in_masks_splits_and_swaps_but_not_in_lengths(make_dataset):
    settings = {"short_seq_prob": 0.0, "packing": "unpacked"}
    rows = make_dataset(batch=1, **settings).rows_per_epoch
    by_text: list[dict] = [{}, {}]
    for epoch, batch in enumerate(take(make_dataset(batch=rows, **settings), 2)):
        for number, (first, second, label) in enumerate(segments(batch)):
            masks = tuple(batch["masked_lm_positions"][number])
            text = sorted(first + second)
            by_text[epoch][text[len(text) // 2] // 20] = (len(text), len(first), label, masks)
    shared = by_text[0].keys() & by_text[1].keys()
    assert len(shared) > 100
    pairs = [(by_text[0][key], by_text[1][key]) for key in shared]
    for column, low, high in ((1, 0.5, 1.0), (2, 0.4, 0.6), (3, 0.9, 1.0)):
        assert low <= np.mean([ours[column] != theirs[column] for ours, theirs in pairs]) <= high


def test_seeds_differ_in_order_and_in_masks(make_dataset, tmp_path):
    orders = [take(make_dataset(seed=seed), 1)[0]["masked_lm_ids"].tolist() for seed in (3, 4)]
    assert orders[0] != orders[1]
    one_row = make_corpus(tmp_path / "corpus", [[12, 12]])
    config = DataConfig(max_seq_length=LENGTH, max_predictions_per_seq=SLOTS, short_seq_prob=0.0)
    masked = {
        tuple(
            take(PretrainingDataset(one_row, config, seed=seed, global_batch_size=1), 1)[0][
                "masked_lm_positions"
            ][0]
        )
        for seed in range(6)
    }
    assert len(masked) >= 5


def test_labels_are_balanced(make_dataset):
    batches = take(make_dataset(batch=64), 40)
    labels = np.concatenate([batch["sentence_order_labels"].ravel() for batch in batches])
    weights = np.concatenate([batch["sentence_order_weights"].ravel() for batch in batches]) > 0
    n = weights.sum()
    assert n > 2000
    assert abs(labels[weights].mean() - 0.5) < 4 * np.sqrt(0.25 / n)


def test_without_sentence_objective_weights_are_0_and_order_is_kept(make_dataset):
    for batch in take(make_dataset(sentence_objective="none"), 3):
        assert not batch["sentence_order_weights"].any()
        assert all(first[0] < second[0] for first, second, _ in segments(batch))


def test_next_sentence_pairs_are_of_two_documents_if_so_labeled(make_dataset):
    bounds = np.cumsum([0, *(sum(document) for document in random_lengths(400, seed=0))]) + FIRST_ID
    found = [
        (np.searchsorted(bounds, [first[0], second[0]], side="right"), label)
        for batch in take(make_dataset(sentence_objective="nsp"), 6)
        for first, second, label in segments(batch)
    ]
    assert all((documents[0] != documents[1]) == bool(label) for documents, label in found)
    assert 0.4 < np.mean([label for _, label in found]) < 0.8


@pytest.mark.parametrize(
    ("version", "digests"),
    [
        (1, ("6f872546998d63e8", "9c5f62c5b375f061", "e1dd7a0d4df8098f", "ab8c14e471e6f350")),
        (2, ("dab95d7d354befe6", "1d80a19e9b42f6ec", "097c73f76ab2fd1e", "ab8c14e471e6f350")),
        (3, ("ad5ce4e34519b68d", "dc887863ebea7899", "05f6042e200cf24e", "bc1ed4b9905cdbfd")),
    ],
)
def test_the_batches_of_each_format_stay_the_same_bit_for_bit(tmp_path, version, digests):
    """Two epochs of a corpus of several shards, and its held-out batches."""
    documents = [*random_lengths(120, seed=0), [300, 4]]
    corpus = make_corpus(
        tmp_path / "corpus", documents, random_lengths(20, seed=1), max_shard_bytes=10_000
    )
    corpus = as_format(corpus, version)
    assert len(corpus.splits["train"].shards) == 3

    def digest(batches: Iterable[dict]) -> str:
        content = hashlib.sha256()
        for batch in batches:
            for name in sorted(batch):
                content.update(np.ascontiguousarray(batch[name]).tobytes())
        return content.hexdigest()[:16]

    found = []
    for settings in (
        {"packing": "packed", "num_plan_variants": 2},
        {"sentence_objective": "nsp"},
        {"single_sentence": "random_document", "packing": "packed"},
    ):
        config = DataConfig(max_seq_length=64, max_predictions_per_seq=10, **settings)
        dataset = PretrainingDataset(corpus, config, seed=5, global_batch_size=16)
        found.append(digest(take(dataset, 2 * dataset.rows_per_epoch // 16 + 1)))
    held_out = HeldOutDataset(corpus, max_seq_length=64, batch_size=8)
    assert (*found, digest(held_out.batches())) == digests


def test_any_step_costs_as_much_as_the_first(make_dataset):
    dataset = make_dataset()
    take(dataset, 1)

    def seconds(step: int) -> float:
        started = time.perf_counter()
        take(dataset, 1, start=step)
        return time.perf_counter() - started

    near = min(seconds(0) for _ in range(5))
    far = min(seconds(10**9) for _ in range(5))
    assert far < 3 * near + 0.05


def test_held_out_batches_have_every_pair_once(corpus):
    batches = list(HeldOutDataset(corpus, max_seq_length=LENGTH, batch_size=16).batches())
    rows = [(row["sequence_ids"] > 0).any(axis=1) for row in batches]
    count = int(sum(part.sum() for part in rows))
    assert all(part.all() for part in rows[:-1])
    assert not rows[-1][count % 16 :].any() and rows[-1][: count % 16].all()
    last = batches[-1]
    assert all(not last[name][count % 16 :].any() for name in last)

    starts = []
    for batch in batches:
        PretrainingBatch.from_numpy(batch)
        assert batch["sequence_ids"].max() == 1
        starts += [min(first + second) for first, second, _ in segments(batch)]
    assert len(starts) == len(set(starts)) == count
    held_out = FIRST_ID + corpus.splits["train"].num_tokens
    assert min(starts) >= held_out
    full = np.concatenate([(batch["sequence_ids"] > 0).sum(axis=1) for batch in batches]) == LENGTH
    weights = np.concatenate([batch["masked_lm_weights"].sum(axis=1) for batch in batches])
    assert (weights[full] == 7).all()


def test_held_out_batches_are_always_the_same(corpus):
    def read(**settings) -> list[dict]:
        dataset = HeldOutDataset(corpus, max_seq_length=LENGTH, batch_size=16, **settings)
        once, again = list(dataset.batches()), list(dataset.batches())
        for ours, theirs in zip(again, once, strict=True):
            assert_equal(ours, theirs)
        return once

    whole = read()
    for ours, theirs in zip(read(rows=np.arange(4, 9)), whole, strict=True):
        assert_equal(ours, theirs, slice(4, 9))
    # With an upper bound they are the first of the same rows.
    capped = read(max_pairs=20)
    assert len(capped) == 2 and (capped[1]["sequence_ids"] > 0).any(axis=1).sum() == 4
    assert_equal(capped[0], whole[0])


def test_closed_batches_end_and_drop_their_source(make_dataset):
    class Source:
        def __iter__(self):
            return self

        def __next__(self):
            return {}

    source = Source()
    alive = weakref.ref(source)
    batches = BatchIterator(source)
    del source
    assert next(batches) == {} and alive()
    batches.close()
    assert not alive() and not list(batches)
    with make_dataset().batches(start_step=0) as batches:
        next(batches)
    assert not list(batches)


@pytest.mark.slow
def test_a_process_with_batches_left_open_ends(corpus):
    code = (
        "import sys; from data_pipeline.corpus import open_corpus; "
        "from data_pipeline.config import DataConfig; "
        "from data_pipeline.pretraining import PretrainingDataset; "
        "config = DataConfig(max_seq_length=48, max_predictions_per_seq=8); "
        "data = PretrainingDataset(open_corpus(sys.argv[1]), config, seed=0, global_batch_size=4); "
        "batches = data.batches(start_step=0); next(batches); print('left open')"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, corpus.path], capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stdout) == (0, "left open\n"), done.stderr


def test_shuffling_a_batch_moves_visible_tokens(make_dataset):
    (batch,) = take(make_dataset(), 1)
    shuffled = shuffle_visible_words(batch, 0)
    before, after = segments(batch), segments(shuffled)
    moved = [ours != theirs for ours, theirs in zip(before, after, strict=True)]
    assert np.mean(moved) > 0.8
    for (first, second, _), (other_first, other_second, _) in zip(before, after, strict=True):
        assert sorted(first + second) == sorted(other_first + other_second)


def test_bad_requests(corpus, make_dataset, tmp_path):
    with pytest.raises(FieldError, match="global_batch_size must be at least 1, got 0"):
        make_dataset(batch=0)
    with pytest.raises(ValueError, match="from 0 to 15"):
        make_dataset().batches(start_step=0, rows=np.array([16]))
    nothing_held_out = make_corpus(tmp_path / "corpus", [[4, 5]], [])
    with pytest.raises(InputError, match="no documents for validation"):
        HeldOutDataset(nothing_held_out, max_seq_length=32, batch_size=4)
