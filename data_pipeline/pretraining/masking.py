"""Masking of rows for the masked LM: how many tokens are predicted, and how they are corrupted.

The tf.data graph masks a whole batch of rows at once.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Int32, Int64

from data_pipeline import randomness
from data_pipeline.config import Corruption, DataConfig, RandomReplacement
from data_pipeline.pretraining.mask_selection import (
    CORRUPTION,
    PROBABILITY_BITS,
    REPLACEMENT,
    Vocabulary,
    Words,
    as_probability,
    bits_at,
    find_words,
    length_probabilities,
    select_words,
)

_MASKED, _KEPT = round(0.8 * 2**PROBABILITY_BITS), round(0.9 * 2**PROBABILITY_BITS)


class MaskedRows(NamedTuple):
    """Masked rows and the original tokens, in order of position; unused slots are 0."""

    input_ids: tf.Tensor  # int32 [rows, length]
    masked_lm_positions: tf.Tensor  # int32 [rows, predictions]
    masked_lm_ids: tf.Tensor  # int32 [rows, predictions]
    masked_lm_weights: tf.Tensor  # float32 [rows, predictions]


def budget_predictions(
    lengths: Int64[np.ndarray, "rows pairs"], *, masked_lm_prob: float, slots: int
) -> Int32[np.ndarray, "rows pairs"]:
    """Return how many tokens to predict in each pair.

    A pair of n positions, special tokens included, gets `max(1, round(n * masked_lm_prob))`, with
    halves rounded to even as in the released generator. If the pairs of a row together exceed its
    slots, the slots are divided in proportion: with c_i the running sum over pairs and C the total,
    pair i gets `floor(slots c_i / C) - floor(slots c_{i-1} / C)`. This uses all slots, and no pair
    gets more than it would without the limit. A pair of length 0 is absent.

    Example at 0.15: lengths `[[512, 0], [10, 30]]` with 20 slots give `[[20, 0], [2, 4]]`.
    """
    if masked_lm_prob == 0:
        return np.zeros(lengths.shape, np.int32)
    due = np.maximum(1, np.rint(lengths * masked_lm_prob)).astype(np.int64) * (lengths > 0)
    running = np.cumsum(due, axis=1)
    total = np.maximum(running[:, -1:], 1)
    in_proportion = np.diff(running * slots // total, axis=1, prepend=0)
    return np.where(total > slots, in_proportion, due).astype(np.int32)


def mask_rows(
    input_ids: tf.Tensor,
    sequence_ids: tf.Tensor,
    budgets: tf.Tensor,
    bits: tf.Tensor,
    *,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> MaskedRows:
    """Mask rows of one or more pairs (ALBERT §4.1; BERT's 80/10/10).

    The words of a pair are visited in random order until its budget of tokens is met. At each word,
    the number of words to mask from there on is sampled. Words past the end of the segment do not
    count, and the n-gram shrinks until it fits the rest of the budget. It is skipped if not even
    one word fits, or if any of its tokens is already masked. Of the selected tokens, 80 % become
    [MASK], 10 % stay, and 10 % become a random token; with `Corruption.ALWAYS_MASK`, all become
    [MASK].

    Args:
        input_ids: int32 [rows, length], the text with its [CLS] and [SEP].
        sequence_ids: int32 [rows, length], the pair of the row, from 1; 0 for padding.
        budgets: int32 [rows, pairs], number of tokens to predict in each pair; at most
            `config.max_predictions_per_seq` per row.
        bits: uint32 [rows, length, 4], as returned by `random_row_bits`.
        config: the masking kind, corruption and replacement.
        vocabulary: the tokens.

    Example with whole words and a budget of 2, where token 11 continues the word that starts with
    token 10, and this word is visited first::

        input_ids    2 10 11  3 12  3    ->    2  4  4  3 12  3
        positions 1 2, ids 10 11, weights 1 1
    """
    words = find_words(input_ids, sequence_ids, tf.shape(budgets)[1], config, vocabulary)
    heads = select_words(words, budgets, bits, length_probabilities(config))
    return _corrupt(input_ids, words, heads, bits, config, vocabulary)


def _corrupt(
    input_ids: tf.Tensor,
    words: Words,
    heads: tf.Tensor,
    bits: tf.Tensor,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> MaskedRows:
    length = tf.shape(input_ids)[1]
    head = tf.gather(heads, tf.maximum(words.of_position, 0))
    selected = tf.cast(tf.where(words.maskable & (head >= 0))[:, 0], tf.int32)
    labels = tf.gather(tf.reshape(input_ids, [-1]), selected)

    source = selected
    if config.corruption is Corruption.PER_SPAN:
        source = tf.gather(words.starts, tf.gather(head, selected))
    uniform = as_probability(bits_at(bits, source, CORRUPTION))
    candidates = _replacement_candidates(config, vocabulary)
    index = tf.cast(bits_at(bits, selected, REPLACEMENT), tf.int64) % len(candidates)
    replacement = tf.gather(candidates, index)
    always = config.corruption is Corruption.ALWAYS_MASK
    masked = 1 << PROBABILITY_BITS if always else _MASKED
    corrupted = tf.where(
        uniform < masked, vocabulary.mask_id, tf.where(uniform < _KEPT, labels, replacement)
    )

    row, position = selected // length, selected % length
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


def _replacement_candidates(config: DataConfig, vocabulary: Vocabulary) -> np.ndarray:
    every = np.arange(len(vocabulary.word_starts), dtype=np.int32)
    if config.random_replacement is RandomReplacement.ANY:
        return every
    return np.setdiff1d(every, vocabulary.special_ids)


def shuffle_visible_words(batch: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Shuffle the visible tokens of a batch within each pair.

    Special tokens, padding and the positions to predict stay in place. A model that only counts
    tokens loses nothing by this; a model that reads does. The loss on the shuffled batch minus the
    loss on the original batch is the context gap. The order of a row depends on the seed and the
    row's content, not on its batch.

    Args:
        batch: the fields of `PretrainingBatch`.
        seed: the seed of the order.

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
    words = randomness.random_bits(0, np.arange(ids.shape[1])).view(np.uint64)[:, 0]
    digest = ids.astype(np.uint64) @ (2 * words + np.uint64(1))  # odd multipliers
    key = randomness.derive_key(seed, "shuffle")
    ranks = randomness.random_bits(key, digest[row], position)[:, 0]
    order = np.lexsort((ranks, pairs[row, position], row))
    shuffled = ids.copy()
    shuffled[row, position] = ids[row[order], position[order]]
    return dict(batch) | {"input_ids": shuffled}
