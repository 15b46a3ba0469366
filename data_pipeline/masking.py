"""Hiding pieces: n-gram, whole-word, token and span masks for whole batches in the tf.data graph.

The released generator visits the words of a pair one by one in a random order. Here the t-th words
of all pairs of the batch are visited together, so the law is the generator's own, and the work is
a sort and a few dozen small steps for the whole batch.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32

from data_pipeline import philox
from data_pipeline.config import Corruption, DataConfig, Masking, MaskReach, RandomReplacement

# Each position owns one counter of the philox stream, that is four 32-bit words: the place of its
# word in the visiting order, the length of the n-gram that starts here, and the piece's fate.
DRAWS_PER_POSITION = 4
_ORDER, _LENGTH, _FATE, _REPLACEMENT = range(DRAWS_PER_POSITION)

# Draws are compared as 24-bit whole numbers, which every machine holds exactly.
_BITS = 24
_MASKED, _KEPT = round(0.8 * 2**_BITS), round(0.9 * 2**_BITS)

_SPAN_RATE, _LONGEST_SPAN = 0.2, 10  # SpanBERT §3.1


class Vocabulary(NamedTuple):
    """What masking has to know of the pieces."""

    word_starts: Bool[np.ndarray, " vocabulary"]  # whether the piece opens a word
    special_ids: Int32[np.ndarray, " specials"]  # padding, unknown, [CLS], [SEP], [MASK]
    cls_id: int
    sep_id: int
    mask_id: int


class MaskedRows(NamedTuple):
    """The masked rows and what stood under the masks, positions ascending, 0 where unused."""

    input_ids: tf.Tensor  # int32 [rows, length]
    masked_lm_positions: tf.Tensor  # int32 [rows, predictions]
    masked_lm_ids: tf.Tensor  # int32 [rows, predictions]
    masked_lm_weights: tf.Tensor  # float32 [rows, predictions]


def length_law(config: DataConfig) -> list[float]:
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


def draw_uniform(key: int, first_row: tf.Tensor, num_rows: int, length: int) -> tf.Tensor:
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
        draws: uint32 [rows, length, 4], as `draw_uniform` gives them.
        config: which masks.
        vocabulary: the pieces.

    Example, whole words, a budget of 2, where piece 11 continues the word of piece 10 and the draws
    visit the word of two pieces first::

        input_ids    2 10 11  3 12  3    ->    2  4  4  3 12  3
        positions 1 2, ids 10 11, weights 1 1
    """
    words = _find_words(input_ids, sequence_ids, tf.shape(budgets)[1], config, vocabulary)
    heads = _choose_words(words, budgets, draws, length_law(config))
    return _corrupt(input_ids, words, heads, draws, config, vocabulary)


class _Words(NamedTuple):
    """The words of a batch, numbered through it, K in all."""

    opens: tf.Tensor  # bool [rows, length]: where a word begins
    pair_of_row: tf.Tensor  # int32 [rows, length]: which pair of its row, from 1
    maskable: tf.Tensor  # bool [rows * length]: text, no special token
    of_position: tf.Tensor  # int32 [rows * length]: the word at, or the last before, each position
    starts: tf.Tensor  # int32 [K]: flat position of a word's first piece
    ends: tf.Tensor  # int32 [K]: number of the first word beyond the stretch n-grams stay in
    pieces_before: tf.Tensor  # int32 [K + 1]: pieces of all words before
    pairs: tf.Tensor  # int32 [K]: row * pairs a row + pair


def _find_words(
    input_ids: tf.Tensor,
    sequence_ids: tf.Tensor,
    pairs_per_row: tf.Tensor,
    config: DataConfig,
    vocabulary: Vocabulary,
) -> _Words:
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
    return _Words(
        opens=opens_word,
        pair_of_row=sequence_ids,
        maskable=flat_maskable,
        of_position=of_position,
        starts=starts,
        ends=tf.gather(tf.concat([stretch_starts[1:], [num_words]], 0), stretch),
        pieces_before=tf.concat([tf.gather(pieces, starts), [total]], 0),
        pairs=row * pairs_per_row + pair,
    )


