"""Batches as text: order labels, masks and colors."""

import numpy as np

from data_pipeline.pretraining.display import format_batch
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "king", "##dom", "fell", "rose"]


def make_batch():
    """Make one row of two pairs, the first swapped, the second without a label, then padding."""
    return {
        "input_ids": np.array([[2, 5, 4, 7, 3, 8, 3, 2, 9, 3, 5, 3, 0]]),
        "token_type_ids": np.array([[0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0]]),
        "sequence_ids": np.array([[1] * 7 + [2] * 5 + [0]]),
        "masked_lm_positions": np.array([[2, 5, 8, 0]]),
        "masked_lm_ids": np.array([[6, 8, 5, 0]]),
        "masked_lm_weights": np.array([[1, 1, 1, 0]], np.float32),
        "sentence_order_labels": np.array([[1, 0, 0]]),
        "sentence_order_weights": np.array([[1, 0, 0]], np.float32),
    }


def test_pairs_orders_and_masks_are_shown():
    tokenizer = WordPieceTokenizer(TOKENS)
    assert format_batch(make_batch(), tokenizer, in_color=False).splitlines() == [
        "row 0, pair 1: swapped, 7 positions, 2 predictions",
        "[CLS] the {[MASK]=king}dom [SEP] {fell} [SEP]",
        "",
        "row 0, pair 2: order not predicted, 5 positions, 1 predictions",
        "[CLS] {rose=the} [SEP] the [SEP]",
    ]


def test_segments_and_corruptions_differ_in_color():
    shown = format_batch(make_batch(), WordPieceTokenizer(TOKENS))
    for painted in ("\033[1;31m{[MASK]=king}", "\033[4;33m{fell}", "\033[1;35m{rose=the}"):
        assert painted in shown
    assert "\033[36mthe" in shown
    assert "\033[32mthe" in shown
