"""Segment pairs: the record that a plan stores, and its split, swap and truncation in an epoch.

Documents are cut into pairs once, in the plan. What varies between epochs (the split into A and B,
the swap, which ends are truncated) is sampled for all pairs of a batch together from the seed, the
epoch and the pair. It never changes the length of a pair.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64

from data_pipeline import randomness
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.chunks import Chunks
from data_pipeline.corpus.sentence_index import SentenceIndex

# One pair as the plan stores it: `length` tokens from address `start`, which are `sentences`
# sentences from global sentence number `sentence`. If `other_length` is not 0, that text is segment
# A only, and B is `other_length` tokens of another document, starting at `other_start`.
PAIR = np.dtype(
    [
        ("start", "<i8"),
        ("sentence", "<i8"),
        ("other_start", "<i8"),
        ("length", "<i4"),
        ("other_length", "<i4"),
        ("sentences", "<i4"),
    ]
)


class PlannedPairs(NamedTuple):
    """The pairs of some rows, and the position of each pair."""

    pairs: np.ndarray  # records of type PAIR
    numbers: Int64[np.ndarray, " pairs"]  # number of each pair in the plan
    epochs: Int64[np.ndarray, " pairs"]
    rows: Int64[np.ndarray, " pairs"]  # index among the requested rows
    slots: Int64[np.ndarray, " pairs"]  # index among the pairs of that row


def join_pairs(parts: Iterable[PlannedPairs]) -> PlannedPairs:
    """Concatenate the pairs of several rows; there may be none."""
    none = np.zeros(0, np.int64)
    nothing = PlannedPairs(np.zeros(0, PAIR), none, none, none, none)
    return PlannedPairs(*map(np.concatenate, zip(nothing, *parts, strict=True)))


def borrow_sentences(chunks: Chunks) -> Chunks:
    """Move the last sentence of a chunk to a following chunk of one sentence, which has no order.

    Both chunks must be in one document, and the first must keep two sentences.

    Example: chunks `[0, 3)` and `[3, 4)` of one document become `[0, 2)` and `[2, 4)`.
    """
    size = chunks.ends - chunks.firsts
    borrows = np.zeros(len(size), bool)
    borrows[1:] = (size[1:] == 1) & (size[:-1] >= 3)
    borrows[1:] &= chunks.documents[1:] == chunks.documents[:-1]
    lends = np.append(borrows[1:], False) if len(size) else borrows
    return Chunks(chunks.documents, chunks.firsts - borrows, chunks.ends - lends)


class Segments(NamedTuple):
    """The two segments of each pair, in the order in which the row holds them."""

    starts: Int64[np.ndarray, "pairs 2"]  # token addresses
    lengths: Int64[np.ndarray, "pairs 2"]  # number of tokens
    labels: Int32[np.ndarray, " pairs"]  # 0: in order; 1: swapped (for NSP: not the next)
    weights: Float32[np.ndarray, " pairs"]  # 0 if the label is not predicted


def sample_segments(
    pairs: np.ndarray,
    numbers: Int64[np.ndarray, " pairs"],
    epochs: Int64[np.ndarray, " pairs"],
    *,
    index: SentenceIndex,
    max_num_tokens: int,
    objective: SentenceObjective,
    key: int,
) -> Segments:
    """Split, swap and truncate pairs at random (ALBERT §3.1).

    k sentences are split after 1 to k - 1 of them, with equal probability. A single sentence is
    split between two of its tokens, and its order is not predicted. If the objective swaps, half of
    the pairs are swapped. Each sample depends only on `key`, the pair's number and the epoch.

    Args:
        pairs: records of type `PAIR`.
        numbers: the number of each pair in its plan.
        epochs: the epoch in which each pair is read.
        index: the sentences of the split.
        max_num_tokens: maximum number of tokens in a pair.
        objective: the objective, which determines the label.
        key: the key of the run's stream of random numbers for pairs.

    Example: sentences of 5, 3 and 4 tokens from address 100 are split after the first and swapped,
    with a limit of 10 tokens. B is 105..112 and comes first; A is 100..105. The longer segment
    loses two tokens, so the lengths are `[[5, 5]]`; the label is 1.
    """
    bits = randomness.random_bits(key, numbers, epochs)
    total = pairs["length"].astype(np.int64)
    sentences = pairs["sentences"].astype(np.int64)
    is_random = pairs["other_length"] > 0
    single = (sentences == 1) & ~is_random

    after = 1 + randomness.scale_bits(bits[:, 0], np.maximum(sentences - 1, 1))
    after[single | is_random] = 0  # not used; 0 keeps the look-up within the shard
    first_length = index.addresses(pairs["sentence"] + after) - pairs["start"]
    inside = 1 + randomness.scale_bits(bits[:, 0], np.maximum(total - 1, 1))
    first_length = np.where(is_random, total, np.where(single, inside, first_length))
    starts = np.stack([pairs["start"], pairs["start"] + first_length], axis=1)
    starts[is_random, 1] = pairs["other_start"][is_random]
    lengths = np.stack([first_length, total - first_length], axis=1)
    lengths[is_random, 1] = pairs["other_length"][is_random]

    swapped = (bits[:, 1] >= 2**31) & ~is_random & objective.swaps
    starts[swapped] = starts[swapped, ::-1]
    lengths[swapped] = lengths[swapped, ::-1]

    cuts = count_truncated(lengths, max_num_tokens)
    starts += _sample_front_cuts(cuts, numbers, epochs, key)
    return Segments(
        starts,
        lengths - cuts,
        (swapped | is_random).astype(np.int32),
        (~single & (objective.metric_name is not None)).astype(np.float32),
    )


def count_truncated(
    lengths: Int[np.ndarray, "pairs 2"], limit: int | Int[np.ndarray, " pairs"]
) -> Int[np.ndarray, "pairs 2"]:
    """Count the tokens that each segment loses when a pair is truncated to `limit` tokens.

    Tokens are dropped one by one from the longer segment, or from the second if they are equal. So
    the longer segment is cut until both are equal, and then they lose tokens in turn.

    Example: `count_truncated([[9, 4], [6, 6]], 9)` is `[[4, 0], [1, 2]]`.
    """
    excess = np.maximum(lengths.sum(axis=1) - limit, 0)
    lead = lengths[:, 0] - lengths[:, 1]
    alone = np.minimum(excess, np.abs(lead))
    rest = excess - alone
    first = np.where(lead > 0, alone, 0) + rest // 2
    return np.stack([first, excess - first], axis=1)


def count_read(pairs: np.ndarray, max_num_tokens: int) -> Int64[np.ndarray, " pairs"]:
    """Count the tokens of each pair after truncation, except those of another document."""
    lengths = np.stack([pairs["length"], pairs["other_length"]], axis=1).astype(np.int64)
    return lengths[:, 0] - count_truncated(lengths, max_num_tokens)[:, 0]


def _sample_front_cuts(
    cuts: Int64[np.ndarray, "pairs 2"], numbers: np.ndarray, epochs: np.ndarray, key: int
) -> Int64[np.ndarray, "pairs 2"]:
    """Sample how many of the dropped tokens are at the front, each with probability one half.

    The binomial count is the number of ones among as many random bits as there are dropped tokens.
    """
    front = np.zeros_like(cuts)
    step = 0
    while len(active := np.flatnonzero(cuts.max(axis=1, initial=0) > 64 * step)):
        bits = randomness.random_bits(key, numbers[active], epochs[active], step + 1)
        needed = np.clip(cuts[active] - 64 * step, 0, 64).astype(np.uint64)
        # A shift by all 64 bits is undefined, so shift in two steps.
        unused = np.uint64(64) - needed
        half = unused // np.uint64(2)
        front[active] += np.bitwise_count(bits.view(np.uint64) << half << (unused - half))
        step += 1
    return front


def pair_lengths(pairs: np.ndarray, max_num_tokens: int) -> Int64[np.ndarray, " pairs"]:
    """Count the tokens of each pair after truncation, special tokens excluded."""
    return np.minimum(_total_lengths(pairs), max_num_tokens)


def is_splittable(pairs: np.ndarray) -> Bool[np.ndarray, " pairs"]:
    """Return True for each pair that has at least one token for each of its segments."""
    return _total_lengths(pairs) >= 2


def _total_lengths(pairs: np.ndarray) -> Int64[np.ndarray, " pairs"]:
    return pairs["length"].astype(np.int64) + pairs["other_length"]
