"""Documents into segment pairs: where a document is cut, where a pair is split, what is swapped.

Where documents are cut is decided once, in the plan. What varies over epochs (the split into A and
B, the swap, which ends are truncated) is drawn for all pairs of a batch together from the seed, the
epoch and the pair, and never changes a pair's length.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from data_pipeline import randomness
from data_pipeline.config import SentenceObjective
from data_pipeline.corpus.chunks import Chunks
from data_pipeline.corpus.sentence_index import SentenceIndex

# One pair as the plan stores it: `length` tokens from address `start`, which are `sentences`
# sentences from global sentence number `sentence` on. Where `other_length` is not 0, that text is
# segment A alone, and B is `other_length` tokens of another document from `other_start` on.
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


def borrow_sentences(chunks: Chunks) -> Chunks:
    """Gives a chunk of one sentence the last sentence of the chunk before it in its document, if
    that one keeps two: a single sentence has no order to predict.

    Example: chunks `[0, 3)` and `[3, 4)` of one document become `[0, 2)` and `[2, 4)`.
    """
    size = chunks.ends - chunks.firsts
    borrows = np.zeros(len(size), bool)
    borrows[1:] = (size[1:] == 1) & (size[:-1] >= 3)
    borrows[1:] &= chunks.documents[1:] == chunks.documents[:-1]
    lends = np.append(borrows[1:], False) if len(size) else borrows
    return Chunks(chunks.documents, chunks.firsts - borrows, chunks.ends - lends)


class Segments(NamedTuple):
    """The two segments of each pair in the order in which they stand in the row."""

    starts: Int64[np.ndarray, "pairs 2"]  # token addresses
    lengths: Int64[np.ndarray, "pairs 2"]  # tokens
    labels: Int32[np.ndarray, " pairs"]  # 0 in order, 1 swapped (or, NSP, not the next)
    weights: Float32[np.ndarray, " pairs"]  # 0: nothing is asked of this pair


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
    """Splits, swaps and truncates pairs (ALBERT §3.1), each by draws of its own.

    k sentences are split after 1 to k - 1 of them, all equally likely; one sentence is split
    between two of its tokens, and then its order is not asked. With the SOP objective half of the
    pairs are swapped. The draws are a function of `key`, the pair's number and the epoch alone.

    Args:
        pairs: records of type `PAIR`.
        numbers: the number of each pair in its plan.
        epochs: the epoch each is read in.
        index: the sentences of the split.
        max_num_tokens: tokens that a pair may keep.
        objective: what the label means.
        key: the stream of the run's pair draws.

    Example: sentences of 5, 3 and 4 tokens from address 100 on, split after one and swapped, limit
    10: B is 105..112 and comes first, A is 100..105; the longer one loses two tokens, so the
    lengths are `[[5, 5]]`, the label is 1.
    """
    words = randomness.random_bits(key, numbers, epochs)
    total = pairs["length"].astype(np.int64)
    sentences = pairs["sentences"].astype(np.int64)
    foreign = pairs["other_length"] > 0
    single = (sentences == 1) & ~foreign

    after = 1 + randomness.scale_bits(words[:, 0], np.maximum(sentences - 1, 1))
    first_length = index.addresses(pairs["sentence"] + after) - pairs["start"]
    inside = 1 + randomness.scale_bits(words[:, 0], np.maximum(total - 1, 1))
    first_length = np.where(foreign, total, np.where(single, inside, first_length))
    starts = np.stack([pairs["start"], pairs["start"] + first_length], axis=1)
    starts[foreign, 1] = pairs["other_start"][foreign]
    lengths = np.stack([first_length, total - first_length], axis=1)
    lengths[foreign, 1] = pairs["other_length"][foreign]

    swapped = (words[:, 1] >= 2**31) & ~foreign & (objective is SentenceObjective.SOP)
    starts[swapped] = starts[swapped, ::-1]
    lengths[swapped] = lengths[swapped, ::-1]

    cuts = count_truncated(lengths, max_num_tokens)
    starts += _draw_front_cuts(cuts, numbers, epochs, key)
    asked = np.full(len(pairs), objective is not SentenceObjective.NONE)
    return Segments(
        starts,
        lengths - cuts,
        (swapped | foreign).astype(np.int32),
        (asked & ~single).astype(np.float32),
    )


def count_truncated(
    lengths: Int64[np.ndarray, "pairs 2"], limit: int
) -> Int64[np.ndarray, "pairs 2"]:
    """How many tokens each segment loses when tokens are dropped one by one from the longer, the
    second at a tie, until both together hold at most `limit`.

    The longer loses until both are equal; what is left is lost in turn, the second first.

    Example: `count_truncated([[9, 4], [6, 6]], 9)` is `[[4, 0], [1, 2]]`.
    """
    excess = np.maximum(lengths.sum(axis=1) - limit, 0)
    lead = lengths[:, 0] - lengths[:, 1]
    alone = np.minimum(excess, np.abs(lead))
    rest = excess - alone
    first = np.where(lead > 0, alone, 0) + rest // 2
    return np.stack([first, excess - first], axis=1)


def _draw_front_cuts(
    cuts: Int64[np.ndarray, "pairs 2"], numbers: np.ndarray, epochs: np.ndarray, key: int
) -> Int64[np.ndarray, "pairs 2"]:
    """How many of the dropped tokens were at the front: each is, with probability one half.

    The binomial count is the number of ones among as many random bits as tokens are dropped.
    """
    front = np.zeros_like(cuts)
    step = 0
    while len(active := np.flatnonzero(cuts.max(axis=1, initial=0) > 64 * step)):
        words = randomness.random_bits(key, numbers[active], epochs[active], step + 1)
        width = np.clip(cuts[active] - 64 * step, 0, 64).astype(np.uint64)
        # A shift by the whole width of a word is undefined, so it is made in two.
        unused = np.uint64(64) - width
        bits = (
            words.view(np.uint64) << (unused // np.uint64(2)) << (unused - unused // np.uint64(2))
        )
        front[active] += np.bitwise_count(bits)
        step += 1
    return front


def pair_lengths(pairs: np.ndarray, max_num_tokens: int) -> Int64[np.ndarray, " pairs"]:
    """Tokens that each pair keeps after truncation, special tokens left out."""
    total = pairs["length"].astype(np.int64) + pairs["other_length"]
    return np.minimum(total, max_num_tokens)


def is_splittable(pairs: np.ndarray) -> Bool[np.ndarray, " pairs"]:
    """Whether a pair has a token for each of its segments."""
    return pairs["length"].astype(np.int64) + pairs["other_length"] >= 2
