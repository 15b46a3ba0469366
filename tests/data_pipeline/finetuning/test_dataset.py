"""Fine-tuning batches: each example once per epoch, rows of similar length, any step by itself."""

import itertools

import numpy as np
import pytest

from data_pipeline.finetuning.dataset import FinetuningDataset, evaluation_batches
from data_pipeline.finetuning.encoded_examples import (
    EncodedExamples,
    affordable_lengths,
    choose_lengths,
    fingerprint,
    join_sequences,
)


def make_examples(lengths: list[int], choices: int | None = None) -> EncodedExamples:
    """Make sequences of which number n has only n + 1; labels are the indices of examples."""
    ids = [np.full(length, number + 1, np.int32) for number, length in enumerate(lengths)]
    count = len(lengths) // (choices or 1)
    return join_sequences(
        {"input_ids": ids, "p_mask": [np.zeros_like(x) for x in ids]},
        {"labels": np.arange(count, dtype=np.int32)},
        choices,
    )


def make_dataset(lengths: list[int], **arguments: int) -> FinetuningDataset:
    settings = {"seed": 1, "global_batch_size": 4, "num_lengths": 3} | arguments
    return FinetuningDataset(make_examples(lengths), **settings)


LENGTHS = np.random.default_rng(0).integers(3, 60, size=91).tolist()


def test_a_batch_is_padded_and_filled() -> None:
    batch = make_examples([3, 2, 5]).take(np.array([1, 0]), length=4, batch_size=3)
    assert batch["input_ids"].tolist() == [[2, 2, 0, 0], [1, 1, 1, 0], [2, 2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["p_mask"].tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1]]
    assert batch["labels"].tolist() == [1, 0, 1]
    assert batch["weights"].tolist() == [1, 1, 0]
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "input_ids": "int32",
        "attention_mask": "int32",
        "p_mask": "int32",
        "labels": "int32",
        "weights": "float32",
    }


def test_choices_are_an_axis_of_their_own() -> None:
    examples = make_examples([3, 2, 1, 4], choices=2)
    assert examples.lengths.tolist() == [3, 4]
    batch = examples.take(np.array([1]), length=4, batch_size=1)
    assert batch["input_ids"].tolist() == [[[3, 0, 0, 0], [4, 4, 4, 4]]]


def test_the_lengths_are_those_with_the_least_padding() -> None:
    def padding(chosen: tuple[int, ...]) -> int:
        return sum(min(c for c in chosen if c >= length) - length for length in LENGTHS)

    multiples = range(8, 65, 8)
    for count in (1, 2, 3, 8, 20):
        chosen = choose_lengths(np.array(LENGTHS), count)
        fitting = [
            every
            for every in itertools.combinations(multiples, min(count, 8))
            if max(every) >= max(LENGTHS)
        ]
        assert padding(tuple(chosen)) == min(map(padding, fitting))
        assert len(chosen) <= count
        assert chosen == sorted(set(chosen))


@pytest.mark.parametrize("num_lengths", [1, 3])
def test_an_epoch_takes_each_example_once(num_lengths: int) -> None:
    dataset = make_dataset(LENGTHS, num_lengths=num_lengths)
    assert dataset.steps_per_epoch == 23  # 91 examples in batches of 4
    orders, lengths_of_steps, together = [], [], []
    for epoch in range(2):
        seen: list[int] = []
        lengths = []
        for step in range(23 * epoch, 23 * (epoch + 1)):
            batch = dataset.batch(step)
            real = batch["weights"] > 0
            seen += batch["labels"][real].tolist()
            lengths.append(batch["input_ids"].shape[1])
            assert batch["input_ids"].shape == (4, lengths[-1])
            assert batch["attention_mask"].sum(axis=1)[real].tolist() == [
                LENGTHS[label] for label in batch["labels"][real]
            ]
        assert sorted(seen) == list(range(91))
        assert sorted(lengths) == dataset.batch_lengths
        orders.append(seen)
        lengths_of_steps.append(lengths)
        together.append({frozenset(seen[place : place + 4]) for place in range(0, 91, 4)})
    assert orders[0] != orders[1]
    # Batches come in another order, and consist of other examples.
    assert num_lengths == 1 or lengths_of_steps[0] != lengths_of_steps[1]
    assert len(together[0] & together[1]) < 5
    assert orders[0] != sorted(orders[0])


