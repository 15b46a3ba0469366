"""The bound on the chance that slots do not suffice: by hand, against exact and shuffled sums."""

import itertools
import math

import numpy as np
import pytest

from albert_jax.attention.slot_capacity import (
    OVERFLOW_PROBABILITY,
    RowsAtOnce,
    fewest_slots,
    overflow_probability,
)

# Rows of a part of English Wikipedia, packed with at most 16 pairs; entry k has k sequences.
WIKI_512 = [0, 35099, 5565, 369, 335, 147, 89, 71, 66, 45, 27, 27, 22, 18, 22, 11, 14, 102]
WIKI_128 = [0, 136681, 17501, 1355, 493, 140, 47, 6, 2]
PACKED = [0, 60, 25, 10, 4, 1]


def part(counts: list[int], rows: int, times: int = 1, room: int = 17) -> RowsAtOnce:
    return RowsAtOnce(np.array([counts]), room, rows, times)


def exact_probability(counts: list[int], rows: int, slots: int) -> float:
    """The chance for rows drawn with replacement, by convolving their distribution `rows` times."""
    one, total = np.array(counts) / sum(counts), np.ones(1)
    for _ in range(rows):
        total = np.convolve(total, one)
    return float(total[slots * rows + 1 :].sum())


def test_worked_example() -> None:
    bound = overflow_probability(part([0, 1, 0, 1], 2), 2)
    assert bound == pytest.approx(4 / (3 * math.sqrt(3)), rel=1e-6)
    assert exact_probability([0, 1, 0, 1], 2, 2) == 0.25
    assert fewest_slots([part([0, 9], 128, 10**6)]) == 2  # never one
    assert fewest_slots([part([0, 66, 33], 128, 10**6)]) == 2
    assert fewest_slots([part([0, 66, 33, 0, 0, 1], 128, 10**6)]) == 2
    assert fewest_slots([part([0, 66, 33, 0, 0, 1], 4, 10**6)]) == 5


@pytest.mark.parametrize("rows", [8, 32, 128])
@pytest.mark.parametrize("counts", [PACKED, WIKI_512])
def test_the_bound_is_above_the_exact_probability_and_not_far(counts: list[int], rows: int) -> None:
    for slots in (2, 3, 4):
        exact = exact_probability(counts, rows, slots)
        bound = overflow_probability(part(counts, rows), slots)
        assert exact <= bound <= 50 * exact
        times = overflow_probability(part(counts, rows, 1000), slots)
        assert times == pytest.approx(min(1, 1000 * bound))


def test_the_bound_holds_for_the_shuffled_rows_of_epochs() -> None:
    """Rows without replacement, and batches that two epochs with different rows share."""
    generator = np.random.default_rng(0)
    rows, epochs = 12, 4000
    counts = np.array([PACKED, [0, 70, 15, 5, 5, 5]])  # 100 rows an epoch, 25 batches in three
    plans = [np.repeat(np.arange(6), of_variant) for of_variant in counts]
    read = np.concatenate([generator.permutation(plans[epoch % 2]) for epoch in range(epochs)])
    sums = read[: len(read) // rows * rows].reshape(-1, rows).sum(axis=1)
    for slots in (2, 3):
        found = (sums > slots * rows).mean()
        bound = overflow_probability(RowsAtOnce(counts, 6, rows, 1), slots)
        assert found < bound < 0.5
        alone = max(overflow_probability(part(of, rows), slots) for of in counts.tolist())
        assert bound >= alone * (1 - 1e-6)
    assert (sums > 2 * rows).sum() > 100


def test_more_slots_or_rows_or_fewer_micro_batches_make_an_overflow_less_likely() -> None:
    by_slots = [overflow_probability(part(WIKI_512, 64), slots) for slots in range(2, 18)]
    assert all(more < fewer for fewer, more in itertools.pairwise(by_slots))
    assert by_slots[-1] == 0  # no row has more
    slots = [fewest_slots([part(WIKI_512, rows, 10**6, 18)]) for rows in (1, 8, 32, 128, 512)]
    assert slots == sorted(slots, reverse=True)
    assert slots[0] == 17
    assert fewest_slots([part(WIKI_512, 32, 10**7)]) > fewest_slots([part(WIKI_512, 32, 10)])


def test_slots_of_wikipedia() -> None:
    steps = 125_000
    assert fewest_slots([part(WIKI_512, 128, steps)]) == 3
    assert fewest_slots([part(WIKI_512, 512, steps)]) == 2
    assert fewest_slots([part(WIKI_512, 4, steps)]) == 0  # 17 are needed, for which there is room
    assert fewest_slots([part(WIKI_128, 128, steps, room=8)]) == 2
    assert fewest_slots([part(WIKI_128, 4, steps, room=8)]) == 6


def test_the_parts_of_a_run_have_the_same_slots() -> None:
    easy, hard = part(WIKI_128, 512, 1000, 8), part(WIKI_512, 128, 1000)
    assert fewest_slots([easy]) == 2
    assert fewest_slots([easy, hard]) == fewest_slots([hard]) == 3
    assert fewest_slots([]) == 0  # no row has several sequences
    times = int(0.6 * OVERFLOW_PROBABILITY / overflow_probability(part(PACKED, 400), 2))
    half = part(PACKED, 400, times)
    assert fewest_slots([half]) < fewest_slots([half, half])
