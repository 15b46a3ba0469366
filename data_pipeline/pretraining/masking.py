"""Hiding pieces: n-gram, whole-word, token and span masks for whole batches in the tf.data graph,
with the 80/10/10 corruption of what is hidden."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Int32, Int64

from data_pipeline import randomness
from data_pipeline.config import Corruption, DataConfig, Masking, RandomReplacement
from data_pipeline.pretraining.mask_selection import (
    FATE,
    PROBABILITY_BITS,
    REPLACEMENT,
    Vocabulary,
    Words,
    as_probability,
    bits_at,
    choose_words,
    find_words,
)

_MASKED, _KEPT = round(0.8 * 2**PROBABILITY_BITS), round(0.9 * 2**PROBABILITY_BITS)

_SPAN_RATE, _LONGEST_SPAN = 0.2, 10  # SpanBERT §3.1


class MaskedRows(NamedTuple):
    """The masked rows and what stood under the masks, positions ascending, 0 where unused."""

    input_ids: tf.Tensor  # int32 [rows, length]
    masked_lm_positions: tf.Tensor  # int32 [rows, predictions]
    masked_lm_ids: tf.Tensor  # int32 [rows, predictions]
    masked_lm_weights: tf.Tensor  # float32 [rows, predictions]


def length_probabilities(config: DataConfig) -> list[float]:
    """The probability of hiding 1, 2, ... words together.

    n-grams: p(n) proportional to 1/n (ALBERT §4.1), so 6/11, 3/11 and 2/11 up to 3; spans: a
    geometric law of rate 0.2 cut at 10 words (SpanBERT §3.1); whole words and tokens: always 1.
    """
    if config.masking is Masking.NGRAM:
        weights = [1 / n for n in range(1, config.ngram + 1)]
        if not config.favor_shorter_ngram:
            weights.reverse()
    elif config.masking is Masking.SPAN:
        weights = [(1 - _SPAN_RATE) ** n for n in range(_LONGEST_SPAN)]
    else:
        weights = [1.0]
    return [weight / math.fsum(weights) for weight in weights]


def budget_predictions(
    lengths: Int64[np.ndarray, "rows pairs"], *, masked_lm_prob: float, slots: int
) -> Int32[np.ndarray, "rows pairs"]:
    """How many pieces to predict in each pair.

    A pair of n positions, special tokens counted, asks for `max(1, round(n * masked_lm_prob))`,
    halves rounded to even, as in the released generator. Where the pairs of a row together ask for
    more than its slots, the slots are shared out in proportion: with c the running sum of what is
    asked and C its total, pair i gets `floor(slots c_i / C) - floor(slots c_{i-1} / C)`, so all
    slots are used and no pair gets more than it asked for. A pair of length 0 is absent.

    Example at 0.15: lengths `[[512, 0], [10, 30]]` with 20 slots give `[[20, 0], [2, 4]]`.
    """
    if masked_lm_prob == 0:
        return np.zeros(lengths.shape, np.int32)
    asked = np.maximum(1, np.rint(lengths * masked_lm_prob)).astype(np.int64) * (lengths > 0)
    running = np.cumsum(asked, axis=1)
    total = np.maximum(running[:, -1:], 1)
    shared = np.diff(running * slots // total, axis=1, prepend=0)
    return np.where(total > slots, shared, asked).astype(np.int32)


def mask_rows(
    input_ids: tf.Tensor,
    sequence_ids: tf.Tensor,
    budgets: tf.Tensor,
    draws: tf.Tensor,
    *,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> MaskedRows:
    """Masks rows of one or more pairs (ALBERT §4.1; BERT's 80/10/10).

    The words of a pair are visited in random order until its budget of pieces is met. Each draws
    how many words to hide from here on; words past the end of the segment do not count, and the
    n-gram shrinks until it fits what is left of the budget; it is passed over if even one word does
    not fit, or if any of its pieces is hidden already. Of the chosen pieces 80 % become [MASK],
    10 % stay, 10 % become a random piece.

    Args:
        input_ids: int32 [rows, length], the text with its [CLS] and [SEP].
        sequence_ids: int32 [rows, length], 0 on padding, else which pair of the row, from 1.
        budgets: int32 [rows, pairs], pieces to predict in each pair; at most
            `config.max_predictions_per_seq` in a row.
        draws: uint32 [rows, length, 4], as `random_bits` gives them.
        config: which masks.
        vocabulary: the pieces.

    Example, whole words, a budget of 2, where piece 11 continues the word of piece 10 and the draws
    visit the word of two pieces first::

        input_ids    2 10 11  3 12  3    ->    2  4  4  3 12  3
        positions 1 2, ids 10 11, weights 1 1
    """
    words = find_words(input_ids, sequence_ids, tf.shape(budgets)[1], config, vocabulary)
    heads = choose_words(words, budgets, draws, length_probabilities(config))
    return _corrupt(input_ids, words, heads, draws, config, vocabulary)


def _corrupt(
    input_ids: tf.Tensor,
    words: Words,
    heads: tf.Tensor,
    draws: tf.Tensor,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> MaskedRows:
    length = tf.shape(input_ids)[1]
    head = tf.gather(heads, tf.maximum(words.of_position, 0))
    chosen = tf.cast(tf.where(words.maskable & (head >= 0))[:, 0], tf.int32)
    labels = tf.gather(tf.reshape(input_ids, [-1]), chosen)

    source = chosen
    if config.corruption is Corruption.PER_SPAN:
        source = tf.gather(words.starts, tf.gather(head, chosen))
    fate = as_probability(bits_at(draws, source, FATE))
    pieces = _replacement_pieces(config, vocabulary)
    drawn = tf.cast(bits_at(draws, chosen, REPLACEMENT), tf.int64)
    replacement = tf.gather(pieces, drawn % len(pieces))
    corrupted = tf.where(
        fate < _MASKED, vocabulary.mask_id, tf.where(fate < _KEPT, labels, replacement)
    )

    row, position = chosen // length, chosen % length
    per_row = tf.math.unsorted_segment_sum(tf.ones_like(row), row, tf.shape(input_ids)[0])
    slot = tf.range(tf.size(row)) - tf.gather(tf.cumsum(per_row, exclusive=True), row)
    slots = tf.stack([row, slot], axis=1)
    shape = tf.stack([tf.shape(input_ids)[0], config.max_predictions_per_seq])
    return MaskedRows(
        tf.tensor_scatter_nd_update(input_ids, tf.stack([row, position], axis=1), corrupted),
        tf.scatter_nd(slots, position, shape),
        tf.scatter_nd(slots, labels, shape),
        tf.scatter_nd(slots, tf.ones_like(row, tf.float32), shape),
    )


def _replacement_pieces(config: DataConfig, vocabulary: Vocabulary) -> np.ndarray:
    every = np.arange(len(vocabulary.word_starts), dtype=np.int32)
    if config.random_replacement is RandomReplacement.ANY:
        return every
    return np.setdiff1d(every, vocabulary.special_ids)


def shuffle_visible_words(batch: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The batch with the pieces that can be read put in random order within each pair.

    Special tokens, padding and the positions to predict stay. A model that only counts pieces loses
    nothing by this, one that reads does: the loss on the shuffled batch minus the loss on the batch
    is the context gap. A row's order depends on the seed and on the row, not on its batch.

    Args:
        batch: the fields of `PretrainingBatch`.
        seed: of the order.

    Example: with position 2 to be predicted, `2 41 4 43 44 3 51 3` may become
    `2 51 4 44 41 3 43 3`.
    """
    ids, pairs, types = batch["input_ids"], batch["sequence_ids"], batch["token_type_ids"]
    ends_segment = np.ones(ids.shape, bool)  # where [SEP] stands
    ends_segment[:, :-1] = (np.diff(pairs, axis=1) != 0) | (np.diff(types, axis=1) != 0)
    movable = (pairs > 0) & (batch["position_ids"] > 0) & ~ends_segment
    row, slot = np.nonzero(batch["masked_lm_weights"])
    movable[row, batch["masked_lm_positions"][row, slot]] = False

    row, position = np.nonzero(movable)
    odd_numbers = 2 * randomness.random_bits(0, np.arange(ids.shape[1])).view(np.uint64)[
        :, 0
    ] + np.uint64(1)
    digest = ids.astype(np.uint64) @ odd_numbers
    draws = randomness.random_bits(randomness.derive_key(seed, "shuffle"), digest[row], position)[
        :, 0
    ]
    order = np.lexsort((draws, pairs[row, position], row))
    shuffled = ids.copy()
    shuffled[row, position] = ids[row[order], position[order]]
    return dict(batch) | {"input_ids": shuffled}