def test_rows_of_a_length_meet_others_in_each_epoch() -> None:
    dataset = make_dataset([5] * 12)
    met = [
        {frozenset(dataset.batch(3 * epoch + step)["labels"].tolist()) for step in range(3)}
        for epoch in range(3)
    ]
    assert met[0] != met[1] != met[2]


def test_rows_of_similar_length_are_batched_together() -> None:
    dataset = make_dataset(LENGTHS, num_lengths=8)
    mixed = 0
    for step in range(dataset.steps_per_epoch):
        batch = dataset.batch(step)
        longest = batch["input_ids"].shape[1]
        mixed += (batch["attention_mask"].sum(axis=1) <= longest - 8).any()
    assert mixed < len(dataset.lengths)  # at most one for each step from a length to the next


def test_a_step_does_not_depend_on_the_first_step_or_on_other_rows() -> None:
    dataset, again = make_dataset(LENGTHS), make_dataset(LENGTHS)
    expected = next(itertools.islice(dataset.batches(0), 30, None))
    for batch in (again.batch(30), next(again.batches(30))):
        for name, array in expected.items():
            np.testing.assert_array_equal(batch[name], array)
    halves = [again.batch(30, np.array(rows)) for rows in ([0, 1], [2, 3])]
    for name, array in expected.items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), array)
    other = make_dataset(LENGTHS, seed=2).batch(30)
    assert any((other[name] != array).any() for name, array in expected.items() if name == "labels")


def test_few_steps_have_the_same_examples_in_rows_of_fewer_lengths() -> None:
    assert [affordable_lengths(5, steps) for steps in (1, 49, 50, 120, 200, 5000)] == [
        *(1, 1, 2, 3, 5, 5)
    ]
    usual = make_dataset(LENGTHS, num_lengths=5)
    for steps in (20, 60, 250):
        dataset = make_dataset(LENGTHS, num_lengths=5, num_steps=steps)
        widths = set()
        for step in range(dataset.steps_per_epoch):
            expected, found = usual.batch(step), dataset.batch(step)
            widths.add(found["input_ids"].shape[1])
            width = expected["input_ids"].shape[1]
            np.testing.assert_array_equal(found["input_ids"][:, :width], expected["input_ids"])
            assert not found["attention_mask"][:, width:].any()
        assert sorted(widths) == choose_lengths(np.array(LENGTHS), affordable_lengths(5, steps))
    assert dataset.batch_lengths == usual.batch_lengths


def test_fewer_examples_are_drawn_at_random_and_are_part_of_more() -> None:
    def drawn(**arguments: int) -> list[int]:
        dataset = make_dataset(LENGTHS, **arguments)
        assert dataset.lengths == make_dataset(LENGTHS).lengths  # compiled for already
        batches = itertools.islice(dataset.batches(0), dataset.steps_per_epoch)
        return sorted(x for one in batches for x in one["labels"][one["weights"] > 0].tolist())

    ten, thirty = drawn(max_examples=10), drawn(max_examples=30)
    assert len(ten) == 10 and set(ten) < set(thirty) and len(thirty) == 30
    assert drawn(max_examples=10, seed=2) != ten != list(range(10))
    assert drawn(max_examples=91) == drawn(max_examples=500) == list(range(91))


def test_evaluation_covers_every_example() -> None:
    examples = make_examples(LENGTHS)
    lengths = choose_lengths(np.array(LENGTHS), 3)
    seen: list[int] = []
    widths = set()
    for rows, fields in evaluation_batches(examples, batch_size=4, lengths=lengths):
        assert fields["labels"][: len(rows)].tolist() == rows.tolist()
        assert fields["weights"].tolist() == [1.0] * len(rows) + [0.0] * (4 - len(rows))
        assert fields["attention_mask"].sum(axis=1)[: len(rows)].tolist() == [
            LENGTHS[row] for row in rows
        ]
        widths.add(fields["input_ids"].shape[1])
        seen += rows.tolist()
    assert sorted(seen) == list(range(91))
    assert widths == set(lengths)


def test_a_fingerprint_depends_on_all_content() -> None:
    examples = make_examples([3, 2])
    prints = {
        fingerprint(splits)
        for splits in (
            [examples],
            [examples, examples],
            [make_examples([2, 3])],
            [examples._replace(values={"labels": np.array([1, 0], np.int32)})],
            [examples._replace(values={"labels": np.array([0, 1], np.float32)})],
        )
    }
    assert len(prints) == 5
    assert fingerprint([make_examples([3, 2])]) in prints
