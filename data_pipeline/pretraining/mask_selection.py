"""Which words of a batch are hidden: all its pairs at once, by the released generator's law.

The generator visits the words of a pair one by one in a random order. Here the t-th words of all
pairs of the batch are visited together, so the law is the generator's own, and the work is a sort
and a few dozen small steps for the whole batch.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32

from data_pipeline.config import DataConfig, Masking, MaskReach

# Each position owns one counter of the philox stream, that is four 32-bit words: the place of its
# word in the visiting order, the length of the n-gram that starts here, and, for the corruption,
# the piece's fate and its replacement.
DRAWS_PER_POSITION = 4
ORDER, LENGTH, FATE, REPLACEMENT = range(DRAWS_PER_POSITION)

# Probabilities are compared as 24-bit whole numbers, which every machine holds exactly.
PROBABILITY_BITS = 24


class Vocabulary(NamedTuple):
    """What masking has to know of the pieces."""

    word_starts: Bool[np.ndarray, " vocabulary"]  # whether the piece opens a word
    special_ids: Int32[np.ndarray, " specials"]  # padding, unknown, [CLS], [SEP], [MASK]
    cls_id: int
    sep_id: int
    mask_id: int


def random_bits(key: int, first_row: tf.Tensor, num_rows: int, length: int) -> tf.Tensor:
    """The draws of rows first_row, first_row + 1, ...: uint32 [num_rows, length, 4].

    Row g owns the counters from `g * length` of the key's philox stream, whatever batch or process
    it is in. The algorithm is named, since an automatic choice may differ between machines.
    """
    counter = tf.cast(first_row * length, tf.uint64)
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[num_rows, length, DRAWS_PER_POSITION],
        key=tf.constant([key], tf.uint64),
        counter=tf.stack([counter, tf.zeros_like(counter)]),
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.uint32,
    )


def bits_at(draws: tf.Tensor, positions: tf.Tensor, column: int) -> tf.Tensor:
    """One draw of each flat position: uint32."""
    return tf.gather(tf.reshape(draws, [-1]), positions * DRAWS_PER_POSITION + column)


def as_probability(words: tf.Tensor) -> tf.Tensor:
    """Draws as whole numbers of 24 bits: int32."""
    shift = tf.constant(32 - PROBABILITY_BITS, tf.uint32)
    return tf.cast(tf.bitwise.right_shift(words, shift), tf.int32)


class Words(NamedTuple):
    """The words of a batch, numbered through it, K in all."""

    opens: tf.Tensor  # bool [rows, length]: where a word begins
    pair_of_row: tf.Tensor  # int32 [rows, length]: which pair of its row, from 1
    maskable: tf.Tensor  # bool [rows * length]: text, no special token
    of_position: tf.Tensor  # int32 [rows * length]: the word at, or the last before, each position
    starts: tf.Tensor  # int32 [K]: flat position of a word's first piece
    ends: tf.Tensor  # int32 [K]: number of the first word beyond the stretch n-grams stay in
    tokens_before: tf.Tensor  # int32 [K + 1]: pieces of all words before
    pairs: tf.Tensor  # int32 [K]: row * pairs a row + pair


def find_words(
    input_ids: tf.Tensor,
    sequence_ids: tf.Tensor,
    pairs_per_row: tf.Tensor,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> Words:
    """Finds the words of rows and the stretches that n-grams stay inside.

    Args:
        input_ids: int32 [rows, length].
        sequence_ids: int32 [rows, length], 0 on padding, else which pair of the row, from 1.
        pairs_per_row: int32.
        config: what a word is, and how far n-grams reach.
        vocabulary: the pieces.
    """
    is_cls, is_sep = input_ids == vocabulary.cls_id, input_ids == vocabulary.sep_id
    maskable = (sequence_ids > 0) & ~is_cls & ~is_sep
    # A stretch is what words and n-grams may not leave: a segment, or as released the whole pair,
    # whose [SEP] they then jump over.
    opens_stretch = is_cls if config.mask_reach is MaskReach.PAIR else is_cls | is_sep
    follows = tf.pad(opens_stretch[:, :-1], [[0, 0], [1, 0]])
    if config.masking is Masking.TOKEN:
        opens_word = maskable
    else:
        opens_word = maskable & (follows | tf.gather(vocabulary.word_starts, input_ids))

    flat_opens = tf.reshape(opens_word, [-1])
    flat_maskable = tf.reshape(maskable, [-1])
    of_position = tf.cumsum(tf.cast(flat_opens, tf.int32)) - 1
    starts = tf.cast(tf.where(flat_opens)[:, 0], tf.int32)
    num_words = tf.shape(starts)[0]

    pieces = tf.cumsum(tf.cast(flat_maskable, tf.int32), exclusive=True)
    total = tf.math.count_nonzero(flat_maskable, dtype=tf.int32)
    first_of_stretch = tf.gather(tf.reshape(follows, [-1]), starts)
    stretch = tf.cumsum(tf.cast(first_of_stretch, tf.int32)) - 1
    stretch_starts = tf.cast(tf.where(first_of_stretch)[:, 0], tf.int32)
    row = starts // tf.shape(input_ids)[1]
    pair = tf.gather(tf.reshape(sequence_ids, [-1]), starts) - 1
    return Words(
        opens=opens_word,
        pair_of_row=sequence_ids,
        maskable=flat_maskable,
        of_position=of_position,
        starts=starts,
        ends=tf.gather(tf.concat([stretch_starts[1:], [num_words]], 0), stretch),
        tokens_before=tf.concat([tf.gather(pieces, starts), [total]], 0),
        pairs=row * pairs_per_row + pair,
    )


def choose_words(words: Words, budgets: tf.Tensor, draws: tf.Tensor, law: list[float]) -> tf.Tensor:
    """Visits the words of each pair in random order and hides n-grams until its budget is met.

    Args:
        words: the words of the batch, K in all.
        budgets: int32 [rows, pairs], pieces to hide.
        draws: uint32 [rows, length, 4].
        law: the probability of hiding 1, 2, ... words together.

    Returns:
        int32 [K + 1]: for each word the first word of the n-gram that hides it, else -1. The last
        entry is a scratch place that steps without effect write to.
    """
    num_words = tf.shape(words.starts)[0]
    visits, first_visit, num_visits = _visiting_order(words, budgets, draws)
    remaining = tf.reshape(budgets, [-1])
    present = tf.where(remaining > 0)[:, 0]  # most slots for pairs hold none
    remaining, first_visit, num_visits = (
        tf.gather(column, present) for column in (remaining, first_visit, num_visits)
    )
    thresholds = np.round(np.cumsum(law[:-1]) * 2**PROBABILITY_BITS).astype(np.int32)
    starts = tf.pad(words.starts, [[0, 1]])
    ends = tf.pad(words.ends, [[0, 1]])
    offsets = tf.range(len(law))

    def visit(step, remaining, heads):  # type: ignore[no-untyped-def]
        live = (remaining > 0) & (step < num_visits)
        word = tf.where(live, tf.gather(visits, tf.where(live, first_visit + step, 0)), num_words)
        chance = as_probability(bits_at(draws, tf.gather(starts, word), LENGTH))
        drawn = chance[:, None] >= thresholds
        length = 1 + tf.reduce_sum(tf.cast(drawn, tf.int32), axis=1, keepdims=True)
        end = tf.gather(ends, word)[:, None]
        after = tf.gather(words.tokens_before, tf.minimum(word[:, None] + offsets + 1, end))
        size = after - tf.gather(words.tokens_before, word)[:, None]
        # Sizes grow with the words, so those that fit are the first ones.
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
    words: Words, budgets: tf.Tensor, draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A random order of each pair's words.

    Returns:
        visits: int32, word numbers; those of a pair stand together, in random order.
        first_visit: int32 [rows * pairs], where a pair's words begin in `visits`.
        num_visits: int32 [rows * pairs], how many words it has.
    """
    rows, length = tf.shape(draws)[0], tf.shape(draws)[1]
    # Sorted downwards within a row: earlier pairs first, ties (1 in 2^32) by position.
    order = tf.bitwise.left_shift(tf.cast(words.pair_of_row, tf.int64), 32)
    order = -order - tf.cast(draws[..., ORDER], tf.int64)
    keys = tf.where(words.opens, order, tf.int64.min)
    positions = tf.math.top_k(keys, k=length).indices
    flat = tf.reshape(positions + tf.range(rows)[:, None] * length, [-1])
    num_visits = tf.math.unsorted_segment_sum(
        tf.ones_like(words.pairs), words.pairs, tf.size(budgets)
    )
    by_row = tf.reshape(num_visits, tf.shape(budgets))
    first = tf.cumsum(by_row, axis=1, exclusive=True) + tf.range(rows)[:, None] * length
    return tf.gather(words.of_position, flat), tf.reshape(first, [-1]), num_visits
