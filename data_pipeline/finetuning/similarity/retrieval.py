"""Retrieval among a fixed number of candidates: is an anchor's positive the nearest one?"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, Int32, Int64


def rank_positives(
    anchors: Float[np.ndarray, "pairs hidden"],
    positives: Float[np.ndarray, "pairs hidden"],
    text_ids: Int32[np.ndarray, "pairs 2"],
    candidates: int,
) -> Int64[np.ndarray, " pairs"]:
    """Return the rank of each anchor's positive among the positives of its group, from 1.

    A group has `candidates` consecutive pairs of the file; the last group begins earlier if there
    are too few. A candidate at the same distance counts as nearer, so vectors that are all equal or
    NaN score nothing. As in training, a text equal to the anchor or to its positive does not count,
    nor does the positive of an equal anchor.

    Args:
        anchors: vectors of length 1.
        positives: vectors of length 1.
        text_ids: a number for each text, shared by equal texts.
        candidates: number of pairs in a group.

    Example: for anchors at 0 and 1 degrees and positives at 2 and 10 degrees, the second anchor's
    own positive is farther away than the first one's, and the ranks are 1 and 2.
    """
    count = len(anchors)
    size = min(count, candidates)
    ranks = np.empty(count, np.int64)
    for start in range(0, count, size):
        first = min(start, count - size)
        group, here = slice(first, first + size), np.arange(start, min(start + size, count))
        cosines = anchors[here] @ positives[group].T
        own = here - first
        nearer = ~(cosines < cosines[np.arange(len(here)), own, None])
        nearer &= (text_ids[here, :, None] != text_ids[group, 1]).all(axis=1)
        nearer &= text_ids[here, None, 0] != text_ids[group, 0]
        ranks[here] = 1 + nearer.sum(axis=1)
    return ranks


def retrieval_metrics(ranks: Int[np.ndarray, " pairs"]) -> Mapping[str, float]:
    """Return the mean reciprocal rank, and the fraction of positives that are nearest.

    Example: ranks 1 and 2 give `mrr` 0.75 and `retrieval_accuracy` 0.5.
    """
    return {"mrr": float(np.mean(1 / ranks)), "retrieval_accuracy": float(np.mean(ranks == 1))}
