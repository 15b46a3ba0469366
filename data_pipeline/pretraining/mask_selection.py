"""Mask selection: which words of a batch are masked, with the released generator's distribution.

The generator visits the words of a pair one by one in random order. Here the t-th words of all
pairs of a batch are visited together. The distribution is the same, and the work is one sort and a
few dozen small steps per batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32

from data_pipeline.config import DataConfig, Masking, MaskReach

# Each position owns one counter of the Philox stream, i.e. four 32-bit words: the rank of its word
# in the visiting order; the length of the n-gram that starts there; and, for the corruption, the
# choice between [MASK], original and random token, and the random token itself.
BITS_PER_POSITION = 4
ORDER, LENGTH, CORRUPTION, REPLACEMENT = range(BITS_PER_POSITION)

PROBABILITY_BITS = 24  # probabilities are compared as integers, which is exact on every machine

_SPAN_RATE, _MAX_SPAN = 0.2, 10  # SpanBERT §3.1


class MaskingKind(NamedTuple):
    """A rule for which tokens are masked together.

    Attributes:
        length_weights: relative probabilities of masking 1, 2, ... consecutive words together.
        whole_words: True if all tokens of a word are masked; False if each token counts as a word.
    """

    length_weights: Callable[[DataConfig], Sequence[float]]
    whole_words: bool = True


def _ngram_weights(config: DataConfig) -> list[float]:
    """Return p(n) proportional to 1/n (ALBERT §4.1), e.g. 6/11, 3/11 and 2/11 up to n = 3."""
    weights = [1 / n for n in range(1, config.ngram + 1)]
    return weights if config.favor_shorter_ngram else weights[::-1]


def _span_weights(_: DataConfig) -> list[float]:
    """Return a geometric distribution of rate 0.2, truncated at 10 words (SpanBERT §3.1)."""
    return [(1 - _SPAN_RATE) ** n for n in range(_MAX_SPAN)]


def _single_weight(_: DataConfig) -> list[float]:
    return [1.0]


# One entry per member of `Masking`.
MASKING_KINDS: Mapping[Masking, MaskingKind] = {
    Masking.NGRAM: MaskingKind(_ngram_weights),
    Masking.WHOLE_WORD: MaskingKind(_single_weight),
    Masking.TOKEN: MaskingKind(_single_weight, whole_words=False),
    Masking.SPAN: MaskingKind(_span_weights),
}


def length_probabilities(config: DataConfig) -> list[float]:
    """Return the probabilities of masking 1, 2, ... words together."""
    weights = MASKING_KINDS[config.masking].length_weights(config)
    return [weight / math.fsum(weights) for weight in weights]


class Vocabulary(NamedTuple):
    """The properties of tokens that masking depends on."""

    word_starts: Bool[np.ndarray, " vocabulary"]  # True if the token starts a word
    special_ids: Int32[np.ndarray, " specials"]  # padding, unknown, [CLS], [SEP], [MASK]
    cls_id: int
    sep_id: int
    mask_id: int


def random_row_bits(key: int, first_row: tf.Tensor, num_rows: int, length: int) -> tf.Tensor:
    """Return the random bits of rows first_row, first_row + 1, ...: uint32 [num_rows, length, 4].

    Row g owns the counters from `g * length` of the key's Philox stream, independent of batch and
    process. The algorithm is fixed, since an automatic choice may differ between machines.
    """
    counter = tf.cast(first_row * length, tf.uint64)
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[num_rows, length, BITS_PER_POSITION],
        key=tf.constant([key], tf.uint64),
        counter=tf.stack([counter, tf.zeros_like(counter)]),
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.uint32,
    )


def bits_at(bits: tf.Tensor, positions: tf.Tensor, column: int) -> tf.Tensor:
    """Return one of the 32-bit words of each flat position: uint32."""
    return tf.gather(tf.reshape(bits, [-1]), positions * BITS_PER_POSITION + column)


def as_probability(bits: tf.Tensor) -> tf.Tensor:
    """Reduce 32-bit words to uniform 24-bit integers: int32."""
    shift = tf.constant(32 - PROBABILITY_BITS, tf.uint32)
    return tf.cast(tf.bitwise.right_shift(bits, shift), tf.int32)


class Words(NamedTuple):
    """The K words of a batch, in the order of the text."""

    word_starts: tf.Tensor  # bool [rows, length]: True where a word starts
    pair_of_row: tf.Tensor  # int32 [rows, length]: which pair of its row, from 1
    maskable: tf.Tensor  # bool [rows * length]: True for text, False for special tokens
    of_position: tf.Tensor  # int32 [rows * length]: the word at, or the last before, each position
    starts: tf.Tensor  # int32 [K]: flat position of a word's first token
    ends: tf.Tensor  # int32 [K]: index of the first word after the word's stretch
    tokens_before: tf.Tensor  # int32 [K + 1]: number of tokens in all previous words
    pairs: tf.Tensor  # int32 [K]: row * pairs_per_row + pair


def find_words(
    input_ids: tf.Tensor,
    sequence_ids: tf.Tensor,
    pairs_per_row: tf.Tensor,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> Words:
    """Find the words of rows, and the stretches that n-grams do not leave.

    Args:
        input_ids: int32 [rows, length].
        sequence_ids: int32 [rows, length], the pair of the row, from 1; 0 for padding.
        pairs_per_row: int32, number of pair slots per row.
        config: the masking kind, and how far n-grams reach.
        vocabulary: the tokens.
    """
    is_cls, is_sep = input_ids == vocabulary.cls_id, input_ids == vocabulary.sep_id
    maskable = (sequence_ids > 0) & ~is_cls & ~is_sep
    # Words and n-grams do not leave a stretch: a segment, or, as in the release, the whole pair,
    # where they continue across [SEP].
    before_stretch = is_cls if config.mask_reach is MaskReach.PAIR else is_cls | is_sep
    starts_stretch = tf.pad(before_stretch[:, :-1], [[0, 0], [1, 0]])
    word_starts = maskable
    if MASKING_KINDS[config.masking].whole_words:
        word_starts &= starts_stretch | tf.gather(vocabulary.word_starts, input_ids)

    flat_starts = tf.reshape(word_starts, [-1])
    flat_maskable = tf.reshape(maskable, [-1])
    of_position = tf.cumsum(tf.cast(flat_starts, tf.int32)) - 1
    starts = tf.cast(tf.where(flat_starts)[:, 0], tf.int32)
    num_words = tf.shape(starts)[0]

    tokens = tf.cumsum(tf.cast(flat_maskable, tf.int32), exclusive=True)
    total = tf.math.count_nonzero(flat_maskable, dtype=tf.int32)
    first_of_stretch = tf.gather(tf.reshape(starts_stretch, [-1]), starts)
    stretch = tf.cumsum(tf.cast(first_of_stretch, tf.int32)) - 1
    stretch_starts = tf.cast(tf.where(first_of_stretch)[:, 0], tf.int32)
    row = starts // tf.shape(input_ids)[1]
    pair = tf.gather(tf.reshape(sequence_ids, [-1]), starts) - 1
    return Words(
        word_starts=word_starts,
        pair_of_row=sequence_ids,
        maskable=flat_maskable,
        of_position=of_position,
        starts=starts,
        ends=tf.gather(tf.concat([stretch_starts[1:], [num_words]], 0), stretch),
        tokens_before=tf.concat([tf.gather(tokens, starts), [total]], 0),
        pairs=row * pairs_per_row + pair,
    )


def select_words(
    words: Words, budgets: tf.Tensor, bits: tf.Tensor, probabilities: list[float]
) -> tf.Tensor:
    """Visit the words of each pair in random order and mask n-grams until its budget is met.

    Args:
        words: the words of the batch, K in all.
        budgets: int32 [rows, pairs], number of tokens to mask.
        bits: uint32 [rows, length, 4].
        probabilities: the probabilities of masking 1, 2, ... words together.

    Returns:
        int32 [K + 1]: for each word, the first word of the n-gram that masks it, or -1. The last
        entry is scratch space for steps without effect.
    """
    num_words = tf.shape(words.starts)[0]
    visits, first_visit, num_visits = _visiting_order(words, budgets, bits)
    remaining = tf.reshape(budgets, [-1])
    present = tf.where(remaining > 0)[:, 0]  # most pair slots are empty
    remaining, first_visit, num_visits = (
        tf.gather(column, present) for column in (remaining, first_visit, num_visits)
    )
    thresholds = np.round(np.cumsum(probabilities[:-1]) * 2**PROBABILITY_BITS).astype(np.int32)
    starts = tf.pad(words.starts, [[0, 1]])
    ends = tf.pad(words.ends, [[0, 1]])
    offsets = tf.range(len(probabilities))

    def visit(step, remaining, heads):  # type: ignore[no-untyped-def]
        live = (remaining > 0) & (step < num_visits)
        word = tf.where(live, tf.gather(visits, tf.where(live, first_visit + step, 0)), num_words)
        uniform = as_probability(bits_at(bits, tf.gather(starts, word), LENGTH))
        longer = uniform[:, None] >= thresholds
        length = 1 + tf.reduce_sum(tf.cast(longer, tf.int32), axis=1, keepdims=True)
        end = tf.gather(ends, word)[:, None]
        after = tf.gather(words.tokens_before, tf.minimum(word[:, None] + offsets + 1, end))
        size = after - tf.gather(words.tokens_before, word)[:, None]
        # Sizes increase with the number of words, so the ones that fit come first.
        fits = live[:, None] & (offsets < length) & (size <= remaining[:, None])
        window = tf.where(fits & (word[:, None] + offsets < end), word[:, None] + offsets, -1)
        taken = tf.gather(heads, tf.where(window < 0, num_words, window)) >= 0
        accepted = fits & ~tf.reduce_any(taken & (window >= 0), axis=1, keepdims=True)
        window = tf.where(accepted & (window >= 0), window, num_words)
        heads = tf.tensor_scatter_nd_update(
            heads, window[..., None], tf.broadcast_to(word[:, None], tf.shape(window))
        )
        used = tf.reduce_max(tf.where(accepted, size, 0), axis=1)
        return step + 1, remaining - used, heads

    def unfinished(step, remaining, heads):  # type: ignore[no-untyped-def]
        del heads
        return tf.reduce_any((remaining > 0) & (step < num_visits))

    heads = tf.fill([num_words + 1], -1)
    return tf.while_loop(unfinished, visit, (0, remaining, heads), parallel_iterations=1)[2]


def _visiting_order(
    words: Words, budgets: tf.Tensor, bits: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return a random order of each pair's words.

    Returns:
        visits: int32, indices of words; those of a pair are adjacent, in random order.
        first_visit: int32 [rows * pairs], where a pair's words start in `visits`.
        num_visits: int32 [rows * pairs], the number of words of each pair.
    """
    rows, length = tf.shape(bits)[0], tf.shape(bits)[1]
    # Sorted in descending order within a row: earlier pairs first, ties (1 in 2^32) by position.
    order = tf.bitwise.left_shift(tf.cast(words.pair_of_row, tf.int64), 32)
    order = -order - tf.cast(bits[..., ORDER], tf.int64)
    keys = tf.where(words.word_starts, order, tf.int64.min)
    positions = tf.math.top_k(keys, k=length).indices
    flat = tf.reshape(positions + tf.range(rows)[:, None] * length, [-1])
    num_visits = tf.math.unsorted_segment_sum(
        tf.ones_like(words.pairs), words.pairs, tf.size(budgets)
    )
    by_row = tf.reshape(num_visits, tf.shape(budgets))
    first = tf.cumsum(by_row, axis=1, exclusive=True) + tf.range(rows)[:, None] * length
    return tf.gather(words.of_position, flat), tf.reshape(first, [-1]), num_visits