def _choose_words(
    words: _Words, budgets: tf.Tensor, draws: tf.Tensor, law: list[float]
) -> tf.Tensor:
    """For each word the first word of the n-gram that hides it, else -1: int32 [K + 1].

    The last entry is a scratch place that steps without effect write to.
    """
    num_words = tf.shape(words.starts)[0]
    visits, first_visit, num_visits = _visiting_order(words, budgets, draws)
    remaining = tf.reshape(budgets, [-1])
    present = tf.where(remaining > 0)[:, 0]  # most slots for pairs hold none
    remaining, first_visit, num_visits = (
        tf.gather(column, present) for column in (remaining, first_visit, num_visits)
    )
    thresholds = np.round(np.cumsum(law[:-1]) * 2**_BITS).astype(np.int32)
    starts = tf.pad(words.starts, [[0, 1]])
    ends = tf.pad(words.ends, [[0, 1]])
    offsets = tf.range(len(law))

    def visit(step, remaining, heads):  # type: ignore[no-untyped-def]
        live = (remaining > 0) & (step < num_visits)
        word = tf.where(live, tf.gather(visits, tf.where(live, first_visit + step, 0)), num_words)
        drawn = _draws_at(draws, tf.gather(starts, word), _LENGTH)[:, None] >= thresholds
        length = 1 + tf.reduce_sum(tf.cast(drawn, tf.int32), axis=1, keepdims=True)
        end = tf.gather(ends, word)[:, None]
        after = tf.gather(words.pieces_before, tf.minimum(word[:, None] + offsets + 1, end))
        size = after - tf.gather(words.pieces_before, word)[:, None]
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
    words: _Words, budgets: tf.Tensor, draws: tf.Tensor
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
    order = -order - tf.cast(draws[..., _ORDER], tf.int64)
    keys = tf.where(words.opens, order, tf.int64.min)
    positions = tf.math.top_k(keys, k=length).indices
    flat = tf.reshape(positions + tf.range(rows)[:, None] * length, [-1])
    num_visits = tf.math.unsorted_segment_sum(
        tf.ones_like(words.pairs), words.pairs, tf.size(budgets)
    )
    by_row = tf.reshape(num_visits, tf.shape(budgets))
    first = tf.cumsum(by_row, axis=1, exclusive=True) + tf.range(rows)[:, None] * length
    return tf.gather(words.of_position, flat), tf.reshape(first, [-1]), num_visits


def _corrupt(
    input_ids: tf.Tensor,
    words: _Words,
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
    fate = _draws_at(draws, source, _FATE)
    pieces = _replacement_pieces(config, vocabulary)
    replacement = tf.gather(pieces, _draws_at(draws, chosen, _REPLACEMENT) % len(pieces))
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


def _draws_at(draws: tf.Tensor, positions: tf.Tensor, column: int) -> tf.Tensor:
    """One draw of each flat position as a whole number of 24 bits."""
    words = tf.gather(tf.reshape(draws, [-1]), positions * DRAWS_PER_POSITION + column)
    return tf.cast(tf.bitwise.right_shift(words, tf.constant(32 - _BITS, tf.uint32)), tf.int32)


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
    odd_numbers = 2 * philox.draw(0, np.arange(ids.shape[1])).view(np.uint64)[:, 0] + np.uint64(1)
    digest = ids.astype(np.uint64) @ odd_numbers
    draws = philox.draw(philox.derive_key(seed, "shuffle"), digest[row], position)[:, 0]
    order = np.lexsort((draws, pairs[row, position], row))
    shuffled = ids.copy()
    shuffled[row, position] = ids[row[order], position[order]]
    return dict(batch) | {"input_ids": shuffled}
