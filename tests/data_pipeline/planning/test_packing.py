"""Packing of pairs into rows, numbers of predictions, and the layout of a row."""

import numpy as np
import pytest
from tiny_corpora import FIRST_ID, make_corpus

from data_pipeline.config import DataConfig
from data_pipeline.planning import packing
from data_pipeline.planning.packing import count_sequences, pack_pairs
from data_pipeline.planning.pairs import PAIR, Segments
from data_pipeline.pretraining.masking import budget_predictions
from data_pipeline.pretraining.rows import lay_out_rows


def test_worked_example_of_packing():
    order, sizes = pack_pairs(np.array([4, 6, 9, 3, 3, 4]), row_length=10, max_pairs_per_row=16)
    rows = np.split(order, np.cumsum(sizes)[:-1])
    assert [row.tolist() for row in rows] == [[2], [1, 0], [5, 3, 4]]


@pytest.mark.parametrize("together", [1, 2, 100])
def test_worked_example_of_counted_sequences(monkeypatch, together):
    monkeypatch.setattr(packing, "_COUNTED", together)
    pairs = np.zeros(8, PAIR)
    # Two more pairs: a row that one fills after truncation, half of it of another document, and a
    # pair of a row that is not counted.
    pairs["length"] = np.array([9, 4, 6, 4, 3, 3, 10, 10]) - 3
    pairs["length"][6], pairs["other_length"][6] = 4, 6
    starts = np.array([0, 1, 3, 6, 7, 8])
    config = DataConfig(max_seq_length=10, max_predictions_per_seq=2)
    assert count_sequences(pairs, starts[:4], config).tolist() == [0, 0, 2, 1]
    assert count_sequences(pairs, starts[:5], config).tolist() == [0, 1, 2, 1]


def best_fit_decreasing(lengths: list[int], row_length: int, most: int) -> list[list[int]]:
    """Pack one pair after another, each into the fullest row that holds it and was filled last."""
    rows: list[list[int]] = []
    free: list[int] = []
    filled_at: list[int] = []
    for time, pair in enumerate(sorted(range(len(lengths)), key=lambda pair: -lengths[pair])):
        fitting = [
            (free[row], -filled_at[row], row)
            for row in range(len(rows))
            if free[row] >= lengths[pair] and len(rows[row]) < most
        ]
        if not fitting:
            rows.append([])
            free.append(row_length)
            filled_at.append(time)
            fitting = [(row_length, 0, len(rows) - 1)]
        row = min(fitting)[2]
        rows[row].append(pair)
        free[row] -= lengths[pair]
        filled_at[row] = time
    return rows


@pytest.mark.parametrize("most", [1, 2, 3, 16])
@pytest.mark.parametrize("row_length", [10, 64, 300])
def test_pairs_are_packed_by_best_fit_decreasing(most, row_length):
    generator = np.random.default_rng(most)
    for mean in (2, 8, row_length // 3, row_length):
        lengths = np.minimum(4 + generator.geometric(1 / mean, 200), row_length)
        order, sizes = pack_pairs(lengths, row_length=row_length, max_pairs_per_row=most)
        rows = [row.tolist() for row in np.split(order, np.cumsum(sizes)[:-1])]
        assert rows == best_fit_decreasing(lengths.tolist(), row_length, most)


def test_rows_of_many_pairs_are_nearly_full():
    lengths = np.random.default_rng(0).integers(5, 129, 5000)
    order, sizes = pack_pairs(lengths, row_length=128, max_pairs_per_row=16)
    assert lengths.sum() / (128 * len(sizes)) > 0.99 and len(order) == 5000


def test_budgets():
    def budget(lengths: list[list[int]], slots: int, probability: float = 0.15) -> list[list[int]]:
        found = budget_predictions(np.array(lengths), masked_lm_prob=probability, slots=slots)
        return found.tolist()

    assert budget([[512, 0], [10, 30]], 20) == [[20, 0], [2, 4]]
    assert budget([[5]], 20) == [[1]]  # never none
    assert budget([[10], [30], [50]], 20) == [[2], [4], [8]]  # 1.5, 4.5, 7.5: to even
    assert budget([[512]], 77) == [[77]] and budget([[128]], 20) == [[19]]
    assert budget([[512]], 20, probability=0.0) == [[0]]


def test_the_slots_of_a_full_row_are_all_used_and_divided_in_proportion():
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, 130, (500, 4)) * (generator.random((500, 4)) < 0.8)
    due = budget_predictions(lengths, masked_lm_prob=0.15, slots=10**6)
    given = budget_predictions(lengths, masked_lm_prob=0.15, slots=20)
    crowded = due.sum(axis=1) > 20
    assert 0.2 < crowded.mean() < 0.9
    np.testing.assert_array_equal(given[~crowded], due[~crowded])
    assert (given[crowded].sum(axis=1) == 20).all()
    fair = due[crowded] * 20 / due[crowded].sum(axis=1, keepdims=True)
    assert (np.abs(given[crowded] - fair) < 1).all() and (given <= due).all()


def test_worked_example_of_a_row(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", [[3, 4]])
    segments = Segments(
        starts=np.array([[0, 4], [6, 5], [1, 0]]),
        lengths=np.array([[1, 1], [1, 1], [2, 1]]),
        labels=np.array([0, 1, 1], np.int32),
        weights=np.array([1, 0, 1], np.float32),
    )
    rows = lay_out_rows(
        segments,
        rows=np.array([0, 2, 0]),
        slots=np.array([0, 0, 1]),
        split=corpus.splits["train"],
        shape=(3, 12, 2),
        cls_id=2,
        sep_id=3,
    )
    a = FIRST_ID
    assert rows.input_ids.tolist() == [
        [2, a, 3, a + 4, 3, 2, a + 1, a + 2, 3, a, 3, 0],
        [0] * 12,
        [2, a + 6, 3, a + 5, 3, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert rows.token_type_ids[0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0]
    assert rows.position_ids[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0]
    assert rows.sequence_ids[0].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0]
    assert rows.sequence_ids[1].tolist() == [0] * 12
    assert rows.sentence_order_positions.tolist() == [[0, 5], [0, 0], [0, 0]]
    assert rows.sentence_order_labels.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert rows.sentence_order_weights.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert rows.pair_lengths.tolist() == [[5, 6], [0, 0], [5, 0]]
