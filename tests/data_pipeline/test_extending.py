"""Extension: a masking kind is a member of `Masking` and an entry of `MASKING_KINDS`."""

import numpy as np
import pytest
from tiny_corpora import make_corpus

from data_pipeline.config import DataConfig, Masking
from data_pipeline.pretraining import mask_selection
from data_pipeline.pretraining.dataset import PretrainingDataset


@pytest.fixture
def add_masking_kind(monkeypatch):
    """Return a function that adds a masking kind for the duration of the test."""

    def add(value: str, kind: mask_selection.MaskingKind) -> None:
        name, member = value.upper(), str.__new__(Masking, value)
        member._name_, member._value_ = name, value
        monkeypatch.setattr(Masking, "_member_names_", [*Masking._member_names_, name])
        monkeypatch.setitem(Masking._member_map_, name, member)
        monkeypatch.setitem(Masking._value2member_map_, value, member)
        monkeypatch.setitem(mask_selection.MASKING_KINDS, member, kind)

    return add


def mask(path, masking: str) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and ids of two masked tokens in each of 200 rows.

    Every token whose id is a multiple of 3 continues the word of the token before.
    """
    corpus = make_corpus(path, [[30, 29]] * 200)
    config = DataConfig(
        max_seq_length=62,
        masked_lm_prob=2 / 62,
        max_predictions_per_seq=2,
        short_seq_prob=0,
        masking=masking,
    )
    dataset = PretrainingDataset(corpus, config, seed=0, global_batch_size=200)
    batch = next(dataset.batches(start_step=0))
    assert (batch["masked_lm_weights"] == 1).all()
    return batch["masked_lm_positions"], batch["masked_lm_ids"]


def test_every_masking_kind_is_registered():
    assert set(mask_selection.MASKING_KINDS) == set(Masking)


def test_a_masking_kind_is_added_in_one_place(tmp_path, add_masking_kind):
    with pytest.raises(ValueError, match="masking must be one of ngram, whole_word, token, span,"):
        DataConfig(masking="two_tokens")
    two = mask_selection.MaskingKind(lambda config: [0.0, 1.0], whole_words=False)
    add_masking_kind("two_tokens", two)
    positions, ids = mask(tmp_path / "a", "two_tokens")
    together = np.diff(positions)[:, 0] == 1
    assert together.mean() > 0.9  # all but those at the end of a segment
    assert set((ids[together, 0] % 3).tolist()) == {0, 1, 2}  # anywhere in a word
    positions, _ = mask(tmp_path / "b", "token")
    assert np.mean(np.diff(positions) == 1) < 0.1
