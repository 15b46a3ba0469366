"""Batches of pairs: shifted targets, lengths of both sides, rows that fill a batch up."""

import numpy as np
import pytest

from data_pipeline.finetuning.dataset import FinetuningDataset
from data_pipeline.finetuning.encoded_examples import EncodedExamples, fingerprint, join_sequences
from data_pipeline.generation.encoded_pairs import EncodedPairs, PairShape

BOS, EOS, PAD = 2, 3, 1


def sources(lengths: list[int]) -> EncodedExamples:
    ids = [np.arange(10, 10 + n, dtype=np.int32) for n in lengths]
    zeros = [np.zeros(n, np.int32) for n in lengths]
    return join_sequences({"input_ids": ids, "token_type_ids": zeros}, {})


def pairs(lengths: list[tuple[int, int | None]], shape: PairShape) -> EncodedPairs:
    """Pairs of so many source tokens, and so many of the target, its end included."""
    targets = [[BOS] if n is None else [BOS, *range(20, 19 + n), EOS] for _, n in lengths]
    starts = np.concatenate([[0], np.cumsum([len(target) for target in targets])])
    flat = np.array([id for target in targets for id in target], np.int32)
    return EncodedPairs(sources([n for n, _ in lengths]), flat, starts, PAD, shape)


EVEN = PairShape(1.0, 64, 64)


def test_a_batch_has_inputs_one_step_before_labels() -> None:
    batch = pairs([(4, 3), (3, 1), (2, None)], EVEN).take(
        np.array([0, 1, 2]), length=8, batch_size=4
    )
    assert batch["input_ids"].shape == batch["labels"].shape == (4, 8)
    np.testing.assert_array_equal(
        batch["decoder_input_ids"][:, :4],
        [[BOS, 20, 21, PAD], [BOS, PAD, PAD, PAD], [BOS, PAD, PAD, PAD], [BOS, 20, 21, PAD]],
    )
    np.testing.assert_array_equal(
        batch["labels"][:3, :4], [[20, 21, EOS, PAD], [EOS, PAD, PAD, PAD], [PAD] * 4]
    )
    np.testing.assert_array_equal(
        batch["label_weights"][:, :4], [[1, 1, 1, 0], [1, 0, 0, 0], [0] * 4, [0] * 4]
    )
    assert batch["label_weights"].dtype == np.float32 and "weights" not in batch
    assert {array.dtype.name for name, array in batch.items() if name != "label_weights"} == {
        "int32"
    }


@pytest.mark.parametrize("ratio", [0.3, 1.0, 1.37, 7.9])
def test_both_sides_fit_whatever_the_proportion(ratio: float) -> None:
    generator = np.random.default_rng(0)
    lengths = [(int(generator.integers(2, 65)), int(generator.integers(1, 49))) for _ in range(300)]
    found = pairs(lengths, PairShape(ratio, 64, 48))
    dataset = FinetuningDataset(found, seed=1, global_batch_size=8, num_lengths=4)
    seen = np.zeros(300, int)
    for step in range(dataset.steps_per_epoch):
        batch = dataset.batch(step)
        assert batch["input_ids"].shape[1] <= 64 and batch["labels"].shape[1] <= 48
        for ids, mask, labels, weights in zip(
            *(batch[name] for name in ("input_ids", "attention_mask", "labels", "label_weights")),
            strict=True,
        ):
            if weights.sum():
                size = (int(mask.sum()), int(weights.sum()))
                assert ids[size[0] - 1] == 9 + size[0] and labels[size[1] - 1] == EOS
                seen[lengths.index(size)] += 1
    assert seen.sum() == 300


def test_a_length_means_both_sides() -> None:
    shape = PairShape(2.0, 48, 20)
    assert [shape.source_length(n) for n in (16, 48, 64)] == [16, 48, 48]
    assert [shape.target_length(n) for n in (8, 16, 40, 64)] == [8, 8, 20, 20]
    np.testing.assert_array_equal(pairs([(3, 4), (9, 2)], shape).lengths, [8, 9])


def test_the_fingerprint_sees_targets() -> None:
    one, other = pairs([(4, 3), (3, 2)], EVEN), pairs([(4, 2), (3, 3)], EVEN)
    assert fingerprint([one]) != fingerprint([other])
